# SPDX-License-Identifier: Apache-2.0
"""The panels of the page as plain arrays, against scikit-learn, numpy and what the command line does; no Gradio is needed."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

import ldae
from ldae.datasets.idx import SUBSET_ROOT
from ldae.datasets.load_image import BadImageError
from ldae.models.layers import patchify
from ldae.models.tokenizers import PatchPCATokenizer
from ldae.models.tokenizers.base import save_tokenizer
from ldae.page.workbench import Settings, Workbench
from ldae.utils import ConfigError

EDGE = 256


@pytest.fixture(scope='module')
def pictures() -> list[np.ndarray]:
    """Colours with waves and a little noise, RGB."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:EDGE, :EDGE] / 20
    waves = [np.stack([np.sin(x * (i + 1) + c * y) for c in range(3)], axis=-1) for i in range(3)]
    return [np.clip(128 + 90 * wave + rng.normal(0, 20, wave.shape), 0, 255).astype(np.uint8) for wave in waves]


@pytest.fixture(scope='module')
def bench(pictures: list[np.ndarray]) -> Workbench:
    return Workbench(images=pictures)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    return file.getvalue()


def images_of(panels) -> dict[str, np.ndarray]:
    return {panel.caption.partition(':')[0].partition(' from')[0]: panel.image for panel in panels}


@pytest.mark.parametrize('d', [1, 20, 700])
def test_pca_keeps_what_scikit_learns_keeps(bench: Workbench, pictures: list[np.ndarray], d: int):
    picture, coder = bench.pictures[1], bench.coders['PCA']
    # Fitted to each picture as it is shown, and to the pieces cut from it, which here are the same.
    patches = torch.cat([patchify(one.inputs, 16)[0] for one in bench.pictures]).double().numpy()
    pca = PCA(d, svd_solver='full').fit(patches)
    mine = patchify(picture.inputs, 16)[0].double().numpy()
    expected = pca.inverse_transform(pca.transform(mine))
    decoded = patchify(coder.decode(coder.encode(picture.inputs, d)), 16)[0].numpy()
    np.testing.assert_allclose(decoded, expected, atol=2e-3)
    assert coder.kept(d) == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-4)
    latents = np.concatenate([coder.encode(one.inputs, d).numpy() for one in bench.pictures])
    assert latents.std() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize('name', ['PCA', 'DCT', 'random'])
def test_all_dimensions_keep_the_picture_and_noise_is_of_sigma(bench: Workbench, pictures: list[np.ndarray], name: str):
    shown = images_of(bench.tokens(bench.pictures[0], Settings(tokenizer=name, d=768, sigma=0.5)))
    np.testing.assert_array_equal(shown['picture'], pictures[0])
    assert np.abs(shown['decoded'].astype(int) - pictures[0]).max() <= 1
    assert (np.abs(shown['residual'].astype(int) - 127) <= 1).all()
    coder, x = bench.coders[name], bench.pictures[0].inputs
    z = coder.encode(x, 768)
    noise = coder.decode(z + 0.5 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))) - x
    # An orthonormal basis leaves noise as strong as it is: sigma of the deviation of patches about their mean.
    patches = torch.cat([patchify(one.inputs, 16)[0] for one in bench.pictures])
    assert float(noise.std()) == pytest.approx(0.5 * float((patches - patches.mean(0)).std()), rel=0.05)


def test_the_noise_of_a_dimension_stays_while_d_changes(bench: Workbench):
    noisy = [images_of(bench.tokens(bench.pictures[0], Settings(d=d)))['noise in latents'] for d in (16, 16, 17)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    other = images_of(bench.tokens(bench.pictures[0], Settings(d=16, seed=1)))['noise in latents']
    changes = [np.abs(noisy[0].astype(int) - one).mean() for one in (noisy[2], other)]
    assert 0 < changes[0] < changes[1] / 3  # one dimension of 17 is new


def test_levels_are_those_of_the_schedules(bench: Workbench):
    assert bench.level(Settings(sigma=0.25)) == (1, 0.25)
    gamma, sigma = bench.level(Settings(level='t', t=249, schedule='linear_gamma_sq'))
    assert (gamma**2, sigma**2) == (pytest.approx(0.75), pytest.approx(0.25))
    assert bench.level(Settings(level='t', t=999)) == (1, pytest.approx(2**0.5))


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('d', 0),
        ('d', 1.5),
        ('d', None),
        ('sigma', float('nan')),
        ('sigma', float('inf')),
        ('sigma', -0.1),
        ('sigma', '1'),
    ]
    + [
        ('t', 1000),
        ('t', True),
        ('schedule', '../x'),
        ('level', ['t']),
        ('seed', -1),
        ('seed', 2**31),
        ('tokenizer', 5),
    ],
)
def test_settings_that_are_not_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Settings(**{name: value})


def test_a_tokenizer_that_is_not_there_and_more_dimensions_than_there_are(bench: Workbench):
    with pytest.raises(ConfigError, match="tokenizer='VAE' is unknown"):
        bench.tokens(bench.pictures[0], Settings(tokenizer='VAE'))
    assert 'd = 768' in bench.tokens(bench.pictures[0], Settings(d=5000))[2].caption
    for number in (-1, 3, 1.0, None, True):
        with pytest.raises(ConfigError, match='picture'):
            bench.chosen(number)


@pytest.mark.parametrize('data', [b'', b'text', png(np.zeros((9, 9, 3), np.uint8))[:-20]])
def test_bytes_that_are_no_picture_are_one_line(bench: Workbench, data: bytes):
    with pytest.raises(BadImageError, match='^the picture is '):
        bench.read(data)


def test_what_is_uploaded_is_bounded(bench: Workbench):
    with pytest.raises(BadImageError, match='too many pixels'):
        bench.read(png(np.zeros((7000, 7000), np.uint8)))
    assert bench.read(png(np.zeros((1500, 3000), np.uint8))).bgr.shape == (512, 1024, 3)


def test_files_are_offered_by_name_and_fitted_to(tmp_path: Path, pictures: list[np.ndarray]):
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
    bench = Workbench(images=str(tmp_path))
    assert bench.names == ['0.png', '1.png', '2.png']
    with pytest.raises(ConfigError, match='need a checkpoint'):
        Workbench(images=str(tmp_path), data_root=str(tmp_path))


def test_pictures_of_one_name_in_several_folders_are_all_offered(tmp_path: Path, pictures: list[np.ndarray]):
    for name, pixels in zip(('cats', 'dogs', 'owls'), pictures, strict=True):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / '0.png')
    bench = Workbench(images=str(tmp_path))
    assert bench.names == ['cats/0.png', 'dogs/0.png', 'owls/0.png']
    assert len(bench.pictures) == 3


def test_the_file_of_a_tokenizer_is_offered_first(tmp_path: Path, pictures: list[np.ndarray], bench: Workbench):
    tokenizer = PatchPCATokenizer(EDGE, 16, 3, 12)
    tokenizer.fit(one.inputs for one in bench.pictures)
    save_tokenizer(tokenizer, tmp_path / 'pca.pth')
    mine = Workbench(tmp_path / 'pca.pth', images=pictures)
    assert [*mine.coders] == ['PCA of the file', 'PCA', 'DCT', 'random']
    both = [images_of(mine.tokens(mine.pictures[0], Settings(tokenizer=name, d=12))) for name in [*mine.coders][:2]]
    for name in ('decoded', 'noise in latents', 'latents'):
        assert np.abs(both[0][name].astype(int) - both[1][name]).max() <= 1
    assert mine.model is None


@pytest.fixture(scope='module')
def grey(small_checkpoint: Path) -> Workbench:
    return Workbench(small_checkpoint, data_root=str(SUBSET_ROOT), device='cpu')


def test_a_checkpoint_denoises_as_the_command_line_does(grey: Workbench):
    assert grey.pictures[0].inputs.shape[1:] == (grey.geometry.in_channels, *[grey.geometry.img_size] * 2)
    t = 300
    panels = grey.denoised(grey.pictures[0], Settings(level='t', t=t, seed=3))
    expected = ldae.denoise(grey.model, grey.pictures[0].bgr[..., ::-1], t, seed=3)
    assert f't = {t},' in panels[0].caption
    for panel, image in zip(panels[:2], (expected.noisy[0], expected.denoised[0]), strict=True):
        shown = panel.image if image.ndim == 3 else panel.image[..., 0]
        np.testing.assert_array_equal(shown, image)


def test_a_model_of_fewer_levels_is_sampled_from(small_model):
    steps = {'noiser.num_timesteps': 500, 'backbone.num_timesteps': 500, 'backbone.timestep': 10, 'val_timesteps': [10]}
    few = Workbench(small_model('OriginalImageHead', 'linear_sigma', **steps), data_root=str(SUBSET_ROOT), device='cpu')
    expected = ldae.sample(few.model, 2, data_root=str(SUBSET_ROOT), seed=5, steps=2, progress=False).images
    samples = np.array([panel.image for panel in few.samples(5, steps=2, num=2)])
    np.testing.assert_array_equal(samples[..., 0] if expected.ndim == 3 else samples, expected)


def test_figures_neighbours_and_samples_of_a_checkpoint(grey: Workbench):
    picture = grey.pictures[0]
    for name in ('attention', 'features'):
        assert grey.figure(name, picture, 1).std() > 1
    with pytest.raises(ConfigError, match='figure'):
        grey.figure('loss', picture, 1)
    near = grey.neighbours(picture)
    cosines = [float(panel.caption.rpartition(' ')[2]) for panel in near]
    assert cosines == sorted(cosines, reverse=True)
    samples = [panel.image for panel in grey.samples(5, steps=2, num=2)]
    expected = ldae.sample(grey.model, 2, data_root=str(SUBSET_ROOT), seed=5, steps=2, progress=False).images
    np.testing.assert_array_equal(np.array(samples)[..., 0] if expected.ndim == 3 else samples, expected)
    for seed, steps in ((-1, 2), (0, 0), (0, 10**6), (0.5, 2)):
        with pytest.raises(ConfigError):
            grey.samples(seed, steps)
