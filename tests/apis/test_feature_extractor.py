# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

import ldae
from ldae.apis.feature_extractor import patch_grid
from ldae.config import load_config
from ldae.datasets.idx import SUBSET_ROOT, read_idx
from ldae.evaluation.features import extract_features, pooled_features
from ldae.models import LDAE
from ldae.utils import ConfigError

TINY = {'model.backbone.arch': 'deit-tiny'}
TINY_LDAE = {**TINY, 'model.tokenizer.latent_dim': 4}
TINY_PROBE = {**TINY, 'model.neck.input_features': 192, 'model.head.in_channels': 192}


def with_weights(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    if isinstance(model, LDAE):
        size, channels = model.tokenizer.geometry.img_size, model.tokenizer.geometry.in_channels
        model.tokenizer.fit([torch.randn(4, channels, size, size)])
    return model


def by_dataloader(model: torch.nn.Module, loader: dict) -> torch.Tensor:
    """Features that the config's own data loader and data preprocessor give."""
    init_default_scope('mmpretrain')
    loader = Runner.build_dataloader(
        dict(loader, num_workers=0, persistent_workers=False, sampler=dict(type='DefaultSampler', shuffle=False))
    )
    features, _ = extract_features(lambda x: pooled_features(model, x), loader, model.data_preprocessor)
    return features


def test_grey_images_in_memory_give_what_the_configs_own_data_give(small_ldae: LDAE):
    loader = small_ldae._config.val_dataloader.to_dict()
    loader['dataset']['indices'] = 64
    images = read_idx(SUBSET_ROOT, 'test', 'images')[:64]
    assert torch.equal(ldae.FeatureExtractor(small_ldae)(images[:, None]), by_dataloader(small_ldae, loader))


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('ldae/vit-b_pca', TINY_LDAE),
        ('benchmarks/ldae_vit-b_linear', TINY_PROBE),
        ('benchmarks/mae_vit-b_linear', TINY_PROBE),
        ('benchmarks/mae_vit-b_linear_mmpretrain', TINY_PROBE),
    ],
)
def test_files_give_what_the_configs_own_data_give(name: str, options: dict, tiny_image_folder: Path):
    model = with_weights(ldae.get_model(name, cfg_options=options, device='cpu'))
    cfg = load_config(f'ldae::{name}.py', dict(data_root=str(tiny_image_folder)))
    loader = cfg.test_dataloader.to_dict()
    loader['batch_size'] = 8
    loader['dataset']['with_label'] = True
    extract = ldae.FeatureExtractor(model, batch_size=8)
    assert torch.equal(extract(tiny_image_folder / 'val'), by_dataloader(model, loader))


def test_timms_models_get_what_timm_prepares(rgb: np.ndarray):
    model = timm.create_model('vit_tiny_patch16_224', num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    inputs = transform(Image.fromarray(rgb))[None]
    with torch.no_grad():
        tokens = model.forward_features(inputs)[:, 1:]
    assert torch.equal(ldae.FeatureExtractor(model, pool='tokens')(rgb), tokens)
    torch.testing.assert_close(ldae.FeatureExtractor(model)(rgb), tokens.mean(dim=1))


def test_mmpretrains_models_get_what_its_own_extractor_prepares(rgb: np.ndarray):
    from mmpretrain import FeatureExtractor

    model = ldae.get_model('mmpretrain::deit-tiny_4xb256_in1k', device='cpu')
    with torch.no_grad():
        inputs = next(iter(FeatureExtractor(model).preprocess([rgb[..., ::-1]])))
        model.backbone.out_type = 'raw'
        tokens = model.backbone(model.data_preprocessor(inputs)['inputs'])[-1][:, 1:]
        model.backbone.out_type = 'cls_token'
    assert torch.equal(ldae.FeatureExtractor(model, pool='tokens')(rgb), tokens)
    torch.testing.assert_close(ldae.FeatureExtractor(model)(rgb), tokens.mean(dim=1))
    assert model.backbone.out_type == 'cls_token'


def test_maes_pre_training_has_no_test_images_and_takes_a_centre_crop(rgb: np.ndarray):
    model = with_weights(ldae.get_model('mae/demo_fashion-mnist', device='cpu'))
    square = Image.fromarray(rgb).convert('L').resize((35, 28), Image.Resampling.BICUBIC).crop((4, 0, 32, 28))
    assert torch.equal(ldae.FeatureExtractor(model)(rgb), ldae.FeatureExtractor(model)(square))


def test_a_checkpoint_alone_is_enough(small_checkpoint: Path, small_ldae: LDAE, rgb: np.ndarray):
    extract = ldae.FeatureExtractor(checkpoint=small_checkpoint, device='cpu')
    assert torch.equal(extract(rgb), ldae.FeatureExtractor(small_ldae)(rgb))


def test_tokens_maps_averages_and_blocks_are_of_one_pass(small_ldae: LDAE, rgb: np.ndarray):
    images = [rgb, rgb[:, ::-1].copy(), rgb[..., 0]]
    average = ldae.FeatureExtractor(small_ldae)(images)
    tokens = ldae.FeatureExtractor(small_ldae, pool='tokens')(images)
    maps = ldae.FeatureExtractor(small_ldae, pool='featmap')(images)
    assert average.shape == (3, 96)
    assert tokens.shape == (3, 16, 96)
    assert maps.shape == (3, 96, 4, 4)
    assert torch.equal(maps.flatten(2).transpose(1, 2), tokens)
    torch.testing.assert_close(tokens.mean(dim=1), average)
    assert torch.equal(ldae.FeatureExtractor(small_ldae, blocks=-1)(images), average)
    assert torch.equal(ldae.FeatureExtractor(small_ldae, blocks=[1, 3])(images)[:, 1], average)


def test_a_map_has_its_rows_where_the_image_has_them(small_ldae: LDAE):
    top = np.zeros((28, 28), np.uint8)
    top[:7] = 255
    maps = [ldae.FeatureExtractor(small_ldae, pool='featmap', blocks=None)(image) for image in (top, 0 * top)]
    changed = (maps[0] - maps[1]).norm(dim=1)[0]
    assert changed.mean(dim=1).argmax() == 0


@pytest.mark.parametrize(('count', 'size'), [(15, (32, 32)), (3, (8, 800))], ids=['left over', 'less than a row'])
def test_tokens_that_make_no_map_are_an_error(count: int, size: tuple[int, int]):
    with pytest.raises(ConfigError, match=f'{count} patches of images of {size[0]} x {size[1]} pixels make no map'):
        patch_grid(count, size)
    assert patch_grid(8, (16, 32)) == (2, 4)


def test_a_probe_that_averages_still_has_tokens(rgb: np.ndarray):
    model = with_weights(ldae.get_model('benchmarks/ldae_vit-b_linear', cfg_options=TINY_PROBE, device='cpu'))
    tokens = ldae.FeatureExtractor(model, pool='tokens')(rgb)
    assert tokens.shape == (1, 256, 192)
    torch.testing.assert_close(tokens.mean(dim=1), ldae.FeatureExtractor(model)(rgb))


def test_convolutional_networks_have_maps(rgb: np.ndarray):
    extract = ldae.FeatureExtractor('timm::resnet10t', device='cpu', pool='featmap')
    assert extract(rgb).shape == (1, 512, 6, 6)


def test_the_time_step_is_that_of_the_encoder_built_with_it(small_checkpoint: Path, rgb: np.ndarray):
    model = ldae.get_model(checkpoint=small_checkpoint, device='cpu')
    own = model.backbone.timestep
    built = ldae.get_model(checkpoint=small_checkpoint, device='cpu', backbone=dict(timestep=77))
    at_77 = ldae.FeatureExtractor(model, timestep=77)(rgb)
    assert torch.equal(at_77, ldae.FeatureExtractor(built)(rgb))
    assert not torch.equal(at_77, ldae.FeatureExtractor(model)(rgb))
    assert model.backbone.timestep == own


def test_batches_and_threads_do_not_change_the_features(small_ldae: LDAE, rgb: np.ndarray):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8) for i in range(7)]
    together = ldae.FeatureExtractor(small_ldae)(images)
    assert torch.equal(ldae.FeatureExtractor(small_ldae, num_workers=2)(images), together)
    alone = list(ldae.FeatureExtractor(small_ldae, batch_size=3).stream(iter(images)))
    assert [len(batch) for batch in alone] == [3, 3, 1]
    torch.testing.assert_close(torch.cat(alone), together)


def test_products_are_rounded_to_the_precision(small_ldae: LDAE, rgb: np.ndarray):
    exact, rounded = (ldae.FeatureExtractor(small_ldae, precision=precision)(rgb) for precision in ('fp32', 'bf16'))
    assert torch.equal(exact, ldae.FeatureExtractor(small_ldae)(rgb))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.02 * float(exact.abs().max()))


def test_a_stream_holds_one_batch(small_ldae: LDAE, rgb: np.ndarray):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield rgb

    stream = ldae.FeatureExtractor(small_ldae, batch_size=4).stream(endless())
    assert next(stream).shape == (4, 96)
    assert len(taken) == 4


def test_the_model_is_left_as_it_was(small_ldae: LDAE, rgb: np.ndarray):
    small_ldae.train()
    small_ldae.neck.eval()
    before = [module.training for module in small_ldae.modules()]
    features = ldae.FeatureExtractor(small_ldae)(rgb)
    assert not features.requires_grad
    assert features.dtype == torch.float32
    assert [module.training for module in small_ldae.modules()] == before
    small_ldae.eval()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(batch_size=0), 'batch_size'),
        (dict(num_workers=-1), 'num_workers'),
        (dict(pool='max'), "choose one of .*'avg'"),
        (dict(blocks=4), 'blocks 1 to 3'),
        (dict(blocks=[1, -3]), 'none twice'),
        (dict(blocks=1, pool='tokens'), "goes with pool='avg'"),
        (dict(timestep=1000), 'timesteps=1000'),
        (dict(timestep=1.5), 'an integer'),
        (dict(device='gpu'), "device 'gpu' can't be used"),
        (dict(device='cuda:99'), "device 'cuda:99' can't be used"),
        (dict(checkpoint='x.pth'), 'LDAE is one already'),
        (dict(scale='cifar10'), 'scale: for a model that is named'),
    ],
)
def test_an_option_out_of_range_is_one_line(small_ldae: LDAE, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        ldae.FeatureExtractor(small_ldae, **options)


def test_what_does_not_fit_the_model_is_one_line(rgb: np.ndarray):
    with pytest.raises(ConfigError, match='has no time step'):
        ldae.FeatureExtractor('timm::resnet10t', timestep=3, device='cpu')
    with pytest.raises(ConfigError, match='does not say what images it takes'):
        ldae.FeatureExtractor(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match='not fitted'):
        ldae.FeatureExtractor('ldae/demo_fashion-mnist', device='cpu')(rgb)


@pytest.mark.parametrize('module', ['torch', 'mmpretrain', 'ldae.apis'])
def test_importing_ldae_costs_no_more_than_its_configs(module: str):
    code = (
        f'import sys, ldae; assert {module!r} not in sys.modules; '
        "assert {'FeatureExtractor', 'denoise', 'get_model', 'list_models', '__version__'} <= set(dir(ldae))"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_all_that_is_named_is_there():
    assert all(callable(getattr(ldae, name)) for name in ldae.__all__ if not name.startswith('__'))
    with pytest.raises(AttributeError, match="no attribute 'get_modle'"):
        ldae.get_modle  # noqa: B018


def test_a_device_that_is_not_there_leaves_the_model_where_it_was(small_ldae):
    before = small_ldae.data_preprocessor.images.device
    with pytest.raises(ConfigError, match="device 'cuda:99' can't be used"):
        ldae.FeatureExtractor(small_ldae, device='cuda:99')
    assert small_ldae.data_preprocessor.images.device == before
