# SPDX-License-Identifier: Apache-2.0
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file

from ldae.datasets import LatentDataset
from ldae.datasets import latents as module
from ldae.datasets.latents import LatentFile, batches_of, checksum, chunks_of, first_of_chunk
from ldae.utils import ConfigError


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(module, 'CHUNK', 4)


def write(path, dtype='float16', labels=None, shape=(10, 3, 5)):
    """A file written in batches that straddle nothing, with what went into it."""
    torch.manual_seed(0)
    values = torch.randn(shape)
    file = LatentFile(path, shape, dtype, labels is not None)
    file.create()
    sums = {}
    for numbers in batches_of(chunks_of(shape[0]), 3):
        rows = file.write(numbers[0], values[numbers])
        start = first_of_chunk(numbers[0])
        sums[start] = checksum(rows, before=sums.get(start, 0))
    assert not path.exists()
    file.finish(dict(tokenizer='a', data='b'), list(sums.values()), labels)
    return values


@pytest.mark.parametrize('dtype', module.DTYPES)
@pytest.mark.parametrize('with_label', [False, True])
def test_safetensors_reads_what_was_written(tmp_path, dtype, with_label):
    labels = torch.arange(10) if with_label else None
    values = write(tmp_path / 'a.safetensors', dtype, labels).to(getattr(torch, dtype))
    theirs = load_file(tmp_path / 'a.safetensors')
    assert torch.equal(theirs['latents'], values)
    ours = LatentDataset(tmp_path / 'a.safetensors', with_label)
    assert (len(ours), ours.dtype) == (10, dtype)
    batch = ours.__getitems__([7, 2, 7])
    assert torch.equal(batch['inputs'], values[[7, 2, 7]])
    if with_label:
        assert torch.equal(theirs['labels'], labels)
        assert [int(sample.gt_label) for sample in batch['data_samples']] == [7, 2, 7]
    else:
        assert set(theirs) == {'latents'}
        assert batch['data_samples'] is None
    assert [path.name for path in tmp_path.iterdir()] == ['a.safetensors']


def test_an_item_is_a_batch_of_one_and_a_copy_for_a_worker_is_by_name(tmp_path):
    values = write(tmp_path / 'a', 'float32')
    dataset = LatentDataset(tmp_path / 'a')
    assert torch.equal(dataset[3]['inputs'], values[3:4])
    text = pickle.dumps(dataset)
    assert len(text) < 1000
    assert torch.equal(pickle.loads(text).latents, dataset.latents)


def test_writing_to_what_was_read_leaves_the_file_alone(tmp_path):
    write(tmp_path / 'a')
    before = (tmp_path / 'a').read_bytes()
    LatentDataset(tmp_path / 'a').latents.zero_()
    assert (tmp_path / 'a').read_bytes() == before


@pytest.mark.parametrize('with_label', [False, True])
def test_a_changed_byte_is_found_in_its_chunk(tmp_path, with_label):
    path = tmp_path / 'a'
    write(path, labels=torch.arange(10) if with_label else None)
    LatentDataset(path).verify(range(3))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    LatentDataset(path).verify([0, 1])
    with pytest.raises(ConfigError, match='is damaged: delete it'):
        LatentDataset(path).verify([2])
    if with_label:
        content[-1] ^= 1
        content[module.WORD + int.from_bytes(content[: module.WORD], 'little')] ^= 1  # the first label
        path.write_bytes(content)
        LatentDataset(path).verify([1, 2])
        with pytest.raises(ConfigError, match='is damaged'):
            LatentDataset(path).verify([0])


def test_what_is_no_file_of_latents_is_one_line(tmp_path):
    path = tmp_path / 'a'
    with pytest.raises(ConfigError, match='is no file: name one of latents'):
        LatentDataset(path)
    for content in (b'', b'x' * 100, (2).to_bytes(8, 'little') + b'{}', (2).to_bytes(8, 'little') + b'[]'):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match='is no file of latents'):
            LatentDataset(path)
    text = json.dumps(dict(__metadata__=dict(format='other'))).encode()
    path.write_bytes(len(text).to_bytes(8, 'little') + text)
    with pytest.raises(ConfigError, match="its format is 'other'"):
        LatentDataset(path)
    path.unlink()
    write(path)
    with pytest.raises(ConfigError, match='holds no labels'):
        LatentDataset(path, with_label=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match='is truncated'):
        LatentDataset(path)


def test_no_room_and_values_beyond_the_format_are_one_line(tmp_path, monkeypatch):
    file = LatentFile(tmp_path / 'a', (2, 1, 1), 'float16')
    file.create()
    with pytest.raises(ConfigError, match='beyond torch.float16'):
        file.write(0, torch.full((1, 1, 1), 1e5))
    file.discard()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(
        'ldae.datasets.latents.shutil.disk_usage', lambda _: type('Usage', (), dict(free=10**9))
    )
    with pytest.raises(ConfigError, match=r'take 21\.0 GB, 1\.0 GB are free'):
        LatentFile(tmp_path / 'b', (1_281_167, 256, 32), 'bfloat16').create()
