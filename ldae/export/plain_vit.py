# SPDX-License-Identifier: Apache-2.0
"""The encoder of a checkpoint as a plain ViT: what of it other libraries know."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mmpretrain.models import BaseSelfSupervisor, ImageClassifier, MAEViT, MoCoV3ViT
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ldae.evaluation import pooled_features
from ldae.evaluation.features import num_registers
from ldae.models import LDAEViT, SimMIMViT
from ldae.models.layers import AffinePatchMap
from ldae.models.tokenizers import BaseTokenizer, PixelTokenizer
from ldae.utils import ConfigError, check_range
from ldae.utils.models import changed
from ldae.utils.sizes import Size, as_size, height_width, in_words

#: A model of another library as a function: images (B, C, H, W) -> tokens (B, L, C) and features (B, C).
Features = Callable[[Tensor], tuple[Tensor, Tensor]]

#: Backbones that are a ViT, or become one.
EXPORTED = (LDAEViT, MAEViT, MoCoV3ViT, SimMIMViT, VisionTransformer)


@dataclass(frozen=True)
class PlainViT:
    """A ViT without conditioning on raw images.

    Attributes:
        state: Its parameters, under the names of mmpretrain's ``VisionTransformer``.
        class_token: Whether a class token stands before the patches, as in MAE.
        reg_tokens: Number of registers, which have no positions, before the patches.
        final_norm: LayerNorm on the tokens of the last block.
        pool_norm: LayerNorm on the average.
        pool: The feature of an image: ``'avg'`` of the patch tokens, or the class ``'token'``.
    """

    state: dict[str, Tensor]
    img_size: int | tuple[int, int]
    patch_size: int
    in_channels: int
    embed_dims: int
    num_layers: int
    num_heads: int
    feedforward_channels: int
    class_token: bool
    final_norm: bool
    pool_norm: bool
    pool: str
    timestep: int | None = None
    reg_tokens: int = 0

    @property
    def num_params(self) -> int:
        return sum(value.numel() for value in self.state.values())

    def __str__(self) -> str:
        t = f', {self.reg_tokens} registers' if self.reg_tokens else ''
        t += '' if self.timestep is None else f', t = {self.timestep} merged in'
        return (
            f'ViT of {self.num_layers} blocks of width {self.embed_dims}, patches of {self.patch_size} in '
            f'{" x ".join(map(str, height_width(self.img_size)))} x {self.in_channels} pixels, {self.num_params / 1e6:.1f} M parameters{t}'
        )


def encoder_of(model: nn.Module, where: str = 'the model') -> VisionTransformer:
    """The backbone that can be a plain ViT. Raises ConfigError if it can't, with the reason."""
    backbone = getattr(model, 'backbone', None)
    if not isinstance(model, BaseSelfSupervisor | ImageClassifier) or backbone is None:
        raise ConfigError(
            f'{where} holds a {type(model).__name__}, which has no encoder: name a checkpoint of pre-training, probing or '
            'fine-tuning'
        )
    if type(backbone) not in EXPORTED:
        names = ', '.join(kind.__name__ for kind in EXPORTED)
        raise ConfigError(f'{where} has the backbone {type(backbone).__name__}: only {names} are exported')
    if reason := _obstacle(model, backbone):
        raise ConfigError(f'{where} cannot be a plain ViT: {reason}')
    return backbone


def _obstacle(model: nn.Module, backbone: VisionTransformer) -> str | None:
    """The reason why an encoder cannot be a plain ViT, if there is one."""
    if getattr(model, 'transfer_noise', False) or getattr(backbone, 'noiser', None) is not None:
        return 'its features are those of noisy latents; set transfer_noise=False, or remove the noiser'
    tokenizer = _tokenizer_of(model)
    if tokenizer is not None and patch_map_of(tokenizer) is None:
        return f"a token of {type(tokenizer).__name__} isn't a linear map of its patch alone"
    if tokenizer is None and isinstance(backbone.patch_embed.projection, nn.Linear):
        return 'it takes latents, and has no tokenizer that makes them of images'
    if backbone.final_norm and _has_pool_norm(backbone):
        return 'it has both final_norm and pool_norm, which other libraries have no place for'
    if not isinstance(backbone.pre_norm, nn.Identity) or any('.gamma' in name for name in backbone.state_dict()):
        return "it has a pre_norm or layer scale, which ldae's converter doesn't know"
    return None


def _tokenizer_of(model: nn.Module) -> BaseTokenizer | None:
    return getattr(model, 'tokenizer', None) or getattr(model.backbone, 'tokenizer', None)


def patch_map_of(tokenizer: BaseTokenizer) -> AffinePatchMap | None:
    """The tokenizer as an affine map of patches, or None where it isn't one."""
    if tokenizer.patch_map is not None or not isinstance(tokenizer, PixelTokenizer):
        return tokenizer.patch_map
    if not tokenizer.is_whole:
        return None
    # Normalised pixels: each is shifted and scaled alike.
    patch_map = AffinePatchMap(tokenizer.latent_dim, tokenizer.geometry.patch_dim)
    eye = torch.eye(tokenizer.latent_dim)
    patch_map.encoder.copy_(eye / tokenizer.scale.cpu())
    patch_map.decoder.copy_(eye * tokenizer.scale.cpu())
    patch_map.mean.fill_(tokenizer.shift.cpu())
    return patch_map


def plain_vit(
    model: nn.Module, img_size: Size | None = None, timestep: int | None = None, where: str = 'the model'
) -> PlainViT:
    """Merge and fold what a model's encoder has beyond a ViT. Raises ConfigError if the encoder can't be a plain ViT,
    or an option is out of range.

    Args:
        model: Of any method of pre-training, or a classifier on the encoder of one, on the CPU. Its ``backbone.timestep`` is set to
            ``timestep``, so that it gives the features that the result must give.
        img_size: Height and width in pixels, one number for squares; None keeps the model's. The position embedding is interpolated, as the model
            itself does at run time.
        timestep: t to merge; None keeps the model's.
        where: How errors name the model.
    """
    backbone = encoder_of(model, where)
    _set_timestep(backbone, timestep, where)
    size, patch = _sizes(backbone, img_size)
    state = _merged_state(model, backbone, tuple(edge // patch for edge in height_width(size)))
    arch = {key: backbone.arch_settings[key] for key in ('num_heads', 'feedforward_channels')}
    arch |= {key: getattr(backbone, key) for key in ('embed_dims', 'num_layers', 'final_norm')}
    arch |= dict(class_token=backbone.cls_token is not None, pool_norm=_has_pool_norm(backbone))
    channels, pool = (
        state['patch_embed.projection.weight'].shape[1],
        'token' if backbone.out_type == 'cls_token' else 'avg',
    )
    timestep = backbone.timestep if getattr(backbone, 'conditioned', False) else None
    arch |= dict(reg_tokens=num_registers(backbone))
    return PlainViT(state, size, patch, channels, **arch, pool=pool, timestep=timestep)


def _sizes(backbone: VisionTransformer, img_size: Size | None) -> tuple[int | tuple[int, int], int]:
    """The image's size, and pixels a side of a patch."""
    patch = backbone.img_size[0] // backbone.patch_resolution[0]
    size = as_size(img_size or backbone.img_size)
    for edge in height_width(size if img_size is None else img_size):
        check_range('--img-size', edge, patch, kind=int)
        if edge % patch:
            raise ConfigError(
                f'--img-size {in_words(size)} does not divide into patches of {patch} pixels: give a multiple of it'
            )
    return size, patch


def _has_pool_norm(backbone: VisionTransformer) -> bool:
    return backbone.out_type == 'avg_featmap' and isinstance(backbone.ln2, nn.LayerNorm)


def _set_timestep(backbone: VisionTransformer, timestep: int | None, where: str) -> None:
    if timestep is None:
        return
    if not getattr(backbone, 'conditioned', False):
        raise ConfigError(f'{where} is not conditioned on a time step (any more): leave --timestep out')
    check_range('--timestep', timestep, 0, backbone.num_timesteps - 1, kind=int)
    backbone.timestep = timestep


def _merged_state(model: nn.Module, backbone: VisionTransformer, grid: tuple[int, int]) -> dict[str, Tensor]:
    """The parameters of a plain ViT for a grid of patches."""
    state = {key: value.detach().clone() for key, value in backbone.state_dict().items()}
    state = {key: value for key, value in state.items() if not key.startswith(('tokenizer.', 'noiser.', 'mask_token'))}
    layout = backbone.patch_resolution, grid, backbone.interpolate_mode, backbone.num_extra_tokens
    state['pos_embed'] = resize_pos_embed(state['pos_embed'], *layout)
    if not isinstance(backbone, LDAEViT):
        return state
    tokenizer = _tokenizer_of(model)
    if tokenizer is not None:
        maps = patch_map_of(tokenizer).named_buffers()
        state.update({f'patch_embed.patch_map.{name}': buffer.clone() for name, buffer in maps})
    # An encoder that has neither conditioning nor patch map takes them in, as in transfer.
    channels = tokenizer.geometry.in_channels if tokenizer else backbone.patch_embed.projection.weight.shape[1]
    patch = backbone.patch_embed.patch_size
    names = ('timestep', 'num_timesteps', 'out_type', 'final_norm', 'reg_tokens')
    same = {key: getattr(backbone, key) for key in names}
    same['pool_norm'] = _has_pool_norm(backbone)
    plain = LDAEViT(backbone.arch_settings, [edge * patch for edge in grid], patch, channels, conditioned=False, **same)
    plain.load_state_dict(state)
    return {key: value.detach() for key, value in plain.state_dict().items()}


@torch.no_grad()
def source_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The source's own result for images (B, C, H, W): tokens (B, L, C) after the last block, and the feature (B, C).

    Images of another size than the model's go to its encoder as they are: its tokenizer knows one size only."""
    backbone = encoder_of(model)
    last = [backbone.num_layers - 1]
    with changed(backbone, out_indices=last), _taking(model, images) as encoder:
        # Where a class token is the feature, pooled_features would average the others.
        is_token = backbone.out_type == 'cls_token'
        pooled = _output(encoder, images) if is_token else pooled_features(encoder, images)
        with changed(backbone, out_type='raw'):
            return _output(encoder, images), pooled


def _output(encoder: nn.Module, images: Tensor) -> Tensor:
    if isinstance(encoder, BaseSelfSupervisor):
        return encoder.extract_feat(images)[-1]
    backbone = getattr(encoder, 'backbone', encoder)
    options = dict(mask=None) if isinstance(backbone, MAEViT) else {}
    return backbone(images, **options)[-1]


@contextmanager
def _taking(model: nn.Module, images: Tensor) -> Iterator[nn.Module]:
    """The model, or its encoder made to take images of this size."""
    backbone = model.backbone
    if tuple(images.shape[-2:]) == tuple(backbone.img_size):
        yield model
        return
    tokenizer = _tokenizer_of(model)
    if tokenizer is None:
        yield backbone
        return
    with changed(backbone, tokenizer=None), changed(backbone.patch_embed, patch_map=patch_map_of(tokenizer)):
        yield backbone
