# SPDX-License-Identifier: Apache-2.0
"""Random views of images in memory, a whole batch at a time: what mmpretrain's ``MultiView`` does to one image read from a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ldae.utils import ConfigError, PositiveInt, Range, Share, checked

LOG_RATIOS = (math.log(3 / 4), math.log(4 / 3))
ATTEMPTS = 10
#: Shares of red, green and blue in grey.
GREY = (0.2989, 0.587, 0.114)
#: A Gaussian is cut off beyond so many standard deviations.
REACH = 4

Area = Annotated[float, Range(1e-3, 1)]
Positive = Annotated[float, Range(1e-3)]


class Rising:
    """Mark of an option that is a list of numbers, none of them below the one before it."""

    def check(self, place: str, value: Sequence[float], kind: type) -> None:
        if list(value) != sorted(value):
            raise ConfigError(f'{place}={list(value)} must rise from the first number to the last')


#: Least and greatest area of a random resized crop, relative to the image.
CropScale = Annotated[tuple[Area, Area], Rising()]


@checked
@dataclass(frozen=True)
class View:
    """A random view of each image of a batch: uint8 (B, C, H, W) -> uint8 (B, C, size, size), by torch's generator. All draws
    are of each image for itself but the order of the colour jitter's four steps, which a batch shares. Grey images (C = 1) have
    their brightness and contrast changed alone. Raises ConfigError for an option out of range.

    Args:
        crop_scale: Range of the area of the random resized crop, relative to the image.
        size: Height and width in pixels; None: the image's.
        flip: Probability of a horizontal flip.
        jitter: Probability of a change of colours: ``brightness``, ``contrast`` and ``saturation`` by factors of up to 1 -/+ these,
            the hue by up to -/+ ``hue`` of a turn.
        grey: Probability of a grey image.
        blur: Probability of a Gaussian blur of ``blur_sigma`` pixels, uniform in that range.
        solarize: Probability that pixels of 128 and more are inverted.
    """

    crop_scale: CropScale = (0.08, 1.0)
    size: PositiveInt | None = None
    flip: Share = 0.5
    jitter: Share = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Range(0, 0.5)] = 0.0
    grey: Share = 0.0
    blur: Share = 0.0
    blur_sigma: Annotated[tuple[Positive, Positive], Rising()] = (0.1, 2.0)
    solarize: Share = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        count = len(images)
        boxes = random_boxes(count, *images.shape[2:], self.crop_scale)
        x = resized_crop(images, boxes, self.size).float()
        x = torch.where(_chosen(count, self.flip), x.flip(3), x)
        x = self._jittered(x)
        if x.shape[1] == 3:
            x = torch.where(_chosen(count, self.grey), grey_of(x), x)
        blurred = _chosen(count, self.blur).flatten()
        sigma = torch.empty(count).uniform_(*self.blur_sigma)
        if blurred.any():
            x[blurred] = gaussian_blur(x[blurred], sigma[blurred])
        x = x.round()
        return torch.where(_chosen(count, self.solarize) & (x >= 128), 255 - x, x).to(torch.uint8)

    def _jittered(self, x: Tensor) -> Tensor:
        chosen = _chosen(len(x), self.jitter)
        limits = (self.brightness, self.contrast, self.saturation, self.hue)
        draws = [limit * torch.empty(len(x), 1, 1, 1).uniform_(-1, 1) for limit in limits]
        order = torch.randperm(4).tolist()
        if not self.jitter:
            return x
        for i in order if x.shape[1] == 3 else [i for i in order if i < 2]:
            if limits[i]:
                x = torch.where(chosen, JITTER[i](x, draws[i] + (i < 3)), x)
        return x


def _chosen(count: int, share: float) -> Tensor:
    return torch.rand(count, 1, 1, 1) < share


def grey_of(x: Tensor) -> Tensor:
    """Grey images (B, 1, H, W) of images (B, C, H, W) in red, green, blue; those of one channel as they are."""
    return x if x.shape[1] == 1 else torch.einsum('bchw,c->bhw', x, torch.tensor(GREY)).unsqueeze(1)


def scale_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Pixels of 0 to 255, times a factor (B, 1, 1, 1)."""
    return (factor * x).clamp(0, 255)


def scale_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Differences from the mean of the grey image, times a factor (B, 1, 1, 1)."""
    mean = grey_of(x).mean(dim=(1, 2, 3), keepdim=True)
    return (mean + factor * (x - mean)).clamp(0, 255)


def scale_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Differences from the grey image, times a factor (B, 1, 1, 1)."""
    return (grey_of(x) + factor * (x - grey_of(x))).clamp(0, 255)


def turn_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Images in red, green, blue with their hue turned by a part (B, 1, 1, 1) of the circle; value and saturation stay."""
    (value, which), least = x.max(dim=1), x.amin(dim=1)
    chroma = value - least
    red, green, blue = x.unbind(1)
    sixths = torch.stack([green - blue, blue - red, red - green]) / chroma.clamp(min=1e-6)
    hue = sixths.gather(0, which.unsqueeze(0))[0] + 2 * which
    turned = hue.unsqueeze(1) + 6 * shift
    distance = (turned + torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)) % 6
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(distance, 4 - distance).clamp(0, 1)


JITTER = (scale_brightness, scale_contrast, scale_saturation, turn_hue)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, C, H, W) blurred by Gaussians of ``sigma`` pixels (B,), mirrored at their edges."""
    rows, columns = (_gaussian(sigma, size) for size in x.shape[2:])
    return torch.einsum('bih,bchw,bjw->bcij', rows, x, columns)


def _gaussian(sigma: Tensor, size: int) -> Tensor:
    """(B, size, size): row i holds the weights of the pixels that output pixel i is a mean of."""
    reach = min(size - 1, max(1, math.ceil(REACH * sigma.max().item())))
    offsets = torch.arange(-reach, reach + 1)
    weights = (-0.5 * (offsets / sigma.unsqueeze(1)) ** 2).exp()
    weights = weights / weights.sum(dim=1, keepdim=True)
    place = torch.arange(size).unsqueeze(1) + offsets
    place = (size - 1) - ((size - 1) - place.abs()).abs()
    count = len(sigma)
    shape = (count, size, len(offsets))
    return torch.zeros(count, size, size).scatter_add_(2, place.expand(shape), weights.unsqueeze(1).expand(shape))


def random_boxes(count: int, height: int, width: int, scale: Sequence[float]) -> Tensor:
    """Boxes (count, 4) of a random resized crop: top, left, height, width in whole pixels.

    As torchvision draws them, from torch's generator: area uniform in ``scale``, the logarithm of the aspect ratio in
    that of 3/4 to 4/3, the first of ten attempts that fits; else the whole image, which has an allowed ratio here."""
    area = height * width * torch.empty(ATTEMPTS, count).uniform_(*scale)
    ratio = torch.empty(ATTEMPTS, count).uniform_(*LOG_RATIOS).exp()
    size = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round().long()  # (2, attempts, count)
    full = torch.tensor([height, width]).view(2, 1)
    fits = ((size > 0) & (size <= full.unsqueeze(1))).all(dim=0)
    first = fits.int().argmax(dim=0)  # (count,)
    size = torch.where(fits.any(dim=0), size[:, first, torch.arange(count)], full)
    # Uniform over the places that a box has: 0 to full - size.
    corner = (torch.rand(2, count) * (full - size + 1)).long()
    return torch.cat([corner, size]).t()


def resized_crop(images: Tensor, boxes: Tensor, size: int | None = None) -> Tensor:
    """Crop each of uint8 images (B, C, H, W) to its box and bring it to ``size``, or back to (H, W), bilinearly: boxes that are
    larger with antialiasing."""
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.t()
    rows = _interpolation(top, box_height, height, size or height)
    columns = _interpolation(left, box_width, width, size or width)
    resized = torch.einsum('bih,bchw,bjw->bcij', rows, images.float(), columns)
    return resized.round().clamp(0, 255).to(torch.uint8)


def _interpolation(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """(B, out, size): row i holds the weights of the pixels that output pixel i is interpolated from."""
    pixels = torch.arange(size)
    ratio = (length / out).unsqueeze(1)
    inside = (torch.arange(out) + 0.5) * ratio - 0.5
    if out == size:
        # Beyond the last pixel of the box nothing is mixed in, as if the box were an image of its own.
        place = start.unsqueeze(1) + torch.minimum(inside.clamp(min=0), (length - 1).unsqueeze(1))
        return (1 - (place.unsqueeze(2) - pixels).abs()).clamp(min=0)
    place = (start.unsqueeze(1) + inside).unsqueeze(2)
    weights = (1 - (place - pixels).abs() / ratio.clamp(min=1).unsqueeze(2)).clamp(min=0)
    in_box = (pixels >= start.unsqueeze(1)) & (pixels < (start + length).unsqueeze(1))
    weights = weights * in_box.unsqueeze(1)
    return weights / weights.sum(dim=2, keepdim=True)
