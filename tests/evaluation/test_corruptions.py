# SPDX-License-Identifier: Apache-2.0
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from ldae.datasets import IDXDataset, batch_collate
from ldae.evaluation.corruptions import COMMON, CORRUPTIONS, corrupt, corrupted_loader, resolve_corruptions
from ldae.utils import ConfigError


def gaussian_noise(image, severity, seed=None):
    """Of a library that stands for the real one: draws from numpy's global stream, and marks the first channel."""
    noisy = np.asarray(image) + np.random.normal(0, 10 * severity, image.shape)
    noisy[..., 0] = severity
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture
def library(monkeypatch):
    found = SimpleNamespace(seen=[])
    found.corruption_dict = dict.fromkeys(CORRUPTIONS, gaussian_noise)

    def corrupt(image, severity, name, **options):
        found.seen.append((image.copy(), name, options))
        return gaussian_noise(image, severity)

    found.corrupt = corrupt
    monkeypatch.setitem(sys.modules, 'imagecorruptions', found)
    return found


@pytest.fixture
def photo(rgb):
    return torch.from_numpy(rgb).permute(2, 0, 1)


def test_a_picture_follows_from_the_seed_alone(library, photo):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    one, same = (corrupt(photo, 'gaussian_noise', 3, (0, 7)) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, corrupt(photo, 'gaussian_noise', 3, (0, 8)))
    assert not torch.equal(one, corrupt(photo, 'shot_noise', 3, (0, 7)))
    assert (np.random.get_state()[1] == before).all()
    assert library.seen[0][2] == library.seen[1][2] != library.seen[2][2]  # a seed of the function's own


def test_channels_and_sizes_are_those_of_the_image(library, photo):
    found = corrupt(photo, 'fog', 2, (0,))
    assert found.shape == photo.shape
    assert found.dtype == torch.uint8
    assert (found[0] == 2).all()
    assert (corrupt(photo, 'fog', 2, (0,), is_bgr=True)[2] == 2).all()
    assert np.array_equal(library.seen[1][0], photo.permute(1, 2, 0).numpy()[..., ::-1])
    grey = corrupt(photo[:1, :28, :20], 'fog', 2, (0,))
    assert grey.shape == (1, 28, 20)
    seen = library.seen[2][0]
    assert seen.shape == (32, 32, 3)
    assert (seen[:28, :20] == photo[0, :28, :20].numpy()[..., None]).all()
    assert (seen[28:] == seen[27:28]).all()


def test_images_in_memory_and_parts_of_them_are_corrupted_by_their_numbers(library):
    data = IDXDataset(split='test', indices=12)
    how = dict(name='snow', severity=1, seed=0)
    whole = next(iter(corrupted_loader(DataLoader(data, 12, collate_fn=batch_collate), **how)))
    assert whole['inputs'].shape == (12, 1, 28, 28)
    assert torch.equal(torch.cat([s.gt_label for s in whole['data_samples']]), data.labels)
    batches = list(corrupted_loader(DataLoader(Subset(data, range(12)), 5, collate_fn=batch_collate), **how))
    assert torch.equal(torch.cat([batch['inputs'] for batch in batches]), whole['inputs'])
    assert torch.equal(corrupt(data.images[3], 'snow', 1, (0, 3)), whole['inputs'][3])


def test_all_are_the_fifteen_of_imagenet_c(library):
    assert resolve_corruptions(['all']) == list(COMMON)
    assert len(COMMON) == 15
    assert resolve_corruptions(['fog', 'all', 'saturate', 'fog']) == [
        'fog',
        *(c for c in COMMON if c != 'fog'),
        'saturate',
    ]


def test_without_the_library_it_is_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
    with pytest.raises(ConfigError, match='corrupted images needs the library imagecorruptions'):
        resolve_corruptions(['fog'])
    assert resolve_corruptions([]) == []


@pytest.mark.parametrize('bad', [torch.zeros(3, 40, 40), torch.zeros(2, 40, 40).byte(), torch.zeros(40, 40).byte()])
def test_images_that_are_not_of_8_bits_are_one_clear_line(library, bad):
    with pytest.raises(ConfigError, match='grey or RGB images of 8 bits'):
        corrupt(bad, 'fog', 1, (0,))


@pytest.mark.parametrize('name', CORRUPTIONS)
@pytest.mark.parametrize('channels', [1, 3])
def test_each_of_the_library_is_repeatable_and_grows_with_severity(photo, name, channels):
    pytest.importorskip('imagecorruptions')
    image = photo[:channels]
    one, same, strong = (corrupt(image, name, severity, (0, 1)) for severity in (2, 2, 5))
    assert one.shape == image.shape
    assert torch.equal(one, same)
    changes = name != 'saturate' or channels == 3  # grey has no saturation
    assert torch.equal(one, image) != changes
    assert torch.equal(one, strong) != changes


def test_names_are_those_of_the_library():
    library = pytest.importorskip('imagecorruptions')
    assert tuple(library.get_corruption_names('common')) == COMMON
    assert tuple(library.get_corruption_names('all')) == CORRUPTIONS
