# SPDX-License-Identifier: Apache-2.0
"""One job with real rows on a few images, in this process."""

import json

import pytest
import torch

from ldae.ablation import plan_jobs, worker
from ldae.config import load_config
from ldae.config.rows import list_rows

TINY = dict(embed_dims=24, num_layers=1, num_heads=1, feedforward_channels=24)


def load(path):
    cfg = load_config(path, scale='fashion-mnist_subset')
    cfg.model.backbone.arch = TINY
    return cfg


def plan(names, root):
    rows = [row for row in list_rows() if row.name in names]
    jobs = plan_jobs(rows, [1], root, load, quick=True)
    for job in jobs:
        job.write()
    return jobs


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    """Two rows of appendix A, run."""
    (job,) = plan(['a_t10_clean', 'a_t80_noisy'], tmp_path_factory.mktemp('job'))
    worker.main([str(job.folder)])
    return job


def test_each_row_is_scored_with_its_own_transfer_settings(job):
    scores = json.loads((job.folder / 'scores.json').read_text())
    assert [(s['row'], s['timestep'], s['transfer_noise']) for s in scores] == [
        ('a_t10_clean', 10, False),
        ('a_t80_noisy', 80, True),
    ]
    for score in scores:
        assert 10 < score['knn'] <= 100
        assert 10 < score['linear'] <= 100
        assert (score['tokenizer'], score['latent_dim'], score['epochs']) == ('PatchPCATokenizer', 8, 2)
        assert score['seconds']['train'] > 0
    assert scores[0]['knn'] != scores[1]['knn']


def test_a_second_call_scores_again_without_training_and_finds_the_same(job):
    before, checkpoint = (job.folder / 'scores.json').read_text(), job.folder / 'epoch_2.pth'
    stamp = checkpoint.stat().st_mtime_ns
    worker.main([str(job.folder)])
    assert checkpoint.stat().st_mtime_ns == stamp
    again = json.loads((job.folder / 'scores.json').read_text())
    for old, new in zip(json.loads(before), again, strict=True):
        assert {k: v for k, v in old.items() if k != 'seconds'} == {
            k: v for k, v in new.items() if k != 'seconds'
        }


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(job, tmp_path):
    whole_run, (job,) = job, plan(['a_t10_clean'], tmp_path)
    config = job.folder / 'config.py'
    whole = config.read_text()
    assert 'max_epochs=2' in whole
    # Runs of one name that start in the same second of one process would share a log.
    config.write_text(whole.replace('max_epochs=2', 'max_epochs=1') + "\nexperiment_name = 'interrupted'\n")
    worker.train(job.folder)
    (job.folder / 'done.json').unlink()
    config.write_text(whole + "\nexperiment_name = 'resumed'\n")
    assert worker.train(job.folder)['checkpoint'] == 'epoch_2.pth'
    assert 'resumed epoch: 1' in ''.join(path.read_text() for path in job.folder.glob('*/*.log'))
    ended, expected = (
        torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict']
        for folder in (job.folder, whole_run.folder)
    )
    assert all(torch.equal(ended[name], value) for name, value in expected.items())


def test_a_row_that_cannot_be_scored_is_explained_and_takes_none_along(job, monkeypatch):
    extract = worker.extract

    def spoil(model, *args):
        features, labels = extract(model, *args)
        return features * float('nan' if model.transfer_noise else '1'), labels

    monkeypatch.setattr(worker, 'extract', spoil)
    worker.main([str(job.folder)])
    good, bad = json.loads((job.folder / 'scores.json').read_text())
    assert good['knn'] > 10
    assert 'pre-training has diverged' in bad['error']


def test_training_images_are_probed_without_augmentation():
    row = next(row for row in list_rows() if row.name == 'aug_random-crop')
    for cfg in (load_config(row.path, scale='fashion-mnist_subset'), load_config(row.path)):
        train, test = worker.probe_dataloaders(cfg)
        assert train['dataset']['with_label']
        assert test['dataset']['with_label']
        assert not train['dataset'].get('crop_scale')
        assert train['dataset'].get('pipeline') == test['dataset'].get('pipeline')
        assert train['dataset']['split'] == 'train'
