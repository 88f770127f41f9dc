# SPDX-License-Identifier: Apache-2.0
"""A row's second figure: its samples' distance to the training images."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import make_entry, make_row
from PIL import Image

import ldae
from ldae.ablation import Sampling, ablate, plan_jobs, summarise, worker, write_report
from ldae.ablation.deconstruction import what_it_needs
from ldae.ablation.generation import score_samples
from ldae.ablation.jobs import SCORING, Pretraining, plan
from ldae.ablation.report import table_page
from ldae.ablation.results import ResultsFile
from ldae.config import load_config
from ldae.config.rows import list_rows
from ldae.utils import ConfigError

TINY = dict(embed_dims=24, num_layers=1, num_heads=1, feedforward_channels=24)


def load(path: Path):
    cfg = load_config(path, scale='fashion-mnist_subset')
    cfg.model.backbone.arch = TINY
    return cfg


@pytest.fixture(scope='module')
def scores(tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path) -> dict[str, dict]:
    """Of a row with labels, of one that predicts the image, and of one that can't be sampled."""
    root = tmp_path_factory.mktemp('rows') / 'scale'
    sampling = Sampling(num=1000, steps=1000, features=str(small_checkpoint))
    names = ('labels_pca_d32', 't3_5_original-image', 't3_6_single-level')
    rows = [row for row in list_rows() if row.name in names]
    found = {}
    for job in plan_jobs(rows, [1], root, load, quick=True, scoring=replace(SCORING, sampling=sampling)):
        job.write()
        worker.main([str(job.folder)])
        (found[job.folder.parent.name],) = json.loads((job.folder / 'scores.json').read_text())
        found[job.folder.parent.name]['folder'] = job.folder
    return found


@pytest.mark.parametrize('name', ['labels_pca_d32', 't3_5_original-image'])
def test_samples_are_scored_beside_the_accuracy(name: str, scores: dict[str, dict], small_checkpoint: Path):
    found, folder = scores[name]['generation'], scores[name]['folder']
    assert 10 < scores[name]['linear'] <= 100
    # --quick takes few samples and steps.
    assert (found['samples'], found['reference'], found['steps'], found['sampler']) == (16, 512, 5, 'dpm++')
    alone = ldae.frechet_distance(
        folder / 'samples' / 'images', f'{folder / "config.py"}:train', features=str(small_checkpoint), cache=None
    )
    assert found['frechet'] == pytest.approx(alone.frechet, rel=1e-6)
    assert found['name'] == alone.name
    assert found['name'].startswith('Fréchet distance (')
    with np.load(folder / 'samples' / 'samples.npz') as arrays:
        assert ('arr_1' in arrays) == (name == 'labels_pca_d32')


def test_a_single_level_has_none_and_says_why(scores: dict[str, dict]):
    assert scores['t3_6_single-level']['generation'] == dict(reason='a single level of noise')
    assert 10 < scores['t3_6_single-level']['linear'] <= 100


def test_scores_without_samples_are_the_ones_of_before():
    assert 'sampling' not in SCORING.as_dict()
    assert replace(SCORING, sampling=Sampling(num=5)).as_dict()['sampling']['num'] == 5


def test_a_plan_with_samples_knows_the_hash_of_one_without(tmp_path: Path):
    run = Pretraining('a', load_config('ldae/demo_fashion-mnist'), [('a', 'trained'), ('a_untrained', 'untrained')])
    with_samples = replace(SCORING, sampling=Sampling(num=5, features='net.pth'))
    (plain,), (sampled,) = (plan([run], [0], tmp_path, load_config, scoring=way) for way in (SCORING, with_samples))
    for one, other in zip(plain.members, sampled.members, strict=True):
        assert one.config == one.without_samples == other.without_samples != other.config


def test_wrong_options_are_one_line():
    with pytest.raises(ConfigError, match='Sampling.num=1 is out of range'):
        Sampling(num=1)
    with pytest.raises(ConfigError, match="Sampling.sampler='plms' is unknown"):
        Sampling(num=2, sampler='plms')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(features='absent.pth'), "checkpoint 'absent.pth' does not exist"),
        (dict(inception='absent.pth'), '--inception absent.pth is not a file'),
        (dict(), 'which features are compared'),
    ],
)
def test_a_network_that_is_not_there_is_known_before_training(options: dict, message: str, tmp_path: Path):
    scoring = replace(SCORING, sampling=Sampling(num=2, **options))
    with pytest.raises(ConfigError, match=message):
        ablate(['t2_pca_d32'], 'fashion-mnist_subset', work_dir=tmp_path, scoring=scoring)
    assert list(tmp_path.iterdir()) == []


def test_samples_of_a_call_before_that_wanted_more_are_not_counted(small_model, small_checkpoint: Path, tmp_path: Path):
    config = tmp_path / 'scale' / 'row' / 'seed0' / 'config.py'
    config.parent.mkdir(parents=True)
    config.write_text(load_config('ldae/demo_fashion-mnist').pretty_text)
    sampling = dict(num=6, steps=2, sampler='dpm++', features=str(small_checkpoint), weights=None, inception=None)
    model = small_model()
    for num in (6, 4):
        assert score_samples(model, config, dict(sampling, num=num), seed=0)['samples'] == num


class TestReport:
    ROWS = [make_row('a', linear=62.0, fid=30.9), make_row('b', linear=61.0, fid=54.3), make_row('c', linear=None)]

    def entries(self) -> list[dict]:
        sampled = dict(name='Fréchet distance (net)', samples=50, reference=512, steps=5, sampler='dpm++')
        entries = [make_entry('a', seed, 60.0, generation=dict(sampled, frechet=10.0 + seed)) for seed in range(3)]
        entries += [make_entry('b', 0, 50.0, generation=dict(sampled, frechet=123.456))]
        return [*entries, make_entry('c', 0, 40.0, generation=dict(reason='a single level of noise'))]

    def cells(self, page: str) -> list[list[str]]:
        return [re.split(r' *\| *', line)[1:-1] for line in page.splitlines() if line.startswith('| ')]

    def test_both_figures_stand_beside_the_papers(self, tmp_path: Path):
        written = write_report(tmp_path, summarise(self.ROWS, self.entries()), 'tiny', 'x')
        header, a, b, c = self.cells((tmp_path / 'table.md').read_text())
        assert header[6:] == [
            'ours: Fréchet distance (net)',
            'seeds',
            "the paper's: linear, ImageNet",
            "the paper's: FID-50K",
        ]
        assert a[6:] == ['11 ± 1', '3', '62.0', '30.9']
        assert b[6:] == ['123.5', '1', '61.0', '54.3']
        assert c[6:] == ['a single level of noise', '1', '-', '-']
        assert '50 samples (dpm++, 5 steps) against 512 training images' in (tmp_path / 'table.md').read_text()
        assert min(Image.open(tmp_path / 'generation.png').size) > 100
        assert tmp_path / 'generation.png' in written

    def test_seeds_without_samples_count_for_accuracy(self, tmp_path: Path):
        sampled = dict(name='Fréchet distance (net)', samples=50, reference=512, steps=5, sampler='dpm++', frechet=20.0)
        hashes = dict(config='with', without_samples='c')
        entries = [make_entry('a', 0, 60.0, generation=sampled, **hashes), make_entry('a', 1, 62.0)]
        entries.append(
            make_entry('a', 2, 64.0, generation=dict(sampled, frechet=99.0), config='more', without_samples='c')
        )
        entries.append(make_entry('a', 3, 10.0, config='another'))
        entries.append(make_entry('a', 0, 61.0, generation=dict(sampled, frechet=10.0), **hashes))
        (summary,) = summarise(self.ROWS, entries)
        assert (summary.seeds, summary.linear.mean) == ((0, 1, 2), pytest.approx((61 + 62 + 64) / 3))
        assert summary.entry == entries[-1]
        assert summary.distance == (10.0, None)  # of the newest kind of samples, not a mean of two kinds
        results = ResultsFile(tmp_path / 'results.jsonl')
        for entry in entries:
            results.append(entry)
        assert results.find('a', 0, 'c') == results.find('a', 0, 'with') == entries[-1]  # no reason to score again
        assert results.find('a', 1, 'with') is None

    def test_a_row_that_needs_other_weights_is_in_the_table(self):
        rows = {row.name: row for row in list_rows()}
        assert what_it_needs(rows['t1_1_dit-baseline']) == 'needs VGG'
        assert what_it_needs(rows['t1_2_no-class-conditioning']) == 'needs VGG'
        assert what_it_needs(rows['t1_3_no-perceptual']) is None
        missing = {make_row('d', linear=57.5, fid=11.6): 'needs VGG'}
        page = table_page(summarise(self.ROWS, self.entries()), 'tiny', 'x', missing)
        (cells,) = [row for row in self.cells(page) if row[0] == '`d`']
        assert cells[2:] == ['-', '-', 'needs VGG', '-', '-', '0', '57.5', '11.6']
