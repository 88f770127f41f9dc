# SPDX-License-Identifier: Apache-2.0
"""From files of any bands, depth and shape to a PCA, a training, scores, pictures and an export, at tiny size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from sklearn.decomposition import PCA

import ldae
from ldae.config import load_config
from ldae.config.images import fit_images, measure
from ldae.datasets import LoadImage
from ldae.datasets.mask_folder import MaskFolder
from ldae.export import export_encoder
from ldae.generation.denoising import denoising_figure
from ldae.launch import train
from ldae.launch.auto import LADDER, Choice, look_at, scale_text
from ldae.models import LDAEViT
from ldae.models.tokenizers import PatchPCATokenizer, PixelTokenizer
from ldae.models.tokenizers.fit import fit_tokenizer_of
from ldae.utils import ConfigError

RNG = np.random.default_rng(0)
TINY = {
    'model.backbone.arch': dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.batch_size': 4,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'model.tokenizer.latent_dim': 4,
    'default_hooks.checkpoint.interval': 1,
}


def scene(shape: tuple[int, ...], label: int) -> np.ndarray:
    """Stripes of two widths and some noise, from 0 to 1."""
    stripes = np.sin(np.arange(shape[1]) * (0.2 + 0.3 * label)) / 2 + 0.5
    return 0.8 * stripes[:, None] + 0.2 * RNG.random(shape)


def folder_of(root: Path, shape: tuple[int, ...], save, count: int = 4) -> Path:
    for split, label, number in np.ndindex(2, 2, count):
        folder = root / ('train', 'val')[split] / 'ab'[label]
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / str(number), scene(shape, label))
    return root


def save_array(path: Path, image: np.ndarray) -> None:
    np.save(f'{path}.npy', (2 * image - 1).astype(np.float32))


def save_tiff(path: Path, image: np.ndarray) -> None:
    tifffile = pytest.importorskip('tifffile')
    tifffile.imwrite(f'{path}.tif', (4000 * image).astype(np.uint16), photometric='minisblack', planarconfig='contig')


def save_picture(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(f'{path}.png', (255 * image).astype(np.uint8))


CASES = {
    'tiff': (save_tiff, (16, 24, 6), dict(channels=6, value_range=(0, 4000), img_size=(16, 24), patch_size=8, shown_bands=[5, 3, 0])),
    'npy': (save_array, (16, 32, 4), dict(channels=4, bands=[3, 0], value_range=(-1, 1), img_size=(16, 32), patch_size=8, shown_bands=[1])),
    'padded': (save_picture, (20, 30, 3), dict(img_size=(20, 30), patch_size=14, divide='pad')),
}  # fmt: skip


def run(
    root: Path, work_dir: Path, config: str = 'ldae::ldae/vit-b_pca_rrc.py', epochs: int = 2, **options
) -> ldae.launch.training.Run:
    shared = dict(data_root=str(root), work_dir=str(work_dir), device='cpu', precision='fp32', epochs=epochs)
    return train(config, dict(TINY), **shared, **options)


@pytest.mark.parametrize('case', CASES)
def test_from_files_to_an_export(tmp_path, case):
    save, shape, options = CASES[case]
    root = folder_of(tmp_path / 'data', shape, save)
    whole = run(root, tmp_path / 'whole', pictures=True, **options)
    assert (tmp_path / 'whole' / 'pictures' / 'epoch_2.png').is_file()
    run(root, tmp_path / 'w', **options, no_validate=True)
    (tmp_path / 'w' / 'epoch_2.pth').unlink()
    resumed = run(root, tmp_path / 'w', resume='auto', **options, no_validate=True)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    checkpoint = str(whole.checkpoint)
    scores = ldae.probe(
        checkpoint, data_root=str(root), work_dir=tmp_path / 'probe', k=[3], device='cpu', timesteps=[100]
    )
    assert scores.files
    model = ldae.get_model(None, checkpoint, device='cpu')
    channels = len(options.get('bands') or range(shape[2]))
    edges = [-(-edge // options['patch_size']) * options['patch_size'] for edge in shape[:2]]
    figure = denoising_figure(model, str(root / 'val'), [100, 500])
    assert figure.axes
    assert ldae.denoise(model, str(root / 'val'), 100).clean.shape == (8, *edges, channels)
    for kind, suffix in (('timm', ''), ('mmpretrain', '.pth')):
        exported = export_encoder(checkpoint, kind, tmp_path / f'{kind}{suffix}', check=[str(root / 'val')])
        assert exported.vit.img_size == tuple(edges)
        assert max(exported.errors.values()) < 1e-5


def test_three_bands_of_an_array_train_as_their_picture_does(tmp_path):
    pictures = folder_of(tmp_path / 'png', (16, 16, 3), save_picture)
    arrays = tmp_path / 'npy'
    for file in pictures.rglob('*.png'):
        target = arrays / file.relative_to(pictures).with_suffix('.npy')
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, cv2.imread(str(file))[..., ::-1])
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    reading = dict(channels=3, mean=mean, std=std)
    runs = [
        run(root, tmp_path / f'w{i}', img_size=16, no_validate=True, **options)
        for i, (root, options) in enumerate([(pictures, {}), (arrays, reading)])
    ]
    one, other = (run_.model.state_dict() for run_ in runs)
    assert torch.equal(one['tokenizer.components'], other['tokenizer.components'])
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def config_of(root: Path, **options) -> Config:
    cfg = load_config('ldae::ldae/vit-b_pca.py', dict(TINY), data_root=str(root))
    fit_images(cfg, **options)
    return cfg


def test_the_pca_of_bands_is_that_of_scikit_learn(tmp_path):
    root = folder_of(tmp_path, (16, 24, 4), save_array)
    cfg = config_of(root, channels=4, value_range=(-1, 1), img_size=(16, 24), patch_size=8)
    tokenizer = fit_tokenizer_of(cfg, 'cpu')
    images = np.stack([np.load(file) for file in sorted((root / 'train').rglob('*.npy'))]).astype(np.float64)
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    found = cfg.data_preprocessor
    np.testing.assert_allclose(found.mean, (mean + 1) * 127.5, atol=1e-3)
    np.testing.assert_allclose(found.std, std * 127.5, atol=1e-3)
    patches = ((images - mean) / std).reshape(-1, 2, 8, 3, 8, 4).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 256)
    reference = PCA(4).fit(patches)
    agreement = np.abs(np.diag(tokenizer.basis.numpy() @ reference.components_.T))
    np.testing.assert_allclose(agreement, 1, atol=1e-3)
    np.testing.assert_allclose(tokenizer.explained_variance_ratio[:4], reference.explained_variance_ratio_, rtol=1e-3)


def test_turned_images_give_turned_filters_latents_and_tokens():
    images = torch.randn(40, 2, 16, 32, generator=torch.Generator().manual_seed(0)).cumsum(3)
    tokenizers = [PatchPCATokenizer(size, 8, 2, 3) for size in ((16, 32), (32, 16))]
    for tokenizer, seen in zip(tokenizers, (images, images.mT), strict=True):
        tokenizer.fit([seen])
    one, other = (t.basis.unflatten(1, (2, 8, 8)) for t in tokenizers)
    signs = torch.where((one * other.mT).sum((1, 2, 3)) < 0, -1, 1)
    torch.testing.assert_close(one, other.mT * signs.view(-1, 1, 1, 1), rtol=1e-3, atol=1e-4)
    latents = [
        t.encode(seen).unflatten(1, t.geometry.grid) for t, seen in zip(tokenizers, (images, images.mT), strict=True)
    ]
    torch.testing.assert_close(latents[0], latents[1].transpose(1, 2) * signs, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        tokenizers[0].decode(latents[0].flatten(1, 2)),
        tokenizers[1].decode(latents[1].flatten(1, 2)).mT,
        rtol=1e-3,
        atol=1e-3,
    )


def test_positions_of_an_oblong_are_those_of_a_square_cut_off():
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    square, oblong = (LDAEViT(arch, size, 8, conditioned=False).pos_embed for size in (32, (16, 32)))
    torch.testing.assert_close(oblong[0].unflatten(0, (2, 4)), square[0].unflatten(0, (4, 4))[:2])


def test_pixels_of_an_oblong_are_resized_in_proportion():
    tokenizer = PixelTokenizer((16, 32), 8, 2, resized=4)
    images = torch.full((1, 2, 16, 32), 3.0)
    assert tokenizer.encode(images).shape == (1, 8, 2 * 2 * 2)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images)), images)


@pytest.mark.parametrize(
    ('size', 'divide', 'whole'),
    [((20, 30), 'pad', (28, 42)), ((20, 30), 'crop', (14, 28)), (50, 'pad', 56), (28, None, 28)],
)
def test_the_model_has_whole_patches_of_what_the_pipeline_gives(tmp_path, size, divide, whole):
    root = folder_of(tmp_path, (20, 30, 3), save_picture)
    for name in ('vit-b_pca', 'vit-b_pca_rrc'):
        cfg = load_config(name, dict(TINY), data_root=str(root))
        fit_images(cfg, img_size=size, patch_size=14, divide=divide)
        assert cfg.model.tokenizer.img_size == whole
        dataset = ldae.registry.DATASETS.build(cfg.train_dataloader.dataset)
        edges = whole if isinstance(whole, tuple) else (whole, whole)
        assert dataset[0]['inputs'].shape[1:] == edges


def test_padding_continues_the_edge(tmp_path):
    root = folder_of(tmp_path, (20, 30, 3), save_picture)
    plain, padded = (
        ldae.registry.DATASETS.build(
            config_of(root, img_size=(20, 30), patch_size=patch, divide='pad').train_dataloader.dataset
        )[0]['inputs']
        for patch in (10, 14)
    )
    expected = torch.nn.functional.pad(plain[None].float(), (0, 12, 0, 8), mode='replicate')[0]
    torch.testing.assert_close(padded.float(), expected)


@pytest.mark.parametrize(
    ('config', 'options', 'said'),
    [
        ('vit-b_pca', dict(img_size=100, patch_size=14), '--img-size 100 is not a multiple of the patch size, 14: .*--divide pad or crop'),
        ('vit-b_pca', dict(img_size=(100, 64), patch_size=16), '--img-size 100 x 64 is not a multiple'),
        ('vit-b_pca', dict(img_size=8, patch_size=16, divide='crop'), 'less than a patch of 16 pixels'),
        ('vit-b_pca', dict(bands=[0]), 'bands needs channels'),
        ('vit-b_pca', dict(channels=4, mean=[1, 2], std=[1, 2]), 'a number for each of 4 bands'),
        ('vit-b_pca', dict(mean=[1], std=[1]), '--channels'),
        ('mae/vit-b_256_400e', dict(img_size=(128, 256)), 'MAE takes square images'),
        ('mae/vit-b_256_400e', dict(shown_bands=[0]), 'pictures that an l-DAE draws'),
        ('simclr/vit-b_300e', dict(img_size=100, patch_size=14, divide='pad'), 'not for several views'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(config, options, said):
    with pytest.raises(ConfigError, match=said):
        fit_images(load_config(config), **options)


def test_colours_of_bands_are_refused_before_anything_is_read(tmp_path):
    root = folder_of(tmp_path / 'data', (16, 16, 4), save_array)
    options = dict(channels=4, value_range=(-1, 1), mean=[0] * 4, std=[1] * 4, img_size=16, patch_size=8)
    small = {key: value for key, value in TINY.items() if not key.startswith(('model.tok', 'val_'))}
    with pytest.raises(
        ConfigError, match='ColorJitter changes pictures of three colours and 8 bits, and these images have 4 bands'
    ):
        train('simclr/vit-b_300e', small, data_root=str(root), work_dir=str(tmp_path / 'w'), device='cpu', **options)


def test_a_band_that_is_the_same_everywhere_is_named(tmp_path):
    root = folder_of(tmp_path, (16, 16, 2), lambda path, image: np.save(path, (image * [200, 0]).astype(np.uint8)))
    with pytest.raises(ConfigError, match=r'band 1 has one value everywhere: leave it out'):
        config_of(root, channels=2, img_size=16, patch_size=8)
    assert measure(config_of(root, channels=2, bands=[0], img_size=16, patch_size=8))[1][0] > 1


def test_a_perceptual_loss_of_bands_is_refused(tmp_path):
    options = {'model.tokenizer.in_channels': 4, 'model.tokenizer.pixel_mean': None}
    with pytest.raises(ConfigError, match='perceptual loss is of grey or RGB images, and these have 4 bands'):
        load_config('tokenizers/conv-vae_f8_kl-lpips', options)
    cfg = load_config('tokenizers/conv-vae_f8_kl-lpips', {'model.perceptual': None} | options)
    assert cfg.model.tokenizer.in_channels == 4


def test_auto_finds_bands_range_and_moments(tmp_path):
    root = folder_of(tmp_path / 'data', (32, 64, 4), save_array, 8)
    found = look_at(str(root))
    images = np.stack([np.load(file) for file in (root / 'train').rglob('*.npy')]).astype(np.float64)
    low, high = images.min(), images.max()
    assert (found.bands.reading['channels'], found.side) == (4, 32)
    np.testing.assert_allclose(found.bands.reading['value_range'], (low, high))
    np.testing.assert_allclose(found.bands.mean, (images.mean((0, 1, 2)) - low) * 255 / (high - low), atol=0.01)
    np.testing.assert_allclose(found.bands.std, images.std((0, 1, 2)) * 255 / (high - low), atol=0.01)
    assert 'squares are cut out' in found.notes[-1]
    path = tmp_path / 'auto_scale.py'
    path.write_text(scale_text(found, Choice(LADDER[0], 32, 4)))
    cfg = load_config('ldae::ldae/vit-b_pca_rrc.py', scale=path)
    assert cfg.train_dataloader.dataset.pipeline[0].channels == 4
    assert (cfg.model.tokenizer.in_channels, cfg.data_preprocessor.type) == (4, 'ldae.BandsPreprocessor')
    assert look_at(str(folder_of(tmp_path / 'png', (32, 32, 3), save_picture, 8))).bands is None


def test_masks_go_with_images_of_bands(tmp_path):
    for split in ('train', 'val'):
        for kind in ('images', 'masks'):
            (tmp_path / kind / split).mkdir(parents=True)
        np.save(tmp_path / 'images' / split / 'a.npy', RNG.random((20, 40, 5)).astype(np.float32))
        cv2.imwrite(str(tmp_path / 'masks' / split / 'a.png'), np.arange(800).reshape(20, 40).astype(np.uint8) % 2)
    images = MaskFolder(tmp_path, 'train', (16, 32), reader=LoadImage(channels=5, value_range=(0, 1)))
    assert images[0]['inputs'].shape == (5, 16, 32)
    assert images.mask(0, [0, 1], (16, 32)).shape == (16, 32)
