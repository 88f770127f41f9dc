# SPDX-License-Identifier: Apache-2.0
"""What a training gives back in Python."""

import json
import multiprocessing
import signal
from pathlib import Path

import pytest
import torch

import ldae
from ldae.launch.training import Run

CONFIG = """
_base_ = 'ldae::ldae/vit-b_pca.py'
arch = dict(_delete_=True, embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
model = dict(tokenizer=dict(img_size=24, patch_size=6, latent_dim=4), backbone=dict(arch=arch))
train_dataloader = dict(batch_size=4, num_workers=1)
val_dataloader = dict(batch_size=4, num_workers=1)
train_cfg = dict(max_epochs=2, val_interval=1)
auto_scale_lr = dict(base_batch_size=4)
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'mine.py'
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(config, tiny_image_folder, tmp_path) -> Run:
    return ldae.train(config, data_root=str(tiny_image_folder), work_dir=str(tmp_path / 'work'))


def test_the_encoder_is_a_plain_module_with_the_features_of_the_checkpoint(run, tiny_image_folder):
    images = torch.randn(3, 3, 24, 24)
    with torch.no_grad():
        features = run.encoder(images)
    assert type(run.encoder).__module__.startswith('timm.')
    trained = ldae.get_model(checkpoint=run.checkpoint, device='cpu')
    with torch.no_grad():
        wanted = trained.extract_feat(images)[-1].mean(dim=1)
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)
    again = ldae.FeatureExtractor(checkpoint=run.checkpoint, device='cpu')(tiny_image_folder / 'val')
    torch.testing.assert_close(run.features(tiny_image_folder / 'val'), again)


def test_curves_have_every_step_and_the_metrics_of_every_validation(run):
    loss, lr, psnr = (run.curves[name] for name in ('loss', 'lr', 'denoising/psnr'))
    assert loss.steps == lr.steps == list(range(1, 9))
    assert lr.values[0] < lr.values[-1]  # warm-up
    assert psnr.steps == [4, 8]
    logged = [json.loads(line) for path in run.work_dir.glob('*/vis_data/scalars.json') for line in path.open()]
    assert [line['denoising/psnr'] for line in logged if 'denoising/psnr' in line] == pytest.approx(psnr.values)


def test_a_run_that_goes_on_has_the_steps_of_both(run, config, tiny_image_folder):
    options = dict(data_root=str(tiny_image_folder), work_dir=str(run.work_dir), resume='auto')
    more = ldae.train(config, {'train_cfg.max_epochs': 3}, **options)
    assert more.curves['lr'].steps[-1] == more.iter == 12
    assert more.curves['loss'].values[:8] == pytest.approx(run.curves['loss'].values)
    assert more.curves['denoising/psnr'].steps[-1] == 12


def test_a_process_trains_twice_and_is_left_as_it_was(config, tiny_image_folder, tmp_path):
    before, children = [signal.getsignal(number) for number in SIGNALS], set(multiprocessing.active_children())
    options = dict(data_root=str(tiny_image_folder))
    runs = [ldae.train(config, work_dir=str(tmp_path / name), **options) for name in ('one', 'two')]
    assert runs[0].curves['loss'].values == runs[1].curves['loss'].values
    assert [run.checkpoint for run in runs] == [tmp_path / name / 'epoch_2.pth' for name in ('one', 'two')]
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert set(multiprocessing.active_children()) == children


def test_the_runner_is_at_hand_and_a_run_says_what_it_is(run):
    assert (run.epoch, run.runner.iter, run.seed) == (2, 8, 0)
    assert run.model.tokenizer.is_fitted
    assert repr(run).startswith('Run(8 steps, loss ')
    assert repr(run).endswith('work/epoch_2.pth)')
    assert not hasattr(run, 'nonsense')
