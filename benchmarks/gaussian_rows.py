# SPDX-License-Identifier: Apache-2.0
"""Rows of the paper trained on Gaussian images, whose best denoiser is known: how far each is from it, by noise level.

    python benchmarks/gaussian_rows.py

draws images with the mean and covariance of the shipped Fashion-MNIST's, pre-trains each row on them as at the scale
fashion-mnist_subset, and prints the loss on held-out images over the least that any denoiser can have. Below 1 by more than the
error of a mean would be a fault of the model's loss, or of the bound; far above 1 is a model that has not learned it (yet).
"""

import argparse
from pathlib import Path

import torch

from ldae.apis import bound
from ldae.config import load_config
from ldae.datasets import IDXDataset
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.registry import DATASETS
from ldae.utils.device import use_device
from ldae.utils.tables import text_table

ROWS = ('t2_pca_d32', 't3_1_predict-clean', 't3_2_no-input-scaling', 't3_3_image-input', 't3_4_image-output')
ROWS += ('t3_5_original-image', 't3_6_single-level')
SCALE, LOADERS = 'fashion-mnist_subset', ('train_dataloader', 'val_dataloader', 'test_dataloader')
TIMESTEPS = (10, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)


@DATASETS.register_module()
class GaussianImages(IDXDataset):
    """As many images as an IDX data set has, drawn from the normal distribution with the mean and covariance of its training
    images; float32, not cut to the range of pixels."""

    def __init__(self, split: str = 'train', **kwargs) -> None:
        super().__init__(split=split, **kwargs)
        rows = IDXDataset(pad=kwargs.get('pad', 0)).images.flatten(1).double()
        values, vectors = torch.linalg.eigh(rows.t().cov())
        generator = torch.Generator().manual_seed(1 + (split == 'train'))
        normal = torch.randn(len(self.images), len(values), generator=generator, dtype=torch.float64)
        drawn = rows.mean(0) + normal * values.clamp(min=0).sqrt() @ vectors.t()
        self.images = drawn.float().view_as(self.images)


def train(row: str, args: argparse.Namespace) -> Path:
    """The folder of a row's training."""
    options = {f'{name}.dataset.type': 'ldae.GaussianImages' for name in LOADERS} | args.cfg_options
    options |= {f'{name}.dataset.indices': args.images for name in LOADERS if args.images}
    cfg = load_config(f'ldae::deconstruction/{row}.py', options, SCALE, epochs=args.epochs)
    cfg.randomness.seed, cfg.log_level, cfg.experiment_name = args.seed, 'WARNING', f'{args.work_dir.name}_{row}'
    cfg.default_hooks.checkpoint.interval = cfg.train_cfg.max_epochs
    folder = args.work_dir / row
    build_runner(prepare(cfg, LaunchOptions(work_dir=str(folder), resume='auto', no_validate=True))).train()
    return folder / Path((folder / 'last_checkpoint').read_text().strip()).name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rows', nargs='+', default=ROWS)
    parser.add_argument('--epochs', type=int, help="(the scale's)")
    parser.add_argument('--images', type=int, help='at most so many (all)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--lr', type=float, help="(the scale's)")
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/gaussian'))
    args = parser.parse_args()
    args.cfg_options = {'optim_wrapper.optimizer.lr': args.lr} if args.lr else {}
    use_device('auto')
    cells = [['loss / least loss at t =', *map(str, TIMESTEPS), 'all t', 'error']]
    for row in args.rows:
        checkpoint = train(row, args)
        found = bound(checkpoint, timesteps=TIMESTEPS, work_dir=checkpoint.parent, force=True).rows
        total = sum(one.model for one in found) / sum(one.linear for one in found)
        error = max(one.error * one.ratio / one.model for one in found if one.ratio == one.ratio)
        cells.append([row, *(f'{ratio:.3f}' for ratio in (*(one.ratio for one in found), total, error))])
        print(text_table(cells[:: len(cells) - 1], left=1), flush=True)
    print(f'\n{text_table(cells, left=1)}\n\nWrote bound.json, bound.md and bound.png to {args.work_dir}/ROW')


if __name__ == '__main__':
    main()
