# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ldae
from ldae.cli import run_tool

DEMO = 'ldae/demo_fashion-mnist'


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Images, a checkpoint, and folders and files that are none."""
    folder = tmp_path_factory.mktemp('fid')
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    for name in ('samples', 'mixed', 'empty'):
        (folder / name).mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / 'samples' / f'{number}.png')
        Image.fromarray(image[: 28 - number % 2]).save(folder / 'mixed' / f'{number}.png')
    model = ldae.get_model(DEMO)
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    torch.save(dict(meta=dict(cfg=model._config.pretty_text), state_dict=model.state_dict()), folder / 'epoch_1.pth')
    (folder / 'wrong.pth').write_bytes(b'x')
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_the_tool_prints_what_it_compared_and_writes_it(folder, capsys):
    argv = ['samples', '--reference', f'{DEMO}:val', '--reference-num', '100', '--features', 'epoch_1.pth']
    assert run_tool('fid', [*argv, '--num', '20', '--out', 'new/figures.json', '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert 'samples: 20 of 30 images (seed 0), 28 x 28, PNG files' in out
    assert f'reference  {DEMO}, val: 100 of 2,000 images (seed 0), 28 x 28, ldae.IDXDataset(split=test), no crop' in out
    assert 'epoch_1.pth, 96 dimensions, weights ' in out
    assert 'Fréchet distance (' in out
    assert 'FID' not in out
    assert 'note: 20 images of samples are fewer than 10 times the 96 dimensions' in out
    found = json.loads((folder / 'new' / 'figures.json').read_text())
    assert (found['samples']['images'], found['reference']['images'], found['is_fid']) == (20, 100, False)
    assert f'{found["frechet"]:.4g}' in out
    assert found['versions']['ldae']
    assert len(list((folder / 'work_dirs' / 'statistics').iterdir())) == 1
    assert run_tool('fid', [*argv, '--out', 'new/figures.json']) == 2
    assert 'new/figures.json exists' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['empty'], 'empty holds no images'),
        (['mixed'], 'mixed has images of 28 x 28 and of 27 x 28 pixels: --size N resizes'),
        (['nowhere'], 'nowhere is neither a folder of images nor an .npz file'),
        (['wrong.npz'], 'wrong.npz does not exist'),
        (['samples', '--num', '31'], '--num 31: samples has 30 images'),
        (['samples', '--num', '0'], '--num=0 is out of range'),
        (['samples', '--inception', 'wrong.pth'], '--inception and --features name two networks'),
        (['samples', '--weights', 'wrong.pth'], 'wrong.pth'),
    ],
)
def test_wrong_input_is_one_line(options, said, capsys):
    assert run_tool('fid', [*options, '--reference', 'samples', '--features', 'epoch_1.pth', '--device', 'cpu']) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith('error: ')
    assert said in err.splitlines()[0]
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ([], 'which features are compared? Name the weights of Inception with --inception FILE (https://'),
        (['--inception', 'wrong.pth'], 'wrong.pth is not pt_inception-2015-12-05-6726825d.pth'),
        (['--inception', 'none.pth'], 'none.pth is not a file'),
    ],
)
def test_without_the_right_inception_there_is_one_line(options, said, capsys):
    assert run_tool('fid', ['samples', '--reference', 'samples', *options]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert len(err.splitlines()) == 1
