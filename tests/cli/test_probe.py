# SPDX-License-Identifier: Apache-2.0
"""One checkpoint, scored from the command line; good input and bad."""

import gc
import json
import logging
import shutil
from pathlib import Path

import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from PIL import Image

from ldae.apis.probing import default_work_dir, learning_curves
from ldae.cli import run_tool
from ldae.config import load_config
from ldae.evaluation import knn_accuracies
from ldae.evaluation.cache import FeatureCache
from ldae.evaluation.probe import parse_blocks
from ldae.evaluation.probe_data import preprocessor_of
from ldae.utils import ConfigError

FEW = ['--max-train-images', '200', '--max-test-images', '60', '--epochs', '3', '--k', '5', '20']
MAE = ['--config', 'ldae::mae/demo_fashion-mnist.py']

# A user's own images, prepared for the demo's networks.
IMAGES = """
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(
        type='ldae.ImageFolder',
        data_root='ROOT',
        split='train',
        with_label=False,
        pipeline=[dict(type='RandomResizedCrop', scale=28)],
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(
        type='ldae.ImageFolder',
        data_root='ROOT',
        split='val',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile', color_type='COLOR'),
            dict(type='Resize', scale=(28, 28)),
            dict(type='PackInputs'),
        ],
    ),
)
"""


@pytest.fixture(scope='module')
def probed(small_checkpoint, tmp_path_factory) -> Path:
    """All blocks at two time steps, clean and noisy."""
    folder = tmp_path_factory.mktemp('probe')
    options = ['--blocks', 'all', '--timesteps', '10', '300', '--input', 'clean', 'noisy', *FEW]
    assert run_tool('probe', [str(small_checkpoint), *options, '--work-dir', str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def silent_old_handlers(monkeypatch: pytest.MonkeyPatch):
    """Log handlers that other tests have made write to streams that are closed, and complain of it in tracebacks."""
    monkeypatch.setattr(logging, 'raiseExceptions', False)


def error_of(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line that a wrong call of the tool ends in."""
    gc.collect()
    capsys.readouterr()  # what objects of other tests have said at their end
    assert run_tool('probe', list(map(str, arguments))) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('error: ')
    assert sum(line.startswith(('error', 'Traceback')) for line in lines) == 1
    return lines[-1]


def test_every_setting_has_its_scores_with_what_made_them(probed):
    content = json.loads((probed / 'probe.json').read_text())
    settings = [(row['block'], row['timestep'], row['input']) for row in content['results']]
    assert settings == [(b, t, kind) for b in (1, 2, 3) for t in (10, 300) for kind in ('clean', 'noisy')]
    for row in content['results']:
        assert list(row['knn']) == ['5', '20']
        assert all(0 <= value <= 100 for value in (*row['knn'].values(), row['linear']))
    assert content['data']['train_images'] == 200
    assert content['data']['test_images'] == 60
    assert {'features', 'knn', 'linear', 'pass_over_images'} == set(content['seconds'])
    assert {'ldae', 'torch'} <= set(content['versions'])
    assert content['checkpoint'].endswith('epoch_1.pth')


def test_neighbours_nobody_asked_for_are_as_many_as_there_are_images(small_checkpoint, tmp_path):
    limits = ['--max-train-images', '60', '--max-test-images', '30']
    assert run_tool('probe', [str(small_checkpoint), *limits, '--work-dir', str(tmp_path)]) == 0
    [row] = json.loads((tmp_path / 'probe.json').read_text())['results']
    assert list(row['knn']) == ['10', '20']


def test_the_scores_are_those_of_the_cached_features(probed):
    train, test = sorted(
        (FeatureCache(folder) for folder in (probed / 'features').iterdir()), key=lambda c: -c.num_images
    )
    for row in json.loads((probed / 'probe.json').read_text())['results'][-2:]:
        where = (row['block'], row['timestep'], row['input'] == 'noisy')
        scores = knn_accuracies(train.select(*where), train.labels, test.select(*where), test.labels, ks=(5, 20))
        assert row['knn'] == {str(k): round(value, 2) for k, value in scores.items()}


def test_the_appendix_tables_are_pictures(probed):
    for name in ('accuracy_over_timestep.png', 'accuracy_over_block.png'):
        assert min(Image.open(probed / name).size) > 100
    assert '| block | t | input | 5-NN | 20-NN | linear |' in (probed / 'probe.md').read_text()


def test_features_are_used_again_and_pictures_of_another_probe_go(probed, small_checkpoint, tmp_path, capsys):
    shutil.copytree(probed, tmp_path / 'probe')
    files = {path: path.stat().st_mtime_ns for path in (probed / 'features').rglob('*.npy')}
    options = ['--timesteps', '300', '--work-dir', tmp_path / 'probe', '--cache', probed / 'features', *FEW]
    assert run_tool('probe', list(map(str, [small_checkpoint, *options, '--force']))) == 0
    assert files == {path: path.stat().st_mtime_ns for path in (probed / 'features').rglob('*.npy')}
    assert not (tmp_path / 'probe' / 'accuracy_over_block.png').exists()
    out = capsys.readouterr().out
    assert ' 300  clean ' in out
    assert f'Wrote probe.json, probe.md to {tmp_path / "probe"}' in out


def test_what_exists_is_kept_without_force(probed, small_checkpoint, capsys):
    assert 'pass --force' in error_of(capsys, small_checkpoint, '--work-dir', probed)


def test_mae_is_probed_at_no_time_step(tmp_path, capsys):
    assert run_tool('probe', [*MAE, *FEW, '--blocks', '1-3', '--work-dir', str(tmp_path)]) == 0
    assert '3  -  clean' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--blocks', '2-4'], 'the encoder has blocks 1 to 3'),
        (['--blocks', '0'], 'the encoder has blocks 1 to 3'),
        (['--blocks', '3-2'], 'blocks 3-2'),
        (['--timesteps', '1000'], 'timesteps=1000 is out of range'),
        (['--k', '300'], 'only 200 training images'),
        (['--k', '0'], '--k[0]=0'),
        (['--epochs', '0'], '--epochs=0'),
        (['--config', 'ldae::mae/demo_fashion-mnist.py'], 'epoch_1.pth'),
        (['--config', 'ldae/demo_fashion-mnst'], "did you mean 'ldae/demo_fashion-mnist'"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message, small_checkpoint, tmp_path, capsys):
    assert message in error_of(capsys, small_checkpoint, *FEW, '--work-dir', tmp_path / 'p', *options)
    assert not (tmp_path / 'p').exists()


@pytest.mark.parametrize(
    ('options', 'message'), [(['--timesteps', '10'], 'has no time step'), (['--input', 'noisy'], 'adds no noise')]
)
def test_mae_has_neither_time_nor_noise(options, message, tmp_path, capsys):
    assert message in error_of(capsys, *MAE, *FEW, '--work-dir', tmp_path / 'p', *options)


def test_nothing_to_score_is_one_clear_line(capsys):
    assert 'name a checkpoint' in error_of(capsys)
    assert '--data' in error_of(capsys, '--model', 'timm::resnet10t')


def test_files_that_are_no_checkpoint_of_ours_are_one_clear_line(tmp_path, capsys):
    text, foreign = tmp_path / 'text.pth', tmp_path / 'foreign.pth'
    text.write_text('not a checkpoint')
    torch.save(dict(weights=torch.ones(1)), foreign)
    assert 'text.pth' in error_of(capsys, text)
    assert 'foreign.pth' in error_of(capsys, foreign)
    assert 'does not exist' in error_of(capsys, tmp_path / 'nothing.pth')


def test_features_that_are_not_finite_are_one_clear_line(small_checkpoint, tmp_path, capsys):
    content = torch.load(small_checkpoint, weights_only=True)
    content['state_dict']['backbone.patch_embed.projection.weight'].fill_(float('nan'))
    torch.save(content, tmp_path / 'nan.pth')
    assert 'NaN' in error_of(capsys, tmp_path / 'nan.pth', *FEW, '--work-dir', tmp_path / 'p')


@pytest.fixture
def own_images(tiny_image_folder, tmp_path) -> list[str]:
    """Options that score an untrained MAE on a folder of images."""
    config = tmp_path / 'images.py'
    config.write_text(IMAGES.replace('ROOT', str(tiny_image_folder)).replace("'COLOR'", "'grayscale'"))
    return [*MAE, '--data', str(config), '--k', '3', '--epochs', '2', '--work-dir', str(tmp_path / 'p')]


def test_own_images_are_read_with_labels_and_without_augmentation(own_images):
    assert run_tool('probe', own_images) == 0


def test_a_class_without_test_images_is_one_clear_line(own_images, tiny_image_folder, capsys):
    for path in (tiny_image_folder / 'val' / 'b').iterdir():
        path.unlink()
    assert 'no image of class [1]' in error_of(capsys, *own_images)
    shutil.rmtree(tiny_image_folder / 'val' / 'b')
    assert "['b'] is in one of them only" in error_of(capsys, *own_images)


def test_a_class_without_training_images_is_one_clear_line(own_images, tiny_image_folder, capsys):
    for path in (tiny_image_folder / 'train' / 'b').iterdir():
        path.unlink()
    assert 'no training image of class [1]' in error_of(capsys, *own_images)


def test_unlabelled_images_are_one_clear_line(own_images, tiny_image_folder, capsys):
    for path in tiny_image_folder.glob('*/*/*.jpg'):
        path.rename(path.parents[1] / f'{path.parent.name}{path.name}')
    for folder in tiny_image_folder.glob('*/*/'):
        folder.rmdir()
    assert 'label' in error_of(capsys, *own_images)


def test_images_that_the_model_cannot_take_are_one_clear_line(own_images, tmp_path, capsys):
    config = Path(own_images[own_images.index('--data') + 1])
    config.write_text(config.read_text().replace('(28, 28)', '(35, 35)').replace("'grayscale'", "'color'"))
    assert "can't take these images" in error_of(capsys, *own_images)


def test_models_of_timm_see_images_as_timm_says():
    model = timm.create_model('vit_tiny_patch16_224.augreg_in21k_ft_in1k', num_classes=0)
    data = load_config('ldae::benchmarks/mae_vit-b_linear.py')
    init_default_scope('mmpretrain')
    preprocess = preprocessor_of(model, data)
    bgr = torch.tensor([255.0, 127.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    # This one's mean and deviation are 0.5 of the range.
    seen = preprocess(dict(inputs=bgr, data_samples=[DataSample()]))['inputs']
    torch.testing.assert_close(seen[0, :, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ('words', 'numbers'),
    [(['all'], [1, 2, 3, 4]), (['-1'], [4]), (['2-3', '1'], [1, 2, 3]), (['4', '-1'], [4]), (['-4'], [1])],
)
def test_blocks_are_numbers_ranges_or_all(words, numbers):
    assert parse_blocks(words, 4) == numbers


def test_blocks_of_a_decoder_count_on():
    assert parse_blocks(['all', 'decoder'], 2, 3) == [1, 2, 3, 4, 5]
    assert parse_blocks(['-1', 'd1', 'd3'], 2, 3) == [2, 3, 5]
    for word in ('d4', 'd0', '3', '1-3'):
        with pytest.raises(ConfigError, match='blocks'):
            parse_blocks([word], 2, 3)
    with pytest.raises(ConfigError, match='blocks decoder: give numbers'):
        parse_blocks(['decoder'], 4)


@pytest.mark.parametrize('word', ['5', '-5', '0', '1-9', 'x', '2.5'])
def test_unknown_blocks_are_refused(word):
    with pytest.raises(ConfigError, match='blocks'):
        parse_blocks([word], 4)


def test_each_checkpoint_has_a_work_dir_of_its_own():
    assert default_work_dir('runs/vit-b_pca/epoch_4.pth', None) == 'work_dirs/probe/vit-b_pca_epoch_4'
    assert default_work_dir('road/t3_5/seed0/epoch_4.pth', None) == 'work_dirs/probe/t3_5_seed0_epoch_4'
    assert default_work_dir(None, 'timm::vit_tiny') == 'work_dirs/probe/timm_vit_tiny'


def test_classes_that_a_limit_leaves_out_are_said_before_the_pass(monkeypatch, small_checkpoint, tmp_path, capsys):
    passes = []
    monkeypatch.setattr('ldae.evaluation.probe.cache_features', lambda *args, **options: passes.append(args))
    line = error_of(capsys, small_checkpoint, *FEW, '--max-train-images', 9, '--work-dir', tmp_path, '--k', 1)
    assert '9 leaves no image of some of the 10 classes' in line
    assert not passes


def test_a_class_that_training_lacks_is_said_before_the_pass(monkeypatch, own_images, tiny_image_folder, capsys):
    passes = []
    monkeypatch.setattr('ldae.evaluation.probe.cache_features', lambda *args, **options: passes.append(args))
    for path in (tiny_image_folder / 'train' / 'b').iterdir():
        path.unlink()
    assert 'no training image of class [1]' in error_of(capsys, *own_images)
    assert not passes


def test_several_checkpoints_give_curves_over_their_epochs(small_checkpoint, tmp_path, capsys):
    files = [tmp_path / 'row' / 'seed0' / f'epoch_{epoch}.pth' for epoch in (4, 12)]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.write_bytes(small_checkpoint.read_bytes())
    command = [str(file) for file in reversed(files)] + [*FEW, '--work-dir', str(tmp_path / 'curves')]
    assert run_tool('probe', command) == 0
    assert 'row_seed0: 4: ' in capsys.readouterr().out
    curves = json.loads((tmp_path / 'curves' / 'curves.json').read_text())
    assert list(curves) == ['row_seed0']
    assert [point['epoch'] for point in curves['row_seed0']] == [4, 12]
    alone = json.loads((tmp_path / 'curves' / 'row_seed0_epoch_12' / 'probe.json').read_text())
    assert curves['row_seed0'][1]['linear'] == alone['results'][0]['linear']
    assert (tmp_path / 'curves' / 'curves.png').is_file()
    assert 'pass --force' in error_of(capsys, *command)
    with pytest.raises(ConfigError, match='names end in their epoch'):
        learning_curves([small_checkpoint.with_name('last.pth')], tmp_path / 'none')


@pytest.mark.parametrize('tool', ['probe', 'bound'])
def test_a_checkpoint_that_is_missing_is_said_before_the_first_is_scored(tool, small_checkpoint, tmp_path, capsys):
    file, missing = tmp_path / 'run' / 'epoch_4.pth', tmp_path / 'run' / 'epoch_8.pth'
    file.parent.mkdir()
    file.write_bytes(small_checkpoint.read_bytes())
    assert run_tool(tool, [str(file), str(missing), '--work-dir', str(tmp_path / 'out')]) == 2
    assert f"checkpoint '{missing}' does not exist" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_folders_of_encoders_give_curves_too_and_a_folder_of_a_run_its_newest_checkpoint(
    small_checkpoint, tmp_path, capsys, monkeypatch
):
    asked = []
    monkeypatch.setattr('ldae.apis.probing.probe', lambda path, **_: asked.append(path) or StopIteration)
    for number in (8, 4):
        (tmp_path / f'vit_{number}').mkdir()
    with pytest.raises(AttributeError):  # of what stands for the first scores
        learning_curves([tmp_path / 'vit_8', tmp_path / 'vit_4'], tmp_path / 'curves')
    assert asked == [tmp_path / 'vit_4']
    assert run_tool('bound', [str(small_checkpoint.parent), '--work-dir', str(tmp_path / 'out')]) == 2
    assert 'is a folder: name a .pth file' in capsys.readouterr().err
