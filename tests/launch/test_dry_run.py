# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from ldae.launch.dry_run import _try_pipelines, explain_errors
from ldae.utils import ConfigError


def test_an_error_of_a_constructor_names_the_component():
    with (
        pytest.raises(ConfigError, match=r'^here: Linear cannot be used with these options: TypeError'),
        explain_errors('here'),
    ):
        MODELS.build(dict(type=torch.nn.Linear, in_features=1))


def test_our_own_lines_and_the_machines_errors_stay():
    for error in (ConfigError('mine'), MemoryError('full'), OSError(28, 'No space left')):
        with pytest.raises(type(error)) as caught, explain_errors('here'):
            raise error
        assert caught.value is error


def test_errors_from_elsewhere_stay_where_only_constructors_are_meant():
    with pytest.raises(RuntimeError, match='no network'), explain_errors('here', only_builders=True):
        raise RuntimeError('no network')
    with pytest.raises(ConfigError, match='here: Linear'), explain_errors('here', only_builders=True):
        MODELS.build(dict(type=torch.nn.Linear, in_features='x', out_features=1))


def test_a_message_of_many_lines_becomes_one():
    with pytest.raises(ConfigError) as caught, explain_errors('here'):
        raise ValueError('first\nsecond')
    assert str(caught.value).startswith('here cannot be used with these options: ValueError: first (')


@pytest.mark.parametrize(
    ('reader', 'channels'),
    [
        (dict(type='LoadImageFromFile', color_type='grayscale'), 1),
        (dict(type='LoadImageFromFile'), 3),
        (dict(type='ldae.LoadImage', max_pixels=100), 3),
        (dict(type='ldae.LoadImage', backend_args=dict(backend='petrel')), 3),
    ],
)
def test_an_image_has_the_channels_that_the_reader_gives_it(reader: dict, channels: int):
    pipeline = [reader, dict(type='CenterCrop', crop_size=32), dict(type='PackInputs')]
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='ImageNet', pipeline=pipeline))))
    assert [image.shape for image in _try_pipelines('train_dataloader', cfg)] == [(channels, 32, 32)]
