# SPDX-License-Identifier: Apache-2.0
"""Differences between methods of pre-training: sizes of what stands around the encoder, rates, views, pooling."""

import copy
import inspect
from typing import NamedTuple

from mmengine.config import Config, ConfigDict

from ldae.registry import MODELS
from ldae.utils.errors import ConfigError
from ldae.utils.sizes import as_size, height_width, in_words

from .data import as_read, augment_in_memory, scale_steps
from .reading import walk_dicts


class Method(NamedTuple):
    """Facts of a method.

    Attributes:
        title: Its name, as papers write it.
        model: Its ``model.type``, without a scope.
        config: The ViT-B pre-training that others start from.
        rate: Its learning rate at the same batch and size, of the l-DAE's: for MAE as in the papers' recipes; of MoCo v3,
            SimCLR and BYOL the best of three on held-out training images at a small scale; of the others a guess (docs/methods.md).
        pooling: Of the benchmarks: the class token, or the mean of the patch tokens.
        views: Views of an image that are encoded in a step.
        more_views: Whether there may be more of them.
        batch: Of the recipe, where images are contrasted with the others of their batch, of which more is better.
    """

    title: str
    model: str
    config: str
    rate: float = 1.0
    pooling: str = 'cls_token'
    views: int = 1
    batch: int | None = None
    more_views: bool = False


FACTS = {
    'ldae': Method('l-DAE', 'LDAE', 'ldae::ldae/vit-b_pca_rrc.py', pooling='avg_featmap'),
    'mae': Method('MAE', 'MAE', 'ldae::mae/vit-b_256_400e.py', 1.5),
    'mocov3': Method('MoCo v3', 'MoCoV3', 'ldae::mocov3/vit-b_300e.py', 1.5, views=2, batch=4096),
    'simclr': Method('SimCLR', 'SimCLR', 'ldae::simclr/vit-b_300e.py', 0.5, views=2, batch=4096),
    'byol': Method('BYOL', 'BYOL', 'ldae::byol/vit-b_300e.py', 0.5, views=2),
    'simmim': Method('SimMIM', 'SimMIM', 'ldae::simmim/vit-b_800e.py', 1.0, 'avg_featmap'),
    'dino': Method('DINO', 'DINO', 'ldae::dino/vit-b_400e.py', 0.5, views=2, more_views=True),
}
#: Name -> the ViT-B pre-training config that a method starts from.
METHODS = {name: facts.config for name, facts in FACTS.items()}
#: Whose positions mmpretrain computes for squares.
SQUARE = ('mae', 'mocov3', 'simclr', 'byol')


def method_of(cfg: Config) -> str | None:
    """The name in :data:`METHODS` of a pre-training config's method; None for any other config."""
    kind = str((cfg.get('model') or {}).get('type')).rpartition('.')[2]
    return next((name for name, facts in FACTS.items() if facts.model == kind), None)


def arch_of(backbone: dict) -> tuple[str | dict, dict]:
    """The size of an encoder's config as it is named, and in numbers."""
    kind = MODELS.get(backbone['type'])
    owner = next(cls for cls in kind.__mro__ if 'arch' in inspect.signature(cls).parameters)
    arch = backbone.get('arch', inspect.signature(owner).parameters['arch'].default)
    return arch, kind.arch_zoo[arch] if isinstance(arch, str) else arch


def geometry_of(cfg: Config) -> tuple[int | tuple[int, int], int, int]:
    """Size of the images, patch size and channels of a pre-training config."""
    model = cfg.model
    part = model.tokenizer if 'tokenizer' in model else model.backbone
    patches = (model.get('backbone') or {}).get('patch_cfg') or {}
    channels = part.get('in_channels', patches.get('in_channels', 3))
    return as_size(part.get('img_size', 224)), part.get('patch_size', 16), channels


def size_method(
    cfg: Config, arch: ConfigDict, img_size: int | tuple[int, int], patch_size: int, in_channels: int
) -> None:
    """Give a pre-training an encoder of a size in numbers for images of a size, and what stands behind it as MAE's, SimMIM's or
    the projection heads' widths, in proportion to the encoder's and up to their own; an l-DAE keeps its decoder like its encoder.
    """
    name, model = method_of(cfg), cfg.model
    geometry = dict(img_size=img_size, patch_size=patch_size, in_channels=in_channels)
    encoder, before = model.backbone, arch_of(model.backbone)[1]
    encoder.arch = arch
    if name == 'ldae':
        dim = model.tokenizer.get('latent_dim')
        old_values = model.tokenizer.in_channels * model.tokenizer.patch_size**2
        model.tokenizer.update(geometry)
        if dim is not None:
            model.tokenizer.latent_dim = max(2, round(dim * in_channels * patch_size**2 / old_values))
        return
    if not isinstance(img_size, int) and name in SQUARE:
        raise ConfigError(
            f'{FACTS[name].title} takes square images, as mmpretrain has it, not {in_words(img_size)}: give one --img-size, or take '
            'l-DAE or SimMIM'
        )
    if name == 'mae':
        geometry['patch_cfg'] = ConfigDict(in_channels=geometry.pop('in_channels'))  # MAEViT has no in_channels
    encoder.update(geometry)
    if name == 'mae':
        _size_decoder(model, arch, img_size, patch_size, in_channels)
    elif name == 'simmim':
        units = encoder.get('mask_patch_size', 32) // model.head.patch_size  # patches that are masked together, a side
        encoder.mask_patch_size = patch_size * (units if min(height_width(img_size)) // patch_size >= 4 * units else 1)
        model.neck.update(in_channels=arch.embed_dims, patch_size=patch_size, out_channels=in_channels)
        model.head.patch_size = patch_size
        model.head.loss.channel = in_channels
    else:
        size_projection(model, arch.embed_dims, before['embed_dims'])


def _size_decoder(model: ConfigDict, arch: ConfigDict, img_size: int, patch_size: int, in_channels: int) -> None:
    """A decoder of MAE as wide and deep as the encoder, up to its own."""
    decoder = model.neck
    if arch.embed_dims <= decoder.decoder_embed_dim:
        decoder.update(decoder_embed_dim=arch.embed_dims, decoder_num_heads=arch.num_heads)
    decoder.decoder_depth = min(decoder.decoder_depth, arch.num_layers)
    decoder.update(num_patches=(img_size // patch_size) ** 2, patch_size=patch_size)
    decoder.update(in_chans=in_channels, embed_dim=arch.embed_dims)
    model.head.update(patch_size=patch_size, in_channels=in_channels)


def size_projection(model: ConfigDict, width: int, before: int) -> None:
    """Projection heads for an encoder of another width: hidden layers in proportion, up to their own."""
    model.neck.in_channels = width
    for part in (node for key in ('neck', 'head') for node in walk_dicts(model[key])):
        for key in ('hid_channels', 'num_prototypes'):
            if key in part:
                part[key] = min(part[key], round(part[key] * width / before))


def tune_method(cfg: Config, optim_wrapper: ConfigDict) -> None:
    """Train as an l-DAE is trained by ``optim_wrapper``: with the method's own optimizer at its ratio of that one's rate
    (:attr:`Method.rate`); nothing validates on the images to test on, since these methods can't be validated."""
    cfg.optim_wrapper.type = optim_wrapper.get('type', 'OptimWrapper')
    cfg.optim_wrapper.pop('loss_scale', None)
    cfg.optim_wrapper.optimizer.lr = FACTS[method_of(cfg)].rate * optim_wrapper.optimizer.lr
    if method_of(cfg) != 'ldae':
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        cfg.test_cfg, cfg.test_evaluator = dict(), []


def method_like(name: str, cfg: Config, base: Config) -> Config | None:
    """A pre-training by another method of the size of an l-DAE, or of any other method's encoder, on its images, by its
    schedule and batch. None where the images are latents.

    Its rate is :attr:`Method.rate` of what an l-DAE's would be. Methods of several views keep their own, at the size of the
    images; others crop as ``cfg`` does, unless that has views.

    Args:
        name: Of :data:`METHODS`.
        cfg: The pre-training to follow.
        base: The pre-training of ``name`` that gives what isn't of size or data: that in :data:`METHODS`, loaded.
    """
    if str(cfg.train_dataloader.dataset.get('type')).endswith('LatentDataset'):
        return None
    sizes, (size, patch, channels) = arch_of(cfg.model.backbone)[1], geometry_of(cfg)
    if FACTS[name].views > 1 and channels not in (1, 3):
        raise ConfigError(
            f'{FACTS[name].title} compares views of other colours, and these images have {channels} bands: leave it out'
        )
    sizes = {key: sizes[key] for key in ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')}
    size_method(base, ConfigDict(sizes), size, patch, channels)
    steps = base.train_dataloader.dataset.pipeline
    for part in ('data_root', 'data_preprocessor', 'train_dataloader', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        if part in cfg:
            base[part] = copy.deepcopy(cfg[part])
    base.test_dataloader = copy.deepcopy(cfg.get('val_dataloader') or cfg.get('test_dataloader'))
    dataset, views = base.train_dataloader.dataset, FACTS[name].views
    if views > 1 or FACTS[method_of(cfg) or 'ldae'].views > 1:
        if 'pipeline' in dataset:
            dataset.pipeline = as_read(steps, dataset.pipeline, channels)
            scale_steps(dataset.pipeline, size, patch)
        else:
            augment_in_memory(dataset, steps, size, patch)
    if name == 'ldae':
        base.val_dataloader = copy.deepcopy(base.test_dataloader)
    like_ldae = copy.deepcopy(cfg.optim_wrapper)
    like_ldae.optimizer.lr /= FACTS[method_of(cfg) or 'ldae'].rate
    tune_method(base, like_ldae)
    hooks = {key: hook for key, hook in cfg.default_hooks.items() if key in base.default_hooks}
    base.merge_from_dict(dict(default_hooks=copy.deepcopy(hooks)))
    return Config(base._cfg_dict.to_dict())
