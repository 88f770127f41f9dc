# SPDX-License-Identifier: Apache-2.0
"""Where sampling starts: pure noise, or the mean and covariance of latents where a schedule ends before that."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ldae.models import LDAE
from ldae.models.tokenizers.fit import collate
from ldae.utils import ConfigError
from ldae.utils.rng import Draws, preserved_rng, seed_of

BATCH = 64
#: Share of signal in the variance, ``gamma^2 / (gamma^2 + sigma^2)``, from which on noise alone is not the end of a schedule.
#: DDPM's ends at 4e-5, linear gamma^2 at 1e-3, linear sigma at a third.
MUCH_SIGNAL = 1e-2


class Moments(NamedTuple):
    """Mean (N, d) and deviations (n, N, d) of the latents of n images: their covariance without its N d x N d matrix."""

    mean: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> 'Moments':
        """Of latents in batches (B, N, d), at least two of them in all."""
        latents = torch.cat([batch.float() for batch in batches])
        if len(latents) < 2:
            raise ConfigError(f'a covariance of latents needs at least two images: there is {len(latents)}')
        mean = latents.mean(dim=0)
        return cls(mean, (latents - mean) / (len(latents) - 1) ** 0.5)

    def __str__(self) -> str:
        deviation = float(self.deviations.square().sum(dim=0).mean().sqrt())
        # As far as it is the same on any machine; a mean of -1e-9 is 0.
        return f'latents of mean {round(float(self.mean.mean()), 3) + 0:.3f} and deviation {deviation:.3f}'

    def draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Normal latents (B, N, d) of this mean and covariance, one for each generator of the CPU."""
        weights = draw_noise((len(self.deviations),), generators).to(self.mean)
        return self.mean + torch.einsum('bn,n...->b...', weights, self.deviations)


def generators_of(seed: int, numbers: Iterable[int]) -> list[torch.Generator]:
    """The generators, of the CPU, of the images with these numbers."""
    return [torch.Generator().manual_seed(seed_of(seed, f'image {i}')) for i in numbers]


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal (B, *shape), row by row from one generator each."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])


def starts_from_noise(model: LDAE, t: int) -> bool:
    """Whether latents at time step t are noise for all that matters."""
    gamma, sigma = float(model.noiser.gamma[t]), float(model.noiser.sigma[t])
    return gamma**2 / (gamma**2 + sigma**2) < MUCH_SIGNAL


def draw_start(model: LDAE, t: int, moments: Moments | None, generators: Sequence[torch.Generator]) -> Tensor:
    """Latents (B, N, d) at time step t to start from: noise of z_t's scale, or ``gamma_t z_0 + sigma_t eps`` of a normal z_0 with
    the moments that are given."""
    gamma, sigma = model.noiser.gamma[t], model.noiser.sigma[t]
    noise = draw_noise((model.tokenizer.num_tokens, model.tokenizer.latent_dim), generators).to(gamma)
    if moments is None:
        return (gamma.square() + sigma.square()).sqrt() * noise
    return gamma * moments.draw(generators) + sigma * noise


def measure_moments(model: LDAE, dataset: Dataset, num_images: int = 2048) -> Moments:
    """Moments of the latents of ``num_images`` random images of a data set; the same on all processes."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:num_images].tolist()
    starts = range(0, len(order), BATCH)
    # Seeded sample by sample: what augmentation draws doesn't depend on what else is drawn.
    batches = [Draws(order[start : start + BATCH], seed=0, epoch=0, place=start) for start in starts]
    with preserved_rng(), torch.no_grad():
        loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())
        return Moments.of(
            model.tokenizer.encode(model.data_preprocessor(dict(batch, data_samples=None), False)['inputs'])
            for batch in loader
        )
