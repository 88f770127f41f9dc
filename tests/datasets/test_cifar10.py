# SPDX-License-Identifier: Apache-2.0
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ldae.datasets import CIFAR10
from ldae.datasets.cifar10 import BATCHES
from ldae.utils import ConfigError

NAMES = BATCHES['train'] + BATCHES['test']


def records(seed: int, count: int = 4) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count).tolist()


def write_binary(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(NAMES):
        data, labels = records(seed)
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], data], axis=1)
        (folder / f'{name}.bin').write_bytes(rows.tobytes())


def write_pickled(folder: Path, protocol: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(NAMES):
        data, labels = records(seed)
        batch = {b'data': data, b'labels': labels, b'batch_label': name.encode()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))


@pytest.mark.parametrize('write', [write_binary, write_pickled])
@pytest.mark.parametrize('folder', ['.', 'cifar-10-batches-py'])
def test_reads_what_was_written(tmp_path: Path, write, folder):
    write(tmp_path / folder)
    train, test = CIFAR10(tmp_path), CIFAR10(tmp_path, 'test')
    assert train.images.shape == (20, 3, 32, 32)
    data, labels = records(5)
    assert torch.equal(test.images, torch.from_numpy(data).view(4, 3, 32, 32))
    assert test.labels.tolist() == labels
    batch = test.__getitems__([2, 0])
    assert torch.equal(batch['inputs'], test.images[[2, 0]])
    assert [int(sample.gt_label) for sample in batch['data_samples']] == [labels[2], labels[0]]


def test_both_versions_read_as_torchvision_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision import datasets

    write_pickled(tmp_path / 'cifar-10-batches-py')
    meta = tmp_path / 'cifar-10-batches-py' / 'batches.meta'
    meta.write_bytes(pickle.dumps({'label_names': list('0123456789')}))
    monkeypatch.setattr(datasets.CIFAR10, '_check_integrity', lambda self: True)
    monkeypatch.setattr(datasets.cifar, 'check_integrity', lambda *args: True)
    # torchvision decodes keys as latin1: bytes keys of this test become what the real files have.
    for name in NAMES:
        path = tmp_path / 'cifar-10-batches-py' / name
        batch = {key.decode(): value for key, value in pickle.loads(path.read_bytes()).items()}
        path.write_bytes(
            pickle.dumps(batch, protocol=2)
            .replace(b'\x58\x04\x00\x00\x00data', b'U\x04data')
            .replace(b'\x58\x06\x00\x00\x00labels', b'U\x06labels')
        )
    theirs, ours = datasets.CIFAR10(str(tmp_path)), CIFAR10(tmp_path)
    assert torch.equal(ours.images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert ours.labels.tolist() == theirs.targets


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_cannot_run_anything(tmp_path: Path):
    write_pickled(tmp_path)
    (tmp_path / 'test_batch').write_bytes(pickle.dumps(Malicious(tmp_path / 'harm')))
    with pytest.raises(ConfigError, match='it asks for') as caught:
        CIFAR10(tmp_path, 'test')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize('raw', [b'', b'short', pickle.dumps({b'data': np.zeros((2, 3)), b'labels': [0, 1]})])
@pytest.mark.parametrize('name', ['test_batch', 'test_batch.bin'])
def test_damaged_file_is_one_line(tmp_path: Path, raw, name):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ConfigError, match='is not a batch of CIFAR-10') as caught:
        CIFAR10(tmp_path, 'test')
    assert '\n' not in str(caught.value)


def test_missing_batch_says_what_is_wanted(tmp_path: Path):
    write_binary(tmp_path)
    (tmp_path / 'data_batch_3.bin').unlink()
    with pytest.raises(ConfigError, match='data_batch_3'):
        CIFAR10(tmp_path)
