# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from PIL import Image

from ldae.engine.watch import pictures
from ldae.engine.watch.pictures import DenoisingPicturesHook, LossCurveHook
from ldae.utils import ConfigError


def test_pictures_are_saved_at_the_interval_and_after_the_last_epoch(make_runner, make_dataloader, tmp_path):
    hook = DenoisingPicturesHook(2, num_images=3, timesteps=[10, 900], dataloader=make_dataloader(20, 'test'))
    make_runner([hook], epochs=3).train()
    assert sorted(path.name for path in (tmp_path / 'pictures').iterdir()) == ['epoch_2.png', 'epoch_3.png']
    assert Image.open(tmp_path / 'pictures' / 'epoch_3.png').size[0] > 300
    assert len(list(tmp_path.rglob('vis_image/denoising_*.png'))) == 2


def test_the_same_images_get_the_same_noise_each_time(make_runner, make_dataloader, monkeypatch):
    shown = []
    monkeypatch.setattr('ldae.generation.denoising.denoising_grid', lambda *args: shown.append(args))
    hook = DenoisingPicturesHook(1, 20, [500], dataloader=make_dataloader(50, 'test'))
    runner = make_runner([hook], epochs=1)
    runner.train_loop  # noqa: B018 (builds it)
    runner.model.tokenizer.fit([torch.rand(50, 1, 28, 28)])
    state = torch.get_rng_state()
    hook.picture(runner)
    hook.picture(runner)
    assert torch.equal(torch.get_rng_state(), state)
    (clean, noisy, _, timesteps, sigmas), again = shown
    assert clean.shape == (20, 1, 28, 28)
    assert torch.equal(clean, again[0])
    assert torch.equal(noisy[0], again[1][0])
    assert timesteps == (500,)
    assert sigmas == [pytest.approx(0.7078, abs=1e-3)]
    assert runner.model.training


def test_images_come_from_the_validation_data(make_runner, make_dataloader, tmp_path):
    val = dict(make_dataloader(4, 'test', with_label=False), sampler=dict(type='DefaultSampler', shuffle=False))
    hook = DenoisingPicturesHook(1, num_images=2, timesteps=[100])
    make_runner(
        [hook], epochs=1, val_dataloader=val, val_cfg=dict(), val_evaluator=dict(type='ldae.DenoisingMetric')
    ).train()
    assert (tmp_path / 'pictures' / 'epoch_1.png').is_file()


@pytest.mark.parametrize(
    ('loader', 'reason'), [(None, 'there is no validation data to show'), (dict(data_root='nowhere'), 'nowhere')]
)
def test_without_data_the_hook_is_left_out_in_one_line(loader, reason, make_runner, make_dataloader, tmp_path, capsys):
    dataloader = loader and make_dataloader(4, 'test', **loader)
    make_runner([DenoisingPicturesHook(1, dataloader=dataloader)], epochs=1).train()
    (line,) = [line for line in ''.join(capsys.readouterr()).splitlines() if 'DenoisingPicturesHook is' in line]
    assert 'DenoisingPicturesHook is left out: ' in line
    assert reason in line
    assert not (tmp_path / 'pictures').exists()


def test_pictures_show_different_classes(make_runner, make_dataloader, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, 'draw_denoising', lambda model, images, timesteps: shown.append(images))
    hook = DenoisingPicturesHook(1, 10, [500], dataloader=make_dataloader(200, 'test'))
    runner = make_runner([hook], epochs=1)
    hook.picture(runner)
    data = hook.dataloader.dataset
    first = [int((data.labels == label).nonzero()[0]) for label in range(10)]
    expected = runner.model.data_preprocessor(dict(inputs=data.images[first], data_samples=None), False)['inputs']
    assert torch.equal(shown[0], expected)


@pytest.mark.parametrize('option', ['interval', 'num_images'])
def test_bad_options_are_one_clear_line(option):
    with pytest.raises(ConfigError, match=f'DenoisingPicturesHook.{option}=0'):
        DenoisingPicturesHook(**{option: 0})


def test_the_loss_of_all_steps_is_drawn_at_the_interval_and_at_the_end(make_runner, tmp_path, monkeypatch):
    drawn = []
    draw = pictures.loss_curve
    monkeypatch.setattr(pictures, 'loss_curve', lambda *args: drawn.append(args) or draw(*args))
    make_runner([LossCurveHook(2)], epochs=3).train()
    assert [(len(losses), last) for losses, last in drawn] == [(4, 4), (6, 6)]
    assert Image.open(tmp_path / 'pictures' / 'loss.png').size[0] > 300
