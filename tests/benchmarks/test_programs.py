# SPDX-License-Identifier: Apache-2.0
"""The measuring programs run, and print a ratio; what it is depends on the machine."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from ldae.config import load_config
from ldae.registry import MODELS

FOLDER = Path(__file__).parents[2] / 'benchmarks'
TINY = {
    'frechet.py': '--features test_resnet --images 8 16 --size 32 --batch-size 4 --runs 1',
    'health.py': '--size tiny --img-size 32 --batch-size 2 --num-images 4 --steps 1',
    'host_at_scale.py': '--processes 1 2 --images 1000 --batch-size 8 --rounds 1',
    'input.py': '--images 6 --height 40 --width 50 --size 32 --batch-size 4 --runs 1',
    'knn.py': '--train 300 --test 100 --width 8 --k 5 20 --runs 1',
    'latent_cache.py': '--size tiny --batch-size 2 --images 4 --rounds 1',
    'masked.py': '--steps 1 --cost-only',
    'networks.py': '--networks 1 --values 100 --steps 1',
    'page.py': '--no-browser --d 8 --rounds 1',
    'pca_fit.py': '--img-size 32 --patch-size 8 --batch-size 32 --images 64 --runs 1',
    'probe.py': '--images 60 --timesteps 10 300 --settings 8 --epochs 1',
    'runner_overhead.py': '--batch-sizes 4 --steps 2',
    'sampling.py': '--img-size 32 --batch-size 2 --timed-steps 2',
    'scaling.py': '--processes 1 --batch-size 4 --rounds 1 --steps 1 --warm-up 1',
    'stores.py': '--scale 0.01 --batch-size 4 --rounds 1 --only safetensors',
    'stateful_loader.py': '--rounds 1 --batch-size 2 --batches 3',
    'train_step.py': '--masked --size tiny --img-size 32 --batch-size 2 --steps 1',
}
PEERS = 'float32 products|plain loop of timm layers|training time|bare product|feature pass|a step of MAE'
PEERS += "|encoding images|mmpretrain's pipeline"
PEERS += '|one stream for all rows'
PEERS += "|torch's own loader|features alone"
PEERS += '|together|the smallest network|bare loop|bare copy|processes that do not talk'


def test_every_program_is_run_here():
    assert {path.name for path in FOLDER.glob('[!_]*.py')} == {
        *TINY,
        'block_change.py',
        'gaussian_rows.py',
        'generation.py',
        'how_long.py',  # tests/docs/test_how_long.py
        'learning_rates.py',
        'memory.py',
        'small_data.py',
    }


@pytest.mark.parametrize('name', TINY)
def test_program_prints_a_ratio_against_a_named_peer(name, monkeypatch, capsys):
    for library in ('datasets.load', 'webdataset') if name == 'input.py' else ():
        pytest.importorskip(library)
    monkeypatch.setattr(sys, 'argv', [name, *TINY[name].split()])
    runpy.run_path(str(FOLDER / name), run_name='__main__')
    out = capsys.readouterr().out
    assert re.search(rf'({PEERS}).*(ldae / it = [\d.]+|[\d.]+%)', out)


def test_no_row_is_below_the_bound_of_gaussian_images(monkeypatch, capsys, tmp_path):
    options = f'--rows t3_5_original-image --epochs 1 --images 64 --work-dir {tmp_path / "gaussian"}'
    monkeypatch.setattr(sys, 'argv', ['gaussian_rows.py', *options.split()])
    runpy.run_path(str(FOLDER / 'gaussian_rows.py'), run_name='__main__')
    header, row = capsys.readouterr().out.strip().splitlines()[-4:-2]
    assert header.startswith('loss / least loss at t =')
    assert all(float(ratio) > 1 for ratio in row.split()[1:-1])


def test_the_program_on_small_data_names_variations_that_are_configs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, 'argv', ['small_data.py', '--list'])
    program = runpy.run_path(str(FOLDER / 'small_data.py'), run_name='__main__')
    assert capsys.readouterr().out.split('\n')[:4] == ['raw pixels', 'MAE', 'MAE, 40 epochs', 'demo']
    for options in program['VARIATIONS'].values():
        cfg = load_config(program['DEMO'], {key: value for key, value in options.items() if key != 'epochs'})
        assert cfg.model.type == 'ldae.LDAE'


def test_the_program_on_blocks_sees_closed_gates_as_no_change(monkeypatch, capsys, tmp_path):
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()), tmp_path / 'epoch_0.pth')
    argv = ['block_change.py', str(tmp_path / 'epoch_0.pth'), '--timesteps', '10', '--images', '4']
    monkeypatch.setattr(sys, 'argv', argv)
    capsys.readouterr()
    runpy.run_path(str(FOLDER / 'block_change.py'), run_name='__main__')
    assert capsys.readouterr().out.splitlines()[-1] == '  t =   10, sigma 0.01: 0.00 0.00 0.00 0.00 0.00 0.00'


def test_the_program_on_learning_rates_says_which_is_best(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['learning_rates.py', '--epochs', '1', '--only', '200'])
    runpy.run_path(str(FOLDER / 'learning_rates.py'), run_name='__main__')
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[0] == 'task'
    assert header.split()[-2:] == ['chosen', 'test']
    assert any(row.startswith('200 classes, 96 channels') for row in rows)


def test_the_program_on_memory_says_what_a_batch_takes_by_size(monkeypatch, capsys):
    """A block keeps at least its inputs and outputs: eight widths of hidden layers and eight more, in bfloat16."""
    monkeypatch.setattr(sys, 'argv', ['memory.py'])
    runpy.run_path(str(FOLDER / 'memory.py'), run_name='__main__')
    rows = [line.split('|')[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ['B', 'half-L', 'L']
    assert all(2 * 16 <= int(row[1]) <= 2 * 16 * 2 for row in rows)
    taken = [[int(cell.split()[0]) for cell in row[2:]] for row in rows]
    assert all(a > b > c for a, b, c in taken)


def test_the_program_on_generation_compares_samples_with_test_images(monkeypatch, capsys, small_model, tmp_path):
    """Of random weights: what comes out means nothing, but that test images are nearer than noise."""
    paths = [tmp_path / name for name in ('free.pth', 'classes.pth')]
    for path, options in zip(paths, ({}, dict(num_classes=10)), strict=True):
        model = small_model(**options)
        torch.save(dict(meta=dict(cfg=model._config.pretty_text), state_dict=model.state_dict()), path)
    options = ['--features', str(paths[0]), '--num', '60', '--steps', '2', '--guidance', '0', '2', '--train', '300']
    monkeypatch.setattr(sys, 'argv', ['generation.py', *map(str, paths), *options])
    runpy.run_path(str(FOLDER / 'generation.py'), run_name='__main__')
    lines = capsys.readouterr().out.splitlines()
    found = {
        name: float(ratio) for name, ratio in re.findall(r'^(.+?)  .* ([\d.]+) x ', '\n'.join(lines), re.MULTILINE)
    }
    assert found['test images'] == 1.0 < found['noise, decoded']
    assert any(line.startswith('guidance 2 ') for line in lines)
