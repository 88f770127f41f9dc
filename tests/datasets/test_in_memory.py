# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from torchvision.transforms import functional as F

from ldae.datasets import IDXDataset, InMemoryDataset
from ldae.datasets.views import LOG_RATIOS, random_boxes, resized_crop
from ldae.utils import ConfigError


def dataset(**options) -> InMemoryDataset:
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    return InMemoryDataset(images, torch.arange(6), **options)


@pytest.mark.parametrize('shape', [(3, 32, 32), (1, 28, 40)])
def test_resized_crop_is_torchvisions(shape):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (100, *shape), dtype=torch.uint8)
    boxes = random_boxes(100, *shape[1:], scale=(0.05, 1))
    ours = resized_crop(images, boxes)
    assert ours.dtype == torch.uint8
    for image, box, crop in zip(images, boxes.tolist(), ours, strict=True):
        theirs = F.resized_crop(image.float(), *box, size=list(shape[1:]), antialias=True)
        assert (crop - theirs).abs().max() <= 0.5 + 1e-3  # ours is rounded to a whole grey level


def test_the_whole_image_as_a_box_changes_nothing():
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(resized_crop(images, torch.tensor([[0, 0, 16, 16]]).expand(4, 4)), images)


def test_random_boxes_lie_in_the_image_and_have_area_and_ratio_asked_for():
    torch.manual_seed(0)
    size = 1000  # large, so that rounding to whole pixels doesn't count
    top, left, height, width = random_boxes(5000, size, size, scale=(0.2, 1)).double().t()
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= size
    area, ratio = height * width / size**2, (width / height).log()
    assert 0.199 < area.min() < 0.21
    assert area.max() <= 1
    assert ratio.abs().max() < LOG_RATIOS[1] + 0.01
    # Large boxes of an extreme ratio don't fit and are drawn again, as torchvision does.
    from torchvision.transforms import RandomResizedCrop

    params = [RandomResizedCrop.get_params(torch.empty(1, size, size), [0.2, 1], [3 / 4, 4 / 3]) for _ in range(5000)]
    theirs = torch.tensor(params, dtype=torch.float64).t()
    for ours, other in zip((top, left, height, width), theirs, strict=True):
        error = math.sqrt((ours.var() + other.var()) / 5000)
        assert abs(ours.mean() - other.mean()) < 4 * error


def test_crops_come_from_torchs_generator():
    data = dataset(crop_scale=(0.2, 1))
    batches = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        batches.append(data.__getitems__([0, 1, 2])['inputs'])
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
    assert batches[0].shape == (3, 3, 8, 8)


def test_a_share_of_the_images_is_flipped_anew_each_time():
    data = dataset(flip=0.5)
    torch.manual_seed(0)
    batches = [data.__getitems__([0, 1])['inputs'] for _ in range(40)]
    assert len({tuple((batch == data.images[:2]).flatten(1).all(1).tolist()) for batch in batches}) == 4
    data.flip = 1.0
    assert torch.equal(data.__getitems__([0, 1])['inputs'], F.hflip(data.images[:2]))


def test_without_crops_no_random_number_is_drawn():
    data = dataset()
    state = torch.get_rng_state()
    data.__getitems__([0, 1])
    assert torch.equal(torch.get_rng_state(), state)


def test_padding_adds_a_black_border():
    data = IDXDataset(split='test', indices=3, pad=2)
    assert data.images.shape == (3, 1, 32, 32)
    assert torch.equal(data.images[:, :, 2:-2, 2:-2], IDXDataset(split='test', indices=3).images)
    assert data.images.sum() == data.images[:, :, 2:-2, 2:-2].sum()


@pytest.mark.parametrize('options', [dict(pad=-1), dict(crop_scale=(0, 1)), dict(crop_scale=(0.2, 1.5))])
def test_option_out_of_range(options):
    with pytest.raises(ConfigError, match='InMemoryDataset'):
        dataset(**options)
