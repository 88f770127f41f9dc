# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from ldae.config import configs_root, find_config, load_config, reading, set_data_root, walk_dicts
from ldae.utils import ConfigError

TEXT = """
data_root = 'somewhere'
train_dataloader = dict(dataset=dict(type='A', data_root=data_root))
val_dataloader = dict(dataset=dict(type='Wrapped', dataset=dict(type='A', data_root=data_root)))
test_dataloader = dict(dataset=dict(type='A', data_root='elsewhere'))
custom_hooks = [dict(type='H', dataset=dict(data_root=data_root))]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / 'config.py'
    path.write_text(TEXT)
    return path


def roots(cfg: Config) -> list[str]:
    return [node['data_root'] for node in walk_dicts(cfg._cfg_dict) if 'data_root' in node]


def test_configs_root_is_the_clones():
    assert configs_root() == Path(__file__).parents[2] / 'configs'


def test_configs_root_is_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, 'PACKAGE', tmp_path / 'ldae')
    assert configs_root() == tmp_path / 'ldae' / '.mim' / 'configs'


def test_load_takes_paths_and_the_prefix():
    name = 'ldae/vit-b_pca.py'
    assert load_config(configs_root() / name).model == load_config(f'ldae::{name}').model


def test_options_are_merged(file: Path):
    cfg = load_config(file, {'train_dataloader.batch_size': 3})
    assert cfg.train_dataloader.batch_size == 3


def test_data_root_reaches_all_that_used_it(file: Path):
    cfg = load_config(file, dict(data_root='new'))
    assert sorted(roots(cfg)) == ['elsewhere', 'new', 'new', 'new', 'new']


def test_a_data_root_of_one_loader_stays(file: Path):
    cfg = load_config(file, {'data_root': 'new', 'val_dataloader.dataset.dataset.data_root': 'own'})
    assert cfg.val_dataloader.dataset.dataset.data_root == 'own'
    assert cfg.train_dataloader.dataset.data_root == 'new'


def test_without_the_variable_every_data_root_is_replaced(file: Path):
    cfg = load_config(file)
    cfg.pop('data_root')
    set_data_root(cfg, 'new')
    assert set(roots(cfg)) == {'new'}


def test_data_root_may_be_none(tmp_path: Path):
    path = tmp_path / 'config.py'
    path.write_text('data_root = None\ntrain_dataloader = dict(dataset=dict(data_root=data_root))')
    assert load_config(path, dict(data_root='new')).train_dataloader.dataset.data_root == 'new'


def test_a_missing_config_offers_the_nearest(file: Path):
    with pytest.raises(ConfigError, match=f"konfig.py does not exist; did you mean '{file}'"):
        find_config(file.with_name('konfig.py'))


@pytest.mark.parametrize('text', ['a = (', 'a = 1 / 0', "_base_ = 'nowhere.py'"])
def test_a_broken_config_is_one_line(tmp_path: Path, text: str):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(ConfigError, match='cannot be read') as caught:
        load_config(path)
    assert '\n' not in str(caught.value)


def test_options_that_do_not_fit_are_one_line(file: Path):
    with pytest.raises(ConfigError, match='does not fit') as caught:
        load_config(file, {'custom_hooks.7.type': 'X'})
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'name', ['vit-b_pca', 'ldae/vit-b_pca', 'ldae/vit-b_pca.py', 'configs/ldae/vit-b_pca.py', 'ldae::vit-b_pca']
)
def test_a_config_that_ships_with_ldae_is_found_by_its_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == configs_root() / 'ldae' / 'vit-b_pca.py'


def test_a_file_of_ones_own_goes_before_the_one_that_ships_with_ldae(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'vit-b_pca').touch()
    assert find_config('vit-b_pca').resolve() == tmp_path / 'vit-b_pca'


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('demo_fashion-mnist', 'may be any of ldae/demo_fashion-mnist, mae/demo_fashion-mnist: give the whole name'),
        ('vit-b_pac', "does not exist; did you mean 'vit-b_pca'?"),
        ('ldae/vit-b_pac', "does not exist; did you mean 'ldae/vit-b_pca'?"),
        ('fast', 'config fast does not exist'),  # a part of configs, and not one
    ],
)
def test_a_name_of_several_or_of_none_is_one_line(name, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_config(name)


def test_an_option_of_a_noise_schedule_leaves_its_name():
    options = {'model.noiser.schedule.max_sigma': 0.6}
    assert load_config('ldae::ldae/vit-b_pca.py', options).model.noiser.schedule == dict(
        type='linear_sigma', max_sigma=0.6
    )
