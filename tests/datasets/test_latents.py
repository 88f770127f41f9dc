# SPDX-License-Identifier: Apache-2.0
import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from ldae.datasets import LatentDataset
from ldae.datasets import latents as module
from ldae.datasets.latents import new_latents, shards_of, write_shard
from ldae.utils import ConfigError


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(module, 'SHARD_SIZE', 4)


def write(path, dtype='float16', labels=None, shape=(10, 3, 5)):
    """A folder written in batches of 3 that straddle nothing, with what went into it."""
    torch.manual_seed(0)
    values = torch.randn(shape)
    with new_latents(path, shape, dtype, labels is not None, dict(tokenizer='a', data='b')) as (folder, _):
        for number, images in enumerate(shards_of(shape[0])):
            batches = [images[start : start + 3] for start in range(0, len(images), 3)]
            parts = ((values[list(b)], None if labels is None else labels[list(b)]) for b in batches)
            write_shard(folder, number, shape, dtype, parts)
        assert not path.exists()
    return values


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('dtype', module.DTYPES)
@pytest.mark.parametrize('with_label', [False, True])
def test_numpy_reads_what_was_written(tmp_path, dtype, with_label):
    labels = torch.arange(10) if with_label else None
    values = write(tmp_path / 'a', dtype, labels).to(getattr(torch, dtype))
    shards = sorted((tmp_path / 'a').glob('shard-*'))
    theirs = torch.from_numpy(np.concatenate([np.load(shard / 'latents.npy') for shard in shards]))
    assert torch.equal(theirs.view(values.dtype), values)
    ours = LatentDataset(tmp_path / 'a', with_label)
    assert (len(ours), ours.dtype) == (10, dtype)
    batch = ours.__getitems__([7, 2, 7])
    assert torch.equal(batch['inputs'], values[[7, 2, 7]])
    if with_label:
        assert np.concatenate([np.load(shard / 'labels.npy') for shard in shards]).tolist() == list(range(10))
        assert [int(sample.gt_label) for sample in batch['data_samples']] == [7, 2, 7]
    else:
        assert {path.name for path in shards[0].iterdir()} == {'latents.npy', 'shard.json'}
        assert batch['data_samples'] is None
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_an_item_is_a_batch_of_one_and_a_copy_for_a_worker_is_by_name(tmp_path):
    values = write(tmp_path / 'a', 'float32')
    dataset = LatentDataset(tmp_path / 'a')
    assert torch.equal(dataset[3]['inputs'], values[3:4])
    assert torch.equal(dataset[-1]['inputs'], values[9:])
    with pytest.raises(IndexError):
        dataset[10]
    text = pickle.dumps(dataset)
    assert len(text) < 1000
    assert torch.equal(pickle.loads(text).rows(range(10)), dataset.rows(range(10)))


def test_writing_to_what_was_read_leaves_the_file_alone(tmp_path):
    write(tmp_path / 'a')
    path = tmp_path / 'a' / 'shard-00000' / 'latents.npy'
    before = path.read_bytes()
    LatentDataset(tmp_path / 'a').rows(range(10)).zero_()
    assert path.read_bytes() == before


@pytest.mark.parametrize('with_label', [False, True])
def test_a_changed_byte_is_found_in_its_shard(tmp_path, with_label):
    path = tmp_path / 'a'
    write(path, labels=torch.arange(10) if with_label else None)
    LatentDataset(path).verify(range(3))
    last = path / 'shard-00002' / 'latents.npy'
    flip(last, -1)
    LatentDataset(path).verify([0, 1])
    with pytest.raises(ConfigError, match='is damaged: delete'):
        LatentDataset(path).verify([2])
    if with_label:
        flip(last, -1)
        flip(path / 'shard-00000' / 'labels.npy', -32)  # the first label
        with pytest.raises(ConfigError, match='labels.npy is damaged: delete'):
            LatentDataset(path)


def test_what_is_not_a_folder_of_latents_is_one_line(tmp_path):
    path = tmp_path / 'a'
    with pytest.raises(ConfigError, match=r'holds no finished latents, which ldae\.LatentCacheHook writes'):
        LatentDataset(path)
    path.mkdir()
    manifest = path / 'latents.json'
    for content in (b'', b'x' * 100, b'[]', json.dumps(dict(format=1)).encode()):
        manifest.write_bytes(content)
        with pytest.raises(ConfigError, match=r'latents\.json cannot be read .*delete'):
            LatentDataset(path)
    manifest.write_text(json.dumps(dict(format='other')))
    with pytest.raises(ConfigError, match='has format other'):
        LatentDataset(path)
    shutil.rmtree(path)
    write(path)
    with pytest.raises(ConfigError, match='holds no labels'):
        LatentDataset(path, with_label=True)
    last = path / 'shard-00002' / 'latents.npy'
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(ConfigError, match='has 187 bytes of 188: delete'):
        LatentDataset(path)


def test_the_file_of_an_earlier_version_is_one_line_and_stays(tmp_path):
    path = tmp_path / 'latents.safetensors'
    path.write_bytes(b'what it held')
    with pytest.raises(ConfigError, match='is a file, and latents lie in a folder .*delete it') as caught:
        LatentDataset(path)
    assert '\n' not in str(caught.value)
    assert path.read_bytes() == b'what it held'


def test_no_room_and_values_beyond_the_format_are_one_line(tmp_path, monkeypatch):
    too_large = [(torch.full((1, 1, 1), 1e5), None)]
    with (
        pytest.raises(ConfigError, match=r'beyond torch\.float16'),
        new_latents(tmp_path / 'a', (2, 1, 1), 'float16') as (folder, _),
    ):
        write_shard(folder, 0, (2, 1, 1), 'float16', too_large)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr('ldae.datasets.store.shutil.disk_usage', lambda _: type('Usage', (), dict(free=10**9)))
    with (
        pytest.raises(ConfigError, match=r'take 21\.0 GB, 1\.0 GB are free'),
        new_latents(tmp_path / 'b', (1_281_167, 256, 32), 'bfloat16'),
    ):
        pass
