# SPDX-License-Identifier: Apache-2.0
"""Which images a limit leaves, with labels that are known and with labels that are not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import Dataset, Subset

from ldae.datasets import IDXDataset, ImageFolder, PackedImages
from ldae.datasets.packing import PackOptions, pack
from ldae.evaluation.probe_data import (
    build_bounded_dataloader,
    data_description,
    labelled_dataloader,
    labelled_dataloaders,
    labels_of_dataset,
)
from ldae.utils import ConfigError


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


def of_folder(root: Path, **options) -> Dataset:
    return ImageFolder(str(root), 'train', **options)


def of_pack(root: Path, **options) -> Dataset:
    if not (root / 'packed').exists():
        pack(of_folder(root), root / 'packed', PackOptions(edge=16, size=16))
    return PackedImages(str(root / 'packed'), **options)


def of_memory(root: Path, **options) -> Dataset:
    return IDXDataset(indices=range(200), **options)


@pytest.mark.parametrize('dataset', [of_folder, of_pack, of_memory])
def test_keys_of_caches_tell_which_images_were_chosen(tiny_image_folder: Path, dataset: Callable):
    keys = []
    for seed in (0, 1, 2, 0):
        loader = labelled_dataloader(
            dict(dataset=dataset(tiny_image_folder, fraction=0.5, fraction_seed=seed), batch_size=4, num_workers=0),
            None,
        )
        keys.append(str(data_description(loader)))
    assert len(set(keys[:3])) == 3
    assert keys[3] == keys[0]


def test_keys_of_caches_tell_what_a_list_says(tiny_image_folder: Path):
    keys = []
    for label in (0, 1):
        (tiny_image_folder / 'list.txt').write_text(f'a/0.jpg 0\na/1.jpg 1\nb/0.jpg {label}\n')
        dataset = ImageFolder(str(tiny_image_folder), 'train', ann_file='list.txt')
        keys.append(
            str(data_description(labelled_dataloader(dict(dataset=dataset, batch_size=1, num_workers=0), None)))
        )
    assert keys[0] != keys[1]


def test_a_label_below_zero_is_said_before_an_image_is_read(tiny_image_folder: Path):
    (tiny_image_folder / 'list.txt').write_text('a/0.jpg 0\na/1.jpg 1\nb/0.jpg -1\n')
    dataset = dict(type='ldae.ImageFolder', data_root=str(tiny_image_folder), split='train', ann_file='list.txt')
    loader = dict(dataset=dataset, batch_size=1, num_workers=0)
    cfg = Config(dict(train_dataloader=loader, val_dataloader=loader))
    with pytest.raises(ConfigError, match='train_y: label -1 is not a class'):
        labelled_dataloaders(cfg, (None, None), 1)
