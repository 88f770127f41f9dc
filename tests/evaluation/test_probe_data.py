# SPDX-License-Identifier: Apache-2.0
"""Which images a limit leaves, with labels that are known and with labels that are not."""

import pytest
import torch
from torch.utils.data import Dataset, Subset

from ldae.datasets import IDXDataset
from ldae.evaluation.probe_data import build_bounded_dataloader, labelled_dataloader, labels_of_dataset


class Images(Dataset):
    """60 images that may not be read, of 6 classes one after another."""

    def __init__(self, **shown):
        vars(self).update(shown)

    def __len__(self):
        return 60

    def __getitem__(self, i):
        raise AssertionError('an image was read')


LABELS = [i // 10 for i in range(60)]


@pytest.mark.parametrize(
    'shown', [dict(labels=torch.tensor(LABELS)), dict(targets=LABELS), dict(get_gt_labels=lambda: LABELS)]
)
def test_labels_are_found_without_reading_images(shown):
    assert labels_of_dataset(Images(**shown)).tolist() == LABELS
    assert labels_of_dataset(Subset(Images(**shown), [59, 0])).tolist() == [5, 0]


def test_a_limit_keeps_every_class():
    loader = build_bounded_dataloader(dict(dataset=Images(targets=LABELS), batch_size=4, num_workers=0), 6)
    assert labels_of_dataset(loader.dataset).tolist() == [0, 1, 2, 3, 4, 5]


def test_without_labels_the_choice_is_random_and_said(monkeypatch):
    lines = []
    monkeypatch.setattr('ldae.evaluation.probe_data.print_log', lambda line, *where: lines.append(line))
    loader = build_bounded_dataloader(dict(dataset=Images(), batch_size=4, num_workers=0), 6)
    assert len(loader.dataset.indices) == 6
    assert 'Images shows no labels' in lines[0]
    assert labels_of_dataset(loader.dataset) is None


def test_the_shipped_images_know_their_labels():
    data = IDXDataset(split='test', with_label=True)
    assert torch.equal(labels_of_dataset(data), data.labels)


@pytest.mark.parametrize(('asked', 'cores', 'workers'), [(12, 2, 2), (1, 2, 1), (0, 2, 0)])
def test_a_loader_has_no_more_workers_than_there_are_cores(asked, cores, workers, monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(cores)))
    cfg = dict(dataset=Images(), batch_size=2, num_workers=asked)
    assert labelled_dataloader(cfg, None).num_workers == workers
