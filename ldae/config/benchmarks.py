# SPDX-License-Identifier: Apache-2.0
"""A benchmark's config, fitted to a pre-trained encoder and to labelled data."""

import copy
import inspect
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ldae.datasets.in_memory import InMemoryDataset
from ldae.datasets.load_image import reads_files
from ldae.datasets.packed import PACKED, find_packed
from ldae.datasets.roots import is_of_hub, is_source
from ldae.datasets.store import read_manifest
from ldae.registry import DATASETS
from ldae.utils.errors import ConfigError

from .data import as_read, replace_data, scale_pipelines
from .methods import arch_of, geometry_of
from .reading import LOADERS, pipeline_of
from .scale import is_linear

#: Fewest steps of an epoch, below which the batch is made smaller: 90 epochs make at least 700 steps.
STEPS = 8
SMALLEST_BATCH = 4
# MAE's LARS is for batches of thousands: of few steps its rate is too low. The rates are those of a batch of 1024.
SGD = dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=0.0)
#: Fine-tuning's average over 10 000 of 125 000 steps, in other numbers of them.
EMA_STEPS = 12.5
FOLDERS = ('ImageFolder', 'PackedImages')
#: What of a pre-training's data set says how it is read and not which images it has.
NOT_DATA = ('pipeline', 'with_label', 'fast_resize', 'max_bad', 'crop_scale', 'flip', 'views')
NOT_DATA += ('fraction', 'fraction_seed', 'indices')


def is_folder(dataset: dict) -> bool:
    """Whether a data set reads any folder of images."""
    return str(dataset.get('type')).removeprefix('ldae.') in FOLDERS


def fit_encoder(cfg: Config, pretrained: Config, data_root: str | None = None) -> None:
    """Give a benchmark's config, in place, the size of the encoder of a pre-training of the same method, its image size and its
    data, or the labelled images of ``data_root``."""
    old, new = pretrained.model, cfg.model.backbone
    (arch, sizes), (size, patch, channels) = arch_of(old.backbone), geometry_of(pretrained)
    new.arch = copy.deepcopy(arch)
    new.update(img_size=size, patch_size=patch, in_channels=channels)
    if is_linear(cfg):
        new.frozen_stages = sizes['num_layers']
    if cfg.model.get('neck'):
        cfg.model.neck.input_features = sizes['embed_dims']
    cfg.model.head.in_channels = sizes['embed_dims']
    _fit_data(cfg, pretrained, size, channels, data_root)


def fit_features(cfg: Config, pretrained: Config, state: dict, tokenizer_file: str) -> None:
    """Give a benchmark's config what no size says of an l-DAE's encoder: time step, norm, registers, and what is in front of it.
    ``state`` is the state dict of the pre-training, ``tokenizer_file`` where its tokenizer will lie, if the encoder needs one."""
    old, new = pretrained.model, cfg.model.backbone
    for name in ('timestep', 'num_timesteps', 'final_norm', 'reg_tokens') if 'tokenizer' in old else ():
        if name in old.backbone:
            new[name] = old.backbone[name]
    is_folded = 'backbone.patch_embed.patch_map.encoder' in state
    if 'tokenizer' in old and (old.get('transfer_noise') or not is_folded):  # a tokenizer that the weights don't hold
        new.tokenizer = copy.deepcopy(old.tokenizer)
        if any(key.startswith('tokenizer.') for key in state):
            new.tokenizer.checkpoint = tokenizer_file
        if old.get('transfer_noise'):
            new.noiser = copy.deepcopy(old.noiser)
        if old.backbone.get('input_type', 'image') == 'latent':
            new.update(input_type='latent', latent_dim=state['backbone.patch_embed.projection.weight'].shape[1])


def _fit_data(cfg: Config, pretrained: Config, size: int, channels: int, data_root: str | None) -> None:
    """The pre-training's images, with their labels and the benchmark's augmentation, at their size."""
    loaders = {name: pretrained.get(name) or {} for name in LOADERS}
    train = loaders['train_dataloader'].get('dataset') or {}
    if data_root is None and any(
        is_of_hub((loader.get('dataset') or {}).get('data_root')) for loader in loaders.values()
    ):
        raise ConfigError('the images that the checkpoint names would be downloaded: name them with --data-root')
    normalisation = {key: value for key, value in (pretrained.get('data_preprocessor') or {}).items() if key != 'type'}
    is_folder_root = is_source(data_root) or (
        data_root is not None and any((Path(data_root) / name).is_dir() for name in ('train', 'meta'))
    )
    kind = DATASETS.get(str(train.get('type')))
    in_memory = inspect.isclass(kind) and issubclass(kind, InMemoryDataset)
    if in_memory and is_folder_root:  # files are read as BGR
        normalisation['to_rgb'] = channels == 3
    if in_memory and not is_folder_root:
        test = copy.deepcopy(pretrained.get('val_dataloader') or pretrained.get('test_dataloader'))
        if not test:
            test = copy.deepcopy(dict(loaders['train_dataloader'], sampler=dict(type='DefaultSampler', shuffle=False)))
            test.update(drop_last=False, dataset=dict(train, split='test'))
        data = Config({name: pretrained[name] for name in ('data_root', 'data_preprocessor') if name in pretrained})
        data.merge_from_dict(dict(train_dataloader=pretrained.train_dataloader))
        data.val_dataloader = data.test_dataloader = test
        replace_data(cfg, data, size)
        cfg.train_dataloader.drop_last = is_linear(cfg)
    else:
        if is_folder(train):
            _name_images(cfg, pretrained, loaders)
        scale_pipelines(cfg, size)
    cfg.data_preprocessor = ConfigDict(num_classes=cfg.model.head.num_classes, **normalisation)
    steps = pipeline_of(pretrained, LOADERS) or []
    for name in LOADERS:
        dataset = cfg[name].dataset
        if 'pipeline' in dataset:
            dataset.pipeline = as_read(dataset.pipeline, steps, channels)


def _name_images(cfg: Config, pretrained: Config, loaders: dict[str, dict]) -> None:
    """Read the folder of the pre-training, with as many workers."""
    train = loaders['train_dataloader']
    for name in LOADERS:
        own = train if name == 'train_dataloader' else loaders['val_dataloader'] or loaders['test_dataloader']
        dataset = own.get('dataset') or dict(train['dataset'], split='val')
        found = {key: value for key, value in dataset.items() if key not in NOT_DATA}
        cfg[name].dataset.update(copy.deepcopy(found), type='ldae.ImageFolder')
        for option in ('num_workers', 'persistent_workers'):
            if option in (own or train):
                cfg[name][option] = (own or train)[option]
    cfg.data_root = pretrained.get('data_root', train['dataset'].get('data_root'))


def crop_packed_images(cfg: Config) -> None:
    """Let a benchmark draw its random crops from images that were packed for pre-training, cropped already."""
    dataset = cfg.train_dataloader.dataset
    with suppress(ConfigError):
        packed = find_packed(dataset.get('data_root') or '.', 'train')
        if is_folder(dataset) and read_manifest(packed, PACKED)['settings']['crop'] == 'center':
            dataset.pipeline = [step for step in dataset.pipeline if not reads_files(step)]


def set_classes(cfg: Config, classes: int) -> None:
    """Let a classifier, what mixes its labels and its accuracy know of so many classes. Raises ConfigError if there are
    fewer than two."""
    if classes < 2:
        raise ConfigError(f'the labelled images have {classes} class: a benchmark needs two or more')
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = classes
    for name in ('val_evaluator', 'test_evaluator'):
        evaluator = cfg.get(name)
        if evaluator and 'topk' in evaluator:
            evaluator.topk = tuple(k for k in evaluator.topk if k == 1 or k < classes)


def fit_schedule(cfg: Config, images: int, processes: int) -> None:
    """Batch and learning rate for a data set that is small for the config's batch; others keep theirs.

    The batch is the largest power of two that leaves :data:`STEPS` steps an epoch. The rate goes down with its square
    root; LARS gives way to SGD."""
    base = cfg.auto_scale_lr.base_batch_size
    batch = max(SMALLEST_BATCH, 2 ** ((images // STEPS) or 1).bit_length() // 2)
    if batch >= base:
        return
    batch = max(1, batch // processes) * processes
    cfg.train_dataloader.batch_size = batch // processes
    cfg.train_dataloader.drop_last = is_linear(cfg) and images > batch  # a batch of one image has no statistics
    optim = cfg.optim_wrapper
    if optim.optimizer.type == 'LARS':
        optim.optimizer = ConfigDict(SGD)
        optim.pop('paramwise_cfg', None)
        base = 1024
    optim.optimizer.lr *= (batch / base) ** 0.5
    cfg.auto_scale_lr = ConfigDict(enable=True, base_batch_size=batch)
    steps = cfg.train_cfg.max_epochs * max(1, images // batch)
    if 'ema' in cfg.default_hooks:
        cfg.default_hooks.ema.momentum = min(0.1, max(cfg.default_hooks.ema.momentum, EMA_STEPS / steps))
    checkpoint = cfg.default_hooks.checkpoint
    checkpoint.interval = max(checkpoint.get('interval', 1), cfg.train_cfg.max_epochs // 10)


def named_after(cfg: Config, name: str, work_dir: str) -> Config:
    """The config under a name of its own, under which its run keeps it."""
    cfg.setdefault('work_dir', work_dir)
    return Config(cfg._cfg_dict.to_dict(), cfg_text=f'# {name}', filename=str(Path(name).with_suffix('.py')))
