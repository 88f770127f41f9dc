# SPDX-License-Identifier: Apache-2.0
"""An encoder that sees a part of the noisy tokens, as MAE's does of the clean ones: not in the paper."""

from typing import Annotated

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ldae.models.layers.patches import sincos_positions, token_index
from ldae.models.noisers import GaussianNoiser
from ldae.registry import MODELS
from ldae.utils import Choice, ConfigError, Share, checked


@MODELS.register_module()
class RandomMasking(BaseModule):
    """While training, the encoder sees a random ``1 - ratio`` of each image's noisy tokens; the decoder sees all places.

    Their number is the same in every step. Features, and validation, are of all tokens. Raises ConfigError for an
    option out of range, or a ratio that leaves no token.

    Args:
        ratio: Share of the tokens that the encoder doesn't see, from 0 to below 1.
        hides: Tokens at ``'random'``, or the ``'noisiest'`` of each image, where noise differs from token to token.
        fill: What the decoder is given at their places: ``'noisy'``, a linear embedding of the noisy latent itself, so that
            denoising stays the task, or ``'mask'``, one learned vector, which makes it MAE's with noise on top.
        embed_dims, grid, latent_dim: Width of the encoder, rows and columns of tokens, and d; filled in by :class:`LDAE`.
    """

    @checked
    def __init__(
        self,
        embed_dims: int,
        grid: tuple[int, int],
        latent_dim: int,
        ratio: Share = 0.75,
        fill: Annotated[str, Choice('noisy', 'mask')] = 'noisy',
        hides: Annotated[str, Choice('random', 'noisiest')] = 'random',
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens = grid[0] * grid[1]
        self.num_visible = round(num_tokens * (1 - ratio))
        if self.num_visible < 1:
            raise ConfigError(f'RandomMasking.ratio={ratio} leaves none of {num_tokens} tokens: lower it')
        self.fill, self.hides = fill, hides
        self.embed = nn.Linear(latent_dim, embed_dims) if fill == 'noisy' else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims)) if fill == 'mask' else None
        # Without it, the places of filled tokens would be lost on the decoder, which has no positions of its own.
        positions = sincos_positions(grid, embed_dims)
        self.register_buffer('positions', positions, persistent=False)

    def init_weights(self) -> None:
        """Xavier for the embedding, MAE's small normal for the mask token."""
        if self.embed is not None:
            nn.init.xavier_uniform_(self.embed.weight)
            nn.init.zeros_(self.embed.bias)
        else:
            nn.init.normal_(self.mask_token, std=0.02)
        self._is_init = True

    def check_noiser(self, noiser: GaussianNoiser) -> None:
        """Raise ConfigError if the noisiest tokens are to be hidden and there are none, or fewer, that are noisier than others."""
        if self.hides == 'random':
            return
        if not noiser.by_token:
            raise ConfigError(
                f"RandomMasking.hides='noisiest' needs noise that differs from token to token, and {type(noiser).__name__} gives "
                "all of an image one level: use ldae.TokenNoiser, or hides='random'"
            )
        hidden, noisiest = self.num_tokens - self.num_visible, noiser.num_noisiest(self.num_tokens)
        if hidden > noisiest:
            raise ConfigError(
                f'RandomMasking.ratio hides the {hidden} noisiest of {self.num_tokens} tokens, and of {noisiest} the noise is higher '
                f'by noiser.share={noiser.share}, level={noiser.level!r} and rest={noiser.rest!r}: lower ratio, or change these'
            )

    def draw(self, latents: Tensor, noiser: GaussianNoiser, t: Tensor | None = None) -> Tensor | None:
        """Numbers (B, M) of the tokens that the encoder sees of latents (B, N, d), of noise levels t (B,) or (B, N); None, for all,
        out of training.

        Drawn like noise, so that they don't depend on the number of processes."""
        if not self.training:
            return None
        scores = noiser.uniform(*latents.shape[:2], latents.device)
        if self.hides == 'noisiest':
            scores = scores + t  # of as much noise, any
        return scores.argsort(dim=1)[:, : self.num_visible]

    def restore(self, tokens: Tensor, visible: Tensor | None, latents: Tensor) -> Tensor:
        """Encoded tokens (B, M, C) at their places among filled ones, with positions: (B, N, C)."""
        if visible is None:
            return tokens + self.positions
        filled = self.mask_token if self.embed is None else self.embed(latents)
        filled = filled.to(tokens.dtype).expand(len(tokens), latents.shape[1], -1)
        return filled.scatter(1, token_index(visible, tokens.shape[2]), tokens) + self.positions
