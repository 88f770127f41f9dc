# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldae.datasets import IDXDataset, ImageFolder
from ldae.datasets.low_shot import part_of_each_class, some_of_each_class, spread_over_classes
from ldae.utils import ConfigError

LABELS = torch.randint(0, 7, (2000,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('fraction', [1e-3, 0.01, 0.1, 0.37, 1.0])
def test_every_class_gives_its_share_and_at_least_one(fraction):
    keep = part_of_each_class(LABELS, fraction, 0, 'it')
    assert keep.tolist() == sorted(set(keep.tolist()))
    counts, kept = Counter(LABELS.tolist()), Counter(LABELS[keep].tolist())
    assert kept == {label: max(1, round(fraction * n)) for label, n in counts.items()}


def test_the_seed_alone_chooses_and_a_smaller_part_lies_within_a_larger():
    one, ten, again, other = (
        set(part_of_each_class(LABELS, fraction, seed, 'it').tolist())
        for fraction, seed in ((0.01, 3), (0.1, 3), (0.1, 3), (0.1, 4))
    )
    torch.rand(5)
    assert one < ten == again != other


@pytest.mark.parametrize(('fraction', 'seed'), [(0, 0), (1.5, 0), (float('nan'), 0), (0.1, -1)])
def test_a_part_out_of_range_is_one_line(fraction, seed):
    with pytest.raises(ConfigError, match='fraction') as caught:
        IDXDataset(fraction=fraction, fraction_seed=seed)
    assert '\n' not in str(caught.value)


def test_data_in_memory_keep_images_and_labels_together():
    whole, part = (IDXDataset(indices=500, pad=2), IDXDataset(indices=500, pad=2, fraction=0.1, fraction_seed=1))
    keep = part_of_each_class(whole.labels, 0.1, 1, 'it')
    assert torch.equal(part.labels, whole.labels[keep])
    assert torch.equal(part.images, whole.images[keep])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (('a', 10), ('b', 20), ('c', 1)):
        for i in range(count):
            path = tmp_path / 'train' / name / f'{i:02}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (4, 4)).save(path)
    return tmp_path


def test_a_folder_gives_a_part_of_each_class(folder: Path):
    part = ImageFolder(str(folder), fraction=0.3)
    assert Counter(part.get_gt_labels().tolist()) == {0: 3, 1: 6, 2: 1}


def test_a_list_of_files_names_the_part(folder: Path):
    (folder / 'part.txt').write_text('a/03.png 0\nb/07.png 1\n')
    part = ImageFolder(str(folder), ann_file='part.txt')
    assert [Path(part.get_data_info(i)['img_path']).name for i in range(len(part))] == ['03.png', '07.png']
    assert part.get_gt_labels().tolist() == [0, 1]


def test_a_part_of_each_class_needs_labels(folder: Path):
    with pytest.raises(ConfigError, match='with_label=True'):
        ImageFolder(str(folder), with_label=False, fraction=0.1)


@pytest.mark.parametrize('count', [3, 4, 10, 57, 99, 100])
def test_some_of_each_class_keeps_each_in_proportion(count):
    labels = torch.tensor([5] * 70 + [0] * 29 + [9])[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    keep = some_of_each_class(labels, count, 0, 'limit')
    assert len(keep) == count
    assert keep.tolist() == sorted(set(keep.tolist()))
    found = [int((labels[keep] == label).sum()) for label in (5, 0, 9)]
    assert min(found) >= 1
    share = [count * size / 100 for size in (70, 29, 1)]
    assert all(abs(a - b) <= 1.5 for a, b in zip(found, share, strict=True))


def test_a_choice_of_some_depends_on_the_seed_alone():
    labels = torch.arange(60) % 3
    a, b, c = (some_of_each_class(labels, 20, seed, 'limit').tolist() for seed in (0, 0, 1))
    assert a == b != c


def test_fewer_images_than_classes_are_one_line():
    with pytest.raises(ConfigError, match='limit=2 leaves no image of some of the 3 classes: allow 3'):
        some_of_each_class(torch.arange(60) % 3, 2, 0, 'limit')


@pytest.mark.parametrize(
    ('sizes', 'count', 'expected'),
    [
        ([3, 3, 3], 3, [0, 3, 6]),
        ([2, 2, 2, 2], 2, [0, 4]),  # two of four classes, evenly spaced
        ([4, 4], 4, [0, 2, 4, 6]),  # evenly spaced within each
        ([1, 5], 4, [0, 1, 2, 4]),  # a class that has no more gives its room away
        ([8], 2, [0, 4]),
        ([2, 1], 9, [0, 1, 2]),
    ],
)
def test_shown_images_are_spread_over_classes(sizes, count, expected):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    assert spread_over_classes(labels, count) == expected
