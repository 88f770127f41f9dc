# SPDX-License-Identifier: Apache-2.0
"""Some hundred wrong configs, made from those of the tree: each ends in one line before any data are read."""

import copy
import gc
import sys
import time
import types
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import mmpretrain
import pytest
from mmengine.config import Config

sys.path.append(str(Path(__file__).parents[1] / 'configs'))
from shrink import shrink, write_images

from ldae.config import configs_root, load_config
from ldae.config.components import check_components, components_of
from ldae.config.sections import SECTIONS, lookup
from ldae.launch import build_runner, prepare
from ldae.utils import ConfigError
from ldae.utils.signatures import signature_of

BASES = {
    'ldae': 'ldae/vit-b_pca.py',
    'mae': 'mae/vit-b_400e.py',
    'finetune': 'benchmarks/ldae_vit-b_finetune.py',
    'linear': 'benchmarks/ldae_vit-b_linear.py',
    'gan': 'tokenizers/conv-vae_f8_kl-gan.py',
    'demo': 'ldae/demo_fashion-mnist.py',
}
SECONDS = 10


class DataWereReadError(BaseException):
    """Past every handler of the code under test."""


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('images'))


@cache
def small(base: str, images: Path) -> Config:
    cfg = shrink(configs_root() / BASES[base], images, images.parent / 'work')
    if base in ('linear', 'finetune'):
        checkpoint = images.parent / 'checkpoint.pth'
        checkpoint.touch()  # it is looked at only when training starts
        cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    return cfg


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*args: object) -> None:
        raise DataWereReadError

    monkeypatch.setattr('ldae.datasets.image_folder.ImageFolder.load_data_list', read)
    monkeypatch.setattr('ldae.datasets.idx.read_idx', read)
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)  # which the Runner calls, and takes most of the time


def run(cfg: Config) -> str:
    """The one line that a config ends in."""
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        build_runner(prepare(cfg))
    line = str(caught.value)
    assert '\n' not in line
    assert time.process_time() - began < SECONDS
    return line


# -- spelling ---------------------------------------------------------------------------------------------------------


def misspelt(key: str) -> str:
    """Two neighbours in the middle swapped, or a letter doubled where they are equal."""
    i = len(key) // 2
    swapped = key[: i - 1] + key[i] + key[i - 1] + key[i + 1 :]
    return swapped if swapped != key else key[:i] + key[i] + key[i:]


def places_of_keys() -> list:
    """(base, dotted place of a dict, key) of every key of every component and section, once for each kind."""
    found, seen = [], set()
    for base, name in BASES.items():
        cfg = load_config(configs_root() / name)
        nodes = [(where, type_, node) for where, type_, node, _ in components_of(cfg)]
        nodes += [(where, where, lookup(cfg, where) or {}) for where in SECTIONS]
        for where, kind, node in nodes:
            for key in node:
                if len(key) > 2 and (kind, key) not in seen and not key.startswith('_'):
                    seen.add((kind, key))
                    found.append(pytest.param(base, where, key, id=f'{base}:{where}.{key}'))
    return found


def reach(cfg: Any, where: str) -> Any:
    for part in where.replace('[', '.').replace(']', '').split('.'):
        cfg = cfg[int(part) if part.isdigit() else part]
    return cfg


@pytest.mark.parametrize(('base', 'where', 'key'), places_of_keys())
@pytest.mark.usefixtures('_no_data')
def test_a_misspelt_key_names_the_right_one(base: str, where: str, key: str, images: Path):
    cfg = copy.deepcopy(small(base, images))
    node = reach(cfg, where)
    if key not in node:
        pytest.skip('not in the small config')
    node[misspelt(key)] = node.pop(key)
    line = run(cfg)
    assert misspelt(key) in line or key == 'type'
    assert key in line


# -- types ------------------------------------------------------------------------------------------------------------

WRONG = {int: ['three', 1.5, [1]], float: ['much', [0.5]], bool: ['maybe', 3], str: [3], dict: [5, 'x']}


def wrong_values(hint: Any) -> list:
    """Values that are none of a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        accepted = [kind for kind in inner if kind is not type(None)]
        return [object_ for object_ in [{'a': 1}, 'x', [None], 1.5] if not any(plausible(object_, k) for k in accepted)]
    if origin in (Sequence, list, tuple):
        return [7, ['x', {}]] if inner else [7]
    return WRONG.get(hint, []) if origin is not Literal else ['none of them']


def plausible(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Sequence, list, tuple):
        return isinstance(value, list)
    return not isinstance(hint, type) or hint not in WRONG or isinstance(value, dict | float if hint is float else hint)


def types_of(component: object) -> dict[str, object]:
    """The annotations of its options, without ranges and choices."""
    return get_type_hints(types.SimpleNamespace(__annotations__=signature_of(component).hints))


def typed_options() -> list:
    """(base, place, option, wrong value) of each option of each component of ldae's that a config of the tree uses."""
    found, seen = [], set()
    for base, name in BASES.items():
        for where, component, _, slot in components_of(load_config(configs_root() / name)):
            for option, hint in types_of(component).items():
                if (component, option) in seen or slot == 'data_preprocessor':
                    continue
                seen.add((component, option))
                for value in wrong_values(hint):
                    found.append(pytest.param(base, where, option, value, id=f'{where}.{option}={value!r}'))
    return found


@pytest.mark.parametrize(('base', 'where', 'option', 'value'), typed_options())
@pytest.mark.usefixtures('_no_data')
def test_a_value_of_another_type_is_named(base: str, where: str, option: str, value: object, images: Path):
    cfg = copy.deepcopy(small(base, images))
    reach(cfg, where)[option] = value
    line = run(cfg)
    assert option in line
    assert 'LDAE_TRACEBACK' not in line


# -- ranges and choices -----------------------------------------------------------------------------------------------

# Names, which may be any string; what is wrong with them shows on the disk.
NAMES = {'data_root', 'ann_file', 'checkpoint', 'filename', 'desc', 'prefix', 'out_dir', 'save_best', 'pretrained'}
# A negative interval of a checkpoint means never.
ANY_NUMBER = {'SafeCheckpointHook.interval'}


def out_of_range(hint: Any) -> object | None:
    """A value of the right type that no option can mean."""
    kinds = {hint, *get_args(hint)} if get_origin(hint) in (Union, types.UnionType) else {hint}
    if kinds & {int, float}:
        return -3
    if str in kinds:
        return 'no such thing'
    if any(get_origin(kind) in (Sequence, list, tuple) and set(get_args(kind)) & {int, float} for kind in kinds):
        return [-3, -3]
    return None


def ranged_options() -> list:
    """(base, place, option, value out of range), each option of each component of ldae's once."""
    found, seen = [], set()
    for base, name in BASES.items():
        for where, component, _, _ in components_of(load_config(configs_root() / name)):
            for option, hint in types_of(component).items():
                value = out_of_range(hint)
                if value is None or (component, option) in seen or option in NAMES:
                    continue
                if f'{component.__name__}.{option}' in ANY_NUMBER:
                    continue
                seen.add((component, option))
                found.append(pytest.param(base, where, option, value, id=f'{base}:{where}.{option}={value!r}'))
    return found


@pytest.mark.parametrize(('base', 'where', 'option', 'value'), ranged_options())
@pytest.mark.usefixtures('_no_data')
def test_a_value_out_of_range_is_named(base: str, where: str, option: str, value: object, images: Path):
    cfg = copy.deepcopy(small(base, images))
    reach(cfg, where)[option] = value
    line = run(cfg)
    assert option in line
    assert 'LDAE_TRACEBACK' not in line


# -- what doesn't go together, and other packages' options ------------------------------------------------------------

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
TRAIN_STEP = 'train_dataloader.dataset.pipeline'
COMBINATIONS = [
    ('ldae', {'model.tokenizer.img_size': 18}, 'not divisible by patch_size'),
    ('ldae', {'model.tokenizer.patch_size': 5}, 'not divisible by patch_size'),
    ('ldae', {'model.tokenizer.latent_dim': 49}, 'latent_dim=49 is out of range'),
    ('ldae', {'model.tokenizer.img_size': 32}, 'data pipeline gives (3, 16, 16)'),
    ('ldae', {'model.tokenizer.in_channels': 1}, 'data pipeline gives (3, 16, 16)'),
    ('ldae', {f'{TRAIN_STEP}.2.crop_size': 12}, 'data pipeline gives (3, 12, 12)'),
    ('ldae', {'model.backbone.img_size': 32}, 'img_size=32 contradicts'),
    ('ldae', {'model.backbone.patch_size': 8}, 'patch_size=8 contradicts'),
    ('ldae', {'model.backbone.in_channels': 1}, 'in_channels=1 contradicts'),
    ('ldae', {'model.backbone.latent_dim': 3}, 'latent_dim=3 contradicts'),
    ('ldae', {'model.backbone.timestep': 1000}, 'timestep=1000 is out of range'),
    ('ldae', {'model.noiser.num_timesteps': 5}, 'timestep'),
    ('ldae', {'model.val_timesteps': [5, 1000]}, 'val_timesteps=1000 is out of range'),
    ('ldae', {'model.val_timesteps': []}, 'val_timesteps'),
    ('ldae', {'model.backbone.arch': dict(ARCH, num_heads=5)}, 'num_heads'),
    ('ldae', {'model.backbone.arch': dict(ARCH, embed_dims=0)}, 'embed_dims'),
    ('ldae', {'model.backbone.arch': dict(ARCH, embed_dims=30, num_heads=2)}, 'embed_dims'),
    ('ldae', {'model.backbone.arch': dict(ARCH, num_layers=0)}, 'num_layers'),
    ('ldae', {'model.backbone.arch': dict(ARCH, num_layers='two')}, 'num_layers'),
    ('ldae', {'model.backbone.arch': dict(ARCH, feedforward_channels=-1)}, 'feedforward_channels'),
    ('ldae', {'model.backbone.arch': dict(ARCH, num_layer=3)}, "did you mean 'num_layers'"),
    ('ldae', {'model.backbone.arch': dict(embed_dims=32)}, 'arch lacks'),
    ('ldae', {'model.backbone.arch': 'huge-ish'}, 'arch'),
    ('ldae', {'model.backbone.out_indices': [7]}, 'out_indices'),
    ('ldae', {'model.backbone.frozen_stages': 3}, 'frozen_stages=3 is out of range'),
    ('ldae', {'model.backbone.drop_path_rate': 1.5}, 'drop_path_rate=1.5 is out of range'),
    ('ldae', {'model.backbone.tokenizer': dict(type='ldae.LDAEDecoder')}, 'LDAEDecoder'),
    ('ldae', {'model.backbone.noiser': dict(type='ldae.GaussianNoiser')}, 'a noiser needs a tokenizer'),
    ('ldae', {'model.neck': dict(type='ldae.LDAEDecoder', in_dims=5)}, 'in_dims=5 contradicts'),
    ('ldae', {'model.neck': dict(type='ldae.LDAEDecoder', out_dims=5)}, 'out_dims=5 contradicts'),
    ('ldae', {'model.neck': dict(type='ldae.LDAEDecoder', arch=dict(ARCH, num_heads=3))}, 'num_heads'),
    ('ldae', {'model.neck': dict(type='ldae.LDAEDecoder', arch=dict(num_layer=1))}, "did you mean 'num_layers'"),
    ('ldae', {'model.neck': dict(type='ldae.LDAEDecoder', num_classes=-1)}, 'num_classes'),
    ('ldae', {'model.neck': dict(type='ldae.LDAEDecoder', cond_ratio=-1)}, 'cond_ratio'),
    ('ldae', {'model.neck': dict(type='GlobalAveragePooling')}, 'GlobalAveragePooling'),
    ('ldae', {'model.head': dict(type='LinearClsHead', num_classes=3, in_channels=32)}, 'LinearClsHead'),
    ('ldae', {'model.tokenizer': dict(type='ldae.GaussianNoiser')}, 'GaussianNoiser'),
    ('ldae', {'model.noiser': dict(type='ldae.DCTTokenizer')}, 'DCTTokenizer'),
    ('ldae', {'model.backbone': dict(type='ResNet', depth=18)}, 'ResNet'),
    ('ldae', {'model.noiser.schedule': dict(type='linear_sigma', sigma_mx=2)}, 'sigma_mx'),
    ('ldae', {'model.noiser.schedule': dict(type='lineer_sigma')}, "did you mean 'linear_sigma'"),
    ('ldae', {'model.noiser.schedule': {}}, 'schedule'),
    ('ldae', {'model.noiser.weighting': 'snrr'}, "did you mean 'snr'"),
    ('ldae', {'model.noiser.num_timesteps': 0}, 'num_timesteps=0 is out of range'),
    ('ldae', {'data_preprocessor.mean': [1, 2]}, 'mean'),
    ('ldae', {'data_preprocessor.std': [1]}, 'std'),
    ('ldae', {'optim_wrapper.optimizer.betas': [2, 2]}, 'beta'),
    ('ldae', {'optim_wrapper.optimizer.betas': 'x'}, 'optim_wrapper'),
    ('ldae', {'optim_wrapper.optimizer.weight_decay': -1}, 'weight_decay'),
    ('ldae', {'optim_wrapper.optimizer.lr': None}, 'lr must be a number, got None'),
    ('ldae', {'optim_wrapper.accumulative_counts': 0}, 'accumulative_counts=0'),
    ('ldae', {'optim_wrapper.clip_grad': dict(max_norm=-1)}, 'max_norm=-1'),
    ('ldae', {'optim_wrapper.clip_grad': 3}, 'clip_grad must be a dict, got 3'),
    ('ldae', {'param_scheduler.0.begin': 'x'}, 'param_scheduler'),
    ('ldae', {'param_scheduler.0.begin': 500}, 'begin'),
    ('ldae', {'param_scheduler.0.start_factor': 7}, 'param_scheduler[0]'),
    ('ldae', {'default_hooks.logger.interval': 0}, 'interval'),
    ('ldae', {'default_hooks.checkpoint.interval': 'x'}, 'interval'),
    ('ldae', {'default_hooks.checkpoint': 5}, 'default_hooks.checkpoint must be a dict with a type, got 5'),
    ('ldae', {'train_dataloader.sampler.shuffle': 'perhaps'}, 'shuffle'),
    ('ldae', {'train_dataloader.collate_fn': 'default_collate'}, 'collate_fn'),
    ('ldae', {'train_dataloader.batch_size': 1.5}, 'batch_size'),
    ('ldae', {'val_evaluator': None}, 'val_evaluator'),
    ('ldae', {'val_dataloader': None}, 'val_dataloader'),
    ('ldae', {'model': None}, 'model'),
    ('ldae', {'model': dict(tokenizer=None)}, 'type'),
    ('ldae', {f'{TRAIN_STEP}.1.scale': -4}, 'pipeline[1]'),
    ('ldae', {f'{TRAIN_STEP}.1.edge': 'shortest'}, 'pipeline[1]'),
    ('ldae', {f'{TRAIN_STEP}.1.backend': 'pil'}, 'pipeline[1]'),
    ('ldae', {f'{TRAIN_STEP}.1.interpolation': 'cubic-ish'}, 'pipeline[1]'),
    ('ldae', {f'{TRAIN_STEP}.2.crop_size': 0}, 'pipeline[2]'),
    ('ldae', {f'{TRAIN_STEP}.2': dict(crop_size=16)}, 'type'),
    ('ldae', {'visualizer.vis_backends': [dict(type='LocalVisBackEnd')]}, "did you mean 'LocalVisBackend'"),
    ('ldae', {'custom_hooks': [dict(type='EMAHook', momentum=3)]}, 'momentum'),
    ('mae', {'model.backbone.mask_ratio': 2}, 'mask_ratio'),
    ('mae', {'model.backbone.img_size': 24}, 'model'),
    ('mae', {'model.backbone.arch': dict(ARCH, num_heads=5)}, 'model'),
    ('mae', {'model.neck.num_patches': 9}, 'model'),
    ('mae', {'model.neck.embed_dim': 48}, 'model'),
    ('mae', {'model.head.patch_size': 8}, 'model'),
    ('mae', {f'{TRAIN_STEP}.1.crop_ratio_range': [2, 1]}, 'pipeline[1]'),
    ('finetune', {'model.head.in_channels': 31}, 'model'),
    ('finetune', {'model.head.num_classes': 0}, 'num_classes'),
    ('finetune', {'model.backbone.out_type': 'cls_token'}, 'out_type'),
    ('finetune', {'model.backbone.out_type': 'raw'}, 'model'),
    ('finetune', {'model.train_cfg': dict(augments=[dict(type='Mixup', alpha=-1)])}, 'Mixup'),
    ('finetune', {'optim_wrapper.paramwise_cfg.layer_decay_rate': 'x'}, 'optim_wrapper'),
    ('finetune', {'optim_wrapper.constructor': 'LearningRateDecayOptimWrapperConstructr'}, 'constructor'),
    ('linear', {'model.neck.input_features': 33}, 'model'),
    ('linear', {'model.head.topk': [0]}, 'topk'),
    ('linear', {'val_evaluator.topk': 'x'}, 'val_evaluator'),
    ('gan', {'model.tokenizer.downsample': 3}, 'downsample'),
    ('gan', {'model.tokenizer.latent_dim': 6}, 'latent_dim'),
    ('gan', {'model.reconstruction': 'l3'}, 'reconstruction'),
    ('gan', {'model.kl_weight': -1}, 'kl_weight'),
    ('gan', {'model.adversarial.weigth': 1}, "did you mean 'weight'"),
    ('gan', {'model.adversarial.weight': -1}, 'weight=-1 is out of range'),
    ('gan', {'model.adversarial.start_step': 'soon'}, 'start_step'),
    ('gan', {'model.perceptual': dict(backbon='vgg')}, "did you mean 'backbone'"),
    ('gan', {'model.tokenizer.type': 'ldae.DCTTokenizer'}, 'DCTTokenizer'),
    ('demo', {'train_dataloader.dataset.split': 'val'}, 'split'),
    ('demo', {'train_dataloader.dataset.crop_scale': [0.5, 2]}, 'crop_scale'),
    ('demo', {'train_dataloader.dataset.crop_scale': [0.9, 0.5]}, 'crop_scale'),
    ('demo', {'train_dataloader.dataset.pad': -1}, 'pad'),
]  # fmt: skip


def put(cfg: Config, where: str, value: object) -> None:
    parent, _, key = where.rpartition('.')
    node = reach(cfg, parent) if parent else cfg
    node[int(key) if key.isdigit() else key] = value


@pytest.mark.parametrize(('base', 'changes', 'message'), COMBINATIONS, ids=lambda x: str(x)[:70])
@pytest.mark.usefixtures('_no_data')
def test_what_does_not_go_together_is_said(base: str, changes: dict, message: str, images: Path):
    cfg = copy.deepcopy(small(base, images))
    for where, value in changes.items():
        put(cfg, where, value)
    assert message in run(cfg)


def test_no_good_config_is_refused():
    ours = [path for path in configs_root().rglob('*.py') if not {'_base_', 'scales'} & set(path.parts)]
    assert len(ours) > 100
    for path in ours:
        check_components(load_config(path))
    for path in (Path(mmpretrain.__file__).parent / '.mim' / 'configs' / 'mae').rglob('*.py'):
        check_components(Config.fromfile(path))


def test_there_are_more_than_two_hundred_of_them():
    assert len(places_of_keys() + typed_options() + ranged_options() + COMBINATIONS) > 200
