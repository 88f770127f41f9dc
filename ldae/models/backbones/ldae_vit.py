# SPDX-License-Identifier: Apache-2.0
"""The encoder; and, at a fixed time step, as a plain ViT of other weights, since its conditioning is constant then."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from mmengine.model import ModuleList
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from ldae.models.layers import DiTBlock, LabelEmbed, PatchEmbed, TimestepEmbed, init_dit_weights
from ldae.models.layers.dit_block import (
    NORM_CFG,
    CondRatio,
    GateInit,
    check_arch,
    check_attend_by_level,
    condition,
    same_level,
)
from ldae.models.layers.patches import sincos_positions, token_index
from ldae.registry import MODELS
from ldae.utils import Choice, ConfigError, NaturalInt, PositiveInt, Share, check_range, checked
from ldae.utils.models import changed

#: The paper's "ViT-1/2L" is half of a ViT-L: its 24-block DiT-L cut into two.
HALF_LARGE = dict(embed_dims=1024, num_layers=12, num_heads=16, feedforward_channels=4096)
CONDITION = ('time_embed.', 'label_embed.')
#: The registers' parameter, under timm's name.
REGISTERS = 'reg_token'


@MODELS.register_module()
class LDAEViT(VisionTransformer):
    """ViT encoder with DiT blocks: mmpretrain's :class:`VisionTransformer` without class token, with fixed sin-cos
    positions and, if ``conditioned``, adaLN-Zero conditioning on the time step (paper, section 3 and appendix A).

    Without a time step, as in transfer, ``timestep`` is used. An unconditioned encoder is a plain ViT; loading the
    checkpoint of a conditioned one into it merges the conditioning at ``timestep`` and the tokenizer's projection into
    its weights. Raises ConfigError for an option out of range.

    Args:
        arch: ``'base'``, ``'half-large'``, ``'large'``, a name of mmpretrain's, or a dict with embed_dims, num_layers,
            num_heads and feedforward_channels.
        img_size, patch_size, in_channels: Input geometry; inside :class:`LDAE` they come from the tokenizer.
        input_type: ``'image'`` embeds patches of the (noisy) image, ``'latent'`` embeds latent tokens.
        latent_dim: d, for ``input_type='latent'``.
        conditioned: Whether blocks are conditioned on t.
        cond_ratio: Width of the condition relative to embed_dims; DiT has 1, the paper a quarter.
        gate_init: Of the gates of all branches at the start of training: 0 (adaLN-Zero), or up to 1, that of a plain ViT.
        learn_positions: Train the positions, which start as sines and cosines.
        reg_tokens: Number of registers: learned tokens, without positions, that go through the blocks with an image's and are
            then dropped (Darcet et al., arXiv 2309.16588). Their condition is that of the noisiest token that is encoded.
        attend_by_level: A token attends to those of its own noise level only, where levels differ from token to token, and to
            registers (arXiv 2607.02508).
        num_classes: Number of labels that the condition may hold too; only the class-conditional baseline has any.
        timestep: t used when none is given, 0 to ``num_timesteps - 1``.
        num_timesteps: T.
        out_type: ``'raw'`` (B, N, C), ``'avg_featmap'`` (B, C), or ``'featmap'`` (B, C, H/p, W/p).
        final_norm: LayerNorm ``ln1`` after the last block.
        pool_norm: LayerNorm ``ln2`` after the average of ``'avg_featmap'``, for fine-tuning.
        frozen_stages: Freeze everything up to this block; the number of blocks freezes all.
        tokenizer: Config of a fitted tokenizer (with ``checkpoint``) that raw images pass first, for transfer where it
            isn't linear per patch and so can't be folded into the weights, or where ``noiser`` is used.
        noiser: Config of a noiser that noises their latents to level ``timestep`` (appendix A, "noisy input").
        drop_path_rate, out_indices, init_cfg: As in mmpretrain.
    """

    arch_zoo = {**VisionTransformer.arch_zoo, 'half-large': HALF_LARGE, 'half-l': HALF_LARGE}

    @checked
    def __init__(
        self,
        arch: Annotated[str, Choice(arch_zoo)] | dict = 'base',
        img_size: int | Sequence[int] = 256,
        patch_size: int = 16,
        in_channels: int = 3,
        input_type: Annotated[str, Choice('image', 'latent')] = 'image',
        latent_dim: int | None = None,
        conditioned: bool = True,
        cond_ratio: CondRatio = 0.25,
        gate_init: GateInit = 0.0,
        learn_positions: bool = False,
        reg_tokens: NaturalInt = 0,
        attend_by_level: bool = False,
        num_classes: PositiveInt | None = None,
        timestep: int = 10,
        num_timesteps: PositiveInt = 1000,
        out_type: Annotated[str, Choice(VisionTransformer.OUT_TYPES - {'cls_token'})] = 'raw',
        final_norm: bool = False,
        pool_norm: bool = False,
        frozen_stages: int = -1,
        drop_path_rate: Share = 0.0,
        out_indices: int | Sequence[int] = -1,
        tokenizer: dict | None = None,
        noiser: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        check_range('LDAEViT.timestep', timestep, 0, num_timesteps - 1, kind=int)
        if input_type == 'latent' and latent_dim is None:
            raise ConfigError("LDAEViT: input_type='latent' needs latent_dim, the tokenizer's dimension d")
        check_attend_by_level('LDAEViT', attend_by_level, conditioned)
        if not isinstance(arch, str):
            check_arch('LDAEViT', arch)
        depth = (self.arch_zoo[arch] if isinstance(arch, str) else arch)['num_layers']
        for index in [out_indices] if isinstance(out_indices, int) else out_indices:
            check_range('LDAEViT.out_indices', index, -depth, depth - 1, kind=int)
        img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        outs = list(out_indices) if isinstance(out_indices, Sequence) else out_indices
        options = dict(norm_cfg=NORM_CFG, with_cls_token=False, final_norm=final_norm, out_type=out_type)
        options |= dict(img_size=img_size, patch_size=patch_size, in_channels=in_channels, init_cfg=init_cfg)
        super().__init__(arch=arch, out_indices=outs, drop_path_rate=drop_path_rate, **options)
        self.timestep, self.num_timesteps, self.conditioned = timestep, num_timesteps, conditioned
        self.patch_embed = PatchEmbed(img_size, patch_size, in_channels, self.embed_dims, input_type, latent_dim)
        self.pos_embed.requires_grad = learn_positions
        self.reg_tokens, self.attend_by_level = reg_tokens, attend_by_level
        self.reg_token = nn.Parameter(torch.zeros(1, reg_tokens, self.embed_dims)) if reg_tokens else None
        if not pool_norm and out_type == 'avg_featmap':
            self.ln2 = nn.Identity()
        self.cond_ratio, self.num_classes, self.gate_init = cond_ratio, num_classes, gate_init
        if conditioned:
            self._add_conditioning(cond_ratio, drop_path_rate)
        else:
            self._register_load_state_dict_pre_hook(self._merge_checkpoint)
        self.patch_resolution = self.patch_embed.init_out_size
        self.pos_embed.data.copy_(sincos_positions(self.patch_resolution, self.embed_dims))
        self._add_front(tokenizer, noiser)
        self._freeze(frozen_stages)

    def _freeze(self, stages: int) -> None:
        check_range('LDAEViT.frozen_stages', stages, -1, self.num_layers, kind=int)
        self.frozen_stages = stages
        if stages > 0:
            self._freeze_stages()

    def _add_conditioning(self, cond_ratio: float, drop_path_rate: float) -> None:
        cond_dims = max(1, round(self.embed_dims * cond_ratio))
        self.time_embed = TimestepEmbed(cond_dims)
        self.label_embed = LabelEmbed(self.num_classes, cond_dims) if self.num_classes else None
        rates = np.linspace(0, drop_path_rate, self.num_layers).tolist()
        arch = self.arch_settings
        # The parent has built plain blocks; these take their place under the same parameter names.
        self.layers = ModuleList(
            DiTBlock(self.embed_dims, arch['num_heads'], arch['feedforward_channels'], cond_dims, rate, self.gate_init)
            for rate in rates
        )

    def _add_front(self, tokenizer: dict | None, noiser: dict | None) -> None:
        if noiser is not None and tokenizer is None:
            raise ConfigError('LDAEViT.a noiser needs a tokenizer, whose latents it noises')
        self.tokenizer = None if tokenizer is None else MODELS.build(tokenizer)
        self.noiser = None if noiser is None else MODELS.build(noiser)
        if self.tokenizer is not None:
            self.patch_embed.patch_map = self.tokenizer.patch_map

    def init_weights(self) -> None:
        """DiT's initialisation, then a pre-trained checkpoint if ``init_cfg`` names one."""
        with changed(self, tokenizer=None):  # a trained one keeps its weights
            init_dit_weights(self)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=0.02)
        if self.init_cfg:
            # Past the parent's, which would draw random positions.
            super(VisionTransformer, self).init_weights()
        self._is_init = True

    def forward(
        self, x: Tensor, t: Tensor | None = None, labels: Tensor | None = None, visible: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images (B, C, H, W) or latent tokens (B, N, d).

        Args:
            x: Raw images, or latents z_t; an encoder with image input maps latents back to pixels inside its
                embedding's weight.
            t: Time steps (B,), or (B, N) of each token; None takes the fixed transfer time step.
            labels: Class labels (B,), where ``num_classes`` is set; None stands for no label.
            visible: Numbers (B, M) of the tokens to encode, for ``out_type='raw'``; None encodes all.

        Returns:
            One feature per ``out_indices``, shaped by ``out_type``.
        """
        if self.tokenizer is not None and x.dim() == 4:
            x = self._tokenize(x)
        x, grid = self.patch_embed(x)  # (B, N, C)
        x = x + resize_pos_embed(self.pos_embed, self.patch_resolution, grid, self.interpolate_mode, 0)
        if visible is not None:
            x = x.gather(1, token_index(visible, x.shape[2]))  # (B, M, C)
            t = t.gather(1, visible) if t is not None and t.dim() == 2 else t
        if self.reg_token is not None:
            x = torch.cat([self.reg_token.expand(len(x), -1, -1), x], dim=1)
        cond = self._condition(t, labels, x.device)
        outs = []
        for i, layer in enumerate(self.layers):
            x = layer(x, *cond)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x[:, self.reg_tokens :], grid))
        return tuple(outs)

    def _tokenize(self, images: Tensor) -> Tensor:
        """Raw images -> latents, or what they decode to; noised first if there is a noiser, each image always alike."""
        latents = self.tokenizer.encode(images)
        if self.noiser is not None:
            latents = self.noiser.at_level(latents, self.timestep, images)
        return latents if self.patch_embed.takes_latents else self.tokenizer.decode(latents)

    def _condition(self, t: Tensor | None, labels: Tensor | None, device: torch.device) -> tuple[Tensor, ...]:
        """The condition, and who attends to whom where that isn't everybody."""
        if not self.conditioned:
            return ()
        if t is None:
            t = torch.full((1,), self.timestep, device=device)
        mask = [same_level(t, self.reg_tokens)] if self.attend_by_level and t.dim() == 2 else []
        if self.reg_tokens and t.dim() == 2:
            t = torch.cat([t.amax(dim=1, keepdim=True).expand(-1, self.reg_tokens), t], dim=1)
        return condition(self, t, labels), *mask

    def _merge_checkpoint(self, state_dict: dict, prefix: str, *args) -> None:
        merge_conditioning(state_dict, self.timestep, prefix)

    def _freeze_stages(self) -> None:
        super()._freeze_stages()
        for name, param in self.named_parameters():
            if name.startswith((*CONDITION, REGISTERS)):
                param.requires_grad = False

    def train(self, mode: bool = True) -> 'LDAEViT':
        super().train(mode)  # mmpretrain's returns None, so that `model.eval()` can't be chained
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As mmpretrain's; the condition and registers belong to the stem."""
        if param_name.removeprefix(prefix).startswith((*CONDITION, REGISTERS)):
            return 0, self.num_layers + 2
        return super().get_layer_depth(param_name, prefix)


def merge_conditioning(state_dict: dict[str, Tensor], timestep: int, prefix: str = '') -> None:
    """Turn, in place, the conditioned encoder under ``prefix`` into a plain ViT's parameters.

    With (shift, scale, gate) the modulation at ``timestep``, ``norm(x) (1 + scale) + shift`` is a LayerNorm with weight
    ``1 + scale`` and bias ``shift``, and ``gate * (W x + b)`` is a projection with its rows scaled."""
    adaln = [key for key in state_dict if key.startswith(prefix + 'layers.') and key.endswith('.adaLN.1.weight')]
    if not adaln:
        return
    cond = _condition(state_dict, timestep, prefix)
    for key in adaln:
        layer = key.removesuffix('adaLN.1.weight')
        weight, bias = state_dict.pop(key).double(), state_dict.pop(layer + 'adaLN.1.bias').double()
        shift1, scale1, gate1, shift2, scale2, gate2 = F.linear(cond, weight, bias).chunk(6)
        for norm, scale, shift in (('ln1', scale1, shift1), ('ln2', scale2, shift2)):
            state_dict[f'{layer}{norm}.weight'] = (1 + scale).float()
            state_dict[f'{layer}{norm}.bias'] = shift.float()
        for proj, gate in (('attn.proj', gate1), ('ffn.layers.1', gate2)):
            for name, factor in (('weight', gate[:, None]), ('bias', gate)):
                value = state_dict[f'{layer}{proj}.{name}']
                state_dict[f'{layer}{proj}.{name}'] = (value.double() * factor).to(value.dtype)


def _condition(state_dict: dict[str, Tensor], timestep: int, prefix: str) -> Tensor:
    """SiLU of the condition (cond_dims,), float64; removes its keys."""
    head = prefix + 'time_embed.'
    state = {key.removeprefix(head): state_dict.pop(key) for key in list(state_dict) if key.startswith(head)}
    cond_dims, freq_dims = state['mlp.0.weight'].shape
    embed = TimestepEmbed(cond_dims, freq_dims)
    embed.load_state_dict(state)
    embed = embed.to(device=state['mlp.0.weight'].device)
    # The angles stay in float32, as in training; what follows them is exact.
    angles = torch.tensor([timestep], device=embed.freqs.device).float()[:, None] * embed.freqs[None]
    cond = embed.mlp.double()(torch.cat([angles.cos(), angles.sin()], dim=-1).double())
    # Transfer knows no labels: the last row of the label embedding stands for none.
    labels = state_dict.pop(prefix + 'label_embed.weight', torch.zeros(1, 1))
    return F.silu(cond[0] + labels[-1].double()).detach()
