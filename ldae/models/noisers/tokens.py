# SPDX-License-Identifier: Apache-2.0
"""Noise whose level differs from token to token."""

from typing import Annotated, Any

import torch
from torch import Tensor

from ldae.registry import MODELS
from ldae.utils import Choice, NaturalInt, Range, check_range, checked

from .gaussian import GaussianNoiser, NoisySample


@MODELS.register_module()
class TokenNoiser(GaussianNoiser):
    """A random ``share`` of an image's tokens has noise of one level, all others of another. Levels given, and evaluation: as
    :class:`GaussianNoiser`, one level an image. Raises ConfigError for an option out of range.

    Args:
        share: Share of the tokens with ``level``, as an exact number of them, at least 1.
        level: ``'drawn'`` for each image, ``'each'`` for each token, or one time step.
        rest: Time step of the other tokens, or ``'drawn'`` for each image, apart from ``level``. 0 is the least noise of the
            schedule: none with ``'linear_sigma'``, sigma = 1 / T with ``'flow'``.
        loss_on: ``'all'`` tokens, or those with ``level`` alone, ``'noised'``, whose mean is then the loss.
        **kwargs: As of :class:`GaussianNoiser`.
    """

    @checked
    def __init__(
        self,
        share: Annotated[float, Range(0.001, 1)] = 0.75,
        level: NaturalInt | Annotated[str, Choice('drawn', 'each')] = 'drawn',
        rest: NaturalInt | Annotated[str, Choice('drawn')] = 0,
        loss_on: Annotated[str, Choice('all', 'noised')] = 'all',
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in dict(level=level, rest=rest).items():
            if not isinstance(value, str):
                check_range(f'TokenNoiser.{name}', value, 0, self.num_timesteps - 1, kind=int)
        self.share, self.level, self.rest, self.loss_on = share, level, rest, loss_on

    @property
    def by_token(self) -> bool:
        return self.level == 'each' or self.share < 1

    @property
    def draws_levels(self) -> bool:
        return isinstance(self.level, str)

    def num_noised(self, num_tokens: int) -> int:
        """How many of an image's tokens have ``level``."""
        return max(1, round(self.share * num_tokens))

    def num_noisiest(self, num_tokens: int) -> int:
        """How many of an image's tokens may all be noisier than the others."""
        if self.rest == 'drawn':
            return num_tokens
        noised = self.num_noised(num_tokens)
        return num_tokens - noised if isinstance(self.level, int) and self.level < self.rest else noised

    def forward(
        self, z0: Tensor, t: Tensor | None = None, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> NoisySample:
        """z0 (B, N, d) -> :class:`NoisySample` with t (B, N), or (B,) where one level is all there is; else as the parent's."""
        if t is not None or not self.training:
            return super().forward(z0, t, generator, noise)
        (batch, tokens), options = z0.shape[:2], dict(generator=generator, device=z0.device)
        steps = self._steps(self.level, z0, **options)
        if not self.by_token:
            return super().forward(z0, steps[:, 0], generator, noise)
        count, others = self.num_noised(tokens), self._steps(self.rest, z0, **options)
        chosen = self.uniform(batch, tokens, **options).argsort(dim=1)[:, :count]
        noised = torch.zeros(batch, tokens, dtype=torch.bool, device=z0.device).scatter(1, chosen, True)
        sample = super().forward(z0, torch.where(noised, steps, others), generator, noise)
        if self.loss_on == 'all':
            return sample
        return sample._replace(weight=sample.weight * noised.unsqueeze(-1) * (tokens / count))

    def _steps(self, level: int | str, z0: Tensor, **options: Any) -> Tensor:
        """Time steps (B, 1), or (B, N)."""
        if isinstance(level, int):
            return torch.full((len(z0), 1), level, device=z0.device)
        return self._draw_steps(len(z0), z0.shape[1:2] if level == 'each' else (), **options).view(len(z0), -1)
