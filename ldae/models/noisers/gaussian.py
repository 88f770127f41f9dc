# SPDX-License-Identifier: Apache-2.0
"""Additive Gaussian noise on latent tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine import dist
from mmengine.model import BaseModule
from torch import Tensor

from ldae.registry import MODELS, NOISE_SCHEDULES
from ldae.utils import PositiveInt, check_choice, checked
from ldae.utils.row_streams import GOLDEN_RATIO, integers, row_streams, standard_normal
from ldae.utils.signatures import check_arguments

from .schedules import Weighting, loss_weight


class NoisySample(NamedTuple):
    """A batch of noisy latents and what made them. Levels are (B, 1, 1), latents (B, N, d), t is (B,)."""

    z0: Tensor
    z_t: Tensor
    noise: Tensor
    t: Tensor
    gamma: Tensor
    sigma: Tensor
    weight: Tensor


@MODELS.register_module()
class GaussianNoiser(BaseModule):
    """``z_t = gamma_t z_0 + sigma_t eps``, eps standard normal, t uniform over the T steps (paper, equation 1). Raises
    ConfigError for an unknown schedule or weighting, or T < 1.

    Args:
        schedule: Name of a registered schedule, or a dict with its name as ``type`` and its options.
        num_timesteps: T, at least 1.
        weighting: Loss weight lambda_t, ``'uniform'``, ``'signal_share'`` or ``'snr'``; the model fills in the one that
            belongs to the head's target.
        rank_invariant: Draw for the places that this rank's images have in the global batch, so that a run on W
            processes sees the same noise as one process with the same global batch; ranks need the same seed. False
            draws for places in the rank's own batch, and needs ranks of different seeds.
    """

    @checked
    def __init__(
        self,
        schedule: str | dict = 'linear_sigma',
        num_timesteps: PositiveInt = 1000,
        weighting: Weighting = 'signal_share',
        rank_invariant: bool = True,
    ) -> None:
        super().__init__()
        schedule = dict(type=schedule) if isinstance(schedule, str) else dict(schedule)
        NOISE_SCHEDULES.import_from_location()
        name = schedule.get('type')
        check_choice('noiser: schedule', name, NOISE_SCHEDULES.module_dict)
        check_arguments(f'noiser: schedule {name}', NOISE_SCHEDULES.get(name), schedule)
        with torch.device('cpu'):  # tables are values even where a model is only sketched on the meta device
            gamma, sigma = NOISE_SCHEDULES.get(schedule.pop('type'))(num_timesteps, **schedule)
        self.num_timesteps = num_timesteps
        self.rank_invariant = rank_invariant
        # Made from the config: not in checkpoints, so that a checkpoint can be read under another schedule.
        self.register_buffer('gamma', gamma.float(), persistent=False)
        self.register_buffer('sigma', sigma.float(), persistent=False)
        self.register_buffer('weight', loss_weight(weighting, gamma, sigma).float(), persistent=False)

    def forward(
        self, z0: Tensor, t: Tensor | None = None, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> NoisySample:
        """z0 (B, N, d); t (B,) integers and noise (B, N, d), each drawn where it is None -> :class:`NoisySample`."""
        if t is None:
            t = integers(self.streams(len(z0), z0.device, generator), self.num_timesteps)
        if noise is None:
            noise = standard_normal(self.streams(len(z0), z0.device, generator), z0.shape[1:])
        gamma, sigma, weight = self.levels(t)
        return NoisySample(z0, gamma * z0 + sigma * noise, noise, t, gamma, sigma, weight)

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gamma, sigma and weight (B, 1, 1) of time steps (B,)."""
        return tuple(table[t].view(-1, 1, 1) for table in (self.gamma, self.sigma, self.weight))

    def at_level(self, z0: Tensor, timestep: int, images: Tensor) -> Tensor:
        """Latents z0 (B, N, d) noised to one level: z_t (B, N, d). Noise follows from the ``images`` (B, ...) of which
        these are the latents, bit by bit, so that it is the same in every call and in any batch."""
        t = torch.full((len(z0),), timestep, device=z0.device)
        return self(z0, t, noise=noise_of_images(content_seeds(images), z0)).z_t

    def streams(self, batch_size: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """New streams of random numbers (batch_size,), one an image, of a key that the generator draws. On any number of
        processes, the images of the global batch, interleaved as mmengine's sampler deals them out, have the same."""
        key = torch.randint(2**63 - 1, (), generator=generator, device=device)
        rows = torch.arange(batch_size, device=device)
        if self.rank_invariant and self.training:
            rows = rows * dist.get_world_size() + dist.get_rank()
        return row_streams(key, rows)


def noise_of_images(seeds: Sequence[int] | Tensor, like: Tensor) -> Tensor:
    """Standard normal noise shaped and placed as ``like`` (B, N, d), that of an image given by its seed: the same in
    any batch and on any number of processes, and to rounding on any device."""
    seeds = torch.as_tensor(seeds, device=like.device)
    return standard_normal(row_streams(torch.zeros_like(seeds[0]), seeds), like.shape[1:]).to(like)


def content_seeds(images: Tensor) -> Tensor:
    """A seed (B,) for each of float images (B, ...): a sum of their bits with weights, in exact integers."""
    bits = images.detach().float().flatten(1).contiguous().view(torch.int32).long()
    weights = torch.arange(1, bits.shape[1] + 1, device=bits.device) * GOLDEN_RATIO | 1
    return (bits * weights).sum(dim=1)
