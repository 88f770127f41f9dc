# SPDX-License-Identifier: Apache-2.0
"""Images from models: what they depend on, guidance, starts and folders."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image
from torch import Tensor

import ldae
from ldae.generation import SAMPLERS, ImageSampler, Moments, sampling
from ldae.generation import folder as folder_module
from ldae.generation.folder import SampleFolder
from ldae.generation.sampling import guided_dims
from ldae.generation.start import draw_start, measure_moments, starts_from_noise
from ldae.models import LDAE
from ldae.models.heads import DenoisingHead
from ldae.models.layers import patchify
from ldae.models.noisers import NoisySample
from ldae.models.tokenizers import BaseTokenizer
from ldae.registry import DATASETS, MODELS
from ldae.utils import ConfigError, files
from ldae.utils.locks import claimed

Build = Callable[..., LDAE]


def rounding(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference of 8-bit images, in grey levels."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.fixture(scope='module')
def model(small_model: Build) -> LDAE:
    return small_model()


@pytest.fixture(scope='module')
def conditional(small_model: Build) -> LDAE:
    return small_model(num_classes=3)


def test_images_are_uint8_and_of_the_models_size(model: LDAE):
    samples = ldae.sample(model, num=5, steps=3)
    assert samples.images.shape == (5, 28, 28)
    assert samples.images.dtype == np.uint8
    assert samples.labels is None
    assert not np.array_equal(samples.images[0], samples.images[1])


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_an_image_depends_on_its_number_whatever_the_batch(sampler: str, model: LDAE):
    options = dict(steps=5, sampler=sampler, seed=3)
    expected = ldae.sample(model, num=8, batch_size=64, **options).images
    for batch_size in (1, 7):
        assert rounding(ldae.sample(model, num=8, batch_size=batch_size, **options).images, expected) <= 1
    assert rounding(ldae.sample(model, num=3, batch_size=64, **options).images, expected[:3]) <= 1
    assert rounding(ldae.sample(model, num=8, **dict(options, seed=4)).images, expected) > 1


@pytest.mark.parametrize('sampler', ['dpm++', 'heun', 'ddim'])
@pytest.mark.parametrize('schedule', ['flow', 'linear_gamma_sq'])
@pytest.mark.parametrize(
    'head', [dict(prediction=name) for name in ('noise', 'clean', 'velocity')] + [dict(prediction='velocity', rank=3)]
)
def test_every_prediction_and_path_gives_the_image_that_a_perfect_network_knows(
    head: dict, schedule: str, sampler: str, small_model: Build
):
    """The space of the loss is none of a sampler's business: these are all nine cells."""
    options = dict(loss_space='velocity', **head)
    model = small_model('LatentHead', schedule, **{f'head.{name}': value for name, value in options.items()})
    z0 = model.tokenizer.encode(torch.randn(1, 1, 28, 28))

    def perfect(z_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        levels = model.noiser.levels(t)
        noise = (z_t - levels[0] * z0) / levels[1]
        return model.head.target(NoisySample(z0.expand_as(z_t), z_t, noise, t, *levels))

    model._predict_target = perfect
    found = ldae.sample(model, num=2, steps=10, sampler=sampler).images
    expected = model.to_pixels(model.tokenizer.decode(z0)).round()[0, 0].numpy().astype(np.uint8)
    assert max(rounding(image, expected) for image in found) <= 1


@pytest.mark.parametrize(
    ('head', 'schedule'),
    [('NoiseHead', 'ddpm_linear'), ('CleanLatentHead', 'linear_gamma_sq'), ('DecodedImageHead', 'linear_gamma_sq')],
)
def test_a_perfect_network_gives_back_the_image_that_it_knows(head: str, schedule: str, small_model: Build):
    """All data are one image: whatever the noise, the best prediction is that one, in the units of each head."""
    model = small_model(head, schedule)
    image = torch.randn(1, 1, 28, 28)
    z0 = model.tokenizer.encode(image)

    def perfect(z_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        noise = (z_t - model.noiser.gamma[t].view(-1, 1, 1) * z0) / model.noiser.sigma[t].view(-1, 1, 1)
        known = {'NoiseHead': noise, 'CleanLatentHead': z0.expand_as(z_t)}
        if head in known:
            return known[head]
        return patchify(model.tokenizer.decode(z0), model.tokenizer.patch_size).expand(len(z_t), -1, -1)

    model._predict_target = perfect
    found = ldae.sample(model, num=2, steps=10).images
    expected = model.to_pixels(model.tokenizer.decode(z0)).round()[0, 0].numpy().astype(np.uint8)
    assert rounding(found[0], expected) <= 1
    assert rounding(found[1], expected) <= 1


class DirectionHead(DenoisingHead):
    """Somebody's own: the way from latent to noise; it says what image it stands for, and no more."""

    error = None

    def denoise(self, pred: Tensor, sample: NoisySample, tokenizer: BaseTokenizer) -> Tensor:
        return tokenizer.decode((sample.z_t - sample.sigma * pred) / (sample.gamma + sample.sigma))


def test_a_head_of_ones_own_is_sampled_by_what_it_denoises_to(small_model: Build, monkeypatch: pytest.MonkeyPatch):
    model = small_model('CleanLatentHead', 'linear_gamma_sq')
    monkeypatch.setattr(DirectionHead, '__abstractmethods__', frozenset())
    model.head = DirectionHead()
    z0 = model.tokenizer.encode(torch.randn(1, 1, 28, 28))

    def perfect(z_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        gamma, sigma, _ = model.noiser.levels(t)
        return (z_t - gamma * z0) / sigma - z0

    model._predict_target = perfect
    expected = model.to_pixels(model.tokenizer.decode(z0)).round()[0, 0].numpy().astype(np.uint8)
    assert rounding(ldae.sample(model, num=1, steps=10).images[0], expected) <= 1


class TestGuidance:
    def predictions(self, model: LDAE, **options) -> Tensor:
        z = torch.randn(
            2, model.tokenizer.num_tokens, model.tokenizer.latent_dim, generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            return ImageSampler(model, **options)._predict(z, 500, torch.tensor([0, 2]))

    def test_it_exaggerates_what_the_label_changes(self, conditional: LDAE):
        """Ho & Salimans, "Classifier-Free Diffusion Guidance", equation 6, in DiT's form."""
        none, one, three = (self.predictions(conditional, guidance=scale) for scale in (0.0, 1.0, 3.0))
        assert not torch.equal(none, one)
        torch.testing.assert_close(three, none + 3 * (one - none), rtol=1e-4, atol=1e-5)

    def test_only_some_channels_can_be_guided(self, conditional: LDAE):
        one, three = (self.predictions(conditional, guidance=scale) for scale in (1.0, 3.0))
        some = self.predictions(conditional, guidance=3.0, guidance_channels=2)
        assert torch.equal(some[..., :2], three[..., :2])
        torch.testing.assert_close(some[..., 2:], one[..., 2:], rtol=1e-4, atol=1e-5)

    def test_channels_of_a_map_are_those_of_all_its_cells(self, conditional: LDAE):
        """A conv VAE's token of d = 16 is 2 x 2 cells of 4 channels: DiT's first three channels are 12 of 16 values."""
        tokenizer = MODELS.build(
            dict(type='ldae.ConvVAETokenizer', img_size=32, base_channels=8, layers_per_block=1, latent_dim=16)
        )
        cells = torch.zeros(1, 4, 4, 4)
        cells[:, :3] = 1
        stand_in = type('Model', (), dict(tokenizer=tokenizer))
        assert torch.equal(guided_dims(stand_in, 3), patchify(cells, tokenizer.cells)[0, 0] == 1)

    def test_labels_are_dealt_out_in_turn(self, conditional: LDAE):
        assert ldae.sample(conditional, num=5, steps=2).labels.tolist() == [0, 1, 2, 0, 1]
        assert ldae.sample(conditional, num=3, steps=2, labels=[2, 0]).labels.tolist() == [2, 0, 2]
        assert ldae.sample(conditional, num=3, steps=2, guidance=0.0).labels is None

    def test_a_label_changes_the_image(self, conditional: LDAE):
        zero, one = (ldae.sample(conditional, num=1, steps=4, labels=[label]).images for label in (0, 1))
        assert rounding(zero, one) > 1

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(labels=[3]), 'labels=3 is out of range: it must be an integer between 0 and 2'),
            (dict(guidance=-1.0), 'ImageSampler.guidance=-1.0 is out of range'),
            (dict(guidance_channels=100), 'guidance_channels=100 is out of range'),
            (dict(guidance=0.0, labels=[1]), 'labels: guidance=0 leaves them out'),
        ],
    )
    def test_wrong_options_are_one_line(self, options: dict, message: str, conditional: LDAE):
        with pytest.raises(ConfigError, match=message):
            ldae.sample(conditional, num=2, steps=2, **options)

    @pytest.mark.parametrize('options', [dict(labels=[1]), dict(guidance=2.0), dict(guidance_channels=1)], ids=str)
    def test_a_model_without_classes_takes_none(self, options: dict, model: LDAE):
        with pytest.raises(ConfigError, match='the model is not class-conditional'):
            ldae.sample(model, num=2, steps=2, **options)


class TestStart:
    def test_schedules_that_end_in_noise(self, small_model: Build):
        ends = dict(ddpm_linear=999, linear_gamma_sq=998, linear_sigma=999)
        found = {name: starts_from_noise(small_model(schedule=name), t) for name, t in ends.items()}
        assert found == dict(ddpm_linear=True, linear_gamma_sq=True, linear_sigma=False)

    def test_moments_are_numpys(self):
        torch.manual_seed(0)
        latents = torch.randn(50, 2, 3) @ torch.randn(3, 3) + torch.randn(2, 3)
        moments = Moments.of(latents.split(20))
        flat = latents.flatten(1).double().numpy()
        np.testing.assert_allclose(moments.mean.flatten(), flat.mean(axis=0), atol=1e-5)
        factors = moments.deviations.flatten(1).double()
        np.testing.assert_allclose(factors.T @ factors, np.cov(flat.T), atol=1e-5)

    def test_moments_are_named_alike_on_any_machine(self):
        """A mean of 0 but for rounding has no sign."""
        deviations = torch.tensor([[[-1.0]], [[1.0]]]) * 0.5**0.5
        named = {str(Moments(torch.tensor([[mean]]), deviations)) for mean in (-1e-9, 0.0, 2e-9)}
        assert named == {'latents of mean 0.000 and deviation 1.000'}

    def test_draws_have_the_moments(self, small_model: Build):
        model = small_model(schedule='linear_sigma')
        shape = (40, model.tokenizer.num_tokens, model.tokenizer.latent_dim)
        torch.manual_seed(0)
        moments = Moments.of([torch.randn(shape) + torch.randn(shape[1:])])
        n = 4000
        z = draw_start(model, 999, moments, [torch.Generator().manual_seed(i) for i in range(n)]).flatten(1).double()
        factors = moments.deviations.flatten(1).double()
        covariance = factors.T @ factors + 2 * torch.eye(z.shape[1]).double()
        deviations = covariance.diagonal().sqrt()
        assert ((z.mean(0) - moments.mean.flatten()).abs() < 5 * deviations / n**0.5).all()
        error = (torch.cov(z.T) - covariance).abs() / torch.outer(deviations, deviations)
        assert error.max() < 5.5 * (2 / n) ** 0.5

    def test_a_schedule_without_an_end_in_noise_says_so(self, small_model: Build, caplog: pytest.LogCaptureFixture):
        model = small_model('OriginalImageHead', 'linear_sigma')
        logger = MMLogger.get_current_instance()
        logger.addHandler(caplog.handler)
        try:
            images = ldae.sample(model, num=2, steps=3).images
        finally:
            logger.removeHandler(caplog.handler)
        assert 'moment-matched start: the schedule ends at gamma=1, sigma=1.41' in caplog.text
        assert images.shape == (2, 28, 28)

    def test_moments_do_not_depend_on_what_was_drawn_before(self, small_model: Build):
        model = small_model(schedule='linear_sigma')
        dataset = DATASETS.build(model._config.train_dataloader.dataset)
        torch.manual_seed(5)
        first = measure_moments(model, dataset, 100)
        state = torch.get_rng_state()
        second = measure_moments(model, dataset, 100)
        assert torch.equal(first.mean, second.mean)
        assert torch.equal(state, torch.get_rng_state())

    def test_one_level_has_no_start(self, small_model: Build):
        with pytest.raises(ConfigError, match='a single level of noise has no way from noise to images'):
            ldae.sample(small_model(schedule='single_level'), num=1)


class TestFolder:
    def files(self, folder: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in sorted((folder / 'images').iterdir())}

    def test_it_holds_what_the_call_returns(self, conditional: LDAE, tmp_path: Path):
        out = ldae.sample(conditional, num=5, steps=3, out=tmp_path / 'samples')
        expected = ldae.sample(conditional, num=5, steps=3)
        assert sorted(file.name for file in out.iterdir()) == ['grid.png', 'images', 'samples.npz', 'sampling.json']
        with np.load(out / 'samples.npz', allow_pickle=False) as arrays:
            assert np.array_equal(arrays['arr_0'], expected.images[..., None])
            assert np.array_equal(arrays['arr_1'], expected.labels)
        assert np.array_equal(np.array(Image.open(out / 'images' / '000004.png')), expected.images[4])
        assert json.loads((out / 'sampling.json').read_text())['settings']['steps'] == 3

    def test_it_goes_on_where_it_stopped(self, model: LDAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        whole = self.files(ldae.sample(model, num=6, steps=3, batch_size=2, out=tmp_path / 'whole'))
        ldae.sample(model, num=4, steps=3, batch_size=2, out=tmp_path / 'cut')
        (tmp_path / 'cut' / 'images' / '000001.png').unlink()
        drawn = []
        monkeypatch.setattr(ImageSampler, '__call__', _noting(ImageSampler.__call__, drawn))
        assert self.files(ldae.sample(model, num=6, steps=3, batch_size=2, out=tmp_path / 'cut')) == whole
        assert drawn == [[1, 4], [5]]

    def test_other_settings_or_weights_are_not_mixed(self, model: LDAE, small_model: Build, tmp_path: Path):
        out = ldae.sample(model, num=2, steps=3, out=tmp_path / 'out')
        before = self.files(out)
        with pytest.raises(ConfigError, match='holds samples of other settings: steps 3 .now 4.: .*--force'):
            ldae.sample(model, num=2, steps=4, out=out)
        other = small_model()
        next(other.neck.parameters()).data.add_(1)
        with pytest.raises(ConfigError, match='holds samples of other settings: weights'):
            ldae.sample(other, num=2, steps=3, out=out)
        assert self.files(out) == before
        ldae.sample(model, num=2, steps=4, out=out, force=True)
        assert self.files(out) != before

    def test_one_call_at_a_time_writes_to_a_folder(self, model: LDAE, tmp_path: Path):
        out = ldae.sample(model, num=2, steps=2, out=tmp_path / 'out')
        before = self.files(out)
        with claimed(out), pytest.raises(ConfigError, match='out is in use by process'):
            ldae.sample(model, num=2, steps=3, out=out, force=True)
        assert self.files(out) == before
        assert sorted(file.name for file in out.iterdir()) == ['grid.png', 'images', 'samples.npz', 'sampling.json']

    def test_images_of_a_model_of_bands_leave_with_the_others(self, tmp_path: Path):
        for channels in (3, 4, 1):
            folder = SampleFolder(tmp_path, dict(channels=channels), channels)
            folder.open(force=True)
            assert list((tmp_path / 'images').iterdir()) == []
            folder.file_of(0).touch()

    def test_it_does_not_touch_a_folder_of_something_else(self, model: LDAE, tmp_path: Path):
        (tmp_path / 'images').mkdir()
        (tmp_path / 'images' / '01.png').write_text('x')
        for force in (False, True):
            with pytest.raises(ConfigError, match='is not empty, and holds no samples'):
                ldae.sample(model, num=1, steps=2, out=tmp_path, force=force)
        assert (tmp_path / 'images' / '01.png').exists()
        (tmp_path / 'file').write_text('x')
        with pytest.raises(ConfigError, match='is a file: name a folder'):
            ldae.sample(model, num=1, steps=2, out=tmp_path / 'file')
        for text in ('[[', '[]', '{"settings": 1}', '[' * 100_000):
            (tmp_path / 'sampling.json').write_text(text)
            with pytest.raises(ConfigError, match='holds a sampling.json that cannot be read'):
                ldae.sample(model, num=1, steps=2, out=tmp_path)

    def test_an_image_that_is_damaged_is_one_line(self, model: LDAE, tmp_path: Path):
        out = ldae.sample(model, num=2, steps=2, out=tmp_path / 'out')
        (out / 'images' / '000001.png').write_bytes(b'x')
        with pytest.raises(ConfigError, match='000001.png cannot be read: remove it, and it is sampled anew'):
            ldae.sample(model, num=2, steps=2, out=out)

    def test_what_is_cut_off_before_the_first_image_is_gone_on_with(
        self, model: LDAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        out = tmp_path / 'out'
        with monkeypatch.context() as patched:
            patched.setattr(files, 'flush', _full_disk)
            with pytest.raises(OSError, match='No space left'):
                ldae.sample(model, num=1, steps=2, out=out)
        assert list(out.iterdir()) == []
        (out / '.sampling.json.machine-1.unfinished').write_text('{')
        (out / '.samples.npz.machine-1.unfinished').write_text('PK')
        ldae.sample(model, num=1, steps=2, out=out)
        assert sorted(file.name for file in out.iterdir()) == ['grid.png', 'images', 'samples.npz', 'sampling.json']

    def test_starts_from_latents_of_other_images_are_not_mixed(self, small_model: Build, tmp_path: Path, monkeypatch):
        model = small_model(schedule='linear_sigma')
        latents = torch.randn(8, model.tokenizer.num_tokens, model.tokenizer.latent_dim)
        monkeypatch.setattr(sampling, 'moments_of_data', lambda *args: Moments.of([latents]))
        out = ldae.sample(model, num=1, steps=2, out=tmp_path / 'out')
        ldae.sample(model, num=2, steps=2, out=out)
        monkeypatch.setattr(sampling, 'moments_of_data', lambda *args: Moments.of([2 * latents]))
        with pytest.raises(
            ConfigError, match='holds samples of other settings: start .moment-matched, latents of mean'
        ):
            ldae.sample(model, num=2, steps=2, out=out)

    def test_a_picture_of_another_size_is_not_taken_for_a_sample(self, model: LDAE, tmp_path: Path):
        out = ldae.sample(model, num=3, steps=2, out=tmp_path / 'out')
        Image.new('L', (5, 5)).save(out / 'images' / '000002.png')
        with pytest.raises(ConfigError, match='000002.png is not one of these samples: remove it'):
            ldae.sample(model, num=3, steps=2, out=out)

    def test_what_a_full_disk_cut_off_is_gone_on_with(
        self, model: LDAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        out, written = tmp_path / 'out', []

        def save(image: np.ndarray, path: Path) -> None:
            if len(written) == 3:
                raise OSError(28, 'No space left on device', str(path))
            written.append(path)
            save_image(image, path)

        save_image = folder_module.save_image
        with monkeypatch.context() as patched:
            patched.setattr(folder_module, 'save_image', save)
            patched.setattr(folder_module, 'WRITERS', 1)
            with pytest.raises(OSError, match='No space left'):
                ldae.sample(model, num=6, steps=2, batch_size=2, out=out)
        assert len(self.files(out)) == 3
        whole = self.files(ldae.sample(model, num=6, steps=2, batch_size=2, out=tmp_path / 'whole'))
        assert self.files(ldae.sample(model, num=6, steps=2, batch_size=2, out=out)) == whole


def _full_disk(path: Path) -> None:
    raise OSError(28, 'No space left on device', str(path))


def _noting(function: Callable, notes: list) -> Callable:
    def call(self: ImageSampler, numbers: list[int]) -> np.ndarray:
        notes.append(list(numbers))
        return function(self, numbers)

    return call


def test_an_encoder_alone_cannot_be_sampled(small_model: Build):
    with pytest.raises(ConfigError, match='adds no noise: give a pre-trained l-DAE'):
        ldae.sample(small_model().backbone, num=1)


def test_an_unfitted_tokenizer_is_one_line(small_model: Build):
    model = small_model()
    model.tokenizer.fitted.zero_()
    model.tokenizer._known_fitted = False
    with pytest.raises(ConfigError, match='the model is not trained: its tokenizer is not fitted'):
        ldae.sample(model, num=1, steps=2)


def test_a_missing_library_is_one_line(model: LDAE, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, 'diffusers', None)
    with pytest.raises(ConfigError, match='sampling needs the library diffusers'):
        ldae.sample(model, num=1, steps=2)
