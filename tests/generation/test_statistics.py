# SPDX-License-Identifier: Apache-2.0
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ldae.generation import RunningStatistics, Statistics, compare
from ldae.utils import ConfigError

N, D = 500, 6
PROTOCOL = dict(source='a', kind='an array', images=N, of=N, seed=None, size=(2, 3), resized=None)


@pytest.fixture(scope='module')
def rows() -> torch.Tensor:
    """Correlated features far from zero, as those of a network can be."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, D, generator=generator) @ torch.randn(D, D, generator=generator) + 1000


def run(rows: torch.Tensor, batch: int, max_rows: int = 40, **options) -> RunningStatistics:
    running = RunningStatistics(None, max_rows, **options)
    for part in rows.split(batch):
        running.add(part)
    return running


@pytest.mark.parametrize('batch', [1, 7, N])
def test_moments_are_numpys_whatever_the_batches(batch, rows):
    found = run(rows, batch).statistics()
    exact = rows.double().numpy()
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(exact, rowvar=False), rtol=1e-9)
    assert (found.count, found.dims) == (N, D)


def test_the_rows_kept_follow_from_the_seed_alone(rows):
    kept = [run(rows, batch).statistics().rows for batch in (1, 7, 64, N)]
    assert kept[0].shape == (40, D)
    assert all(torch.equal(kept[0], other) for other in kept[1:])
    assert not torch.equal(kept[0], run(rows, 7, seed=1).statistics().rows)
    places = [int((rows == row).all(dim=1).nonzero()) for row in kept[0]]
    assert places == sorted(set(places))
    assert torch.equal(run(rows[:40], 7).statistics().rows, rows[:40])


def test_each_row_is_kept_as_often_as_another(rows):
    chances = torch.zeros(100)
    for seed in range(200):
        kept = run(torch.arange(100.0).unsqueeze(1), 10, 20, seed=seed).statistics().rows
        chances[kept[:, 0].long()] += 1 / 200
    # 5 standard deviations of a share of 0.2 among 200.
    assert (chances - 0.2).abs().max() < 5 * (0.2 * 0.8 / 200) ** 0.5


@pytest.mark.parametrize('world', [2, 3])
def test_processes_together_find_what_one_finds(world, rows):
    whole = run(rows, 16).statistics()
    parts = [run(rows[rank::world], 16, rank=rank, world=world) for rank in range(world)]
    found = parts[0].statistics(states=[part.state() for part in parts])
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-9)
    assert torch.equal(found.rows, whole.rows)
    assert found.count == N


def test_memory_does_not_grow_with_the_number_of_images():
    running = RunningStatistics(None, 10)
    for _ in range(100):
        running.add(torch.randn(10, 3))
        assert sum(len(part[0]) for part in running.kept) <= 20
    assert running.gram.shape == (3, 3)
    assert running.count == 1000


def test_only_the_first_columns_are_features(rows):
    running = RunningStatistics(4, 10)
    running.add(rows)
    found = running.statistics()
    assert found.dims == 4
    assert found.rows.shape == (10, D)


@pytest.mark.parametrize('wrong', [float('nan'), float('inf')])
def test_features_that_are_not_finite_are_one_line(wrong, rows):
    with pytest.raises(ConfigError, match='features hold NaN or infinity'):
        run(torch.cat([rows, torch.full((1, D), wrong)]), 50)


@pytest.mark.parametrize(('count', 'said'), [(0, '0 images'), (1, '1 image:')])
def test_one_image_has_no_covariance(count, said, rows):
    with pytest.raises(ConfigError, match=said):
        run(rows[:count], 1).statistics()


def test_a_file_gives_back_what_was_saved(rows, tmp_path):
    saved = run(rows, 16).statistics(('X', 'abc'), protocol=PROTOCOL)
    path = saved.save(tmp_path / 'new' / 'statistics.npz')
    found = Statistics.load(path)
    assert np.array_equal(found.mean, saved.mean)
    assert np.array_equal(found.covariance, saved.covariance)
    assert torch.equal(found.rows, saved.rows)
    assert (found.count, found.network, found.meta['protocol']['size']) == (N, ('X', 'abc'), [2, 3])
    assert [file.name for file in path.parent.iterdir()] == ['statistics.npz']


def test_a_file_of_another_program_has_moments_only(tmp_path):
    np.savez(tmp_path / 'other.npz', mu=np.zeros(3, np.float32), sigma=np.eye(3), mu_s=1)
    found = Statistics.load(tmp_path / 'other.npz')
    assert (found.count, found.rows, found.meta) == (None, None, {})
    assert found.mean.dtype == np.float64


class Runs:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)


def test_a_pickle_in_a_file_is_not_opened(tmp_path):
    ran = tmp_path / 'ran'
    np.savez(tmp_path / 'x.npz', mu=np.array([Runs(ran)], dtype=object), sigma=np.eye(1))
    with pytest.raises(ConfigError, match='cannot be read as statistics'):
        Statistics.load(tmp_path / 'x.npz')
    (tmp_path / 'y.npz').write_bytes(pickle.dumps(Runs(ran)))
    with pytest.raises(ConfigError, match='cannot be read as statistics'):
        Statistics.load(tmp_path / 'y.npz')
    assert not ran.exists()


WRONG = [
    dict(mu=np.zeros(3)),
    dict(mu=np.zeros(3), sigma=np.eye(2)),
    dict(mu=np.zeros((3, 3)), sigma=np.eye(3)),
    dict(mu=np.zeros(0), sigma=np.zeros((0, 0))),
    dict(mu=np.zeros(3), sigma=np.full((3, 3), np.nan)),
    dict(mu=np.zeros(3), sigma=-np.eye(3)),
    dict(mu=np.zeros(3), sigma=np.triu(np.ones((3, 3)))),
    dict(mu=np.array(['a', 'b', 'c']), sigma=np.eye(3)),
    dict(mu=np.zeros(3), sigma=np.eye(3), rows=np.zeros((5, 2), np.float32)),
    dict(mu=np.zeros(3), sigma=np.eye(3), rows=np.full((5, 3), np.inf, np.float32)),
    dict(mu=np.zeros(3), sigma=np.eye(3), count=np.zeros(4)),
    dict(mu=np.zeros(3), sigma=np.eye(3), meta='{'),
    dict(mu=np.zeros(3), sigma=np.eye(3), meta='[1]'),
    dict(mu=np.zeros(3), sigma=np.eye(3), meta='[' * 100_000),
]


@pytest.mark.parametrize('arrays', WRONG, ids=range(len(WRONG)))
def test_what_are_no_statistics_is_one_line(arrays, tmp_path):
    np.savez(tmp_path / 'x.npz', **arrays)
    with pytest.raises(ConfigError, match=r'x\.npz (cannot be read as|holds no) statistics') as caught:
        Statistics.load(tmp_path / 'x.npz')
    assert '\n' not in str(caught.value)


STRANGE = ["__import__('os').system('touch ran')", -1, 0.5, None, [], {}, True, [[1]], '../x', 10**30]


@pytest.mark.parametrize('strange', STRANGE, ids=repr)
@pytest.mark.parametrize('name', ['features', 'weights', 'protocol', *PROTOCOL])
def test_a_stranger_among_what_a_file_says_of_itself_is_one_line_or_only_shown(name, strange, rows, tmp_path):
    meta = dict(features='X', weights='abc', protocol=dict(PROTOCOL))
    (meta['protocol'] if name in PROTOCOL else meta)[name] = strange
    arrays = dict(mu=np.zeros(D), sigma=np.eye(D), count=N, rows=rows.numpy()[:10])
    np.savez(tmp_path / 'x.npz', meta=json.dumps(meta), **arrays)
    said = ''
    try:
        found = Statistics.load(tmp_path / 'x.npz')
    except ConfigError as error:
        said = str(error)
    if said:
        assert name in said
        assert '\n' not in said
    else:
        assert compare(found, found).text()


def test_a_file_that_would_fill_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / 'bomb.npz', mu=np.zeros(10), sigma=np.zeros((10, 10)), rows=np.zeros((10_000, 10)))
    assert (tmp_path / 'bomb.npz').stat().st_size < 10_000
    monkeypatch.setattr('ldae.generation.statistics.LARGEST', 100_000)
    with pytest.raises(ConfigError, match='it would take 0.000746 GiB of memory'):
        Statistics.load(tmp_path / 'bomb.npz')


def test_a_damaged_file_is_one_line(rows, tmp_path):
    path = run(rows, 16).statistics(('X', 'abc'), protocol=PROTOCOL).save(tmp_path / 'x.npz')
    content = path.read_bytes()
    for part in (b'', content[:100], content[:-200], content[:300] + bytes(50) + content[350:]):
        path.write_bytes(part)
        with pytest.raises(ConfigError, match='cannot be read as statistics'):
            Statistics.load(path)
