# SPDX-License-Identifier: Apache-2.0
"""Bad files among good ones: which samples stand in, what is counted, when a run stops."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from bad_files import BAD, write_bad
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from ldae.datasets import ImageFolder
from ldae.datasets.image_folder import describe_bad
from ldae.utils import ConfigError
from ldae.utils.error_lines import one_line

PIPELINE = [dict(type='ldae.LoadImage'), dict(type='ResizeEdge', scale=32), dict(type='PackInputs')]


@pytest.fixture
def dirty_folder(tiny_annotated_folder: Path) -> tuple[Path, dict[str, str]]:
    """16 good images, and as many bad ones as there are kinds, one after the other in the annotation file."""
    reasons = write_bad(tiny_annotated_folder / 'train')
    listed = tiny_annotated_folder / 'meta' / 'train.txt'
    good = listed.read_text().splitlines()
    bad = [f'{name} 1' for name in reasons]
    # good 0, bad, good 1, bad, ... and what is left at the end, so that the first good one stands in for it
    mixed = [line for pair in zip(good, bad, strict=False) for line in pair] + bad[len(good) :]
    listed.write_text('\n'.join(mixed) + '\n')
    return tiny_annotated_folder, reasons


def folder(root: Path, **options: object) -> ImageFolder:
    return ImageFolder(str(root), **dict(dict(split='train', pipeline=PIPELINE, max_bad=1.0), **options))


def read(dataset: ImageFolder, order: Sequence[int], workers: int = 0) -> tuple[list[int], torch.Tensor]:
    """Positions and pixels of what a data loader gives, in a given order."""
    loader = DataLoader(
        dataset,
        batch_size=4,
        sampler=order,
        num_workers=workers,
        collate_fn=default_collate,
        timeout=600 * (workers > 0),
    )
    batches = list(loader)
    samples = [sample for batch in batches for sample in batch['data_samples']]
    return [sample.sample_idx for sample in samples], torch.cat([batch['inputs'] for batch in batches])


def name_of(dataset: ImageFolder, index: int) -> str:
    return dataset.get_data_info(index)['img_path'].removeprefix(f'{dataset.img_prefix}/')


def test_each_bad_file_is_replaced_by_the_next_good_one_and_counted(dirty_folder: tuple):
    root, reasons = dirty_folder
    dataset = folder(root)
    places, _ = read(dataset, range(len(dataset)))
    good = [i for i in range(len(dataset)) if name_of(dataset, i) not in reasons]
    assert len(good) == 16
    assert places == [min((g for g in good if g >= i), default=good[0]) for i in range(len(dataset))]
    assert {name_of(dataset, i): reason for i, reason in dataset.bad_images().items()} == reasons


def test_what_stands_in_depends_neither_on_workers_nor_on_the_order(dirty_folder: tuple):
    root, reasons = dirty_folder
    count = len(folder(root))
    _, expected = read(folder(root), range(count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    for workers in (0, 2):
        dataset = folder(root)
        _, pixels = read(dataset, order, workers)
        assert torch.equal(pixels, expected[order])
        assert len(dataset.bad_images()) == len(reasons)  # the main process knows what its workers found


@pytest.mark.parametrize('workers', [0, 2])
def test_too_many_bad_files_stop_in_one_line(dirty_folder: tuple, workers: int):
    dataset = folder(dirty_folder[0], max_bad=0.1)
    with pytest.raises(ConfigError) as caught:
        read(dataset, range(len(dataset)), workers)
    line = one_line(caught.value)
    assert '\n' not in line
    assert f'of {len(dataset)} images, max_bad=0.1 may be so' in line
    assert 'ldae verify-dataset' in line


def test_one_percent_may_be_bad_in_training_and_none_elsewhere(tiny_image_folder: Path):
    assert folder(tiny_image_folder, max_bad=None).max_bad == 0.01
    dataset = folder(tiny_image_folder, split='val', max_bad=None)
    assert dataset.max_bad == 0
    (tiny_image_folder / 'val' / 'b' / '1.jpg').write_bytes(b'')
    with pytest.raises(ConfigError, match=r'b/1\.jpg is empty; of 8 images, max_bad=0 may be so'):
        read(dataset, range(len(dataset)))
    for wrong in (-0.1, 1.5, 'few', True):
        with pytest.raises(ConfigError, match='max_bad'):
            folder(tiny_image_folder, max_bad=wrong)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_folder_of_nothing_but_bad_files_ends_in_one_line(dirty_folder: tuple, workers: int):
    root, reasons = dirty_folder
    (root / 'meta' / 'train.txt').write_text(''.join(f'{name} 0\n' for name in reasons))
    with pytest.raises(ConfigError) as caught:
        read(folder(root), range(4), workers)
    assert f'none of {len(reasons)} images can be read' in one_line(caught.value)


@pytest.mark.parametrize('name', BAD)
def test_a_pipeline_with_another_reader_is_judged_alike(name: str, tiny_image_folder: Path):
    (tiny_image_folder / 'train' / 'a' / '3.jpg').write_bytes(BAD[name][0])
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = folder(tiny_image_folder, pipeline=pipeline)
    sample = dataset[3]['data_samples'].sample_idx
    # mmcv reads some of these; what it can't read is skipped for the same reason.
    assert (sample, dataset.bad_images()) in ((3, {}), (4, {3: BAD[name][1]}))


def test_a_reader_that_returns_nothing_draws_no_other_image_at_random(tiny_image_folder: Path):
    (tiny_image_folder / 'train' / 'a' / '3.jpg').write_bytes(b'')
    pipeline = [dict(type='LoadImageFromFile', ignore_empty=True), dict(type='PackInputs')]
    assert folder(tiny_image_folder, pipeline=pipeline)[3]['data_samples'].sample_idx == 4


def test_errors_of_a_transform_are_no_bad_images(tiny_image_folder: Path):
    dataset = folder(tiny_image_folder, pipeline=[PIPELINE[0], lambda results: results['nothing']])
    with pytest.raises(KeyError, match='nothing'):
        dataset[0]
    assert dataset.bad_images() == {}


def test_a_subset_has_places_of_its_own(tiny_image_folder: Path):
    (tiny_image_folder / 'train' / 'a' / '3.jpg').write_bytes(b'')
    dataset = folder(tiny_image_folder)
    assert dataset[3]['data_samples'].sample_idx == 4
    subset = dataset.get_subset([2, 3, 5])
    assert [subset[i]['data_samples'].sample_idx for i in range(3)] == [0, 2, 2]
    assert subset.bad_images() == {1: 'is empty'}


def test_counts_are_described_in_a_few_words():
    assert describe_bad({1: 'is empty', 2: 'is truncated', 7: 'is empty'}, 2000) == (
        '3 of 2,000 images (2 is empty, 1 is truncated)'
    )
