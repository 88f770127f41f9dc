# SPDX-License-Identifier: Apache-2.0
"""From a picture to what an encoder takes, as numbers that any library can follow."""

from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from ldae.apis.images import read_images
from ldae.apis.preprocess import Preprocess
from ldae.config import pipeline_of
from ldae.config.reading import output_size
from ldae.datasets.load_image import reader_of, reads_files
from ldae.utils import ConfigError
from ldae.utils.sizes import Size, as_size, height_width

#: Whose steps count, the first that has any.
SOURCES = ('val_dataloader', 'test_dataloader', 'train_dataloader')
KINDS = {1: 'grey', 3: 'RGB'}
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'lanczos', 'box', 'hamming')


@dataclass(frozen=True)
class Preprocessing:
    """Resize until ``img_size / crop_pct`` is just covered, crop the centre, and normalise pixels of 0 to 1, RGB or grey, by one
    mean and deviation a channel. Of other bands, ``value_range`` are the values that become 0 and 1; ``pad`` pixels are
    added below and to the right."""

    img_size: int | tuple[int, int]
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = 'bicubic'
    crop_pct: float = 1.0
    value_range: tuple[float, float] | None = None
    bands: tuple[int, ...] | None = None
    pad: tuple[int, int] | None = None

    @property
    def resize(self) -> int | tuple[int, int]:
        """Shorter edge in pixels before the crop, or what is to be covered."""
        return as_size([int(edge / self.crop_pct) for edge in height_width(self.img_size)])

    @property
    def of_pictures(self) -> bool:
        """Whether other libraries can prepare its images."""
        return self.in_channels in (1, 3) and self.value_range is self.bands is self.pad is None

    def as_dict(self) -> dict:
        """All of it, for formats that have no form of their own for it."""
        return dict(asdict(self), resize=self.resize, channels=KINDS.get(self.in_channels, 'bands'))

    def __call__(self, image: Image.Image) -> Tensor:
        """A picture -> (C, H, W)."""
        image = image.convert('RGB' if self.in_channels == 3 else 'L')
        (height, width), least = height_width(self.img_size), height_width(self.resize)[::-1]
        ratio = max(edge / old for edge, old in zip(least, image.size, strict=True))
        rounded = int if height == width else round  # as timm has it
        size = [max(edge, rounded(ratio * old)) for edge, old in zip(least, image.size, strict=True)]
        image = image.resize(size, getattr(Image.Resampling, self.interpolation.upper()))
        left, top = (round((old - edge) / 2) for old, edge in zip(size, (width, height), strict=True))
        image = image.crop((left, top, left + width, top + height))
        pixels = torch.from_numpy(np.array(image)).float().div(255).reshape(height, width, -1)
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1)


def preprocessing_of(model: nn.Module, img_size: Size, in_channels: int) -> Preprocessing:
    """A model's data preprocessor and validation pipeline in these numbers. Raises ConfigError for what can't be said
    in these numbers."""
    cfg = getattr(model, '_config', None) or Config()
    preprocessor = model.data_preprocessor
    mean, std = np.zeros(in_channels), np.full(in_channels, 1.0)
    if getattr(preprocessor, '_enable_normalize', False):
        mean, std = (getattr(preprocessor, name).flatten().double().numpy() for name in ('mean', 'std'))
    steps = pipeline_of(cfg, SOURCES) or []
    # mmcv reads pictures as BGR, and the data preprocessor turns them; the name differs between mmpretrain's preprocessors.
    is_rgb = any(getattr(preprocessor, name, False) for name in ('to_rgb', '_channel_conversion'))
    if in_channels == 3 and any(map(reads_files, steps)) and not is_rgb:
        raise ConfigError('the model takes BGR images (data_preprocessor.to_rgb=False), which other libraries do not')
    mean, std = (np.broadcast_to(values / 255, in_channels).round(9).tolist() for values in (mean, std))
    reader, pads = reader_of(steps), [step for step in steps if step['type'] == 'Pad']
    told = dict(bands=reader.bands and tuple(reader.bands), pad=None)
    if pads:
        cut = height_width(output_size([step for step in steps if step['type'] != 'Pad']))
        told['pad'] = tuple(edge - old for edge, old in zip(pads[-1]['size'][::-1], cut, strict=True))
    told['value_range'] = tuple(reader.value_range) if reader.value_range else None
    return Preprocessing(img_size, in_channels, tuple(mean), tuple(std), *_geometry(steps), **told)


def _geometry(steps: list[dict]) -> tuple[str, float]:
    """Interpolation, and the crop's share of the resized image."""
    by_type = {step['type']: step for step in steps}
    resize = (
        by_type.get('ResizeEdge')
        or by_type.get('ldae.ResizeToCover')
        or by_type.get('Resize')
        or by_type.get('RandomResizedCrop')
        or {}
    )
    interpolation = resize.get('interpolation', 'bilinear' if resize else 'bicubic')
    if resize.get('type') == 'Resize' and not resize.get('keep_ratio'):
        raise ConfigError(
            'the test images are resized without their proportions (Resize), and other libraries keep these: take ResizeEdge and CenterCrop'
        )
    crop, scale = by_type.get('CenterCrop', {}).get('crop_size'), resize.get('scale')
    share = 1.0 if crop is None or scale is None else _share(height_width(crop)[::-1], height_width(scale))
    return interpolation if interpolation in INTERPOLATIONS else 'bicubic', min(1.0, share)


def _share(crop: tuple[int, int], scale: tuple[int, int]) -> float:
    """Of the resized image, the part that is cropped, by height and by width."""
    share = crop[0] / scale[0]
    if share < 1 and int(crop[0] / share) != scale[0]:
        share = crop[0] / (scale[0] + 1e-6)  # who divides by it rounds down
    if share < 1 and int(crop[1] / share) != scale[1]:
        raise ConfigError(
            f'the test images are resized to {scale[0]} x {scale[1]} and cropped to {crop[0]} x {crop[1]}, which is not one share of both: '
            'other libraries have one'
        )
    return share


def read_pictures(paths: list[str], preprocessing: Preprocessing, count: int, model: nn.Module | None = None) -> Tensor:
    """The first ``count`` pictures of files and folders, as (n, C, H, W); of bands, prepared as their model does it. Raises ConfigError for a path that doesn't
    exist, a folder without pictures, or a file that isn't one."""
    try:
        if not preprocessing.of_pictures:
            own = Preprocess(model)
            return own.batch([own.transform(image) for image in islice(own.read(paths), count)])
        pictures = list(islice(read_images(paths), count))
    except ConfigError as error:
        raise ConfigError(f'--check: {error}') from error
    return torch.stack([preprocessing(Image.fromarray(bgr[..., ::-1])) for bgr in pictures])
