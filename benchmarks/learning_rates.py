# SPDX-License-Identifier: Apache-2.0
"""Where the best learning rate of linear layers lies, by the number of classes.

    python benchmarks/learning_rates.py

scores the pixels of the shipped Fashion-MNIST, and features that are made up: clusters of 32 dimensions, mixed and
rectified as by an untrained layer. For each learning rate it prints the accuracy on held-out training images (of the best
weight decay), and what the grid of the protocol chooses.
"""

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from ldae.datasets import IDXDataset
from ldae.evaluation import PROTOCOL, linear_probe
from ldae.utils.tables import text_table

LRS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
#: Classes, training images a class, channels.
MIXTURES = ((10, 500, 96), (10, 500, 384), (200, 30, 96), (200, 30, 192), (1000, 12, 96))


def pixels() -> tuple[Tensor, ...]:
    """Images of 14 x 14 pixels."""
    sets = []
    for split in ('train', 'test'):
        data = IDXDataset(split=split)
        sets += [F.avg_pool2d(data.images.float() / 255, 2).flatten(1), data.labels]
    return tuple(sets)


def mixture(classes: int, images: int, channels: int) -> tuple[Tensor, ...]:
    """Training and test features (n, channels) with their labels."""
    generator = torch.Generator().manual_seed(0)
    scale = 1 / torch.arange(1, 33)  # a few directions hold most of the variance, as in features of images
    centres = torch.randn(classes, 32, generator=generator)
    layer = torch.randn(32, channels, generator=generator) / 32**0.5
    sets = []
    for count in (images, max(2, images // 5)):
        labels = torch.arange(classes).repeat(count)
        x = (centres[labels] + torch.randn(len(labels), 32, generator=generator)) * scale
        sets += [torch.relu(x @ layer + 0.01 * torch.randn(len(x), channels, generator=generator)), labels]
    return tuple(sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--epochs', type=int, default=PROTOCOL.epochs)
    parser.add_argument('--only', type=int, nargs='+', metavar='CLASSES', help='these numbers of classes')
    args = parser.parse_args()
    tasks = {'10 classes, pixels': pixels} if args.only in (None, [10]) else {}
    for one in MIXTURES:
        if args.only is None or one[0] in args.only:
            tasks[f'{one[0]} classes, {one[2]} channels'] = lambda one=one: mixture(*one)
    rows = [['task', *(f'{lr:g}' for lr in LRS), 'chosen', 'test']]
    for name, make in tasks.items():
        found = linear_probe(*make(), lrs=LRS, epochs=args.epochs, widen=0)
        best = {}
        for setting, accuracy in found.held_out_accuracy.items():
            best[setting.lr] = max(best.get(setting.lr, 0.0), accuracy)
        scores = [f'{best[lr]:.1f}' for lr in LRS]
        rows.append([name, *scores, f'{found.setting.lr:g}', f'{found.accuracy:.1f}'])
        print(text_table(rows[:1] + rows[-1:]), flush=True)
    print(f'\n{text_table(rows)}')


if __name__ == '__main__':
    main()
