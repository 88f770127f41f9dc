# SPDX-License-Identifier: Apache-2.0
"""What two processes find together is what one finds."""

import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch import nn
from torch.multiprocessing import spawn
from torch.utils.data import DataLoader

from ldae.datasets import IDXDataset, batch_collate
from ldae.evaluation import cache_features, knn_accuracies, linear_probes
from ldae.utils import ConfigError


class Net(nn.Module):
    """Whole numbers only: no rounding depends on how images are put into batches."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(784, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
        generator = torch.Generator().manual_seed(0)
        for param in self.parameters():
            param.data = torch.randint(-1, 2, param.shape, generator=generator).float()

    def forward(self, images):
        x = (images.flatten(1) > 127).float()
        for layer in self.layers:
            x = layer(x)
        return x


def find(folder, net=None):
    """Everything that ranks share: three sets of features of 101 + 45 images, and their scores."""
    caches = []
    for split, count in (('train', 101), ('test', 45)):
        data = IDXDataset(split=split, indices=count)
        loader = DataLoader(data, 8, sampler=DefaultSampler(data, shuffle=False), collate_fn=batch_collate)
        caches.append(cache_features(net or Net().eval(), loader, None, folder, [1, 2, 3], data=split))
    train, test = caches
    given = train, train.labels, test, test.labels
    probes = linear_probes(*given, epochs=3)
    lines = [f'{key} {value.accuracy} {value.setting}' for key, value in probes.items()]
    x = train[train.settings[1]], train.labels, test[test.settings[1]], test.labels
    neighbours = knn_accuracies(*x, (1, 5, 20))
    features = [cache.select(block) for cache in caches for block in (1, 3)]
    return dict(features=features, labels=train.labels, probes=lines, neighbours=neighbours)


def work(rank, folder):
    """One of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    torch.save(find(f'{folder}/two'), f'{folder}/{rank}.pth')
    net = Net().eval()
    net.layers[0].bias.data.fill_(float('nan') if rank else 0.0)
    # Of one rank's features only: the other hears of it.
    with pytest.raises(ConfigError, match='NaN'):
        find(f'{folder}/broken', net)
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path):
    spawn(work, (str(tmp_path),), nprocs=2)
    alone = find(tmp_path / 'one')
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        assert all(torch.equal(a, b) for a, b in zip(found['features'], alone['features'], strict=True))
        assert torch.equal(found['labels'], alone['labels'])
        assert found['probes'] == alone['probes']
        assert found['neighbours'] == alone['neighbours']
    assert list((tmp_path / 'broken').iterdir()) == []
