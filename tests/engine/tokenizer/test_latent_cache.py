# SPDX-License-Identifier: Apache-2.0
"""Training from latents goes as training from images does."""

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from ldae.engine import LatentCacheHook
from ldae.engine.tokenizer import latent_cache
from ldae.engine.tokenizer.latent_cache import check_model
from ldae.models.ldae import LatentsPass
from ldae.utils import ConfigError

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)


def model(head='ldae.CleanLatentHead', **kwargs):
    return dict(
        type='ldae.LDAE',
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[73.0], std=[90.0]),
        tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=28, patch_size=7, in_channels=1, latent_dim=4),
        noiser=dict(type='ldae.GaussianNoiser'),
        backbone=dict(type='ldae.LDAEViT', arch=ARCH, input_type='latent'),
        head=dict(type=head),
        **kwargs,
    )


class Losses(Hook):
    def __init__(self):
        self.values, self.kinds = [], set()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs['loss'].item())
        self.kinds.add(data_batch['inputs'].dtype)


@pytest.fixture
def losses(make_runner, make_dataloader):
    """``losses(hooks, ...)`` trains 16 steps and gives the losses, the kinds of batches, and the weights."""

    def losses(hooks, dataset=None, **kwargs):
        watch = Losses()
        loader = make_dataloader(64, **(dataset or {}))
        kwargs.setdefault('model', model())
        loader['sampler'] = dict(type='DefaultSampler', shuffle=True)
        runner = make_runner([*hooks, watch], epochs=4, train_dataloader=loader, **kwargs)
        weights = runner.train().state_dict()
        assert len(watch.values) == 16
        return np.array(watch.values), watch.kinds, weights

    return losses


@pytest.mark.parametrize(
    ('head', 'input_type'),
    [('ldae.CleanLatentHead', 'latent'), ('ldae.NoiseHead', 'latent'), ('ldae.DecodedImageHead', 'image')],
)
def test_float32_latents_give_the_losses_and_weights_of_images(losses, head, input_type):
    def config():
        cfg = model(head)
        cfg['backbone'] = dict(cfg['backbone'], input_type=input_type)
        return cfg

    expected, kinds, weights = losses([], model=config())
    assert kinds == {torch.uint8}
    found, kinds, own = losses([LatentCacheHook(dtype='float32')], model=config())
    assert kinds == {torch.float32}
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert set(own) == set(weights)
    for name, value in weights.items():
        torch.testing.assert_close(own[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float16', 1e-3), ('bfloat16', 8e-3)])
def test_short_numbers_give_the_losses_of_images_to_their_rounding(losses, dtype, tolerance):
    expected, _, _ = losses([])
    found, kinds, _ = losses([LatentCacheHook(dtype=dtype)])
    assert kinds == {getattr(torch, dtype)}
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    assert not np.array_equal(found, expected)


def test_labels_come_along_where_the_model_conditions_on_them(losses):
    cfg = dict(model=model('ldae.NoiseHead', num_classes=10))
    expected, _, _ = losses([], **cfg)
    found, _, _ = losses([LatentCacheHook(dtype='float32')], **cfg)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(ConfigError, match='the samples carry none: set with_label=True'):
        losses([LatentCacheHook('other')], dict(with_label=False), **cfg)


def test_the_file_is_used_again_and_holds_what_the_tokenizer_makes(losses, tmp_path, monkeypatch):
    first, _, weights = losses([LatentCacheHook(dtype='float32')])
    rows = np.load(tmp_path / 'latents' / 'shard-00000' / 'latents.npy')
    assert rows.shape == (64, 16, 4)
    assert rows.std() == pytest.approx(1, abs=0.2)
    monkeypatch.setattr(
        'ldae.engine.tokenizer.latent_cache.write_latents', lambda *_, **__: pytest.fail('encoded again')
    )
    again, _, _ = losses([LatentCacheHook(dtype='float32')])
    np.testing.assert_array_equal(again, first)


def test_a_config_may_name_the_folder_itself(losses, make_runner, tmp_path):
    expected, _, _ = losses([LatentCacheHook()])
    tokenizer = next(tmp_path.glob('tokenizer_*.pth'))
    cfg = model()
    cfg['tokenizer'] = dict(cfg['tokenizer'], checkpoint=str(tokenizer))
    watch = Losses()
    loader = dict(
        batch_size=16,
        num_workers=0,
        collate_fn=dict(type='ldae.batch_collate'),
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(type='ldae.LatentDataset', file=str(tmp_path / 'latents')),
    )
    make_runner([LatentCacheHook(), watch], epochs=4, train_dataloader=loader, model=cfg).train()
    np.testing.assert_array_equal(watch.values, expected)
    cfg['data_preprocessor'] = dict(cfg['data_preprocessor'], mean=[70.0])
    with pytest.raises(ConfigError, match='another tokenizer or normalisation'):
        make_runner([LatentCacheHook()], train_dataloader=loader, model=cfg).train()


def test_a_list_that_names_other_images_as_many_has_other_latents(make_runner, tiny_image_folder, tmp_path):
    steps = [dict(type='ldae.LoadImage'), dict(type='Resize', scale=(28, 28)), dict(type='ldae.FastPackInputs')]
    images = dict(data_root=str(tiny_image_folder), split='train', ann_file='list.txt', with_label=False)
    loader = dict(
        batch_size=2,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(images, type='ldae.ImageFolder', pipeline=steps),
    )
    cfg = model()
    cfg['tokenizer']['in_channels'] = 3
    cfg['data_preprocessor'].update(mean=[73.0] * 3, std=[90.0] * 3)
    for last in ('b/1.jpg', 'b/1.jpg', 'b/2.jpg'):
        (tiny_image_folder / 'list.txt').write_text(f'a/0.jpg\na/1.jpg\nb/0.jpg\n{last}\n')
        runner = make_runner([LatentCacheHook()], train_dataloader=loader, model=cfg)
        if last == 'b/1.jpg':
            runner.train()
            cfg['tokenizer']['checkpoint'] = str(next(tmp_path.glob('tokenizer_*.pth')))
    with pytest.raises(ConfigError, match='holds latents of other images or labels'):
        runner.train()


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(hooks=[LatentCacheHook(dtype='bfloat16')]), 'holds float16, the config asks for bfloat16'),
        (dict(dataset=dict(pad=0)), 'holds latents of another data set or pipeline'),
        (dict(data_preprocessor=dict(type='SelfSupDataPreprocessor', std=[80.0])), 'another tokenizer'),
    ],
)
def test_a_file_of_something_else_is_refused(losses, change, words):
    losses([LatentCacheHook()])
    cfg = model()
    cfg['data_preprocessor'].update(change.get('data_preprocessor', {}))
    hooks = change.get('hooks', [LatentCacheHook()])
    with pytest.raises(ConfigError, match=words):
        losses(hooks, change.get('dataset'), model=cfg)


def test_other_images_under_the_same_description_are_noticed(losses, monkeypatch):
    losses([LatentCacheHook()])
    original = latent_cache.read_samples

    def other_order(dataset):
        numbers, batch = original(dataset)
        return numbers, dict(batch, inputs=batch['inputs'].flip(0))

    monkeypatch.setattr('ldae.engine.tokenizer.latent_cache.read_samples', other_order)
    with pytest.raises(ConfigError, match='latents of other images than the data set has by now'):
        losses([LatentCacheHook()])


def test_a_head_that_needs_images_is_refused_with_the_reason(losses, tmp_path):
    with pytest.raises(ConfigError, match='OriginalImageHead needs the original image'):
        losses([LatentCacheHook()], model=model('ldae.OriginalImageHead'))
    assert not list(tmp_path.glob('*tokenizer*'))  # nothing was fitted before


def test_augmentation_is_refused(losses, tmp_path):
    with pytest.raises(ConfigError, match='the training images are augmented'):
        losses([LatentCacheHook()], dict(crop_scale=(0.2, 1)))
    assert not list(tmp_path.glob('*tokenizer*'))


def test_a_model_without_latents_and_wrong_options_are_one_line():
    for options in (dict(dtype='int8'), dict(batch_size=0)):
        with pytest.raises(ConfigError, match='LatentCacheHook.(dtype|batch_size)='):
            LatentCacheHook(**options)
    with pytest.raises(ConfigError, match='Linear is not an l-DAE: remove the hook'):
        check_model(torch.nn.Linear(1, 1))


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(losses, tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(ConfigError, match='latents cannot be written'):
        losses([LatentCacheHook(file=str(tmp_path / 'a' / 'b'))])


def test_a_file_of_an_earlier_version_is_not_read_and_stays(losses, tmp_path):
    earlier = tmp_path / 'latents.safetensors'
    earlier.write_bytes(b'what it held')
    losses([LatentCacheHook()])
    (log,) = tmp_path.rglob('*.log')
    assert f'{earlier} is of an earlier version of ldae and not read' in log.read_text()
    with pytest.raises(ConfigError, match='is a file, and latents lie in a folder'):
        losses([LatentCacheHook(file=str(earlier))])
    assert earlier.read_bytes() == b'what it held'


def test_a_run_that_stops_while_encoding_leaves_nothing(losses, tmp_path, monkeypatch):
    monkeypatch.setattr(latent_cache, 'write_shard', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        losses([LatentCacheHook()])
    assert not list(tmp_path.glob('*latents*')) + list(tmp_path.glob('.*latents*'))


def test_images_are_prepared_as_before_and_latents_go_past(make_runner):
    preprocessor = make_runner([]).model.data_preprocessor
    assert isinstance(preprocessor, LatentsPass)
    images = torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)
    prepared = preprocessor(dict(inputs=images, data_samples=None))['inputs']
    torch.testing.assert_close(prepared, (images.float() - 73) / 90)
    latents = torch.randn(2, 16, 4, dtype=torch.float16)
    assert preprocessor(dict(inputs=latents, data_samples=None), True)['inputs'] is latents
    assert preprocessor.mean.item() == 73
    assert not hasattr(preprocessor, 'other')


def test_latents_of_another_shape_are_one_line(make_runner):
    net = make_runner([], model=model()).model
    with pytest.raises(ConfigError, match=r'latents of \(tokens, dimensions\) \(16, 5\), the tokenizer makes'):
        net.loss(torch.randn(2, 16, 5))
    with pytest.raises(ConfigError, match='the data are latents, but OriginalImageHead'):
        make_runner([]).model.loss(torch.randn(2, 16, 4))
