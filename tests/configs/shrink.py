# SPDX-License-Identifier: Apache-2.0
"""Any config of the tree, small enough to train two steps in a second on one CPU core."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from ldae.config import load_config, walk_dicts

IMAGES, BATCH = 8, 4  # two steps an epoch
IMG_SIZE, PATCH = 16, 4
ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)

_SIZES = {
    'RandomResizedCrop': dict(scale=IMG_SIZE),
    'ResizeEdge': dict(scale=IMG_SIZE),
    'CenterCrop': dict(crop_size=IMG_SIZE),
    'MAEViT': dict(arch=ARCH, img_size=IMG_SIZE, patch_size=PATCH),
    'VisionTransformer': dict(arch=ARCH, img_size=IMG_SIZE, patch_size=PATCH),
    'MoCoV3ViT': dict(arch=ARCH, img_size=IMG_SIZE, patch_size=PATCH),
    'ldae.SimMIMViT': dict(arch=ARCH, img_size=IMG_SIZE, patch_size=PATCH, mask_patch_size=2 * PATCH),
    'ldae.SimMIMDecoder': dict(in_channels=32, patch_size=PATCH),
    'SimMIMHead': dict(patch_size=PATCH),
    'ldae.DINOProjection': dict(in_channels=32, hid_channels=64, out_channels=16, num_prototypes=64),
    'MAEPretrainDecoder': dict(
        num_patches=(IMG_SIZE // PATCH) ** 2,
        patch_size=PATCH,
        embed_dim=32,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
    ),
    'MAEPretrainHead': dict(patch_size=PATCH),
    'ClsBatchNormNeck': dict(input_features=32),
    'LinearClsHead': dict(in_channels=32),
    'VisionTransformerClsHead': dict(in_channels=32),
}


def needs_extras(name: str) -> None:
    """Skip the test of a config whose extra isn't installed."""
    if name.startswith('dino'):
        pytest.importorskip('lightly')


def shrink(filename: Path, data_root: Path, work_dir: Path, checkpoint: Path | None = None) -> Config:
    """Read a config and make it tiny: 16 px, 2 blocks of width 32, 8 images, one epoch of two steps.

    Configs for IDX files have small networks as they are; only their data shrink, to some of the images that ship.

    Args:
        data_root: Folder of :func:`write_images`, for configs that read images.
        checkpoint: Of a shrunken pre-training run, for benchmarks (``init_cfg=dict(type='Pretrained')``).
    """
    cfg = load_config(filename, dict(data_root=str(data_root)))
    reads_idx = cfg.train_dataloader.dataset.type == 'ldae.IDXDataset'
    for node in walk_dicts(cfg._cfg_dict):
        if not reads_idx:
            _shrink_model(node, checkpoint)
        if 'batch_size' in node and 'dataset' in node:
            node.update(batch_size=BATCH, num_workers=0, persistent_workers=False)
        if 'fraction' in node:
            node.update(fraction=None)  # of 8 images it would leave two
        if node.get('type') == 'ldae.IDXDataset':
            node.update(data_root=None, indices=100)  # enough for each class to be there
    if reads_idx:
        cfg.train_dataloader.dataset.indices = IMAGES
    cfg.work_dir = str(work_dir)
    cfg.train_cfg.update(max_epochs=1, **(dict(val_interval=1) if cfg.get('val_cfg') is not None else {}))
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':  # asserts a GPU
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('loss_scale', None)
    return cfg


def _shrink_model(node: dict, checkpoint: Path | None) -> None:
    kind = node.get('type')
    node.update(_SIZES.get(kind, {}))
    if kind == 'NonLinearNeck':
        node.update(hid_channels=64, in_channels=32 if node.in_channels > 512 else node.in_channels)
    if kind == 'ldae.ConvVAETokenizer':
        # 2 x 2 cells a patch, as in the paper.
        small = dict(downsample=2, base_channels=8, layers_per_block=1)
        node.update(img_size=IMG_SIZE, patch_size=PATCH, latent_dim=max(4, node.latent_dim // 4), **small)
    elif {'img_size', 'patch_size', 'latent_dim'} <= set(node):  # any other tokenizer
        node.update(img_size=IMG_SIZE, patch_size=PATCH, latent_dim=node.latent_dim // 4)
    elif kind == 'ldae.TokenizerTrainer':
        _shrink_losses(node)
    elif kind == 'ldae.LDAEViT':
        node.update(arch=ARCH)
        if 'img_size' in node:
            node.update(img_size=IMG_SIZE, patch_size=PATCH)
    elif kind == 'Pretrained' and checkpoint is not None:
        node.update(checkpoint=str(checkpoint))
    if 'frozen_stages' in node:
        node.update(frozen_stages=ARCH['num_layers'])


def _shrink_losses(node: dict) -> None:
    if 'perceptual' in node:
        node.perceptual.backbone = 'random'
    if 'adversarial' in node:
        node.adversarial.update(start_step=1, base_channels=4, num_layers=1)


def write_images(folder: Path) -> Path:
    """``folder/{train,val}/{a,b}/*.jpg``, 8 images a split, a little larger than the networks' input."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for i in range(IMAGES):
            path = folder / split / 'ab'[i % 2] / f'{i}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return folder
