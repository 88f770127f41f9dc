# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ldae
from ldae.cli import run_tool
from ldae.generation.denoising import Denoised, denoising_figure, interpolate
from ldae.models import LDAE
from ldae.utils import ConfigError


@pytest.fixture
def picture(tmp_path: Path, rgb: np.ndarray) -> Path:
    path = tmp_path / 'pictures' / 'a.png'
    path.parent.mkdir()
    Image.fromarray(rgb).save(path)
    return path


def test_a_picture_is_given_as_the_model_sees_it_with_noise_and_without(small_ldae: LDAE, picture: Path):
    result = ldae.denoise(small_ldae, picture, t=300)
    assert isinstance(result, Denoised)
    square = Image.open(picture).convert('L').resize((35, 28), Image.Resampling.BICUBIC).crop((4, 0, 32, 28))
    assert np.array_equal(result.clean[0], np.asarray(square))
    for images in result:
        assert images.shape == (1, 28, 28)
        assert images.dtype == np.uint8
        Image.fromarray(images[0])


def test_the_images_are_those_of_the_model(small_ldae: LDAE, picture: Path):
    result = ldae.denoise(small_ldae, picture, t=300, seed=5)
    inputs = small_ldae.data_preprocessor(dict(inputs=torch.from_numpy(result.clean)[:, None], data_samples=None))[
        'inputs'
    ]
    for own, given in zip(small_ldae.denoise(inputs, 300, torch.Generator().manual_seed(5)), result, strict=True):
        assert np.array_equal(small_ldae.to_pixels(own).round().byte()[:, 0].numpy(), given)


def test_noise_follows_from_the_seed_alone(small_ldae: LDAE, picture: Path, rgb: np.ndarray):
    alone = ldae.denoise(small_ldae, picture, t=200)
    together = ldae.denoise(small_ldae, [rgb[::-1].copy(), picture, picture], t=200)
    assert np.array_equal(together.noisy[1], alone.noisy[0])
    assert np.array_equal(together.denoised[2], alone.denoised[0])
    assert not np.array_equal(ldae.denoise(small_ldae, picture, t=200, seed=1).noisy, alone.noisy)


def test_more_noise_is_further_from_the_clean_image(small_ldae: LDAE, picture: Path):
    errors = []
    for t in (0, 300, 900):
        clean, noisy, _ = ldae.denoise(small_ldae, picture, t=t)
        errors.append(np.abs(clean.astype(float) - noisy).mean())
    assert errors == sorted(errors)


def test_colours_keep_their_order(rgb: np.ndarray):
    options = {'model.backbone.arch': 'deit-tiny', 'model.tokenizer.latent_dim': 768}
    model = ldae.get_model('ldae/vit-b_pca', cfg_options=options, device='cpu')
    model.tokenizer.fit([torch.randn(16, 3, 256, 256)])
    red = np.zeros((256, 256, 3), np.uint8)
    red[..., 0] = 200
    clean, noisy, denoised = ldae.denoise(model, red, t=0)
    assert np.array_equal(clean[0], red)
    assert noisy.shape == denoised.shape == (1, 256, 256, 3)
    assert np.abs(noisy[0].astype(int) - red).mean() < 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(t=1000), 'denoise.t=1000'),
        (dict(t=-1), 'denoise.t=-1'),
        (dict(t=1, seed=-1), 'denoise.seed=-1'),
        (dict(t=1, images=[]), 'no images'),
        (dict(t=1, model='mae/demo_fashion-mnist'), 'MAE adds no noise: give a pre-trained l-DAE'),
        (dict(t=1, model='ldae/demo_fashion-mnist'), 'not fitted'),
    ],
)
def test_what_cannot_be_denoised_is_one_line(small_ldae: LDAE, rgb: np.ndarray, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        ldae.denoise(**dict(dict(model=small_ldae, images=rgb), **options))


def test_a_figure_shows_the_first_images(small_ldae: LDAE, rgb: np.ndarray):
    figure = denoising_figure(small_ldae, (rgb for _ in range(100)), [100, 600], limit=2)
    assert [axes.get_title().split('\n')[0].split(',')[0] for axes in figure.axes] == ['clean', 't = 100', 't = 600']


def test_the_command_draws_a_picture(small_checkpoint: Path, picture: Path, tmp_path: Path, capsys):
    out = tmp_path / 'new' / 'triplets.png'
    arguments = [
        str(small_checkpoint), str(picture), str(picture.parent), '--t', '100', '300', '--out', str(out),
        '--device', 'cpu',
    ]  # fmt: skip
    assert run_tool('denoise', arguments) == 0
    assert str(out) in capsys.readouterr().out
    first = out.read_bytes()
    with Image.open(out) as drawn:
        assert drawn.width > drawn.height > 50
    assert run_tool('denoise', arguments) == 2
    assert '--force' in capsys.readouterr().err
    assert run_tool('denoise', [*arguments, '--force']) == 0
    assert out.read_bytes() == first
    assert [path.name for path in out.parent.iterdir()] == ['triplets.png']


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(checkpoint='nowhere.pth'), "'nowhere.pth' does not exist"),
        (dict(images='nowhere.png'), 'nowhere.png does not exist'),
        (dict(t='1000'), 't=1000 is out of range'),
        (dict(out='picture.docx'), '--out'),
        (dict(number='0'), '--num-images'),
    ],
)
def test_bad_input_of_the_command_is_one_line(
    changed: dict, message: str, small_checkpoint: Path, picture: Path, tmp_path: Path, capsys
):
    given = dict(
        dict(checkpoint=small_checkpoint, images=picture, t='10', out=tmp_path / 'x.png', number='8'), **changed
    )
    assert (
        run_tool(
            'denoise',
            [str(given['checkpoint']), str(given['images']), '--t', given['t'], '--out', str(given['out'])]
            + ['--num-images', given['number'], '--device', 'cpu'],
        )
        == 2
    )
    err = capsys.readouterr().err
    assert err.startswith('error: ')
    assert err.count('\n') == 1
    assert message in err
    assert not (tmp_path / 'x.png').exists()


def test_products_are_rounded_to_the_precision(small_ldae: LDAE, picture: Path):
    exact = ldae.denoise(small_ldae, picture, t=300, precision='fp32')
    rounded = ldae.denoise(small_ldae, picture, t=300, precision='bf16')
    assert np.array_equal(exact.noisy, rounded.noisy)
    assert not np.array_equal(exact.denoised, rounded.denoised)
    assert np.abs(exact.denoised.astype(int) - rounded.denoised).mean() < 2


class TestSteps:
    @pytest.fixture(scope='class')
    def model(self, small_model) -> LDAE:
        return small_model('CleanLatentHead', 'linear_gamma_sq')

    def test_a_single_step_is_what_is_predicted_at_once(self, model: LDAE, picture: Path):
        """One step from any level of a network that predicts clean latents is its prediction."""
        once, stepped = (ldae.denoise(model, picture, t=600, sampler='ddim', steps=steps) for steps in (None, 1))
        assert np.array_equal(once.noisy, stepped.noisy)
        assert np.abs(once.denoised.astype(int) - stepped.denoised.astype(int)).max() <= 1

    @pytest.mark.parametrize('sampler', ['ddpm', 'dpm++'])
    def test_many_steps_follow_from_the_seed(self, sampler: str, model: LDAE, picture: Path):
        first, again, other = (
            ldae.denoise(model, picture, t=600, steps=10, sampler=sampler, seed=seed).denoised for seed in (1, 1, 2)
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_an_interpolation_ends_in_the_two_images(self, model: LDAE):
        """As each of them, noised and denoised alone with the same noise."""
        pair = torch.randn(2, 1, 28, 28)
        found = interpolate(model, pair, 500, num=5, steps=4)
        assert found.shape == (5, 1, 28, 28)
        for position, image in ((0, pair[:1]), (-1, pair[1:])):
            alone = interpolate(model, image.repeat(2, 1, 1, 1), 500, num=2, steps=4)
            torch.testing.assert_close(found[position], alone[0], rtol=1e-4, atol=1e-4)

    def test_the_command_draws_both(self, small_checkpoint: Path, picture: Path, tmp_path: Path):
        for name, options in (('again.png', ['--steps', '3']), ('between.png', ['--interpolate', '4'])):
            images = [str(picture), str(picture)]
            command = [str(small_checkpoint), *images, '--t', '300', '600', '--out', str(tmp_path / name), *options]
            assert run_tool('denoise', command) == 0
            assert Image.open(tmp_path / name).width > 300

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (['--steps', '0'], '--steps=0 is out of range'),
            (['--interpolate', '1'], '--interpolate=1 is out of range'),
            (['--interpolate', '3'], 'an interpolation goes from one image to another: give two, not 1'),
            (['--steps', '4000'], 'steps=4000 is out of range'),
            (['--sampler', 'ddim'], '--sampler ddim takes noise out in steps: say how many with --steps'),
        ],
    )
    def test_wrong_options_are_one_line(self, options, message, small_checkpoint, picture, tmp_path, capsys):
        command = [str(small_checkpoint), str(picture), '--out', str(tmp_path / 'x.png'), *options]
        assert run_tool('denoise', command) == 2
        assert message in capsys.readouterr().err
