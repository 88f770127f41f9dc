# SPDX-License-Identifier: Apache-2.0
"""Training many linear heads against the forward pass that gives them their features, and what the cache saves.

    python benchmarks/probe.py                     # the demo's l-DAE on the Fashion-MNIST subset: 4 time steps x 10 heads
    python benchmarks/probe.py --timesteps 10 --device cuda

The pass reads all images, forwards each at every time step and writes the cache; probing reads the cache, trains a head for each
learning rate, weight decay and time step, chooses on the held-out part, trains the chosen ones anew and scores them. The
network is untrained: times don't depend on what it has learned. On a CPU, time is that of the process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader

from ldae import get_model
from ldae.datasets import IDXDataset, batch_collate
from ldae.evaluation import cache_features, linear_probes
from ldae.evaluation.cache import FeatureCache

WEIGHT_DECAYS = (0.0, 1e-3)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='ldae/demo_fashion-mnist', help='an l-DAE that takes 28 x 28 grey images')
    parser.add_argument('--images', type=int, help='per split; all by default')
    parser.add_argument('--batch-size', type=int, default=256, help='of the pass')
    parser.add_argument('--timesteps', type=int, nargs='+', default=[10, 100, 300, 500])
    parser.add_argument('--settings', type=int, default=40, help='heads, over time steps, rates and weight decays')
    parser.add_argument('--epochs', type=int, default=90, help='of the heads')
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def timed(function: Callable[[], object], device: str) -> tuple[float, object]:
    """Time of one call, and what it gives."""
    clock = time.process_time if device == 'cpu' else time.perf_counter
    start = clock()
    result = function()
    if device != 'cpu':
        torch.cuda.synchronize()
    return clock() - start, result


def build(args: argparse.Namespace) -> tuple[nn.Module, dict[str, IDXDataset]]:
    """A model whose tokenizer is fitted, and the data."""
    data = {split: IDXDataset(split=split, indices=args.images) for split in ('train', 'test')}
    model = get_model(args.model, device=args.device)
    batch = model.data_preprocessor(dict(inputs=data['train'].images[:1000], data_samples=None))
    model.tokenizer.fit([batch['inputs']])
    return model, data


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    model, data = build(args)
    lrs = torch.logspace(-2.5, -0.5, args.settings // len(args.timesteps) // len(WEIGHT_DECAYS)).tolist()
    preprocess = partial(model.data_preprocessor, training=False)

    def run_pass(folder: str) -> list[FeatureCache]:
        loaders = [DataLoader(part, args.batch_size, collate_fn=batch_collate) for part in data.values()]
        return [
            cache_features(model, loader, preprocess, folder, None, args.timesteps, data=split)
            for split, loader in zip(data, loaders, strict=True)
        ]

    with tempfile.TemporaryDirectory() as folder:
        # Of everything once, untimed.
        model.extract_feat(preprocess(dict(inputs=data['test'].images[:256], data_samples=None))['inputs'])
        forward, (train, test) = timed(partial(run_pass, folder), args.device)
        again, _ = timed(partial(run_pass, folder), args.device)
        probe = partial(linear_probes, train, train.labels, test, test.labels, device=args.device)
        heads, results = timed(
            partial(probe, lrs=lrs, weight_decays=WEIGHT_DECAYS, epochs=args.epochs, widen=0), args.device
        )
    count = len(results) * len(lrs) * len(WEIGHT_DECAYS)
    images = train.num_images + test.num_images
    print(f'{images} images x {len(args.timesteps)} time steps, {args.model}, {args.device}, torch {torch.__version__}')
    for name, value in (('feature pass', forward), ('pass found in the cache', again), ('heads', heads)):
        print(f'{name:>24}: {value:8.2f} s')
    print(f'{count} settings for {args.epochs} epochs / feature pass: ldae / it = {heads / forward:.2f}')
    print(f'pass and heads / feature pass: {(forward + heads) / forward:.2f}')


if __name__ == '__main__':
    main()
