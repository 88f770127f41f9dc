# SPDX-License-Identifier: Apache-2.0
"""Score an encoder's blocks, time steps and inputs by k-NN and linear layers, from one pass over the images."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import DictAction

from ldae.utils import ConfigError, check_range

from .options import add_launcher_options, export_local_rank, make_parser

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from ldae.evaluation import FeatureCache
    from ldae.evaluation.probe_report import ProbeRow

RANGE = re.compile(r'(\d+)-(\d+)')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae probe``."""
    parser = make_parser(
        'probe',
        'Score an encoder by k-NN and linear layers, after several blocks, at several time steps, on clean and noisy input.\n'
        'One pass over the images gives all features, which are kept on disk; all linear layers are trained together.',
        'tools/probe.py work_dirs/vit-b_pca/epoch_400.pth --blocks 6-12 --timesteps 0 10 20 40 80 --input clean noisy',
    )
    parser.add_argument(
        'checkpoint', nargs='?', help='of l-DAE, MAE or a classifier; without one, untrained weights'
    )
    _add_model_options(parser)
    _add_feature_options(parser)
    _add_head_options(parser)
    parser.add_argument(
        '--work-dir', metavar='DIR', help='folder for table and pictures (work_dirs/probe/CHECKPOINT)'
    )
    parser.add_argument(
        '--cache', metavar='DIR', help='folder of the features, used again if they fit (DIR/features)'
    )
    parser.add_argument(
        '--refresh', action='store_true', help='compute features anew: images have changed in place'
    )
    parser.add_argument('--force', action='store_true', help='replace a probe.json that exists')
    add_launcher_options(parser)
    return parser.parse_args(argv)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--config',
        '--model',
        metavar='MODEL',
        help='a config, a name of ldae.list_models(), timm::NAME or mmpretrain::NAME (the config in the checkpoint)',
    )
    parser.add_argument(
        '--pretrained', action='store_true', help='download the weights that timm or mmpretrain has'
    )
    parser.add_argument('--scale', metavar='NAME', help='bring the config to a scale, as tools/train.py does')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    parser.add_argument('--data', metavar='CONFIG', help="config whose images are used (the model's own)")
    parser.add_argument('--data-root', metavar='DIR', help="folder of the images, instead of the config's")
    for split in ('train', 'test'):
        parser.add_argument(
            f'--max-{split}-images', type=int, metavar='N', help='a random choice of at most so many (all)'
        )


def _add_feature_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--blocks',
        nargs='+',
        default=['-1'],
        metavar='N',
        help="numbers, ranges as in 6-12, or 'all' (-1, the last)",
    )
    parser.add_argument(
        '--timesteps', type=int, nargs='+', metavar='T', help="of an l-DAE (the encoder's own)"
    )
    parser.add_argument(
        '--input',
        nargs='+',
        choices=['clean', 'noisy'],
        default=['clean'],
        help='noisy: noised to the time step',
    )


def _add_head_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--k', type=int, nargs='+', default=[10, 20, 100, 200], metavar='K', help='neighbours'
    )
    parser.add_argument('--temperature', type=float, default=0.07, help='of the weighted vote (0.07)')
    lrs, decays = [0.003, 0.01, 0.03, 0.1, 0.3], [0.0, 1e-3, 1e-2]
    parser.add_argument('--lrs', type=float, nargs='+', default=lrs, metavar='LR', help='of linear layers')
    parser.add_argument(
        '--weight-decays', type=float, nargs='+', default=decays, metavar='WD', help='the same'
    )
    parser.add_argument('--epochs', type=int, default=90, help='of linear layers (90)')
    parser.add_argument(
        '--solver', choices=['sgd', 'lbfgs'], default='sgd', help='lbfgs: the minimum, without --lrs'
    )
    parser.add_argument('--seed', type=int, default=0, help='of linear layers and untrained weights (0)')
    parser.add_argument(
        '--memory', type=float, default=4.0, metavar='GIB', help='for the training of heads (4)'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae probe`` and ``tools/probe.py``."""
    args = parse_args(argv)
    check_options(args)
    export_local_rank(args)
    start_processes(args.launcher)
    Probe(args).run()


def check_options(args: argparse.Namespace) -> None:
    """What can be known to be wrong before anything is read."""
    if args.checkpoint is None and args.config is None:
        raise ConfigError('name a checkpoint, or a model with --config, or both')
    if args.pretrained and args.checkpoint is not None:
        raise ConfigError(
            '--pretrained downloads weights, which the checkpoint would replace: leave one of them out'
        )
    for k in args.k:
        check_range('--k', k, 1, kind=int)
    check_range('--temperature', args.temperature, 1e-6)
    check_range('--epochs', args.epochs, 1, kind=int)
    check_range('--seed', args.seed, 0, 2**31 - 1, kind=int)
    for lr in args.lrs:
        check_range('--lrs', lr, 1e-12)
    for decay in args.weight_decays:
        check_range('--weight-decays', decay, 0)
    for limit in (args.max_train_images, args.max_test_images):
        if limit is not None:
            check_range('--max-train-images and --max-test-images', limit, 1, kind=int)


def start_processes(launcher: str) -> None:
    """Join the other processes of a distributed run."""
    import torch
    from mmengine.dist import init_dist

    from ldae import compat

    if launcher == 'none':
        return
    if torch.cuda.is_available():
        init_dist(launcher)
    else:
        compat.init_cpu_process_group(launcher)


def parse_blocks(words: Sequence[str], depth: int) -> list[int]:
    """``['1', '6-12']`` -> numbers, each once, in order; ``['all']`` -> 1 to ``depth``; negative ones count from the end.

    Raises:
        ConfigError: A word that is no number or range, or a block that the encoder doesn't have.
    """
    from ldae.evaluation.features import resolve_block_numbers

    numbers: list[int] = []
    for word in words:
        match = RANGE.fullmatch(word)
        if word == 'all':
            numbers += range(1, depth + 1)
        elif match and int(match[1]) <= int(match[2]):
            numbers += range(int(match[1]), int(match[2]) + 1)
        elif re.fullmatch(r'-?\d+', word):
            numbers.append(int(word))
        else:
            raise ConfigError(
                f"--blocks {word}: give numbers, ranges from small to large as in 6-12, or 'all'"
            )
    positive = [number if number > 0 else depth + 1 + number for number in numbers if number >= -depth]
    if len(positive) < len(numbers) or not all(1 <= number <= depth for number in positive):
        resolve_block_numbers(depth, [n for n in numbers if not 1 <= abs(n) <= depth][:1])
    return sorted(set(positive))


class Probe:
    """One call of the tool."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.seconds = args, {}
        self.work_dir = Path(args.work_dir or default_work_dir(args))
        self.cache = Path(args.cache or self.work_dir / 'features')
        self.check_output()

    def check_output(self) -> None:
        """Nothing is overwritten unless that is asked for."""
        from mmengine.dist import barrier

        from ldae.evaluation.probe_report import FILES
        from ldae.utils.collective import failing_together

        with failing_together():
            existing = [name for name in FILES if (self.work_dir / name).exists()]
            if existing and not self.args.force:
                raise ConfigError(
                    f'{self.work_dir / existing[0]} exists: pass --force, or take another --work-dir'
                )
        barrier()

    def run(self) -> None:
        """Features, heads, report."""
        from mmengine.dist import is_main_process

        model = self.build_model()
        data = self.data_config(model)
        train, test = self.extract(model, data)
        self.check_classes(train.labels, test.labels)
        rows = self.score(train, test)
        if is_main_process():
            self.report(rows, self.made_with(model, train, test))

    def build_model(self) -> nn.Module:
        """The model, the same on all processes."""
        import torch

        from ldae.apis.models import get_model

        args = self.args
        torch.manual_seed(args.seed)
        options = dict(scale=args.scale, cfg_options=args.cfg_options, pretrained=args.pretrained)
        return get_model(args.config, args.checkpoint, **options)

    def data_config(self, model: nn.Module) -> Config:
        """The config that names the images."""
        from mmengine.registry import init_default_scope

        from ldae.config import load_config, set_data_root
        from ldae.config.packed import use_packed_data

        cfg = getattr(model, '_config', None)
        if self.args.data is not None:
            cfg = load_config(self.args.data, scale=self.args.scale)
        elif cfg is None or cfg.get('train_dataloader') is None:
            raise ConfigError('the model has no images of its own: name a config that has with --data')
        if self.args.data_root is not None:
            set_data_root(cfg, self.args.data_root)
        use_packed_data(cfg)
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        return cfg

    def extract(self, model: nn.Module, data: Config) -> tuple[FeatureCache, FeatureCache]:
        """Features of training and test images, from the cache or from one pass."""
        from ldae.evaluation.features import check_settings, num_blocks

        blocks = parse_blocks(self.args.blocks, num_blocks(model))
        noisy = [kind == 'noisy' for kind in dict.fromkeys(self.args.input)]
        timesteps = None if self.args.timesteps is None else sorted(set(self.args.timesteps))
        check_settings(model, timesteps, noisy)
        settings = dict(blocks=blocks, timesteps=timesteps, noisy=noisy)
        loaders = self.dataloaders(data)
        preprocess = preprocessor_of(model, data)
        start = time.perf_counter()
        caches = [self.cache_split(model, *part, preprocess, settings) for part in loaders.items()]
        self.seconds['features'] = round(time.perf_counter() - start, 1)
        return caches[0], caches[1]

    def dataloaders(self, data: Config) -> dict[str, DataLoader]:
        """By split; what can be known to be wrong with them is found now, before the pass."""
        from ldae.evaluation.probe_data import check_class_names, labelled_dataloader, probe_dataloaders

        configs = dict(zip(('train', 'test'), probe_dataloaders(data), strict=True))
        limits = dict(train=self.args.max_train_images, test=self.args.max_test_images)
        loaders = {split: labelled_dataloader(cfg, limits[split]) for split, cfg in configs.items()}
        check_class_names(loaders['train'], loaders['test'])
        count = len(loaders['train'].dataset)
        if max(self.args.k) > count:
            raise ConfigError(
                f'--k {max(self.args.k)}: there are only {count} training images: give smaller numbers'
            )
        return loaders

    def cache_split(
        self, model: nn.Module, split: str, loader: DataLoader, preprocess: partial, settings: dict
    ) -> FeatureCache:
        """Features of one split; what the model says of images that it can't take becomes one line."""
        from ldae.evaluation import cache_features
        from ldae.evaluation.probe_data import describe

        options = dict(data=describe(loader), refresh=self.args.refresh, desc=f'{split} features')
        try:
            return cache_features(model, loader, preprocess, self.cache, **settings, **options)
        except (RuntimeError, AssertionError) as error:
            if 'out of memory' in str(error):
                raise ConfigError('out of memory: lower the batch_size of the data loaders') from error
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"the model can't take these images ({reason}): name others with --data"
            ) from error

    def check_classes(self, train_y: Tensor, test_y: Tensor) -> None:
        """Both sets must have the same classes; a choice of test images may lack some."""
        from ldae.evaluation.knn import check_classes

        check_classes(train_y, test_y)
        missing = sorted(set(train_y.unique().tolist()) - set(test_y.unique().tolist()))
        if missing and self.args.max_test_images is None:
            raise ConfigError(
                f'the test set has no image of class {missing[:10]}, which the training set has: its accuracy would be '
                'that of another task; add some, or name other data with --data'
            )

    def score(self, train: FeatureCache, test: FeatureCache) -> list[ProbeRow]:
        """All rows of the table."""
        import torch

        from ldae.evaluation import linear_probes
        from ldae.evaluation.knn import knn_accuracies
        from ldae.evaluation.probe_report import ProbeRow

        args, device = self.args, 'cuda' if torch.cuda.is_available() else 'cpu'
        start = time.perf_counter()
        ks = sorted(set(args.k))
        options = dict(ks=ks, temperature=args.temperature, device=device)
        knn = {s: knn_accuracies(train[s], train.labels, test[s], test.labels, **options) for s in train}
        between = time.perf_counter()
        heads = dict(lrs=args.lrs, weight_decays=args.weight_decays, epochs=args.epochs, solver=args.solver)
        heads |= dict(seed=args.seed, device=device, memory=args.memory)
        linear = linear_probes(train, train.labels, test, test.labels, **heads)
        self.seconds |= dict(knn=round(between - start, 1), linear=round(time.perf_counter() - between, 1))
        return [ProbeRow.of(setting, knn[setting], linear[setting]) for setting in train]

    def made_with(self, model: nn.Module, train: FeatureCache, test: FeatureCache) -> dict:
        """What the figures depend on."""
        from mmengine.dist import get_world_size

        from ldae.utils import provenance

        args = self.args
        cfg = getattr(model, '_config', None)
        config = args.config or (cfg and cfg.filename) or None
        kept = ('k', 'temperature', 'solver', 'lrs', 'weight_decays', 'epochs', 'seed')
        counts = dict(train_images=train.num_images, test_images=test.num_images)
        data = dict(counts, classes=len(train.labels.unique()), config=args.data)
        return dict(
            model=type(model).__name__,
            config=config,
            checkpoint=args.checkpoint,
            data=data,
            settings={key: getattr(args, key) for key in kept},
            seconds=dict(self.seconds, pass_over_images=round(train.seconds + test.seconds, 1)),
            processes=get_world_size(),
            versions=provenance.versions(),
            commit=provenance.commit(),
            device=provenance.device(),
        )

    def report(self, rows: list[ProbeRow], made_with: dict) -> None:
        """Write and print."""
        from ldae.evaluation.probe_report import text_table, write_probe

        written = write_probe(self.work_dir, rows, made_with)
        spent = ', '.join(f'{name} {value} s' for name, value in self.seconds.items())
        print(
            f'\n{text_table(rows)}\n\n{spent}. Wrote {", ".join(p.name for p in written)} to {self.work_dir}'
        )


def default_work_dir(args: argparse.Namespace) -> str:
    """``work_dirs/probe/<run>_<checkpoint>``, or the model's name."""
    if args.checkpoint is not None:
        path = Path(args.checkpoint).absolute()
        return f'work_dirs/probe/{path.parent.name}_{path.stem}'
    return f'work_dirs/probe/{re.sub("[^A-Za-z0-9_.-]+", "_", args.config).removesuffix(".py")}'


def preprocessor_of(model: nn.Module, data: Config) -> partial:
    """The model's own data preprocessor, as for test images; for a model of timm, the data's with timm's mean and std."""
    from ldae.registry import MODELS

    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is None:
        settings = dict(type='ClsDataPreprocessor', to_rgb=True) | dict(data.get('data_preprocessor') or {})
        says = getattr(model, 'pretrained_cfg', None) or {}
        settings |= {key: [255 * value for value in says[key]] for key in ('mean', 'std') if key in says}
        preprocessor = MODELS.build(settings).to(next(model.parameters()).device)
    return partial(preprocessor, training=False)
