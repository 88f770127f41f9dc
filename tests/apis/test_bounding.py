# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import ldae
from ldae.cli import run_tool
from ldae.utils import ConfigError

FEW = ['--levels', '3', '--max-train-images', '600', '--max-test-images', '20']


def test_table_and_figure_are_written_and_not_overwritten(small_checkpoint: Path, tmp_path: Path, capsys):
    command = [str(small_checkpoint), *FEW, '--work-dir', str(tmp_path)]
    assert run_tool('bound', command) == 0
    out = capsys.readouterr().out
    assert 'OriginalImageHead, the linear denoiser is of whole images' in out
    folder = tmp_path / f'{small_checkpoint.parent.name}_epoch_1'
    found = json.loads((folder / 'bound.json').read_text())
    assert [row['timestep'] for row in found['rows']] == [0, 500, 999]
    assert (found['train_images'], found['test_images']) == (600, 20)
    assert all(0 < row['linear'] < row['model'] for row in found['rows'])
    assert (folder / 'bound.md').read_text().count('\n| ') == 4
    assert (folder / 'bound.png').is_file()
    assert run_tool('bound', command) == 2
    assert 'pass --force' in capsys.readouterr().err


def test_from_python_a_model_will_do_and_nothing_is_written(small_ldae, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = ldae.bound(small_ldae, timesteps=[300, 10], max_train_images=50, max_test_images=10)
    assert [row.timestep for row in found.rows] == [10, 300]
    assert not found.whole  # 50 images are too few for a covariance of 128 numbers
    assert len(found.figure().axes[0].lines) == 3
    assert not [*tmp_path.iterdir()]
    assert ldae.figures(small_ldae, ['bound'], timesteps=[10, 600])['bound'].axes


def test_images_without_labels_will_do(small_ldae, tiny_image_folder: Path):
    read = dict(type='LoadImageFromFile', color_type='grayscale')
    steps = [read, dict(type='Resize', scale=(28, 28)), dict(type='PackInputs')]
    flat = dict(data_root=str(tiny_image_folder / 'train' / 'a'), held_out=0.25, with_label=False, pipeline=steps)
    loaders = {
        f'{split}_dataloader': dict(
            batch_size=4, num_workers=0, dataset=dict(flat, type='ldae.ImageFolder', split=split)
        )
        for split in ('train', 'val')
    }
    found = ldae.bound(small_ldae, data=Config(loaders), timesteps=[10])
    assert found.images == dict(train_images=6, test_images=2)


@pytest.mark.parametrize(
    ('model', 'options', 'message'),
    [
        (None, dict(timesteps=[1000]), r'--t 1000 ... 1000: time steps are 0 to 999'),
        (torch.nn.Identity(), {}, 'Identity takes no noise out'),
    ],
)
def test_what_has_no_bound_is_one_line(model, options, message, small_ldae):
    with pytest.raises(ConfigError, match=message):
        ldae.bound(model or small_ldae, **options)
