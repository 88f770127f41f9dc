# SPDX-License-Identifier: Apache-2.0
"""The demo: l-DAE and MAE pre-trained on the Fashion-MNIST subset that ships with ldae, scored and drawn."""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .options import make_parser

LDAE_CONFIG, MAE_CONFIG = 'ldae::ldae/demo_fashion-mnist.py', 'ldae::mae/demo_fashion-mnist.py'
#: Rows of the table: key in results.json, what it is.
ROWS = {
    'pixels': 'raw pixels (flattened; a reference)',
    'pca': 'PCA latents (average over tokens)',
    'untrained': 'l-DAE encoder, untrained',
    'ldae': 'l-DAE encoder, pre-trained',
    'mae': 'MAE encoder, pre-trained',
}
#: Not part of the comparison that results.json is for, but of an honest one.
EXTRA_ROWS = {'mae_untrained': 'MAE encoder, untrained'}
# --quick: enough to see everything run.
QUICK = dict(epochs=2, train_images=640, test_images=300, probe_epochs=5)
FULL = dict(epochs=None, train_images=None, test_images=None, probe_epochs=20)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """``--work-dir --epochs --seed --quick``."""
    parser = make_parser(
        'demo',
        'Pre-train l-DAE and MAE on the Fashion-MNIST subset that ships with ldae, then compare what the encoders have '
        'learned: k-NN and linear accuracy. Takes 4 to 5 minutes on one CPU core.',
        'tools/demo.py --work-dir work_dirs/demo',
    )
    parser.add_argument(
        '--work-dir', default='work_dirs/demo', metavar='DIR', help='folder for all that is written'
    )
    parser.add_argument(
        '--epochs', type=int, help="of both pre-trainings, at least 2, instead of the configs'"
    )
    parser.add_argument('--seed', type=int, default=0, help='of both pre-trainings and the probes (0)')
    parser.add_argument(
        '--quick', action='store_true', help='a few hundred images and 2 epochs, to see it run'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae demo`` and ``tools/demo.py``."""
    Demo(parse_args(argv)).run()


class Demo:
    """Train, score, draw, report; everything is written to ``args.work_dir``."""

    def __init__(self, args: argparse.Namespace) -> None:
        from ldae.utils import check_range

        self.work_dir, self.seed = Path(args.work_dir), args.seed
        self.options = dict(QUICK if args.quick else FULL)
        if args.epochs is not None:
            check_range('--epochs', args.epochs, 2, kind=int)
            self.options['epochs'] = args.epochs
        check_range('--seed', args.seed, 0, 2**31 - 1, kind=int)
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        """All of it, in order."""
        import torch

        # The networks are so small that a second thread saves a third of the time on an idle machine, and takes ten
        # times as long on a busy one, where threads wait for each other at every layer.
        torch.set_num_threads(1)
        print(
            f'Pre-training l-DAE, then MAE, then scoring both. Everything goes to {self.work_dir}', flush=True
        )
        ldae = self.timed('train_ldae', self.train, LDAE_CONFIG)
        mae = self.timed('train_mae', self.train, MAE_CONFIG)
        scores = self.timed('score', self.score, ldae, mae)
        self.timed('draw', self.draw, ldae)
        self.report(scores, ldae)

    def timed(self, name: str, function: Callable, *args):
        """Call, and remember how long it took."""
        start = time.perf_counter()
        result = function(*args)
        self.seconds[name] = round(time.perf_counter() - start, 1)
        return result

    def config(self, name: str):
        """A demo config with this run's options."""
        from ldae.config import load_config

        cfg = load_config(name)
        cfg.work_dir = str(self.work_dir / name.split('::')[1].split('/')[0])
        cfg.randomness.seed = self.seed
        if self.options['epochs'] is not None:
            set_epochs(cfg, self.options['epochs'])
        for split in ('train', 'test'):
            limit_images(cfg, split, self.options[f'{split}_images'])
        return cfg

    def train(self, name: str):
        """Pre-train by a config, and return the model."""
        from ldae.launch import build_runner, prepare

        cfg = self.config(name)
        cfg.log_level = (
            'WARNING'  # while the runner is built: its description of the machine fills the screen
        )
        runner = build_runner(prepare(cfg))
        speak_up(runner.logger)
        runner.logger.info(f'Pre-training by {name}: {runner.max_epochs} epochs')
        model = runner.train()
        model.eval()
        return model

    def score(self, ldae, mae) -> dict[str, dict[str, float]]:
        """k-NN and linear accuracy, in percent, of all rows of the table."""
        from functools import partial

        from ldae.evaluation import pooled_features

        untrained_ldae, untrained_mae = self.untrained(LDAE_CONFIG), self.untrained(MAE_CONFIG)
        untrained_ldae.tokenizer.load_state_dict(ldae.tokenizer.state_dict())
        encoders = {
            'pixels': lambda images: images.flatten(1),
            'pca': lambda images: ldae.tokenizer.encode(images).mean(dim=1),
            'untrained': partial(pooled_features, untrained_ldae),
            'ldae': partial(pooled_features, ldae),
            'mae': partial(pooled_features, mae),
            'mae_untrained': partial(pooled_features, untrained_mae),
        }
        loaders = self.dataloaders()
        return {key: self.score_encoder(encode, loaders, ldae) for key, encode in encoders.items()}

    def untrained(self, name: str):
        """The model of a config, as it is before training."""
        import torch
        from mmengine.device import get_device
        from mmengine.registry import init_default_scope

        from ldae.registry import MODELS

        cfg = self.config(name)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(self.seed)
        model = MODELS.build(dict(data_preprocessor=cfg.data_preprocessor, **cfg.model))
        model.init_weights()
        model.eval()
        return model.to(get_device())

    def dataloaders(self) -> list:
        """Labelled training and test images in order."""
        from mmengine.runner import Runner

        hook = self.config(LDAE_CONFIG).default_hooks.online_knn
        loaders = (hook.train_dataloader, hook.test_dataloader)
        return [
            Runner.build_dataloader(dict(cfg, sampler=dict(type='DefaultSampler', shuffle=False)))
            for cfg in loaders
        ]

    def score_encoder(self, encode: Callable, loaders: list, model) -> dict[str, float]:
        """One row."""
        from ldae.evaluation import extract_features, knn_accuracy, linear_probe

        train_x, train_y, test_x, test_y = (
            part for loader in loaders for part in extract_features(encode, loader, model.data_preprocessor)
        )
        knn = knn_accuracy(train_x, train_y, test_x, test_y)
        linear = linear_probe(
            train_x, train_y, test_x, test_y, epochs=self.options['probe_epochs'], seed=self.seed
        )
        return dict(knn=round(knn, 2), linear=round(linear.accuracy, 2))

    def draw(self, ldae) -> None:
        """``denoising.png`` of one test image a class, ``pca_filters.png``."""
        import torch

        from ldae.engine.watch.denoising_pictures import draw_denoising
        from ldae.visualization import filter_grid, save_figure

        dataset = self.dataloaders()[1].dataset
        first = [int((dataset.labels == label).nonzero()[0]) for label in dataset.labels.unique()]
        images = ldae.data_preprocessor(dict(inputs=dataset.images[first], data_samples=None))['inputs']
        save_figure(draw_denoising(ldae, images, ldae.val_timesteps), self.work_dir / 'denoising.png')
        geometry, ratio = ldae.tokenizer.geometry, ldae.tokenizer.explained_variance_ratio
        share = 100 * float(torch.as_tensor(ratio)[: geometry.latent_dim].sum())
        title = f'{geometry.latent_dim} components hold {share:.0f}% of the variance'
        figure = filter_grid(ldae.tokenizer.basis, geometry.patch_size, geometry.in_channels, title)
        save_figure(figure, self.work_dir / 'pca_filters.png')

    def report(self, scores: dict, ldae) -> None:
        """Print the table, and write it with what made it to ``results.json``."""
        import mmengine
        import mmpretrain
        import torch

        from ldae.version import __version__

        cfg = self.config(LDAE_CONFIG)
        results = dict(
            encoders={key: scores[key] for key in ROWS},
            extra={key: scores[key] for key in EXTRA_ROWS},
            epochs=cfg.train_cfg.max_epochs,
            seed=self.seed,
            timestep=ldae.backbone.timestep,
            configs=dict(ldae=LDAE_CONFIG, mae=MAE_CONFIG),
            options=self.options,
            seconds=self.seconds,
            versions=dict(
                ldae=__version__,
                torch=torch.__version__,
                mmengine=mmengine.__version__,
                mmpretrain=mmpretrain.__version__,
            ),
        )
        (self.work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
        print(f'\n{table(scores)}\n')
        print(f'l-DAE features: clean images at time step {ldae.backbone.timestep}, average over tokens.')
        print(
            f'{sum(self.seconds.values()):.0f} s. Wrote results.json, denoising.png, pca_filters.png to {self.work_dir}'
        )


def table(scores: dict[str, dict[str, float]]) -> str:
    """The scores for people."""
    labels = ROWS | EXTRA_ROWS
    width = max(map(len, labels.values())) + 2
    lines = [f'{"top-1 accuracy, %":<{width}}{"20-NN":>8}{"linear":>8}', '-' * (width + 16)]
    lines += [f'{labels[key]:<{width}}{row["knn"]:>8.1f}{row["linear"]:>8.1f}' for key, row in scores.items()]
    return '\n'.join(lines)


def set_epochs(cfg, epochs: int) -> None:
    """Shorten or lengthen a config of linear warm-up and cosine decay."""
    warmup, cosine = cfg.param_scheduler
    warmup.end = cosine.begin = min(warmup.end, epochs - 1)
    cosine.end, cosine.T_max = epochs, epochs - cosine.begin
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)


def limit_images(cfg, split: str, count: int | None) -> None:
    """Use the first ``count`` images of a split, wherever the config reads it."""
    from ldae.config import walk_dicts

    for node in walk_dicts(cfg._cfg_dict):
        if node.get('type') == 'ldae.IDXDataset' and node['split'] == split:
            node['indices'] = count


def speak_up(logger: logging.Logger) -> None:
    """Log from here on, without what says nothing here."""
    noise = ('Exp name', '"FileClient"', '"HardDiskBackend"')
    logger.setLevel(logging.INFO)
    for handler in logger.handlers:
        handler.setLevel(logging.INFO)
        handler.addFilter(lambda record: not record.getMessage().startswith(noise))
