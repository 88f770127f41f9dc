# SPDX-License-Identifier: Apache-2.0
"""What sampling costs beside the network's passes: the sampler's own arithmetic, decoding and writing.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py

Prints each as a share of the time of the network's passes in the same run, for a call of 50 steps: a few steps are timed, and counted
for as many. The network is a ViT-S encoder and decoder on images of 256 pixels.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from ldae.generation import ImageSampler
from ldae.generation.folder import SampleFolder
from ldae.models import LDAE
from ldae.registry import MODELS
from ldae.utils.device import find_device

SMALL = dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536)
STEPS = 50


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sampler', default='dpm++')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--timed-steps', type=int, default=4, help='at least 2')
    parser.add_argument('--img-size', type=int, default=256)
    parser.add_argument('--device', default='auto')
    return parser.parse_args()


def build(img_size: int, device: str) -> LDAE:
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ldae.LDAE',
            tokenizer=dict(
                type='ldae.PatchPCATokenizer', img_size=img_size, patch_size=16, in_channels=3, latent_dim=32
            ),
            noiser=dict(type='ldae.GaussianNoiser', schedule='linear_gamma_sq'),
            backbone=dict(type='ldae.LDAEViT', arch=SMALL, input_type='latent'),
            head=dict(type='ldae.NoiseHead'),
            data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
        )
    )
    model.tokenizer.fit([torch.randn(64, 3, img_size, img_size)])
    return model.eval().to(device)


class Clock:
    """Seconds spent in functions, by name."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = {}
        self._waits = device.startswith('cuda')

    def timed(self, name: str, function: Callable) -> Callable:
        @wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            start = self._now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0) + self._now() - start

        return call

    def _now(self) -> float:
        if self._waits:
            torch.cuda.synchronize()
        return time.perf_counter()


def main() -> None:
    args = parse_args()
    device = find_device(args.device)
    model, clock = build(args.img_size, device), Clock(device)
    sampler = ImageSampler(model, args.sampler, steps=args.timed_steps)
    sampler(range(args.batch_size))  # to warm up
    model.predict_latents = clock.timed('network', model.predict_latents)
    sampler._sampler.run = clock.timed('steps', sampler._sampler.run)
    sampler.decode = clock.timed('decoding', sampler.decode)
    images = clock.timed('all', sampler)(range(args.batch_size))
    with tempfile.TemporaryDirectory() as name:
        folder = SampleFolder(Path(name, 'out'), {})
        folder.open(force=False)

        def write() -> None:
            with folder.writing() as write_images:
                write_images(range(args.batch_size), images)

        clock.timed('writing', write)()
    spent, scale = clock.seconds, STEPS / args.timed_steps
    network = spent['network'] * scale
    parts = dict(
        arithmetic=(spent['steps'] - spent['network']) * scale,
        start=spent['all'] - spent['steps'] - spent['decoding'],
        decoding=spent['decoding'],
        writing=spent['writing'],
    )
    print(f'{args.sampler}, {STEPS} steps, batch of {args.batch_size}, {args.img_size} px, {device}')
    for part, seconds in parts.items():
        print(f'{part:<11}{seconds / network:.2%} of the network')
    print(f'{"together":<11}{sum(parts.values()) / network:.2%} of the network')


if __name__ == '__main__':
    main()
