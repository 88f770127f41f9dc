# SPDX-License-Identifier: Apache-2.0
"""The tools in one process, on a handful of images."""

import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import ldae
from ldae.cli import run_tool
from ldae.utils.locks import LOCK_FILE, claimed

TINY = """
_base_ = 'ldae::ldae/vit-b_pca.py'
size = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
model = dict(
    tokenizer=dict(img_size=32, patch_size=8, latent_dim=8),
    backbone=dict(arch=dict(_delete_=True, **size)),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=32, edge='short'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
loader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=pipeline))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    path = tmp_path / 'tiny.py'
    path.write_text(TINY)
    return path


def test_train_resume_and_test(
    tiny_config: Path, tiny_image_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
):
    work = str(tmp_path / 'work')
    common = [str(tiny_config), '--data-root', str(tiny_image_folder), '--work-dir', work]
    assert run_tool('train', [*common, '--amp']) == 0
    out = ''.join(capfd.readouterr())
    assert 'batch 1 x 4 x 1 = 4 of 2048: lr 0.0008 -> 1.56e-06' in out
    assert '16 images; 4 steps; 1 x cpu' in out or torch.cuda.is_available()

    assert run_tool('train', [*common, '--resume', '--cfg-options', 'train_cfg.max_epochs=2']) == 0
    assert 'resumed epoch: 1' in ''.join(capfd.readouterr())
    assert (tmp_path / 'work' / 'epoch_2.pth').is_file()

    metrics = tmp_path / 'metrics.json'
    args = [str(tiny_config), f'{work}/epoch_2.pth', *common[1:], '--out', str(metrics), '--out-item', 'metrics']
    assert run_tool('test', args) == 0
    assert json.loads(metrics.read_text())['denoising/psnr'] > 0


def test_a_work_dir_that_another_run_has_is_left_alone(
    tiny_config: Path, tiny_image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    work = tmp_path / 'work'
    args = [str(tiny_config), '--data-root', str(tiny_image_folder), '--work-dir', str(work)]
    with claimed(work):
        before = sorted(work.iterdir())
        assert run_tool('train', args) == 2
        assert sorted(work.iterdir()) == before
    assert f'{work} is in use by process {os.getpid()} on ' in capsys.readouterr().err
    assert run_tool('train', args) == 0
    assert not (work / LOCK_FILE).exists()


def test_a_folder_in_imagenets_annotated_layout(tiny_config: Path, tiny_annotated_folder: Path, tmp_path: Path):
    args = ['--cfg-options', f'data_root={tiny_annotated_folder}', '--work-dir', str(tmp_path / 'work')]
    assert run_tool('train', [str(tiny_config), *args]) == 0


def test_a_non_image_stops_with_its_name(
    tiny_config: Path, tiny_image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tiny_image_folder / 'train' / 'b' / '1.jpg').write_text('hello')
    args = ['--data-root', str(tiny_image_folder), '--work-dir', str(tmp_path / 'work')]
    assert run_tool('train', [str(tiny_config), *args]) == 2
    assert 'b/1.jpg is not a readable image' in capsys.readouterr().err


def test_a_batch_is_no_larger_than_the_data_and_a_warm_up_no_shorter_than_said(
    tiny_config: Path, tiny_image_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
):
    args = ['--data-root', str(tiny_image_folder), '--work-dir', str(tmp_path / 'work')]
    args += ['--cfg-options', 'train_dataloader.batch_size=17']
    assert run_tool('train', [str(tiny_config), *args]) == 0
    out = ''.join(capfd.readouterr())
    assert 'Batch 16 a process, not 17: there are no more images' in out
    assert ', but 16 a process' in (tmp_path / 'work' / tiny_config.name).read_text()  # for reports
    assert 'Warm-up takes 100 epochs, the run 1: --epochs 1 fits one to the other' in out
    assert run_tool('train', [str(tiny_config), *args[:-2], '--epochs', '2', '--batch-size', '5', '--force'][:-1]) == 0
    out = ''.join(capfd.readouterr())
    assert '1 of 16 images are left out of each epoch' in out
    assert 'Warm-up' not in out


def test_fit_pca(tiny_config: Path, tiny_image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out, figure = tmp_path / 'pca.pth', tmp_path / 'filters.png'
    args = [str(tiny_config), '--data-root', str(tiny_image_folder), '--out', str(out), '--figure', str(figure)]
    assert run_tool('fit-pca', [*args, '--num-images', '10']) == 0
    assert '8 of 192 dimensions a patch keep' in capsys.readouterr().out
    assert figure.stat().st_size > 1000
    assert torch.load(out, weights_only=True)
    options = ['--cfg-options', f'model.tokenizer.checkpoint={out}', '--work-dir', str(tmp_path / 'work')]
    assert run_tool('train', [str(tiny_config), '--data-root', str(tiny_image_folder), *options]) == 0


def test_fit_pca_needs_a_tokenizer(capsys: pytest.CaptureFixture, tiny_image_folder: Path, tmp_path: Path):
    args = ['ldae::mae/vit-b_400e.py', '--data-root', str(tiny_image_folder), '--out', str(tmp_path / 'pca.pth')]
    assert run_tool('fit-pca', args) == 2
    assert 'has no model.tokenizer' in capsys.readouterr().err


def test_a_config_without_our_hooks_can_be_tested_too(tiny_image_folder: Path, tmp_path: Path):
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    head = (dict(type='GlobalAveragePooling'), dict(type='LinearClsHead', num_classes=2, in_channels=64, topk=(1,)))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
    dataset = dict(type='ImageNet', data_root='data', split='val', metainfo=dict(classes='ab'), pipeline=pipeline)
    loader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
    fields = dict(
        default_scope='mmpretrain',
        model=dict(type='ImageClassifier', backbone=backbone, neck=head[0], head=head[1]),
        data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=2),
        train_dataloader=loader,
        test_dataloader=loader,
        test_evaluator=dict(type='Accuracy', topk=(1,)),
        test_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
    )
    config, work = tmp_path / 'resnet.py', tmp_path / 'work'
    Config(fields).dump(config)
    common = ['--data-root', str(tiny_image_folder), '--work-dir', str(work)]
    assert run_tool('train', [str(config), *common]) == 0
    out = tmp_path / 'predictions.pkl'
    args = [str(config), str(work / 'epoch_1.pth'), *common, '--tta', '--amp', '--out', str(out)]
    assert run_tool('test', args) == 0
    assert out.is_file()


def test_a_loader_that_is_read_later_is_tried_before_training(tiny_config, tiny_image_folder, tmp_path, capsys):
    tiny_config.write_text(
        TINY + 'test_dataloader = dict(_delete_=True, **loader)\n'
        "test_dataloader['dataset'] = dict(type='ldae.ImageFolder', data_root='data/imagenet', pipeline=["
        "dict(type='LoadImageFromFile'), dict(type='Resize', scale=(48, 48)), dict(type='PackInputs')])\n"
    )
    args = [str(tiny_config), '--data-root', str(tiny_image_folder), '--work-dir', str(tmp_path / 'work')]
    assert run_tool('train', args) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('error: test_dataloader: tokenizer PatchPCATokenizer is set for images of')
    assert 'gives (3, 48, 48)' in line


def test_grey_images_of_ones_own_are_trained_and_scored(tiny_config, tiny_image_folder, tmp_path):
    tiny_config.write_text(
        TINY.replace("'LoadImageFromFile'", "'LoadImageFromFile', color_type='grayscale'")
        + 'model.update(tokenizer=dict(img_size=32, patch_size=8, latent_dim=8, in_channels=1))\n'
        + 'data_preprocessor = dict(mean=[118.0], std=[60.0], to_rgb=False)\n'
    )
    run = ldae.train(tiny_config, data_root=str(tiny_image_folder), work_dir=str(tmp_path / 'work'))
    for kind in ('linear', 'finetune'):
        options = dict(work_dir=str(tmp_path / kind), epochs=2)
        assert ldae.benchmark(kind, str(run.checkpoint), **options)['classes'] == 2
    assert run.encoder(torch.zeros(1, 1, 32, 32)).shape == (1, 16)


def test_a_checkpoint_with_a_stale_test_loader_is_read_by_one_that_fits(tiny_config, tiny_image_folder, tmp_path):
    """What was trained before loaders were tried: validation at 32 px, tests still at 256."""
    options = dict(data_root=str(tiny_image_folder), work_dir=str(tmp_path / 'work'))
    ldae.train(str(tiny_config), **options)
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    content = torch.load(checkpoint, weights_only=True)
    cfg = ldae.load_config_of(checkpoint)
    cfg.test_dataloader.dataset.pipeline = ldae.get_model('ldae/vit-b_pca')._config.test_dataloader.dataset.pipeline
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, checkpoint)
    assert ldae.FeatureExtractor(checkpoint=checkpoint)(tiny_image_folder / 'val').shape == (8, 16)


def test_a_notebook_calls_what_the_tools_call(tiny_config: Path, tiny_image_folder: Path, tmp_path: Path):
    options = dict(data_root=str(tiny_image_folder), work_dir=str(tmp_path / 'work'))
    runner = ldae.train(str(tiny_config), {'randomness.seed': 3}, **options)
    assert (runner.iter, runner.seed) == (4, 3)
    out = tmp_path / 'metrics.json'
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    metrics = ldae.evaluate(tiny_config, checkpoint, out=str(out), out_item='metrics', **options)
    assert json.loads(out.read_text()) == pytest.approx(metrics)
    logged = runner.message_hub.get_scalar('val/denoising/psnr').current()
    assert metrics['denoising/psnr'] == pytest.approx(logged, abs=1e-4)
