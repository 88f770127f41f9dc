# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from small_models import ldae_config

from ldae.config import load_config
from ldae.export.preprocessing import Preprocessing, preprocessing_of, read_pictures
from ldae.models.encoders import BandsPreprocessor
from ldae.utils import ConfigError


def picture(width: int = 60, height: int = 41) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.mark.parametrize(('width', 'height'), [(60, 41), (41, 60), (33, 33)])
@pytest.mark.parametrize('crop_pct', [1.0, 0.875])
def test_pictures_come_out_as_from_timm_s_transform(width, height, crop_pct):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = Preprocessing(28, 3, mean, std, 'bicubic', crop_pct)
    theirs = timm.data.create_transform(
        (3, 28, 28), is_training=False, mean=mean, std=std, interpolation='bicubic', crop_pct=crop_pct
    )
    image = picture(width, height)
    torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-5)


def test_a_picture_for_one_channel_becomes_grey():
    assert Preprocessing(28, 1, (0.5,), (0.5,))(picture()).shape == (1, 28, 28)


@pytest.mark.parametrize(
    ('config', 'size', 'interpolation', 'crop_pct'),
    [
        ('ldae/vit-b_pca.py', 256, 'bicubic', 1.0),
        ('benchmarks/mae_vit-b_linear.py', 224, 'bicubic', 224 / 256),
        ('ldae/demo_fashion-mnist.py', 28, 'bicubic', 1.0),
    ],
)
def test_a_config_s_validation_pipeline_is_followed(config, size, interpolation, crop_pct, built):
    model = built(ldae_config())
    model._config = load_config(f'ldae::{config}')
    found = preprocessing_of(model, size, 3)
    assert (found.interpolation, found.crop_pct) == (interpolation, crop_pct)
    np.testing.assert_allclose(found.mean, (0.485, 0.456, 0.406), atol=1e-6)


@pytest.mark.parametrize(
    ('steps', 'found'),
    [
        ([dict(type='ldae.ResizeToCover', scale=(128, 256)), dict(type='CenterCrop', crop_size=(224, 112))], 0.875),
        (
            [dict(type='ldae.ResizeToCover', scale=(128, 256)), dict(type='CenterCrop', crop_size=(224, 120))],
            'not one share',
        ),
        ([dict(type='Resize', scale=224)], 'without their proportions'),
    ],
    ids=['both edges', 'other shares', 'squashed'],
)
def test_a_preparation_that_others_have_not_is_refused(steps, found, built):
    model = built(ldae_config())
    model._config = Config(dict(val_dataloader=dict(dataset=dict(pipeline=steps))))
    if isinstance(found, float):
        assert preprocessing_of(model, (112, 224), 3).crop_pct == found
        return
    with pytest.raises(ConfigError, match=found):
        preprocessing_of(model, (112, 224), 3)


def test_the_crop_s_share_gives_back_the_size_that_is_resized_to(built):
    model = built(ldae_config())
    steps = [dict(type='ResizeEdge', scale=255), dict(type='CenterCrop', crop_size=224)]
    model._config = Config(dict(val_dataloader=dict(dataset=dict(pipeline=steps))))
    assert preprocessing_of(model, 224, 3).resize == 255


def test_bgr_images_are_one_line(built):
    model = built(ldae_config(data_preprocessor=dict(mean=[1, 2, 3], std=[1, 1, 1], to_rgb=False)))
    model._config = Config(dict(val_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))))
    with pytest.raises(ConfigError, match='BGR'):
        preprocessing_of(model, 16, 3)


def test_bands_have_numbers_of_their_own_and_no_pictures(built):
    model = built(ldae_config())
    model.data_preprocessor = BandsPreprocessor([10, 20, 30, 40, 51], [255] * 5)
    reading = dict(type='ldae.LoadImage', channels=7, bands=[5, 0, 3, 1, 2], value_range=(0, 4000))
    steps = [reading, dict(type='ldae.ResizeToCover', scale=(16, 32)), dict(type='CenterCrop', crop_size=(32, 16))]
    model._config = Config(dict(val_dataloader=dict(dataset=dict(pipeline=[*steps, dict(type='Pad', size=(35, 21))]))))
    found = preprocessing_of(model, (21, 35), 5)
    assert (found.bands, found.value_range, found.pad) == ((5, 0, 3, 1, 2), (0, 4000), (5, 3))
    assert (found.mean[4], found.std) == (0.2, (1.0,) * 5)
    assert (found.resize, found.of_pictures, found.as_dict()['channels']) == ((21, 35), False, 'bands')


def test_pictures_are_found_in_folders_and_bad_ones_named(tmp_path):
    preprocessing = Preprocessing(8, 3, (0.5,) * 3, (0.5,) * 3)
    assert preprocessing.of_pictures
    assert not replace(preprocessing, bands=(3, 2, 1)).of_pictures
    (tmp_path / 'a').mkdir()
    for name in ('1.png', '2.jpg', '3.png'):
        picture().save(tmp_path / 'a' / name)
    assert read_pictures([str(tmp_path)], preprocessing, 2).shape == (2, 3, 8, 8)
    (tmp_path / 'a' / '0.png').write_text('no picture')
    with pytest.raises(ConfigError, match='0.png is not a readable image'):
        read_pictures([str(tmp_path / 'a')], preprocessing, 2)
    with pytest.raises(ConfigError, match='nowhere does not exist'):
        read_pictures([str(tmp_path / 'nowhere')], preprocessing, 2)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ConfigError, match='empty holds no images'):
        read_pictures([str(tmp_path / 'empty')], preprocessing, 2)


@pytest.mark.parametrize('size', [(50, 50), (90, 30), (40, 61)])
def test_an_oblong_is_cut_out_as_timm_cuts_it(size):
    data = pytest.importorskip('timm.data')
    found = Preprocessing((16, 32), 3, (0.5,) * 3, (0.25,) * 3)
    pictures = dict(input_size=(3, 16, 32), mean=found.mean, std=found.std, interpolation='bicubic', crop_pct=1.0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    torch.testing.assert_close(
        found(image), data.create_transform(**pictures, crop_mode='center', is_training=False)(image)
    )
