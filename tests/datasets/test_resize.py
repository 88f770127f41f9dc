# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.datasets import transforms
from PIL import Image

from ldae.datasets import FastPackInputs, FastRandomResizedCrop, FastResizeEdge, ImageFolder, PillowRandomResizedCrop
from ldae.datasets.resize import resize
from ldae.utils import ConfigError

PILLOW = dict(bilinear=Image.BILINEAR, bicubic=Image.BICUBIC)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)


def differences(ours: np.ndarray, pillow: np.ndarray) -> np.ndarray:
    assert ours.dtype == np.uint8
    assert ours.shape == pillow.shape
    return np.abs(ours.astype(int) - pillow)


@pytest.mark.parametrize('interpolation', PILLOW)
@pytest.mark.parametrize('size', [(64, 64), (85, 64), (200, 150), (160, 120), (7, 300), (176, 100)])
def test_resizing_is_pillows_but_for_two_levels(interpolation: str, size: tuple):
    width_first = Image.fromarray(PIXELS).resize((size[0], len(PIXELS)), PILLOW[interpolation])
    expected = np.asarray(width_first.resize(size, PILLOW[interpolation]))
    differ = differences(resize(PIXELS, size, interpolation), expected)
    assert differ.max() <= 2
    assert (differ > 0).mean() < 0.02


@pytest.mark.parametrize('shape', [(120, 160, 3), (160, 120, 3), (64, 64, 3)])
def test_resize_edge_takes_the_place_of_mmpretrains(shape: tuple):
    options = dict(scale=64, edge='short', backend='pillow', interpolation='bicubic')
    found, expected = (
        kind(**options)(dict(img=np.resize(PIXELS, shape))) for kind in (FastResizeEdge, transforms.ResizeEdge)
    )
    assert differences(found.pop('img'), expected.pop('img')).max() <= 2
    assert found == expected


@pytest.mark.parametrize(('ours', 'most'), [(PillowRandomResizedCrop, 0), (FastRandomResizedCrop, 2)])
def test_random_crops_are_those_of_mmpretrain(ours: type, most: int):
    options = dict(scale=48, crop_ratio_range=(0.2, 1), backend='pillow', interpolation='bicubic')
    for seed in range(20):
        results = []
        for kind in (ours, transforms.RandomResizedCrop):
            np.random.seed(seed)
            results.append(kind(**options)(dict(img=PIXELS)))
        found, expected = results
        assert differences(found.pop('img'), expected.pop('img')).max() <= most
        assert found == expected


@pytest.mark.parametrize(
    'image',
    [
        PIXELS,
        PIXELS[5:, 3:90],
        PIXELS[:, ::-1],
        PIXELS[::-1, 7:],
        PIXELS[:1, :1],
        PIXELS[..., :1],
        PIXELS[..., 0],
        PIXELS / 255,
    ],
    ids=['whole', 'crop', 'mirrored', 'upside down', 'one pixel', 'one channel', 'grey', 'float'],
)
def test_packing_parts_the_channels_as_mmpretrains_does(image: np.ndarray):
    info = dict(img_path='a.png', sample_idx=1, gt_label=2, flip=True)
    found, expected = (kind()(dict(info, img=image)) for kind in (FastPackInputs, transforms.PackInputs))
    assert found['inputs'].dtype == expected['inputs'].dtype
    assert found['inputs'].is_contiguous()
    assert torch.equal(found['inputs'], expected['inputs'])
    assert found['data_samples'].to_dict() == expected['data_samples'].to_dict()


def test_other_filters_are_refused():
    with pytest.raises(ConfigError, match="interpolation='lanczos'"):
        FastResizeEdge(64, interpolation='lanczos')
    with pytest.raises(ConfigError, match="interpolation='area'"):
        PillowRandomResizedCrop(64, interpolation='area')


def test_a_folder_swaps_what_pillow_would_resize_and_nothing_else(tiny_image_folder: Path):
    pipeline = [
        dict(type='ldae.LoadImage'),
        dict(type='RandomResizedCrop', scale=32, backend='pillow', interpolation='bicubic'),
        dict(type='ResizeEdge', scale=24, backend='cv2'),
        dict(type='PackInputs'),
    ]
    images = []
    for fast in (False, True):
        dataset = ImageFolder(str(tiny_image_folder), pipeline=pipeline, fast_resize=fast)
        np.random.seed(0)
        images.append(dataset[3]['inputs'].numpy())
        kinds = [type(step) for step in dataset.pipeline.transforms]
        assert (FastRandomResizedCrop if fast else PillowRandomResizedCrop) in kinds
        assert transforms.ResizeEdge in kinds
    assert differences(*images).max() <= 3
    assert pipeline[1]['type'] == 'RandomResizedCrop'
