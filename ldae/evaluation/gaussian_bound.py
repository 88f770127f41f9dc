# SPDX-License-Identifier: Apache-2.0
"""The least loss that a linear denoiser can have, by noise level, beside a model's.

For Gaussian data the best denoiser is linear, ``E[y | z_t] = m_y + gamma K (gamma^2 C + sigma^2 I)^-1 (z_t - gamma m_z)`` with C the
covariance of the latents and K that of target and latents: its loss is a bound that no model is below. For other data of the
same covariance it is what second moments alone allow: a model above it is trained too little, or faulty; one below has
learned more than second moments."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ldae.models import LDAE
from ldae.models.heads import DecodedImageHead, DenoisingHead, LatentHead, OriginalImageHead
from ldae.models.layers import patchify
from ldae.models.noisers.gaussian import NoisySample, content_seeds, noise_of_images
from ldae.models.tokenizers import BaseTokenizer
from ldae.utils import ConfigError
from ldae.utils.models import evaluating

#: Latent numbers of an image, beyond which each token is denoised by itself; and images to each of them.
LARGEST, IMAGES_A_NUMBER = 2048, 4


class Moments(NamedTuple):
    """Means of latents (n,) and targets (m,); covariances of latents (n, n) and of target and latents (m, n); variances of
    the target's values (m,). Float64."""

    latent_mean: Tensor
    target_mean: Tensor
    latents: Tensor
    cross: Tensor
    target_variance: Tensor


class BoundRow(NamedTuple):
    """Loss at one time step, weighted as in training: of the model on held-out images, with its standard error; of the best linear
    denoiser for the training images' covariance; of the same one on the held-out images; and of their mean alone."""

    timestep: int
    sigma: float
    model: float
    error: float
    bound: float
    linear: float
    mean: float

    @property
    def ratio(self) -> float:
        """Of the model's loss to the linear denoiser's on the same images; NaN where that is nothing."""
        return self.model / self.linear if self.linear > 1e-12 * self.mean else float('nan')


def moments(pairs: Iterable[tuple[Tensor, Tensor]], about: Moments | None = None) -> Moments:
    """Of batches of targets (B, m) and latents (B, n); second moments are about the means of other data if those are given."""
    count, sums = 0, None
    for y, z in pairs:
        y, z = y.double(), z.double()
        parts = (z.sum(0), y.sum(0), z.t() @ z, y.t() @ z, y.square().sum(0))
        sums = parts if sums is None else tuple(a + b for a, b in zip(sums, parts, strict=True))
        count += len(z)
    if not count:
        raise ConfigError('there are no images to take moments of')
    z, y, zz, yz, yy = (part / count for part in sums)
    mz, my = (z, y) if about is None else (about.latent_mean, about.target_mean)
    latents = zz - torch.outer(z, mz) - torch.outer(mz, z) + torch.outer(mz, mz)
    cross = yz - torch.outer(y, mz) - torch.outer(my, z) + torch.outer(my, mz)
    return Moments(z, y, latents, cross, yy - 2 * y * my + my**2)


def linear_errors(train: Moments, test: Moments, gamma: Tensor, sigma: Tensor) -> Tensor:
    """Mean squared errors (T, m) of the best linear denoiser of data with moments ``train``, of each of the target's values, on data
    with moments ``test`` about the same means."""
    values, vectors = torch.linalg.eigh(train.latents)
    values, spread = values.clamp(min=0), vectors.t() @ test.latents @ vectors
    filters, agreement = train.cross @ vectors, test.cross @ vectors  # (m, n)
    errors = []
    for g, s in zip(gamma.double().tolist(), sigma.double().tolist(), strict=True):
        variance = g**2 * values + s**2
        scaled = g * filters * torch.where(variance > 0, 1 / variance, 0)
        noisy = g**2 * spread + s**2 * torch.eye(len(values)).to(spread)
        errors.append(test.target_variance - 2 * g * (scaled * agreement).sum(1) + ((scaled @ noisy) * scaled).sum(1))
    return torch.stack(errors)


def latent_losses(
    head: LatentHead, errors: Tensor, gamma: Tensor, sigma: Tensor, dim: int, is_mean: bool = False
) -> Tensor:
    """Loss (T,) from squared errors (T, m) of clean latents of ``dim`` numbers a token.

    A target ``a z0 + b eps`` has the error ``(a - b gamma / sigma)^2`` of the clean latent, and without noise, which nobody can
    know then, ``b^2``; of a mean that looks at no noisy latent, ``a^2`` of its error plus ``b^2``."""
    one = torch.ones(len(gamma), 1, dim, dtype=torch.float64)
    levels = gamma.double().view(-1, 1, 1), sigma.double().view(-1, 1, 1)
    sample = NoisySample(one, one, 0 * one, None, *levels, None)
    a, b = head.target(sample), head.target(sample._replace(z0=0 * one, noise=one))
    scale = one if (found := head.scale(sample)) is None else found
    known = torch.where(levels[1] > 0, b * levels[0] / levels[1], 0)
    factor, rest = (a**2, b**2) if is_mean else ((a - known) ** 2, torch.where(levels[1] > 0, 0, b**2))
    return (scale * (factor * errors.cpu().view(len(gamma), -1, dim) + rest)).mean(dim=(1, 2))


def target_of(head: DenoisingHead, images: Tensor, z0: Tensor, tokenizer: BaseTokenizer) -> tuple[Tensor, int]:
    """Per token, numbers (B, N, m) whose squared error is the head's, but for a divisor; and that. Of a target in the latent space:
    the clean latents, from whose error its own follows."""
    if isinstance(head, LatentHead):
        return z0, z0.shape[-1]
    if isinstance(head, DecodedImageHead):
        images = tokenizer.decode(z0)
    elif not isinstance(head, OriginalImageHead):
        raise ConfigError(f'no bound is known for the target of {type(head).__name__}')
    patches = patchify(images, tokenizer.patch_size)
    if isinstance(head, DecodedImageHead) or head.tail_weight == 1:
        return patches, patches.shape[-1]
    parts = head.tail_weight**0.5 * patches, (1 - head.tail_weight) ** 0.5 * patches @ tokenizer.basis.t()
    return torch.cat(parts, dim=-1), patches.shape[-1]


def pairs_of(model: LDAE, images: Iterable[Tensor], whole: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets and latents of batches of images, as rows: one an image, or one a token."""
    for batch in images:
        z0 = model.tokenizer.encode(batch)
        target, _ = target_of(model.head, batch, z0, model.tokenizer)
        yield tuple(part.flatten(1) if whole else part.flatten(0, 1) for part in (target, z0))


@torch.no_grad()
def denoising_bound(
    model: LDAE,
    train: Callable[[], Iterable[Tensor]],
    test: Callable[[], Iterable[Tensor]],
    timesteps: Sequence[int],
    num: int,
) -> tuple[list[BoundRow], bool]:
    """Loss by time step, and whether a linear denoiser sees whole images or, where these have too many numbers, one token.

    Args:
        train, test: Give batches of normalised images (B, C, H, W), each time they are called.
        num: How many training images there are.
    """
    noiser, tokenizer = model.noiser, model.tokenizer
    numbers = tokenizer.num_tokens * tokenizer.latent_dim
    whole = numbers <= LARGEST and num >= IMAGES_A_NUMBER * numbers
    with evaluating(model):
        first = moments(pairs_of(model, train(), whole))
        second = moments(pairs_of(model, test(), whole), about=first)
        t = torch.as_tensor(timesteps)
        gamma, sigma, weight = (table.cpu()[t].double() for table in (noiser.gamma, noiser.sigma, noiser.weight))
        values = target_of(model.head, *one_image(model, test()), tokenizer)[1]

        def weighted(errors: Tensor, is_mean: bool = False) -> Tensor:
            if isinstance(model.head, LatentHead):
                return weight * latent_losses(model.head, errors, gamma, sigma, values, is_mean)
            return weight * errors.sum(1).cpu() / (values * (tokenizer.num_tokens if whole else 1))

        found = [weighted(linear_errors(first, one, gamma, sigma)) for one in (first, second)]
        mean = weighted(second.target_variance.expand(len(t), -1), is_mean=True)
        losses = torch.cat([model_losses(model, batch, timesteps) for batch in test()]).double().cpu()
    error = losses.std(0) / len(losses) ** 0.5
    columns = (timesteps, sigma, losses.mean(0), error, *found, mean)
    return [BoundRow(int(row[0]), *map(float, row[1:])) for row in zip(*columns, strict=True)], whole


def one_image(model: LDAE, images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """An image (1, C, H, W) and its latents (1, N, d)."""
    image = next(iter(images))[:1]
    return image, model.tokenizer.encode(image)


def model_losses(model: LDAE, images: Tensor, timesteps: Sequence[int]) -> Tensor:
    """Weighted losses (B, T) of images (B, C, H, W), each with a noise of its own."""
    z0 = model.tokenizer.encode(images)
    noise, losses = noise_of_images(content_seeds(images), z0), []
    for step in timesteps:
        sample = model.noiser(z0, torch.full((len(z0),), step, device=z0.device), noise=noise)
        pred = model._predict_target(sample.z_t, sample.t)
        losses.append(model.head.sample_loss(pred, sample, images, model.tokenizer))
    return torch.stack(losses, dim=1)
