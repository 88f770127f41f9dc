# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from made_inception import PIXELS, write_inception
from PIL import Image
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance

import ldae
from ldae.generation import Extractor, RunningStatistics, Statistics, compare, distances, extractors
from ldae.utils import ConfigError

DIMS = 12


def thumbnail(images: list[np.ndarray]) -> torch.Tensor:
    """Features (b, DIMS): averages of squares of an image."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


THUMBNAIL = Extractor('thumbnail', 'abc', thumbnail)


def made(seed: int, count: int, brightness: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (count, 8, 8, 3), dtype=np.uint8) + np.uint8(brightness)


def of(rows: torch.Tensor, network: tuple[str, str] | None = ('thumbnail', 'abc'), name: str = 'made') -> Statistics:
    running = RunningStatistics(None, 1000)
    for part in rows.split(50):
        running.add(part)
    protocol = dict(source=name, kind='rows', images=len(rows), of=len(rows), seed=None, size=(8, 8), resized=None)
    return running.statistics(network, protocol=protocol)


class Given(torch.nn.Module):
    """Features as they are, in place of a network."""

    num_features = 32

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def test_two_gaussians_have_the_distance_of_the_closed_form():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 5, 5))
    means, covariances = rng.normal(size=(2, 5)), [factor @ factor.T for factor in factors]
    root = sqrtm(sqrtm(covariances[0]) @ covariances[1] @ sqrtm(covariances[0]))
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    sides = [Statistics(mean, covariance, 1000) for mean, covariance in zip(means, covariances, strict=True)]
    assert compare(*sides).frechet == pytest.approx(expected, rel=1e-10)
    # Independent coordinates: the sum over them of (m1 - m2)^2 + (s1 - s2)^2.
    s, t = np.array([1.0, 2, 3]), np.array([2.0, 2, 1])
    sides = [Statistics(np.zeros(3), np.diag(s**2), 1000), Statistics(np.array([1.0, 0, 2]), np.diag(t**2), 1000)]
    assert compare(*sides).frechet == pytest.approx(5 + 1 + 0 + 4, rel=1e-10)


def test_samples_of_gaussians_come_near_it():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(20_000, 4, generator=generator) for _ in range(2))
    # Means 1 apart in each of 4 coordinates, standard deviations 1 and 2: 4 (1 + 1).
    assert compare(of(a), of(2 * b + 1)).frechet == pytest.approx(8, rel=0.02)
    assert compare(of(a), of(b)).frechet < 0.002


@pytest.fixture(scope='module')
def features() -> tuple[torch.Tensor, torch.Tensor]:
    """n = 10 times the dimension."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(320, 32, generator=generator) for _ in range(2))
    return a @ torch.randn(32, 32, generator=generator) + 3, b @ torch.randn(32, 32, generator=generator) + 2


def test_torch_fidelity_and_torchmetrics_give_the_same_frechet_distance(features):
    found = compare(*map(of, features)).frechet
    sides = [fid_features_to_statistics(part.double()) for part in features]
    assert found == pytest.approx(
        fid_statistics_to_metric(*sides, verbose=False)['frechet_inception_distance'], rel=1e-6
    )
    other = FrechetInceptionDistance(Given(), normalize=False).set_dtype(torch.float64)
    for part, real in zip(features, (False, True), strict=True):
        other.update(part.double(), real=real)
    assert found == pytest.approx(float(other.compute()), rel=1e-6)


def test_torchmetrics_gives_the_same_kernel_distance(features):
    found = compare(*map(of, features))
    other = KernelInceptionDistance(Given(), subsets=1, subset_size=320)
    for part, real in zip(features, (False, True), strict=True):
        other.update(part, real=real)
    assert found.kernel == pytest.approx(float(other.compute()[0]), rel=1e-4)
    assert found.kernel_std is None  # one subset: all


def test_precision_and_recall_are_those_of_sets_that_overlap_or_do_not(features):
    a, _ = features
    same, apart = compare(of(a), of(a)), compare(of(a), of(a + 1e4))
    assert (same.precision, same.recall, apart.precision, apart.recall) == (1, 1, 0, 0)
    narrow = compare(of(a * 0.01 + 3), of(a))
    assert narrow.precision > 0.9 > 0.1 > narrow.recall


def test_kernel_distance_of_more_images_is_over_subsets_drawn_by_seed(features, monkeypatch):
    monkeypatch.setattr(distances, 'SUBSET_SIZE', 100)
    sides = list(map(of, features))
    first, again, other = (compare(*sides, seed=seed) for seed in (0, 0, 1))
    assert first.kernel == again.kernel != other.kernel
    assert first.kernel_std > 0


@pytest.fixture(scope='module')
def scored(tmp_path_factory) -> tuple[ldae.generation.Distances, dict[str, float]]:
    """Ours, and torch-fidelity's figures of the same two folders, by Inception of made weights that has the pinned hash."""
    folder = tmp_path_factory.mktemp('scored')
    for name, images in (('samples', made(0, 14)), ('data', made(1, 12, 40))):
        (folder / name).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f'{number:02}.png')
    digest = write_inception(folder / 'made.pth')
    sources = dict(input1=str(folder / 'samples'), input2=str(folder / 'data'))
    network = dict(feature_extractor='inception-v3-compat', feature_extractor_weights_path=str(folder / 'made.pth'))
    figures = dict.fromkeys(('isc', 'fid', 'kid', 'prc'), True)
    options = dict(kid_subset_size=12, rng_seed=0, batch_size=14, save_cpu_ram=True, cuda=False, cache=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, 'INCEPTION_SHA256', digest)
        patch.setattr(torch_fidelity.FeatureExtractorInceptionV3, 'INPUT_IMAGE_SIZE', PIXELS)
        found = ldae.frechet_distance(
            folder / 'samples', folder / 'data', inception=folder / 'made.pth', cache=None, batch_size=5
        )
        return found, torch_fidelity.calculate_metrics(**sources, **network, **figures, **options, verbose=False)


def test_all_figures_are_torch_fidelitys(scored):
    found, expected = scored
    assert found.frechet == pytest.approx(expected['frechet_inception_distance'], rel=1e-4)
    assert found.kernel == pytest.approx(expected['kernel_inception_distance_mean'], rel=1e-3)
    assert found.inception_score == pytest.approx(expected['inception_score_mean'], rel=1e-5)
    assert found.inception_score_std == pytest.approx(expected['inception_score_std'], rel=1e-4, abs=1e-9)
    assert (found.precision, found.recall) == pytest.approx((expected['precision'], expected['recall']))


def test_it_is_called_fid_and_says_that_the_images_are_few(scored):
    text = scored[0].text()
    assert scored[0].name == 'FID'
    assert all(f'\n{name} ' in text for name in ('FID', 'KID', 'precision', 'recall', 'Inception score'))
    assert '14 images of' in text
    assert 'are fewer than 10 times the 2,048 dimensions' in text


def test_statistics_that_do_not_say_what_made_them_make_no_fid(tmp_path):
    inception = Extractor(extractors.INCEPTION, extractors.INCEPTION_SHA256, thumbnail)
    features = thumbnail(list(made(1, 150)))
    ours = of(features, inception.network).save(tmp_path / 'ours.npz')
    foreign = tmp_path / 'foreign.npz'
    np.savez(foreign, mu=features.double().mean(dim=0), sigma=np.cov(features.double(), rowvar=False))
    known, unknown = (ldae.frechet_distance(made(0, 150), path, features=inception) for path in (ours, foreign))
    assert (known.name, unknown.name) == ('FID', 'Fréchet distance (Inception-v3)')
    assert unknown.frechet == pytest.approx(known.frechet, rel=1e-9)
    assert (unknown.kernel, unknown.precision) == (None, None)
    assert 'foreign.npz does not say which network and images it was made from' in unknown.text()
    assert 'FID' not in unknown.text().replace('not called FID', '')


def test_another_network_is_named_and_never_called_fid():
    found = ldae.frechet_distance(made(0, 150), made(1, 150, 30), features=THUMBNAIL)
    text = found.text()
    assert found.name == 'Fréchet distance (thumbnail)'
    assert 'FID' not in text
    assert 'KID' not in text
    assert 'Inception' not in text
    assert '150' in text
    assert found.notes == ()
    exact = [thumbnail(list(made(0, 150))), thumbnail(list(made(1, 150, 30)))]
    assert found.frechet == pytest.approx(compare(*map(of, exact)).frechet)
    assert found.frechet > DIMS * 25**2


def test_a_call_of_ones_weights_inception_is_no_fid():
    mine = Extractor('Inception-v3', 'mine', thumbnail)
    assert ldae.frechet_distance(made(0, 20), made(1, 20), features=mine).name == 'Fréchet distance (Inception-v3)'


def test_the_reference_is_read_anew_when_it_has_changed_or_that_is_asked_for(tmp_path, monkeypatch):
    calls = []
    counting = Extractor('counting', 'x', lambda images: calls.append(len(images)) or thumbnail(images))
    np.savez(tmp_path / 'data.npz', made(1, 40))
    options = dict(features=counting, cache=tmp_path / 'cache')

    def reads(**changes) -> int:
        calls.clear()
        ldae.frechet_distance(made(0, 10), tmp_path / 'data.npz', **options | changes)
        return sum(calls) - 10

    assert [reads(), reads(), reads(refresh=True)] == [40, 0, 40]
    assert [reads(reference_num=30), reads(reference_num=30), reads(size=4), reads(subset=5)] == [30, 0, 40, 40]
    assert reads(features=Extractor('counting', 'y', counting.run)) == 40
    assert reads(cache=None) == 40
    np.savez(tmp_path / 'data.npz', made(2, 40))
    os.utime(tmp_path / 'data.npz', ns=(1, 1))
    assert reads() == 40


def test_two_files_of_statistics_need_no_network(tmp_path):
    for number in range(2):
        features = thumbnail(list(made(number, 130)))
        of(features, name=f'set {number}').save(tmp_path / f'{number}.npz')
    found = ldae.frechet_distance(tmp_path / '0.npz', tmp_path / '1.npz')
    assert found.name == 'Fréchet distance (thumbnail)'
    assert found.precision is not None
    assert 'reference  set 1: 130 images, 8 x 8, rows' in found.text()


@pytest.mark.parametrize('options', [dict(features='nowhere.pth'), dict(weights='w.pth'), dict(size=64)], ids=str)
def test_what_only_images_need_is_refused_beside_two_files_of_statistics(options, tmp_path):
    path = of(thumbnail(list(made(0, 130)))).save(tmp_path / 'x.npz')
    with pytest.raises(ConfigError, match=f'--{next(iter(options))} is of images, and both sides are statistics'):
        ldae.frechet_distance(path, path, **options)


@pytest.mark.parametrize('when', ['before', 'at the end'])
def test_where_no_statistics_can_be_kept_the_distance_is_had_all_the_same(when, tmp_path, monkeypatch):
    np.savez(tmp_path / 'data.npz', made(1, 40))
    (tmp_path / 'file').touch()
    options, said = dict(features=THUMBNAIL, reference=tmp_path / 'data.npz'), []
    monkeypatch.setattr('ldae.generation.distances.print_log', lambda text, *_: said.append(text))

    def full(*_) -> None:
        raise OSError(28, 'No space left on device')

    if when == 'at the end':
        monkeypatch.setattr(Statistics, 'save', full)
    folder = tmp_path / 'file' / 'cache' if when == 'before' else tmp_path / 'cache'
    found = ldae.frechet_distance(made(0, 10), cache=folder, **options)
    assert len(said) == 1
    assert said[0].startswith('Statistics are not kept: ')
    assert found.frechet == ldae.frechet_distance(made(0, 10), cache=None, **options).frechet
    assert 'kept' not in found.reference


def test_statistics_of_another_network_are_refused(tmp_path):
    features = thumbnail(list(made(0, 20)))
    path = of(features, ('other', 'abc')).save(tmp_path / 'x.npz')
    with pytest.raises(ConfigError, match=r'samples has .* thumbnail \(weights abc, .*x\.npz of other \(weights abc'):
        ldae.frechet_distance(made(1, 20), path, features=THUMBNAIL)
    np.savez(path, mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(ConfigError, match=r'x\.npz of an unknown network \(5 dimensions\)'):
        ldae.frechet_distance(made(1, 20), path, features=THUMBNAIL)


def test_numbers_that_cannot_be_had_are_one_line(tmp_path):
    path = of(thumbnail(list(made(0, 20)))).save(tmp_path / 'x.npz')
    with pytest.raises(ConfigError, match='--num 21: 20 images in memory has 20 images'):
        ldae.frechet_distance(made(1, 20), made(0, 20), num=21, features=THUMBNAIL)
    with pytest.raises(ConfigError, match='--reference-num 5: statistics cannot be made of fewer'):
        ldae.frechet_distance(made(1, 20), path, reference_num=5, features=THUMBNAIL)
    with pytest.raises(ConfigError, match=r'frechet_distance\.num=0 is out of range'):
        ldae.frechet_distance(made(1, 20), made(0, 20), num=0, features=THUMBNAIL)
    with pytest.raises(ConfigError, match='a distance needs 2 at least'):
        ldae.frechet_distance(made(1, 1), made(0, 20), features=THUMBNAIL)


def test_images_of_two_sizes_are_compared_and_that_is_said():
    found = ldae.frechet_distance(made(1, 150), made(0, 150)[:, :4, :4], features=THUMBNAIL)
    assert 'pixels: --size N brings all to one size' in found.text()
    assert not ldae.frechet_distance(made(1, 150), made(0, 150)[:, :4, :4], size=4, features=THUMBNAIL).notes


def test_a_file_of_the_cache_that_is_damaged_is_made_anew(tmp_path: Path):
    np.savez(tmp_path / 'data.npz', made(1, 40))
    first = ldae.frechet_distance(made(0, 10), tmp_path / 'data.npz', features=THUMBNAIL, cache=tmp_path / 'cache')
    (kept,) = (tmp_path / 'cache').iterdir()
    kept.write_bytes(kept.read_bytes()[:500])
    again = ldae.frechet_distance(made(0, 10), tmp_path / 'data.npz', features=THUMBNAIL, cache=tmp_path / 'cache')
    assert again.frechet == first.frechet
    assert Statistics.load(kept).count == 40
