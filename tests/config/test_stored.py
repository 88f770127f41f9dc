# SPDX-License-Identifier: Apache-2.0
"""The config that a checkpoint holds is data: nothing in it runs, is imported or fetched."""

import sys
from pathlib import Path

import pytest
import torch

import ldae
from ldae.config import configs_root, load_config
from ldae.config.stored import parse_config, read_stored_config
from ldae.engine.non_finite.reproduce import load_model
from ldae.engine.non_finite.step_snapshots import STATE_FILE
from ldae.export import export_encoder
from ldae.utils import ConfigError

CALL = "dict(type='subprocess.check_call', args=['touch', 'ran'])"
DEMO = load_config('ldae::ldae/demo_fashion-mnist.py')


@pytest.fixture(autouse=True)
def nothing_has_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'stranger.py').write_text("open('ran', 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    assert not Path('ran').exists()
    assert 'stranger' not in sys.modules


@pytest.mark.parametrize(
    'name',
    [
        'subprocess.check_call',
        'os.system',
        'stranger',
        'stranger.X',
        'torch.hub.load',
        'builtins.exec',
        'mmpretrain.x.y',
    ],
)
def test_a_path_to_a_function_is_not_a_component(name):
    with pytest.raises(ConfigError, match=f"model of its config|model.type of its config, '{name}', is not the name"):
        read_stored_config(f'model = dict(type={name!r})', 'x.pth')


@pytest.mark.parametrize(
    'text',
    [
        f'model = dict(type="ldae.LDAE", backbone={CALL})',
        f'model = dict(type="ldae.LDAE", backbone=dict(type="ldae.LDAEViT", norm_cfg={CALL}))',
        f'data_preprocessor = {CALL}',
        f'train_dataloader = dict(dataset=dict(type="ldae.ImageFolder", pipeline=[[{CALL}]]))',
        f'default_hooks = dict(checkpoint={CALL})',
        f'custom_hooks = [{CALL}]',
        f'visualizer = dict(type="Visualizer", vis_backends=[{CALL}])',
        f'model = dict(type="ldae.LDAE", init_cfg={CALL})',
        f'anything = dict(deep=[dict(deeper=({CALL}, ))])',
        'optim_wrapper = dict(constructor="stranger.X")',
        'runner_type = "stranger.X"',
        'default_scope = "stranger"',
        'model = dict(type="ldae.LDAE", _scope_="stranger")',
        'model = dict(type=["ldae.LDAE"])',
    ],
)
def test_a_function_is_refused_wherever_it_stands(text):
    with pytest.raises(ConfigError, match='is not the name of a registered component'):
        read_stored_config(text, 'x.pth')


def test_what_it_wants_to_import_is_named_and_left_to_the_caller(caplog):
    text = "custom_imports = dict(imports=['stranger'], allow_failed_imports=False)\n"
    with pytest.raises(ConfigError, match='asks to import stranger: with --import MODULE'):
        read_stored_config(text + "model = dict(type='StrangersModel')", 'x.pth')
    assert 'custom_imports' not in read_stored_config(text + DEMO.pretty_text, 'x.pth')


def test_weights_and_addresses_are_not_followed():
    backbone = "dict(type='MAEViT', init_cfg=dict(type='Pretrained', checkpoint='http://example.org/x.pth'))"
    cfg = read_stored_config(f"model = dict(type='MAE', pretrained='/x.pth', backbone={backbone})", 'x.pth')
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.pretrained is None
    for model in ("dict(type='TIMMBackbone', model_name='hf-hub:a/b')", "dict(type='HuggingFaceClassifier')"):
        with pytest.raises(ConfigError, match='fetches'):
            read_stored_config(f'model = {model}', 'x.pth')
    cfg = read_stored_config("train_dataloader = dict(dataset=dict(type='CIFAR10', data_root='x'))", 'x.pth')
    assert cfg.train_dataloader.dataset.download is False


@pytest.mark.parametrize(
    'text',
    [
        'a = ' + '[' * 500,
        'a = ' + '-' * 100_000 + '1',
        'filename = 1',
        'a = {[]: 1}',
        'a = dict(**1)',
        'a = 1\0',
        'a = b"x".y',
        "a = {\"x'+open('ran', 'w')+'\": 1}",
        'a = "' + 'x' * (1 << 22) + '"',
        "a = open('ran', 'w')",
        "open('ran', 'w')",
    ],
    ids=range(11),
)
def test_what_is_not_plain_data_is_one_line(text):
    with pytest.raises(ConfigError, match='cannot be read as data') as raised:
        read_stored_config(text, 'x.pth')
    assert '\n' not in str(raised.value)


def test_all_shipped_configs_can_be_stored():
    for path in [configs_root() / 'ldae/vit-b_pca.py', *sorted((configs_root() / 'tokenizers').glob('*.py'))]:
        cfg = load_config(path)
        assert read_stored_config(cfg.pretty_text, path).model.type == cfg.model.type


def test_a_class_of_a_module_that_is_imported_may_be_named_by_its_path():
    text = "model = dict(type='mmpretrain.models.classifiers.image.ImageClassifier')"
    assert read_stored_config(text, 'x.pth').model.type.endswith('ImageClassifier')


def test_no_tool_of_python_runs_it(tmp_path):
    state = dict(meta=dict(cfg=f'model = {CALL}'), state_dict={'a': torch.zeros(1)})
    torch.save(state, 'x.pth')
    calls = [
        lambda: ldae.load_config_of('x.pth'),
        lambda: ldae.get_model(checkpoint='x.pth'),
        lambda: ldae.FeatureExtractor(checkpoint='x.pth'),
        lambda: ldae.denoise(None, torch.zeros(3, 8, 8), 10, checkpoint='x.pth'),
        lambda: ldae.probe('x.pth', work_dir='probe'),
        lambda: ldae.benchmark('linear', 'x.pth'),
        lambda: export_encoder('x.pth', 'mmpretrain', 'out.pth'),
        lambda: load_model(tmp_path, 'cpu'),
    ]
    torch.save(state, STATE_FILE)
    for call in calls:
        with pytest.raises(ConfigError, match='subprocess.check_call'):
            call()


def test_options_that_cannot_be_built_are_one_line():
    torch.save(dict(meta=dict(cfg="model = dict(type='ldae.LDAE', x=1)"), state_dict={'a': torch.zeros(1)}), 'x.pth')
    with pytest.raises(ConfigError, match='what its config describes cannot be built'):
        ldae.get_model(checkpoint='x.pth')
    torch.save(dict(meta=dict(cfg="model = dict(type='LoadImage')"), state_dict={'a': torch.zeros(1)}), 'x.pth')
    with pytest.raises(ConfigError, match='what its config describes cannot be built'):
        ldae.get_model(checkpoint='x.pth')


def test_text_reads_back_as_it_was_dumped():
    assert parse_config(DEMO.pretty_text) == DEMO.to_dict()
