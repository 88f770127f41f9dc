# SPDX-License-Identifier: Apache-2.0
"""Training from cached latents against reading and encoding the images in each epoch.

    python benchmarks/latent_cache.py                                          # ViT-S size, 256 px, PCA at d = 32
    python benchmarks/latent_cache.py --size base --batch-size 256 --device cuda --bf16 --images 2048
    python benchmarks/latent_cache.py --conv-vae --batch-size 4 --images 16    # latents of a convolutional VAE

The images are JPEGs of 500 x 400 pixels made up in a temporary folder, read and cropped by the pipeline of our ImageNet
configs. Four things are done in turn, a batch each, and medians count: read images as one worker does; encode them; take
latents out of the folder that ldae.LatentCacheHook writes; the rest of a training step, from latents. With one thread, time
is the processor's, and all is on one core. A GPU's step is so short that several cores have to read images for it: how many
at ``--rate`` images a second is printed too.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from _timing import machine, medians, times_in_turn
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import DataLoader

from ldae.config import load_config
from ldae.datasets import LatentDataset, batch_collate
from ldae.datasets.latents import DTYPES
from ldae.engine import AutocastOptimWrapper
from ldae.engine.tokenizer.latent_cache import latents_of, write_latents
from ldae.registry import DATASETS, MODELS, OPTIM_WRAPPERS

SIZES = dict(
    tiny=dict(embed_dims=192, num_layers=2, num_heads=3, feedforward_channels=768),
    small=dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    base=dict(embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072),
    large=dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096),
)
IMAGENET = 1_281_167


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=list(SIZES), default='small')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--images', type=int, default=128)
    parser.add_argument('--latent-dim', type=int, default=32)
    parser.add_argument('--conv-vae', action='store_true', help='in the place of the PCA')
    parser.add_argument('--dtype', choices=list(DTYPES), default='float16')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--bf16', action='store_true', help='bfloat16 autocast of the step')
    parser.add_argument('--rate', type=float, default=800, help='images a second that a GPU could train on')
    parser.add_argument('--rounds', type=int, default=5)
    return parser.parse_args()


def make_images(folder: Path, count: int) -> None:
    """JPEGs about as large as ImageNet's: smooth, with some grain."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        image = cv2.resize(
            rng.integers(0, 256, (20, 25, 3)).astype(np.float32), (500, 400), interpolation=cv2.INTER_CUBIC
        )
        image += rng.normal(0, 12, image.shape)
        cv2.imwrite(str(folder / f'{i:05d}.jpg'), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])


def make_model(args: argparse.Namespace) -> nn.Module:
    """l-DAE that predicts clean latents from noisy ones (t2 rows), not trained; neither is the VAE."""
    kind = 'ldae.ConvVAETokenizer' if args.conv_vae else 'ldae.PatchPCATokenizer'
    cfg = dict(
        type='ldae.LDAE',
        data_preprocessor=load_config('ldae::deconstruction/t2_pca_d32.py').data_preprocessor.to_dict(),
        tokenizer=dict(type=kind, latent_dim=args.latent_dim),
        noiser=dict(type='ldae.GaussianNoiser'),
        backbone=dict(type='ldae.LDAEViT', arch=SIZES[args.size], input_type='latent'),
        head=dict(type='ldae.CleanLatentHead'),
    )
    model = MODELS.build(cfg).to(args.device)
    model.tokenizer.fit([torch.randn(4, 3, 256, 256, device=args.device)])
    return model


def endless(loader: DataLoader) -> Iterator[dict]:
    """Batches of one epoch after the other."""
    while True:
        yield from loader


class Parts:
    """What is timed, as functions."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.model = make_model(args)
        dataset = load_config('ldae::deconstruction/t2_pca_d32.py').train_dataloader.dataset
        images = DATASETS.build(dict(dataset, data_root=str(folder / 'images')))
        write_latents(folder / 'latents', self.model, images, {}, args.dtype, args.batch_size)
        latents = LatentDataset(folder / 'latents')
        self.size = latents.nbytes / len(latents)
        options = dict(batch_size=args.batch_size, shuffle=True, drop_last=True)
        self.images = endless(DataLoader(images, collate_fn=default_collate, **options))
        self.latents = endless(DataLoader(latents, collate_fn=batch_collate, **options))
        params = [param for param in self.model.parameters() if param.requires_grad]
        wrapper = dict(type='OptimWrapper') if not args.bf16 else dict(type=AutocastOptimWrapper)
        self.wrapper = OPTIM_WRAPPERS.build(wrapper | dict(optimizer=torch.optim.AdamW(params, lr=1e-4, fused=True)))
        self.batch, self.cached = next(self.images), next(self.latents)

    def read(self) -> None:
        self.batch = next(self.images)

    @torch.no_grad()
    def encode(self) -> None:
        latents_of(self.model, self.batch)

    def take(self) -> None:
        self.cached = next(self.latents)

    def step(self) -> None:
        self.model.train_step(self.cached, self.wrapper)


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name) / 'images' / 'train', args.images)
        parts = Parts(args, Path(name))
        functions = {part: getattr(parts, part) for part in ('read', 'encode', 'take', 'step')}
        times = medians(times_in_turn(functions, args.rounds, args.device))
    report(args, times, parts.size)


def report(args: argparse.Namespace, times: dict[str, float], size: float) -> None:
    """Milliseconds an image, and what they come to."""
    kind = 'convolutional VAE' if args.conv_vae else 'PCA'
    print(f'{args.size}, batch {args.batch_size}, 256 px, {kind}, d = {args.latent_dim}, {args.dtype}')
    print(machine(args.device))
    names = dict(
        read='read an image', encode='encode it', take='take its latents', step='a training step, for an image'
    )
    for part, words in names.items():
        print(f'{words:>32}: {times[part] * 1e3 / args.batch_size:9.3f} ms')
    before, after = times['read'] + times['encode'], times['take']
    print(f'latents against reading and encoding images: ldae / it = {after / before:.4f} of the time')
    shares = [100 * value / (value + times['step']) for value in (before, after)]
    print(f'share of a step on one core, reading and encoding images: {shares[0]:.1f}%, latents: {shares[1]:.1f}%')
    saved = (before - after) / (before + times['step'])
    print(f'an epoch takes, of that with reading and encoding images: {1 - saved:.1%}')
    cores = [args.rate * times[part] / args.batch_size for part in ('read', 'take')]
    print(f'cores for {args.rate:g} images a second: {cores[0]:.1f} reading images, {cores[1]:.2f} taking latents')
    print(f'ImageNet takes {IMAGENET * size / 1e9:.1f} GB')


if __name__ == '__main__':
    main()
