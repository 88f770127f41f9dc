# SPDX-License-Identifier: Apache-2.0
import gzip
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from ldae.datasets import IDXDataset, batch_collate
from ldae.datasets.idx import SUBSET_ROOT, find_idx, read_idx
from ldae.utils import ConfigError


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Four small IDX files, not gzipped: 6 training and 3 test images of 4 x 4."""
    root = tmp_path / 'idx'
    root.mkdir()
    for prefix, count in (('train', 6), ('t10k', 3)):
        pixels = bytes(range(count * 16))
        header = b''.join(n.to_bytes(4, 'big') for n in (2051, count, 4, 4))
        (root / f'{prefix}-images-idx3-ubyte').write_bytes(header + pixels)
        header = b''.join(n.to_bytes(4, 'big') for n in (2049, count))
        (root / f'{prefix}-labels-idx1-ubyte').write_bytes(header + bytes(i % 3 for i in range(count)))
    return root


@pytest.mark.parametrize(('split', 'per_class'), [('train', 1000), ('test', 200)])
def test_shipped_subset_is_balanced(split: str, per_class: int):
    dataset = IDXDataset(split=split)
    assert dataset.images.shape == (10 * per_class, 1, 28, 28)
    assert dataset.images.dtype == torch.uint8
    assert dataset.labels.bincount().tolist() == [per_class] * 10
    assert len(dataset.metainfo['classes']) == 10


def test_shipped_subset_has_its_licence():
    assert 'Zalando' in (SUBSET_ROOT / 'LICENSE').read_text()


def test_reads_what_was_written(idx_folder: Path):
    dataset = IDXDataset(idx_folder, 'train')
    assert torch.equal(dataset.images.flatten(), torch.arange(96, dtype=torch.uint8))
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_gzipped_and_plain_files_are_the_same(idx_folder: Path):
    plain = read_idx(idx_folder, 'test', 'images')
    path = idx_folder / 't10k-images-idx3-ubyte'
    path.with_name(path.name + '.gz').write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert torch.equal(read_idx(idx_folder, 'test', 'images'), plain)


def test_finds_files_where_torchvision_puts_them(idx_folder: Path):
    raw = idx_folder / 'FashionMNIST' / 'raw'
    raw.mkdir(parents=True)
    shutil.move(idx_folder / 'train-images-idx3-ubyte', raw)
    assert find_idx(idx_folder, 'train', 'images').parent == raw


def test_indices_take_the_first_or_those_named(idx_folder: Path):
    assert IDXDataset(idx_folder, indices=2).labels.tolist() == [0, 1]
    assert IDXDataset(idx_folder, indices=[5, 1]).labels.tolist() == [2, 1]
    with pytest.raises(ConfigError, match='below 6'):
        IDXDataset(idx_folder, indices=[6])


def test_a_data_loader_gets_whole_batches(idx_folder: Path):
    cfg = dict(
        dataset=dict(type='ldae.IDXDataset', data_root=str(idx_folder), with_label=True),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='ldae.batch_collate'),
        batch_size=4,
        num_workers=0,
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(cfg)
    first, last = list(loader)
    assert first['inputs'].shape == (4, 1, 4, 4)
    assert last['inputs'].shape == (2, 1, 4, 4)
    assert [int(sample.gt_label) for sample in last['data_samples']] == [1, 2]


def test_without_labels_there_are_no_samples(idx_folder: Path):
    assert IDXDataset(idx_folder, with_label=False)[0]['data_samples'] is None


def test_collate_joins_items_of_wrapped_datasets(idx_folder: Path):
    dataset = IDXDataset(idx_folder)
    batch = batch_collate([dataset[3], dataset[4]])
    assert torch.equal(batch['inputs'], dataset.images[3:5])
    assert [int(sample.gt_label) for sample in batch['data_samples']] == [0, 1]


def test_missing_folder_and_file(tmp_path: Path):
    with pytest.raises(ConfigError, match='is not a folder'):
        IDXDataset(tmp_path / 'nowhere')
    with pytest.raises(ConfigError, match='holds neither train-images'):
        IDXDataset(tmp_path)


def test_unknown_split(idx_folder: Path):
    with pytest.raises(ConfigError, match='train'):
        IDXDataset(idx_folder, 'tran')


def test_wrong_magic_number(idx_folder: Path):
    shutil.copy(idx_folder / 'train-labels-idx1-ubyte', idx_folder / 'train-images-idx3-ubyte')
    with pytest.raises(ConfigError, match='magic number 2049, expected 2051'):
        IDXDataset(idx_folder)


@pytest.mark.parametrize('keep', [10, 30])
def test_truncated_file(idx_folder: Path, keep: int):
    path = idx_folder / 'train-images-idx3-ubyte'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match='truncated|damaged'):
        IDXDataset(idx_folder)


@pytest.mark.parametrize('damage', [lambda raw: raw[:-20], lambda raw: b'no gzip', lambda raw: raw[:12] + b'x' * 40])
def test_damaged_gzip(idx_folder: Path, damage):
    raw = gzip.compress((idx_folder / 'train-images-idx3-ubyte').read_bytes())
    (idx_folder / 'train-images-idx3-ubyte.gz').write_bytes(damage(raw))
    with pytest.raises(ConfigError, match='cannot be read') as caught:
        IDXDataset(idx_folder)
    assert '\n' not in str(caught.value)


def test_counts_must_match(idx_folder: Path):
    shutil.copy(idx_folder / 't10k-labels-idx1-ubyte', idx_folder / 'train-labels-idx1-ubyte')
    with pytest.raises(ConfigError, match='6 train images but 3 labels'):
        IDXDataset(idx_folder)


def test_downloads_only_when_asked(tmp_path: Path, idx_folder: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision import datasets

    calls = []

    def fetch(root: str, download: bool) -> None:
        calls.append((root, download))
        shutil.copytree(idx_folder, Path(root) / 'FashionMNIST' / 'raw')

    monkeypatch.setattr(datasets, 'FashionMNIST', fetch)
    target = tmp_path / 'target'
    target.mkdir()
    with pytest.raises(ConfigError, match='holds neither'):
        IDXDataset(target)
    assert calls == []
    assert len(IDXDataset(target, download=True)) == 6
    assert calls == [(str(target), True)]
    IDXDataset(target, download=True)
    assert len(calls) == 1, 'what is there is not fetched again'


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision import datasets

    def fetch(root: str, download: bool) -> None:
        raise RuntimeError('Error downloading train-images\nlong story')

    monkeypatch.setattr(datasets, 'MNIST', fetch)
    with pytest.raises(ConfigError, match='copy the four IDX files') as caught:
        IDXDataset(tmp_path, download=True, name='MNIST')
    assert '\n' not in str(caught.value)


def test_download_needs_a_folder():
    with pytest.raises(ConfigError, match='needs a data_root'):
        IDXDataset(download=True)
