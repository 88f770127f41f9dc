# SPDX-License-Identifier: Apache-2.0
"""Linear segmentation from the command line."""

import json

import numpy as np
import pytest
from PIL import Image

from ldae.cli import run_tool

GREYS = np.array([40, 130, 230])


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Grey rectangles that cover whole patches of 7 pixels, by brightness."""
    root, rng = tmp_path_factory.mktemp('shapes'), np.random.default_rng(0)
    for split, count in dict(train=24, val=8).items():
        for kind in ('images', 'masks'):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = rng.integers(0, 3, (4, 4)).repeat(14, 0).repeat(14, 1).astype(np.uint8)
            image = (GREYS[mask] + rng.normal(0, 5, mask.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / 'images' / split / f'{i}.png')
            Image.fromarray(mask).save(root / 'masks' / split / f'{i}.png')
    return root


@pytest.fixture(scope='module')
def segmented(small_checkpoint, shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp('segment')
    options = ['--data-root', str(shapes), '--epochs', '5', '--lrs', '0.01', '0.1']
    assert run_tool('segment', [str(small_checkpoint), *options, '--work-dir', str(folder)]) == 0
    return folder


def test_the_table_the_page_and_the_picture_are_written(segmented):
    content = json.loads((segmented / 'segmentation.json').read_text())
    assert content['miou'] > content['constant_miou'] + 20
    assert [one['value'] for one in content['classes']] == [0, 1, 2]
    assert content['miou'] == pytest.approx(np.mean([one['iou'] for one in content['classes']]), abs=0.01)
    assert sum(one['share'] for one in content['classes']) == pytest.approx(1, abs=1e-3)
    assert content['size'] == [28, 28]
    assert content['grid'] == [4, 4]
    assert content['options']['lrs'] == [0.01, 0.1]
    assert content['held_out_miou'] == max(one['held_out_miou'] for one in content['tried'])
    page = (segmented / 'segmentation.md').read_text()
    assert f'| mean |  | {content["miou"]:.1f} |' in page
    assert min(Image.open(segmented / 'segmentation.png').size) > 200


def test_features_are_used_again_while_nothing_has_changed(segmented, small_checkpoint, shapes):
    files = {path: path.stat().st_mtime_ns for path in (segmented / 'features').rglob('*.npy')}
    assert any('tokens_3' in path.name for path in files)
    before = (segmented / 'segmentation.json').read_text()
    options = ['--data-root', str(shapes), '--epochs', '5', '--lrs', '0.01', '0.1', '--force']
    assert run_tool('segment', [str(small_checkpoint), *options, '--work-dir', str(segmented)]) == 0
    assert files == {path: path.stat().st_mtime_ns for path in (segmented / 'features').rglob('*.npy')}
    one, other = json.loads(before), json.loads((segmented / 'segmentation.json').read_text())
    assert dict(one, seconds=0) == dict(other, seconds=0)


def test_mae_is_scored_after_any_block(shapes, tmp_path):
    options = [
        '--config',
        'ldae::mae/demo_fashion-mnist.py',
        '--data-root',
        str(shapes),
        '--epochs',
        '1',
        '--block',
        '2',
    ]
    assert run_tool('segment', [*options, '--work-dir', str(tmp_path)]) == 0
    assert json.loads((tmp_path / 'segmentation.json').read_text())['of'] == 'block 2'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--epochs', '0'], '--epochs=0'),
        (['--block', '9'], 'the encoder has blocks 1 to 3'),
        (['--timestep', '1000'], 'timesteps=1000 is out of range'),
        (['--classes', '2'], 'has value 2, but there are 2 classes'),
        (['--data-root', 'nowhere'], 'nowhere/images/train is not a folder'),
    ],
)
def test_wrong_options_are_one_clear_line(options, message, small_checkpoint, shapes, tmp_path, capsys):
    arguments = [str(small_checkpoint), '--data-root', str(shapes), '--work-dir', str(tmp_path / 's'), *options]
    assert run_tool('segment', arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_what_exists_is_kept_without_force_and_what_is_missing_is_said(segmented, small_checkpoint, shapes, capsys):
    arguments = [str(small_checkpoint), '--data-root', str(shapes), '--work-dir', str(segmented)]
    assert run_tool('segment', arguments) == 2
    assert 'pass --force' in capsys.readouterr().err
    assert run_tool('segment', [str(small_checkpoint)]) == 2
    assert '--data-root' in capsys.readouterr().err


def test_the_tokenizer_of_an_untrained_ldae_is_fitted_to_the_training_images(shapes, tmp_path):
    options = ['--config', 'ldae::ldae/demo_fashion-mnist.py', '--data-root', str(shapes), '--epochs', '1']
    assert run_tool('segment', [*options, '--work-dir', str(tmp_path)]) == 0
    content = json.loads((tmp_path / 'segmentation.json').read_text())
    assert content['checkpoint'] is None
    assert content['miou'] > 0
