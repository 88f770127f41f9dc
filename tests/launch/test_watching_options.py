# SPDX-License-Identifier: Apache-2.0
import logging
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from ldae.config import load_config
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.launch.prepare import VIS_BACKENDS
from ldae.utils import ConfigError


def make_config(model: str = 'ldae.LDAE', epochs: int = 95) -> Config:
    loader = dict(
        batch_size=4, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(type='X')
    )
    return Config(dict(model=dict(type=model), train_dataloader=loader, train_cfg=dict(max_epochs=epochs)))


@pytest.mark.parametrize('name', VIS_BACKENDS)
def test_a_missing_library_is_one_line_with_the_command_that_installs_it(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules['ldae.launch.prepare'], 'find_spec', lambda _: None)
    with pytest.raises(ConfigError, match=rf'^--vis {name} needs .*: pip install {name}$'):
        prepare(make_config(), LaunchOptions(vis=[name]))
    assert VIS_BACKENDS[name] in VISBACKENDS.module_dict


def test_backends_come_beside_the_local_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules['ldae.launch.prepare'], 'find_spec', lambda _: find_spec('json'))
    cfg = prepare(make_config(), LaunchOptions(vis=['tensorboard', 'wandb']))
    kinds = ['LocalVisBackend', 'TensorboardVisBackend', 'WandbVisBackend']
    assert [backend['type'] for backend in cfg.visualizer.vis_backends] == kinds
    with pytest.raises(ConfigError, match="--vis='tensorbord' is unknown.*did you mean 'tensorboard'"):
        prepare(make_config(), LaunchOptions(vis=['tensorbord']))


def test_pictures_are_drawn_about_ten_times_from_whatever_images_there_are():
    cfg = prepare(make_config(), LaunchOptions(pictures=True))
    pictures = cfg.default_hooks.pictures
    assert (pictures.interval, cfg.default_hooks.loss_curve.interval) == (10, 10)
    assert (pictures.dataloader.dataset.type, pictures.dataloader.num_workers) == ('X', 0)
    assert 'sampler' not in pictures.dataloader
    assert 'pictures' not in prepare(make_config('MAE', epochs=3), LaunchOptions(pictures=True)).default_hooks


def test_the_console_of_a_run_is_brief_and_its_log_file_is_not(tmp_path: Path, capsys: pytest.CaptureFixture):
    shown, kept = {}, {}
    for level in ('INFO', 'WARNING', 'DEBUG'):  # mmengine's registries write to the last logger there is
        cfg = load_config('ldae::ldae/demo_fashion-mnist.py', {'train_cfg.max_epochs': 7})
        runner = build_runner(prepare(cfg, LaunchOptions(work_dir=str(tmp_path / level), log_level=level)))
        runner.logger.warning('a warning')
        shown[level] = capsys.readouterr().out
        kept[level] = Path(runner.logger.log_file).read_text()
        assert all(text in kept[level] for text in ('System environment', 'max_epochs=7', 'Hooks will be executed'))
    assert len(shown['DEBUG'].splitlines()) > 150
    assert len(shown['INFO'].splitlines()) < 15
    assert len(shown['WARNING'].splitlines()) == 1
    assert 'a warning' in shown['WARNING']


def test_an_unknown_level_is_one_line():
    with pytest.raises(ConfigError, match="log_level='LOUD' is unknown"):
        prepare(make_config(), LaunchOptions(log_level='LOUD'))
    assert prepare(make_config(), LaunchOptions(log_level='DEBUG')).log_level == logging.getLevelName(logging.DEBUG)
