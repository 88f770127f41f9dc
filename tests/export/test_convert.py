# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import load_file
from small_models import PREPROCESSOR, classifier_config, ldae_config

from ldae.apis import FeatureExtractor
from ldae.cli import run_tool
from ldae.export import convert, export_encoder, timm_format
from ldae.models import vit_files
from ldae.utils import ConfigError


def test_the_command_writes_checks_and_says_how_to_load(saved, tmp_path, capsys):
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(tmp_path / 'black.png')
    arguments = [str(saved(ldae_config())), '--to', 'timm', '--out', str(tmp_path / 'vit'), '--timestep', '25']
    arguments += ['--img-size', '24', '--check', str(tmp_path / 'black.png')]
    assert run_tool('export', arguments) == 0
    printed = capsys.readouterr().out
    assert 'ViT of 2 blocks of width 32, patches of 4 in 24 x 24 x 3 pixels' in printed
    assert 't = 25 merged in' in printed
    assert 'on random images' in printed
    assert 'on given pictures' in printed
    assert f"timm.create_model('local-dir:{tmp_path / 'vit'}', pretrained=True)" in printed


@pytest.mark.parametrize('to', ['timm', 'hf', 'onnx'])
def test_registers_go_with_the_encoder_and_are_no_features(to, saved, tmp_path, capsys):
    pytest.importorskip(dict(timm='timm', hf='transformers', onnx='onnxruntime')[to])
    checkpoint = saved(ldae_config(backbone=dict(reg_tokens=4)))
    exported = export_encoder(checkpoint, to, tmp_path / dict(onnx='vit.onnx').get(to, 'vit'))
    assert exported.errors['random images'] < 1e-5
    assert ', 4 registers, t = 10 merged in' in str(exported.vit)
    if to == 'timm':
        model = timm.create_model(f'local-dir:{exported.path}', pretrained=True)
        assert (model.num_reg_tokens, model.num_prefix_tokens) == (4, 4)
        alone, about = vit_files.vit_of_state(load_file(exported.path / 'model.safetensors'), 'a file', num_heads=2)
        assert 'no class token, 4 registers' in about
        images = torch.randn(2, 3, 16, 16)
        assert torch.equal(alone.eval().forward_features(images), model.eval().forward_features(images))
        image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        own, theirs = (FeatureExtractor(source, device='cpu')(image) for source in (checkpoint, exported.path))
        torch.testing.assert_close(theirs, own, rtol=1e-4, atol=1e-4)


def test_validation_images_are_compared_where_they_are_at_hand(saved, tmp_path):
    config = ldae_config(tokenizer=dict(type='ldae.DCTTokenizer', latent_dim=6, in_channels=1))
    config['model']['tokenizer'].update(img_size=28, patch_size=7)
    config['model']['data_preprocessor'] = dict(mean=[72.94], std=[90.02])
    config['val_dataloader'] = dict(dataset=dict(type='ldae.IDXDataset', data_root=None, split='test'))
    checkpoint = saved(config)
    assert {'random images', 'validation images'} <= set(export_encoder(checkpoint, 'timm', tmp_path / 'vit').errors)
    assert {'random images', 'validation images'} <= set(
        export_encoder(checkpoint, 'timm', tmp_path / 'b', img_size=35).errors
    )


def test_an_example_holds_images_and_the_features_that_they_give(saved, tmp_path):
    export_encoder(saved(ldae_config()), 'timm', tmp_path / 'vit', example=tmp_path / 'example.npz')
    example = {name: torch.from_numpy(value) for name, value in np.load(tmp_path / 'example.npz').items()}
    model = timm.create_model(f'local-dir:{tmp_path / "vit"}', pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(example['images']), example['features'])
        torch.testing.assert_close(model.forward_features(example['images']), example['tokens'])


def test_the_average_of_the_weights_is_exported_on_request(saved, tmp_path):
    checkpoint = saved(ldae_config())
    content = torch.load(checkpoint)
    average = {key: value / 2 for key, value in content['state_dict'].items() if value.is_floating_point()}
    beside = dict(ema_state_dict={f'module.{key}': value for key, value in average.items()}, ema_in_place=False)
    torch.save(content | beside, tmp_path / 'both.pth')
    torch.save(dict(content, state_dict=content['state_dict'] | average), tmp_path / 'average.pth')
    export_encoder(tmp_path / 'both.pth', 'timm', tmp_path / 'a', ema=True)
    export_encoder(tmp_path / 'average.pth', 'timm', tmp_path / 'b')
    states = [load_file(tmp_path / name / 'model.safetensors') for name in 'ab']
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert 'both.pth (average of its weights)' in (tmp_path / 'a' / 'config.json').read_text()


@pytest.mark.parametrize('tool', ['probe', 'denoise', 'export', 'benchmark'])
def test_no_average_is_one_line_in_each_tool(tool, saved, tmp_path, capsys):
    checkpoint = str(saved(ldae_config()))
    arguments = dict(
        probe=[checkpoint, '--work-dir', str(tmp_path / 'p')],
        denoise=[checkpoint, str(tmp_path), '--out', str(tmp_path / 'a.png')],
        export=[checkpoint, '--to', 'timm', '--out', str(tmp_path / 'a')],
        benchmark=['linear', checkpoint],
    )
    assert run_tool(tool, [*arguments[tool], '--ema']) == 2
    assert 'holds no average of the weights (EMA): leave --ema out' in capsys.readouterr().err


@pytest.mark.parametrize('to', ['timm', 'mmpretrain'])
def test_what_exists_is_replaced_only_by_force(to, saved, tmp_path):
    checkpoint, out = saved(ldae_config()), tmp_path / ('vit.pth' if to == 'mmpretrain' else 'vit')
    export_encoder(checkpoint, to, out)
    with pytest.raises(ConfigError, match='exists: give --force'):
        export_encoder(checkpoint, to, out)
    export_encoder(checkpoint, to, out, force=True, timestep=3)
    assert out.exists()


@pytest.mark.parametrize(('to', 'name'), [('timm', 'mine'), ('timm', 'mine/thesis.tex'), ('onnx', 'mine.onnx')])
def test_force_never_replaces_what_no_export_wrote(to, name, tmp_path):
    for folder in ('mine', 'mine.onnx'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'thesis.tex').write_text('...')
    with pytest.raises(ConfigError, match='is not replaced'):
        export_encoder(tmp_path / 'any.pth', to, tmp_path / name, force=True)


def test_a_model_that_differs_from_its_source_is_not_written(saved, tmp_path, monkeypatch):
    checkpoint = saved(ldae_config())
    monkeypatch.setitem(vit_files.INNER, '.ln1', '.norm2')
    monkeypatch.setitem(vit_files.INNER, '.ln2', '.norm1')
    monkeypatch.delitem(vit_files.INNER, '.ln')
    with pytest.raises(ConfigError, match='differs from the source by .* nothing was written'):
        export_encoder(checkpoint, 'timm', tmp_path / 'out' / 'vit', example=tmp_path / 'out' / 'e.npz')
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_failure_while_writing_leaves_what_was_there(saved, tmp_path, monkeypatch):
    checkpoint = saved(ldae_config())
    export_encoder(checkpoint, 'timm', tmp_path / 'out' / 'vit')
    before = (tmp_path / 'out' / 'vit' / 'model.safetensors').read_bytes()

    def full(*args) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(timm_format, 'write', full)
    with pytest.raises(OSError, match='No space'):
        export_encoder(checkpoint, 'timm', tmp_path / 'out' / 'vit', force=True, timestep=3)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['vit']
    assert (tmp_path / 'out' / 'vit' / 'model.safetensors').read_bytes() == before


def test_nan_features_are_a_difference():
    assert convert._relative_error(torch.tensor([torch.nan]), torch.tensor([1.0])) == float('inf')


def test_a_source_with_nan_features_is_one_line(saved, tmp_path):
    checkpoint = saved(ldae_config())
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict']['backbone.layers.0.attn.qkv.weight'][0, 0] = float('nan')
    torch.save(content, checkpoint)
    with pytest.raises(ConfigError, match='own features are NaN'):
        export_encoder(checkpoint, 'timm', tmp_path / 'vit')
    assert not (tmp_path / 'vit').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--to', 'timm'], 'does not exist'),
        (['--to', 'onnx'], 'must end in .onnx'),
        (['--to', 'mmpretrain'], 'must end in .pth'),
        (['--to', 'timm', '--save-example', 'a.txt'], 'must end in .npz'),
        (['--to', 'timm', '--out', 'vit', '--save-example', 'vit/../vit/a.npz'], 'lies in vit, which is written whole'),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, tmp_path, capsys):
    assert run_tool('export', [str(tmp_path / 'no.pth'), '--out', str(tmp_path / 'vit'), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_foreign_and_damaged_checkpoints_are_one_line(tmp_path, capsys):
    torch.save(dict(weights=[1, 2]), tmp_path / 'foreign.pth')
    (tmp_path / 'damaged.pth').write_bytes(b'PK' + bytes(100))
    for name in ('foreign.pth', 'damaged.pth'):
        assert run_tool('export', [str(tmp_path / name), '--to', 'timm', '--out', str(tmp_path / 'vit')]) == 2
        error = capsys.readouterr().err
        assert name in error
        assert error.count('\n') == 1


def test_a_config_of_another_model_is_one_line(saved, tmp_path, capsys):
    other = classifier_config(dict(type='VisionTransformer', arch='deit-tiny', img_size=16, patch_size=4))
    Config(dict(default_scope='mmpretrain', data_preprocessor=PREPROCESSOR, **other)).dump(tmp_path / 'other.py')
    arguments = [str(saved(ldae_config())), '--to', 'timm', '--out', str(tmp_path / 'vit')]
    assert run_tool('export', [*arguments, '--config', str(tmp_path / 'other.py')]) == 2
    assert capsys.readouterr().err.count('\n') == 1


@pytest.mark.parametrize(('to', 'library'), [('timm', 'safetensors'), ('hf', 'transformers'), ('onnx', 'onnxruntime')])
def test_a_missing_library_is_named_with_its_extra(to, library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    out = Path(tmp_path / ('vit.onnx' if to == 'onnx' else 'vit'))
    with pytest.raises(ConfigError, match=f'--to {to} needs the library {library}'):
        export_encoder(tmp_path / 'no.pth', to, out)
