# SPDX-License-Identifier: Apache-2.0
"""The decoder: the second half of the Diffusion Transformer."""

from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from ldae.models.layers import AdaLNModulation, DiTBlock, LabelEmbed, TimestepEmbed, init_dit_weights, modulate
from ldae.models.layers.dit_block import (
    NORM_CFG,
    PLAIN_NORM_CFG,
    CondRatio,
    GateInit,
    check_arch,
    check_attend_by_level,
    condition,
    same_level,
)
from ldae.registry import MODELS
from ldae.utils import PositiveInt, checked


@MODELS.register_module()
class LDAEDecoder(BaseModule):
    """As many DiT blocks as the encoder has, of the same width, then DiT's final layer (paper, section 3: the encoder
    and decoder halves of a DiT are of equal size).

    There are no new positions and no projection between equal widths, since the two halves were one network. Unlike
    there, each half has a time embedding of its own, so that either can be taken alone.

    Args:
        arch: Dict with embed_dims, num_layers, num_heads and feedforward_channels; inside :class:`LDAE` those that aren't
            given are the encoder's.
        in_dims: Width of the encoder.
        out_dims: Length of a prediction per token; inside :class:`LDAE` the head's.
        conditioned, cond_ratio, num_classes, gate_init, attend_by_level: As the encoder's.
    """

    @checked
    def __init__(
        self,
        arch: dict,
        in_dims: int,
        out_dims: int,
        conditioned: bool = True,
        cond_ratio: CondRatio = 0.25,
        num_classes: PositiveInt | None = None,
        gate_init: GateInit = 0.0,
        attend_by_level: bool = False,
    ) -> None:
        super().__init__()
        check_arch('LDAEDecoder', arch, least_layers=0)
        check_attend_by_level('LDAEDecoder', attend_by_level, conditioned)
        dims, heads, hidden = arch['embed_dims'], arch['num_heads'], arch['feedforward_channels']
        self.conditioned, self.attend_by_level = conditioned, attend_by_level
        self.embed = nn.Identity() if in_dims == dims else nn.Linear(in_dims, dims)
        if conditioned:
            cond_dims = max(1, round(dims * cond_ratio))
            self.time_embed = TimestepEmbed(cond_dims)
            self.label_embed = LabelEmbed(num_classes, cond_dims) if num_classes else None
            self.final_adaLN = AdaLNModulation(cond_dims, dims, 2)
            blocks = (DiTBlock(dims, heads, hidden, cond_dims, gate_init=gate_init) for _ in range(arch['num_layers']))
        else:
            blocks = (
                TransformerEncoderLayer(dims, heads, hidden, norm_cfg=NORM_CFG) for _ in range(arch['num_layers'])
            )
        self.layers = ModuleList(blocks)
        eps, affine = PLAIN_NORM_CFG['eps'], not conditioned
        self.final_norm = nn.LayerNorm(dims, eps=eps, elementwise_affine=affine)
        self.predict = nn.Linear(dims, out_dims)

    def init_weights(self) -> None:
        """DiT's initialisation; the last layer starts at zero."""
        init_dit_weights(self)
        nn.init.zeros_(self.predict.weight)
        self._is_init = True

    def forward(self, tokens: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """tokens (B, N, in_dims), t (B,) or (B, N), labels (B,) or None -> predictions (B, N, out_dims)."""
        x = self.embed(tokens)
        if not self.conditioned:
            for layer in self.layers:
                x = layer(x)
            return self.predict(self.final_norm(x))
        cond = condition(self, t, labels)
        mask = same_level(t) if self.attend_by_level and t.dim() == 2 else None
        for layer in self.layers:
            x = layer(x, cond, mask)
        return self.predict(modulate(self.final_norm(x), *self.final_adaLN(cond)))
