# SPDX-License-Identifier: Apache-2.0
import errno
import json

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ldae.datasets import store
from ldae.evaluation import (
    FeatureCache,
    FeatureSetting,
    block_tokens,
    cache_features,
    extract_features,
    pooled_features,
)
from ldae.utils import ConfigError


class Images(Dataset):
    """Random images, which counts how often each was read."""

    def __init__(self, count, labels=True):
        self.images = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        self.labels, self.reads = labels, [0] * count

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.reads[i] += 1
        return self.images[i], DataSample().set_gt_label(i % 3) if self.labels else DataSample()


def collate(rows):
    return dict(inputs=torch.stack([row[0] for row in rows]), data_samples=[row[1] for row in rows])


def loader(data, batch_size=4, shuffle=False):
    sampler = DefaultSampler(data, shuffle=shuffle)
    return DataLoader(data, batch_size, sampler=sampler, collate_fn=collate)


class Net(nn.Module):
    """Three layers, of two widths."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(36, 8), nn.Linear(8, 8), nn.Linear(8, 5)])
        generator = torch.Generator().manual_seed(0)
        for param in self.parameters():
            param.data = torch.randn(param.shape, generator=generator) / 4
        self.passes = 0.0  # not an int or a tensor that a step would change

    def forward(self, images):
        x = images.flatten(1)
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.fixture
def data():
    return Images(10)


@pytest.fixture
def net():
    return Net().eval()


def test_rows_are_those_of_a_pass_in_memory_and_each_image_is_read_once(data, net, tmp_path):
    cache = cache_features(net, loader(data), None, tmp_path, [1, 2, 3])
    assert data.reads == [1] * 10
    assert cache.settings == [FeatureSetting(1), FeatureSetting(2), FeatureSetting(3)]
    expected, labels = extract_features(lambda images: pooled_features(net, images), loader(data))
    assert torch.equal(cache.labels, labels)
    assert torch.equal(cache.select(), expected.half().float())
    x = data.images.flatten(1)
    with torch.no_grad():
        torch.testing.assert_close(cache.select(1), net.layers[0](x), atol=1e-3, rtol=1e-3)
    assert cache.select(-2).shape == (10, 8)
    assert cache.select().dtype == torch.float32


def test_rows_can_be_read_singly(data, net, tmp_path):
    cache = cache_features(net, loader(data), None, tmp_path)
    rows, whole = cache[cache.settings[0]], cache.select()
    assert rows.shape == (10, 5)
    for chosen in (slice(3, 7), slice(None, None, 3), torch.tensor([9, 0, 4])):
        assert torch.equal(rows[chosen], whole[chosen])


def test_a_second_probe_reads_no_image(data, net, tmp_path):
    first = cache_features(net, loader(data), None, tmp_path, [1, 2, 3], data='x')
    second = cache_features(net, loader(data, 3), None, tmp_path, [-2], data='x')
    assert data.reads == [1] * 10
    assert second.folder == first.folder
    assert second.settings == [FeatureSetting(2)]
    assert torch.equal(second.select(2), first.select(2))
    with pytest.raises(ConfigError, match='no features of block 1'):
        second.select(1)
    cache_features(net, loader(data), None, tmp_path, [1, 2, 3], data='x', refresh=True)
    assert data.reads == [2] * 10


@pytest.mark.parametrize('what', ['weight', 'option', 'data', 'count', 'preprocessing', 'blocks'])
def test_what_decides_about_features_decides_about_the_file(data, net, tmp_path, what):
    preprocess, description, blocks = nn.Identity(), 'x', [1]
    preprocess.scale = 1.0
    folder = cache_features(net, loader(data), preprocess, tmp_path, blocks, data=description).folder
    if what == 'weight':
        net.layers[0].weight.data[0, 0] += 1e-3
    elif what == 'option':
        net.num_heads = 3
    elif what == 'preprocessing':
        preprocess.scale = 2.0
    description = 'y' if what == 'data' else description
    data = Images(9) if what == 'count' else data
    blocks = [1, 2] if what == 'blocks' else blocks
    other = cache_features(net, loader(data), preprocess, tmp_path, blocks, data=description).folder
    assert other != folder
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_was_not_finished_is_not_used(data, net, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, 'atomic_write_text', fail)
        with pytest.raises(KeyboardInterrupt):
            cache_features(net, loader(data), None, tmp_path)
    assert list(tmp_path.iterdir()) == []
    cache = cache_features(net, loader(data), None, tmp_path)
    assert data.reads == [2] * 10
    (cache.folder / 'manifest.json').unlink()
    with pytest.raises(ConfigError, match='no finished features'):
        FeatureCache(cache.folder)
    cache_features(net, loader(data), None, tmp_path)
    assert data.reads == [3] * 10


def test_a_cache_of_an_earlier_version_is_not_read_and_stays(data, net, tmp_path, monkeypatch):
    earlier, said = tmp_path / 'key-settings' / 'labels.0.npy', []
    earlier.parent.mkdir()
    np.save(earlier, np.arange(10))
    (earlier.parent / 'manifest.json').write_text(json.dumps(dict(blocks=[3], num_images=10)))
    monkeypatch.setattr('ldae.evaluation.cache.print_log', said.append)
    cache_features(net, loader(data), None, tmp_path)
    (line,) = said
    assert f'{tmp_path} holds features that an earlier version of ldae wrote, which are not read' in line
    with pytest.raises(ConfigError, match='has no format number.*use the version that wrote it'):
        FeatureCache(earlier.parent)
    assert np.load(earlier).tolist() == list(range(10))


def test_a_file_cut_short_is_one_clear_line(data, net, tmp_path):
    cache = cache_features(net, loader(data), None, tmp_path)
    path = cache.folder / 'shard-00000' / 'block_3.npy'
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ConfigError, match='bytes of .*: delete') as error:
        FeatureCache(cache.folder)
    assert '\n' not in str(error.value)


def test_zeros_in_the_place_of_features_are_found_when_asked_for(data, net, tmp_path):
    first = cache_features(net, loader(data), None, tmp_path, verify=True)
    path = first.folder / 'shard-00000' / 'block_3.npy'
    np.save(path, np.zeros_like(np.load(path)))
    cache_features(net, loader(data), None, tmp_path)
    with pytest.raises(ConfigError, match='block_3.npy is damaged: delete .*, and they are computed anew'):
        cache_features(net, loader(data), None, tmp_path, verify=True)
    assert cache_features(net, loader(data), None, tmp_path, refresh=True, verify=True)[first.settings[0]][:].any()


@pytest.mark.parametrize(
    ('value', 'message'),
    [(7e4, 'block 3 reach 7e.04, beyond float16'), (float('nan'), 'NaN'), (float('inf'), 'NaN or infinity')],
)
def test_features_that_float16_cannot_hold_are_one_clear_line(data, net, tmp_path, value, message):
    net.layers[2].weight.data.zero_()
    net.layers[2].bias.data.fill_(value)
    with pytest.raises(ConfigError, match=message) as error:
        cache_features(net, loader(data), None, tmp_path)
    assert '\n' not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_cached_are_one_clear_line(data, net, tmp_path):
    with pytest.raises(ConfigError, match='shuffle=False'):
        cache_features(net, loader(data, shuffle=True), None, tmp_path)
    with pytest.raises(ConfigError, match='shuffle=False'):
        cache_features(net, DataLoader(data, 4, shuffle=True, collate_fn=collate), None, tmp_path)
    with pytest.raises(ConfigError, match='with_label=True'):
        cache_features(net, loader(Images(4, labels=False)), None, tmp_path)
    with pytest.raises(ConfigError, match='drop_last=False'):
        cache_features(net, DataLoader(data, 4, drop_last=True, collate_fn=collate), None, tmp_path)


def test_a_full_disk_is_one_clear_line(data, net, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(store.ArrayFile, 'write', full)
    with pytest.raises(ConfigError, match='cannot be written .No space left on device'):
        cache_features(net, loader(data), None, tmp_path)


def test_files_are_plain_arrays_of_float16(data, net, tmp_path):
    cache = cache_features(net, loader(data), None, tmp_path, [1, 3])
    assert {path.name for path in cache.folder.iterdir()} == {'manifest.json', 'shard-00000'}
    assert {path.name for path in (cache.folder / 'shard-00000').iterdir()} == {
        'shard.json',
        'labels.npy',
        'block_1.npy',
        'block_3.npy',
    }
    values = np.load(cache.folder / 'shard-00000' / 'block_1.npy')
    assert values.dtype == np.float16
    assert values.shape == (1, 10, 8)
    assert json.loads((cache.folder / 'manifest.json').read_text())['settings']['num_images'] == 10


def test_features_of_another_precision_are_others(data, net, tmp_path):
    exact = cache_features(net, loader(data), None, tmp_path)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = cache_features(net, loader(data), None, tmp_path)
    assert rounded.folder != exact.folder


class Patches(Net):
    """Three blocks on 4 patches of 3 x 3 pixels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(9, 8), nn.Linear(8, 8), nn.Linear(8, 5)])

    def forward(self, images):
        x = images.unfold(2, 3, 3).unfold(3, 3, 3).flatten(4).flatten(1, 3)
        for layer in self.layers:
            x = layer(x)
        return x


def test_tokens_come_from_the_pass_of_their_average(data, tmp_path):
    torch.manual_seed(0)
    model = Patches().eval()
    averages = cache_features(model, loader(data), None, tmp_path, [1, 3])
    assert data.reads == [1] * 10
    with pytest.raises(ConfigError, match='tokens=True'):
        averages.tokens(FeatureSetting(3))
    both = cache_features(model, loader(data), None, tmp_path, [1, 3], tokens=True)
    assert data.reads == [2] * 10
    again = cache_features(model, loader(data), None, tmp_path, [3], tokens=True)
    assert again.folder == both.folder
    assert data.reads == [2] * 10
    assert both.tokens(FeatureSetting(1)).shape == (10, 4, 8)
    torch.testing.assert_close(both.select(3), averages.select(3), atol=1e-3, rtol=1e-3)
    expected, _ = extract_features(lambda images: block_tokens(model, images), loader(data))
    found = both.tokens(FeatureSetting(3))
    assert torch.equal(found[:], expected.half().float())
    rows = torch.tensor([7, 0, 3])
    assert torch.equal(found[rows], expected[rows].half().float())


def test_a_network_of_one_vector_an_image_has_no_tokens(data, net, tmp_path):
    with pytest.raises(ConfigError, match='no patch tokens'):
        cache_features(net, loader(data), None, tmp_path, tokens=True)
    assert not list(tmp_path.iterdir())


class TokenNet(nn.Module):
    """Gives a class token and three patches."""

    num_prefix_tokens = has_class_token = 1

    def forward(self, images):
        return images.flatten(1).unflatten(1, (4, 9))


def test_each_pooling_has_a_cache_of_its_own(data, tmp_path):
    caches = {name: cache_features(TokenNet(), loader(data), None, tmp_path, pooling=name) for name in ('mean', 'cls')}
    tokens = data.images.flatten(1).unflatten(1, (4, 9))
    for name, expected in (('mean', tokens[:, 1:].mean(dim=1)), ('cls', tokens[:, 0])):
        torch.testing.assert_close(caches[name].select(), expected, rtol=1e-3, atol=1e-3)
        again = cache_features(TokenNet(), loader(data), None, tmp_path, pooling=name)
        assert again.folder == caches[name].folder
    assert caches['mean'].folder != caches['cls'].folder
