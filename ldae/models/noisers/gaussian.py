# SPDX-License-Identifier: Apache-2.0
"""Additive Gaussian noise on latent tokens."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from mmengine import dist
from mmengine.model import BaseModule
from torch import Tensor

from ldae.registry import MODELS, NOISE_SCHEDULES
from ldae.utils import Choice, PositiveInt, Range, check_choice, checked
from ldae.utils.row_streams import golden_steps, integers, row_streams, standard_normal, uniform
from ldae.utils.signatures import check_arguments

from .schedules import Weighting, loss_weight


class NoisySample(NamedTuple):
    """A batch of noisy latents and what made them. Levels are (B, 1, 1), latents (B, N, d), t is (B,); where tokens have levels
    of their own, levels are (B, N, 1) and t is (B, N)."""

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
        rank_invariant: A run on W processes sees the same noise as one process with the same global batch; ranks need the
            same seed. False draws each rank's own, and needs ranks of different seeds.
        draw_by: ``'row'`` draws an image's numbers from a stream of its own, by its place in the batch. ``'batch'`` draws
            those of the whole global batch from one, on every rank, of which it keeps its share: W times the numbers. Runs
            that were begun without this option go on as they began.
        logit_normal: Mean and deviation of logit(1 - t/T), where t is not to be uniform; JiT's are (-0.8, 0.8): more noise. Of
            ``'flow'``, 1 - t/T is the share of the image.
    """

    #: Whether the tokens of an image may have different levels, and whether levels are drawn, not fixed.
    by_token, draws_levels = False, True

    @checked
    def __init__(
        self,
        schedule: str | dict = 'linear_sigma',
        num_timesteps: PositiveInt = 1000,
        weighting: Weighting = 'signal_share',
        rank_invariant: bool = True,
        draw_by: Annotated[str, Choice('batch', 'row')] = 'batch',
        logit_normal: tuple[float, Annotated[float, Range(1e-3)]] | None = None,
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
        self.rank_invariant, self.draw_by, self.logit_normal = rank_invariant, draw_by, logit_normal
        # Made from the config: not in checkpoints, so that a checkpoint can be read under another schedule.
        self.register_buffer('gamma', gamma.float(), persistent=False)
        self.register_buffer('sigma', sigma.float(), persistent=False)
        self.register_buffer('weight', loss_weight(weighting, gamma, sigma).float(), persistent=False)

    def forward(
        self, z0: Tensor, t: Tensor | None = None, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> NoisySample:
        """z0 (B, N, d); t (B,) integers and noise (B, N, d), each drawn where it is None -> :class:`NoisySample`."""
        options = dict(generator=generator, device=z0.device)
        t = self._draw_steps(len(z0), **options) if t is None else t
        noise = self._draw_normal(len(z0), z0.shape[1:], **options) if noise is None else noise
        gamma, sigma, weight = self.levels(t)
        return NoisySample(z0, gamma * z0 + sigma * noise, noise, t, gamma, sigma, weight)

    def _draw_steps(self, batch_size: int, shape: Sequence[int] = (), **options: Any) -> Tensor:
        """Time steps (batch_size, *shape)."""
        steps = self.num_timesteps
        if self.logit_normal is not None:
            mean, deviation = self.logit_normal
            normal = self._draw_normal(batch_size, (*shape, 1), **options)[..., 0]
            shares = (-mean - deviation * normal).sigmoid()  # from clean to noise
            return (shares * steps).long().clamp(max=steps - 1)
        if self.draw_by == 'row':
            return integers(self._streams(batch_size, **options), steps, shape)
        return self._share(lambda b: torch.randint(steps, (b, *shape), **options), batch_size)

    def _draw_normal(self, batch_size: int, shape: Sequence[int], **options: Any) -> Tensor:
        """Standard normal (batch_size, *shape)."""
        if self.draw_by == 'row':
            return standard_normal(self._streams(batch_size, **options), shape)
        return self._share(lambda b: torch.randn(b, *shape, **options), batch_size)

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gamma, sigma and weight (B, 1, 1) of time steps (B,), or (B, N, 1) of (B, N)."""
        shape = (*t.shape, *[1] * (3 - t.dim()))
        return tuple(table[t].view(shape) for table in (self.gamma, self.sigma, self.weight))

    def at_level(self, z0: Tensor, timestep: int, images: Tensor) -> Tensor:
        """Latents z0 (B, N, d) noised to one level: z_t (B, N, d). Noise follows from the ``images`` (B, ...) of which
        these are the latents, bit by bit, so that it is the same in every call and in any batch."""
        t = torch.full((len(z0),), timestep, device=z0.device)
        return self(z0, t, noise=noise_of_images(content_seeds(images), z0)).z_t

    def uniform(
        self, batch_size: int, count: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Numbers in [0, 1) (batch_size, count), drawn as the noise is: they don't depend on the number of processes."""
        if self.draw_by == 'row':
            return uniform(self._streams(batch_size, device, generator), count)
        return self._share(lambda b: torch.rand(b, count, device=device, generator=generator), batch_size)

    def _world(self) -> int:
        return dist.get_world_size() if self.rank_invariant and self.training else 1

    def _streams(self, batch_size: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """New streams of random numbers (batch_size,), one an image, under a key that the generator draws: those of the
        places of this rank's images in the global batch, interleaved as mmengine's sampler deals them out."""
        key = torch.randint(2**63 - 1, (), generator=generator, device=device)
        rows = torch.arange(batch_size, device=device)
        if (world := self._world()) > 1:
            rows = rows * world + dist.get_rank()
        return row_streams(key, rows)

    def _share(self, sampler: Callable[[int], Tensor], batch_size: int) -> Tensor:
        """This rank's rows of what ``sampler(size of the global batch)`` gives; (batch_size, ...)."""
        world = self._world()
        values = sampler(batch_size * world)
        return values[dist.get_rank() :: world] if world > 1 else values


def noise_of_images(seeds: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal noise shaped and placed as ``like`` (B, N, d), that of an image given by its seed: the same in
    any batch, on any device and on any number of processes."""
    rows = [torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(rows).to(like)


def content_seeds(images: Tensor) -> list[int]:
    """A seed of 63 bits for each of float images (B, ...): a sum of their bits with weights, in exact integers."""
    bits = images.detach().float().flatten(1).contiguous().view(torch.int32).long()
    weights = golden_steps(torch.arange(1, bits.shape[1] + 1, device=bits.device)) | 1
    return ((bits * weights).sum(dim=1) & (2**63 - 1)).tolist()
