# SPDX-License-Identifier: Apache-2.0
"""Views of whole batches against torchvision's functions of one image."""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from ldae.datasets import IDXDataset
from ldae.datasets.resize import with_faster_steps
from ldae.datasets.views import (
    View,
    gaussian_blur,
    grey_of,
    resized_crop,
    scale_brightness,
    scale_contrast,
    scale_saturation,
    turn_hue,
)
from ldae.registry import TRANSFORMS
from ldae.utils import ConfigError
from ldae.utils.rng import Draws

STILL = dict(crop_scale=(1.0, 1.0), flip=0.0)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (6, 3, 20, 20), generator=generator, dtype=torch.uint8)
    noise[0] = 77  # no colour at all
    noise[1, 1:] = 0
    return noise


def per_value(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ('ours', 'theirs', 'values'),
    [
        (scale_brightness, tv.adjust_brightness, [0.0, 0.3, 0.6, 1.0, 1.4, 2.0]),
        (scale_contrast, tv.adjust_contrast, [0.0, 0.3, 0.6, 1.0, 1.4, 2.0]),
        (scale_saturation, tv.adjust_saturation, [0.0, 0.3, 0.6, 1.0, 1.4, 2.0]),
        (turn_hue, tv.adjust_hue, [0.2, -0.5, -0.1, 0.0, 0.1, 0.5]),
    ],
)
def test_colours_change_as_by_torchvision(images, ours, theirs, values):
    found = ours(images.float(), per_value(values))
    for image, value, mine in zip(images, values, found, strict=True):
        expected = 255 * theirs((image / 255), value)
        torch.testing.assert_close(mine, expected, rtol=0, atol=0.01)


def test_grey_is_torchvisions(images):
    torch.testing.assert_close(grey_of(images.float()), 255 * tv.rgb_to_grayscale(images / 255), rtol=0, atol=0.01)


@pytest.mark.parametrize('sigma', [0.1, 0.5, 1.7])
def test_blur_is_torchvisions(images, sigma):
    expected = tv.gaussian_blur(images.float(), kernel_size=2 * 9 + 1, sigma=sigma)
    torch.testing.assert_close(gaussian_blur(images.float(), torch.full((6,), sigma)), expected, rtol=0, atol=0.05)


def test_each_image_is_blurred_by_its_own_sigma(images):
    sigma = torch.tensor([0.1, 0.4, 0.8, 1.2, 1.6, 2.0])
    found = gaussian_blur(images.float(), sigma)
    for image, each, mine in zip(images, sigma, found, strict=True):
        expected = gaussian_blur(image[None].float(), each[None])[0]
        torch.testing.assert_close(mine, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize('size', [8, 12, 33])
def test_a_crop_of_another_size_is_torchvisions_antialiased_one(images, size):
    boxes = torch.tensor([[0, 0, 20, 20], [3, 2, 9, 11], [5, 5, 4, 4], [0, 9, 20, 11], [1, 1, 15, 13], [19, 19, 1, 1]])
    found = resized_crop(images, boxes, size)
    for image, box, mine in zip(images, boxes.tolist(), found, strict=True):
        expected = tv.resized_crop(image.float(), *box, [size, size], antialias=True)
        assert (mine - expected).abs().max() <= 0.51  # rounded once


def test_flip_and_solarize_are_torchvisions(images):
    assert torch.equal(View(crop_scale=(1.0, 1.0), flip=1.0)(images), tv.horizontal_flip(images))
    assert torch.equal(View(**STILL, solarize=1.0)(images), tv.solarize(images, 128))
    assert torch.equal(View(**STILL)(images), images)


def test_probabilities_choose_images_one_by_one():
    images = torch.arange(4, dtype=torch.uint8).repeat(1000, 1, 4, 1)
    torch.manual_seed(0)
    flipped = (View(crop_scale=(1.0, 1.0), flip=0.3)(images) != images).flatten(1).any(1)
    assert 0.25 < flipped.float().mean() < 0.35


def test_grey_images_keep_to_brightness_and_contrast():
    images = torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8)
    view = View(**STILL, jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey=1.0)
    assert view(images).shape == images.shape
    colours = View(**STILL, jitter=1.0, saturation=0.2, hue=0.1, grey=1.0)
    assert torch.equal(colours(images), images)


def test_a_data_set_gives_a_list_of_views_that_its_order_decides():
    views = [dict(jitter=0.8, brightness=0.4), dict(size=12, solarize=0.5)]
    dataset = IDXDataset(split='test', indices=64, with_label=False, views=views)
    batch = dataset.__getitems__(Draws(range(8), seed=1, epoch=2, place=3))
    assert [view.shape for view in batch['inputs']] == [(8, 1, 28, 28), (8, 1, 12, 12)]
    torch.rand(3)
    again = dataset.__getitems__(Draws(range(8), seed=1, epoch=2, place=3))
    other = dataset.__getitems__(Draws(range(8), seed=1, epoch=3, place=3))
    assert all(map(torch.equal, batch['inputs'], again['inputs']))
    assert not torch.equal(batch['inputs'][0], other['inputs'][0])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(views=[dict(flip=2)]), 'flip'),
        (dict(views=[dict(flips=0.5)]), "no option 'flips'; did you mean 'flip'"),
        (dict(views=[dict()], crop_scale=(0.2, 1)), 'views have a crop_scale each'),
        (dict(views=[dict(blur_sigma=(2, 1))]), 'must rise'),
    ],
)
def test_bad_views_are_said_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        IDXDataset(split='test', indices=64, **options)


def test_faster_steps_stand_within_views_too():
    init_default_scope('mmpretrain')
    crop = dict(type='RandomResizedCrop', scale=8, backend='pillow')
    pipeline = [dict(type='MultiView', num_views=2, transforms=[[crop]]), dict(type='PackInputs')]
    image = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    found = []
    for steps in (pipeline, with_faster_steps(pipeline)):
        np.random.seed(0)
        transform = Compose([TRANSFORMS.build(step) for step in steps])
        found.append(transform(dict(img=image, img_shape=(12, 14)))['inputs'])
    assert with_faster_steps(pipeline)[0]['transforms'][0][0]['type'] == 'ldae.PillowRandomResizedCrop'
    assert all(torch.equal(*views) for views in zip(*found, strict=True))
