# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.config import config as config_module
from mmengine.logging import MessageHub
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.models.utils import SelfSupDataPreprocessor
from torch.utils._python_dispatch import TorchDispatchMode

from ldae import compat
from ldae.config import configs_root, find_config
from ldae.registry import MODELS
from ldae.utils import ConfigError
from ldae.utils.files import atomic_save

SOME = 'ldae/vit-b_pca.py'


def test_the_prefix_resolves_in_any_config(tmp_path: Path):
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = 'ldae::{SOME}'\nwork_dir = 'here'\n")
    cfg, original = Config.fromfile(own), Config.fromfile(configs_root() / SOME)
    assert cfg.work_dir == 'here'
    assert cfg.model == original.model


def test_the_prefix_puts_no_scope_into_the_config(tmp_path: Path):
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = ['ldae::{SOME}']\nmodel = dict(tokenizer=dict(latent_dim=16))\n")
    cfg = Config.fromfile(own)
    assert '_scope_' not in cfg.pretty_text
    assert cfg.model.tokenizer.latent_dim == 16


def test_other_prefixes_are_mmengines():
    path, scope = Config._get_cfg_path('mmpretrain::_base_/default_runtime.py', 'any.py')
    assert Path(path).is_file()
    assert scope == 'mmpretrain'


def test_a_missing_config_is_one_line_with_the_nearest_name():
    with pytest.raises(ConfigError, match='did you mean .ldae::ldae/vit-b_pca.py'):
        Config._get_cfg_path('ldae::ldae/vit-b_pcaa.py', 'any.py')


def test_applying_twice_changes_nothing():
    before = Config._get_cfg_path
    compat.apply(find_config)
    assert Config._get_cfg_path is before


def test_a_config_is_formatted_once(monkeypatch: pytest.MonkeyPatch):
    formatted = []

    def FormatCode(text, **options):
        formatted.append(options)
        return f'# {text}', True

    monkeypatch.setattr(config_module, 'FormatCode', FormatCode)
    compat.format_configs_once()
    cfg = Config(dict(a=1))
    assert cfg.pretty_text == cfg.pretty_text == '# a=1'
    cfg.a = 2
    assert cfg.pretty_text == '# a=2'
    assert [options['style_config']['based_on_style'] for options in formatted] == ['pep8', 'pep8']


def test_work_arounds_fall_away_by_version(monkeypatch: pytest.MonkeyPatch):
    def original(cfg_path: str, filename: str) -> None: ...

    monkeypatch.setattr(Config, '_get_cfg_path', staticmethod(original))
    monkeypatch.setattr(compat, 'version', lambda package: '0.11.0')
    compat.resolve_ldae_prefix_in_configs(find_config)
    assert Config._get_cfg_path is original


def test_every_work_around_says_its_version_and_reason():
    functions = (
        *compat.AT_IMPORT,
        compat.init_cpu_process_group,
        compat.cpu_model_wrapper,
        compat.keep_worker_options_consistent,
    )
    for function in functions:
        what, _, reason = function.__doc__.partition(':')
        assert any(name in what for name in ('mmengine', 'mmcv', 'torch')), function
        assert reason.strip(), function


def test_importing_ldae_is_cheap_and_leaves_mmpretrain_out():
    code = "import sys, ldae; sys.exit('mmpretrain' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], env=dict(os.environ)).returncode == 0


def test_the_missing_operator_of_mmcv_lite_is_not_reported():
    with warnings.catch_warnings(record=True) as caught:
        compat.silence_missing_mmcv_operators()
        warnings.warn('Fail to import ``MultiScaleDeformableAttention`` from somewhere')
    assert caught == []


@pytest.mark.parametrize(
    ('launcher', 'variables'),
    [
        ('pytorch', dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0')),
        ('slurm', dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0')),
        ('mpi', dict(OMPI_COMM_WORLD_RANK='0', OMPI_COMM_WORLD_SIZE='1', OMPI_COMM_WORLD_LOCAL_RANK='0')),
    ],
)
def test_gloo_starts_under_each_launcher(launcher: str, variables: dict, monkeypatch: pytest.MonkeyPatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_PORT', '0')
    compat.init_cpu_process_group(launcher, timeout=60)
    try:
        assert dist.get_backend() == 'gloo'
        assert os.environ['WORLD_SIZE'] == '1'
        compat.init_cpu_process_group(launcher)  # a second call finds it there
    finally:
        dist.destroy_process_group()


def test_worker_options_are_consistent():
    loader = dict(num_workers=0, persistent_workers=True, pin_memory=True)
    compat.keep_worker_options_consistent(loader, has_gpu=False)
    assert loader == dict(num_workers=0, persistent_workers=False, pin_memory=False)
    loader = dict(num_workers=2, persistent_workers=True, pin_memory=True)
    compat.keep_worker_options_consistent(loader, has_gpu=True)
    assert loader == dict(num_workers=2, persistent_workers=True, pin_memory=True)


def test_a_runners_checkpoint_is_written_to_another_name_first(tmp_path, monkeypatch):
    from mmengine.runner import runner as module

    from ldae.compat import write_checkpoints_by

    monkeypatch.setattr(module, 'save_checkpoint', module.save_checkpoint)  # put back after the test
    write_checkpoints_by(atomic_save)
    written = []
    save = torch.save
    monkeypatch.setattr('torch.save', lambda content, file: (written.append(file.name), save(content, file)))
    module.save_checkpoint(dict(a=1), str(tmp_path / 'x.pth'))
    assert torch.load(tmp_path / 'x.pth') == dict(a=1)
    assert written != [str(tmp_path / 'x.pth')]
    assert [path.name for path in tmp_path.iterdir()] == ['x.pth']
    before = module.save_checkpoint
    write_checkpoints_by(atomic_save)
    assert module.save_checkpoint is before


def test_a_scalars_history_is_bounded_and_keeps_the_newest():
    hub = MessageHub.get_instance('test_bounded_history')
    for value in range(compat.LOG_HISTORY + 5):
        hub.update_scalar('train/loss', value)
    log, _ = hub.get_scalar('train/loss').data
    assert len(log) == compat.LOG_HISTORY
    assert log[-1] == compat.LOG_HISTORY + 4
    assert hub.get_scalar('train/loss').mean(2) == compat.LOG_HISTORY + 3.5


def build_groups(constructor: str, **paramwise_cfg) -> tuple[list[dict], list[tuple]]:
    """Groups of a small classifier's optimizer, and what each of its parameters is trained with."""
    init_default_scope('mmpretrain')
    arch = dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=16)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ldae.LDAEViT', arch=arch, img_size=32, conditioned=False, out_type='avg_featmap'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=8),
        )
    )
    cfg = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
    cfg |= dict(constructor=constructor, paramwise_cfg=paramwise_cfg)
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    names = {param: name for name, param in model.named_parameters()}
    options = [(names[p], g['lr'], g['weight_decay']) for g in groups for p in g['params']]
    return groups, sorted(options)


@pytest.mark.parametrize(
    ('constructor', 'paramwise_cfg', 'count'),
    [
        ('DefaultOptimWrapperConstructor', dict(norm_decay_mult=0.0, bias_decay_mult=0.0), 2),
        ('LearningRateDecayOptimWrapperConstructor', dict(layer_decay_rate=0.65, flat_decay_mult=0.0), 8),
    ],
)
def test_equal_groups_of_parameters_are_one_and_every_parameter_keeps_its_options(
    monkeypatch, constructor, paramwise_cfg, count
):
    original = getattr(DefaultOptimWrapperConstructor.__call__, '__wrapped__', DefaultOptimWrapperConstructor.__call__)
    monkeypatch.setattr(DefaultOptimWrapperConstructor, '__call__', original)
    groups, options = build_groups(constructor, **paramwise_cfg)
    assert len(groups) == len(options) > count
    compat.merge_equal_param_groups()
    groups, merged = build_groups(constructor, **paramwise_cfg)
    assert len(groups) == count
    assert merged == options


@pytest.mark.parametrize('views', [1, 2])
@pytest.mark.parametrize('channels', [1, 3])
def test_channels_are_reordered_on_the_device_with_the_same_pixels(views, channels):
    options = dict(mean=[120.0, 110.0, 100.0][:channels], std=[60.0, 50.0, 40.0][:channels], to_rgb=channels == 3)
    images = [torch.randint(0, 256, (4, channels, 8, 8), dtype=torch.uint8) for _ in range(views)]
    order = [2, 1, 0] if channels == 3 else [0]
    mean, std = (torch.tensor(options[key]).view(1, -1, 1, 1) for key in ('mean', 'std'))
    expected = [(image[:, order].float() - mean) / std for image in images]
    preprocessor = SelfSupDataPreprocessor(**options)
    calls = Calls()
    with calls:
        found = preprocessor(dict(inputs=images if views > 1 else images[0], data_samples=None))
    found = found['inputs'] if views > 1 else [found['inputs']]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert 'aten.index.Tensor' not in calls.names  # by a list of the host's, which a GPU waits for
    assert preprocessor._non_blocking


class Calls(TorchDispatchMode):
    """Names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_a_process_of_mpi_knows_its_device(monkeypatch):
    for name, value in dict(LOCAL_RANK='0', RANK='0', WORLD_SIZE='1').items():
        monkeypatch.setenv(name, value)
    for name, value in dict(RANK='5', SIZE='8', LOCAL_RANK='1').items():
        monkeypatch.setenv(f'OMPI_COMM_WORLD_{name}', value)
    compat.set_rank_variables('mpi')
    assert [os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')] == ['5', '8', '1']


def test_mmcv_turns_hues_backwards():
    import mmcv
    import numpy as np
    from torchvision.transforms.v2 import functional

    compat.turn_hue_backwards()
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)
    for shift in (-0.4, -0.1, 0.1):
        expected = functional.adjust_hue(rgb, shift).permute(1, 2, 0).numpy()
        found = mmcv.adjust_hue(image, shift, backend='pillow')[..., ::-1]
        assert np.abs(found.astype(int) - expected).max() <= 12  # whole degrees of hue, in 8 bits
