# SPDX-License-Identifier: Apache-2.0
"""l-DAE whose encoder sees a part of the noisy tokens, beside l-DAE and MAE: cost of a step, accuracy for equal time.

    python benchmarks/masked.py                                                 # costs, and 12 trainings: 25 minutes
    python benchmarks/masked.py --seeds 0 --held-out 2000 --lrs 2e-3 4e-3 8e-3 --timesteps 10 100 300 600
    python benchmarks/masked.py --cost-only

The demo's configs, on the images that ship with ldae. A step is timed in one process, the methods in turn, by the time
that the process computes, which other programs on the machine disturb less than wall-clock time. Each method is then
given as many epochs as fit into the time of ``--epochs`` epochs of MAE, with a schedule of that length, and its encoder
is scored as ``tools/compare.py`` does. What is measured is kept in ``--work-dir``, and not measured again.

``--held-out N`` trains without the last N training images and scores on them: to choose by, before looking at the test
images.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from ldae.ablation.demo import set_epochs
from ldae.ablation.jobs import run_config
from ldae.config import load_config
from ldae.evaluation import extract_features, pooled_features
from ldae.evaluation.probe_data import labelled_dataloader, probe_dataloaders
from ldae.evaluation.protocol import PROTOCOL, score
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.registry import MODELS

MASKED = 'ldae::ldae/demo_fashion-mnist_masked.py'
#: Config and options of each method.
METHODS = {
    'MAE': ('ldae::mae/demo_fashion-mnist.py', {}),
    'l-DAE': ('ldae::ldae/demo_fashion-mnist.py', {}),
    'masked, noisy': (MASKED, {'model.masking.fill': 'noisy'}),
    'masked, mask': (MASKED, {'model.masking.fill': 'mask'}),
}
TRAIN_IMAGES = 10_000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--methods', nargs='+', choices=list(METHODS), default=list(METHODS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=10, help='of MAE: the others get its time')
    parser.add_argument('--lrs', type=float, nargs='+', default=[None], help="instead of the configs'")
    parser.add_argument('--timesteps', type=int, nargs='+', default=[None], help="of l-DAE's features")
    parser.add_argument('--train-images', type=int, default=TRAIN_IMAGES)
    parser.add_argument('--held-out', type=int, default=0, help='training images to score on')
    parser.add_argument('--steps', type=int, default=60, help='timed, of each method')
    parser.add_argument('--cost-only', action='store_true')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/masked'))
    return parser.parse_args()


def config_of(method: str, seed: int = 0, lr: float | None = None, epochs: int | None = None) -> Config:
    """A method's config, without what watches it."""
    name, options = METHODS[method]
    cfg = run_config(load_config(name, options), seed)
    cfg.default_hooks.pop('health', None)
    cfg.val_dataloader_of_scores = cfg.pop('val_dataloader', None)
    if lr is not None:
        cfg.optim_wrapper.optimizer.lr = lr
    if epochs is not None:
        set_epochs(cfg, epochs)
    return cfg


class Steps:
    """Training steps of a method, outside of a Runner."""

    def __init__(self, method: str) -> None:
        cfg = config_of(method)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        self.model = MODELS.build(dict(data_preprocessor=cfg.data_preprocessor, **cfg.model))
        self.model.init_weights()
        self.model.train()
        self.batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
        if hasattr(self.model, 'tokenizer'):
            self.model.tokenizer.fit([self.model.data_preprocessor(self.batch)['inputs']])
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)

    def seconds(self, count: int) -> float:
        """Computing time of a step, averaged over ``count``."""
        start = time.process_time()
        for _ in range(count):
            self.model.train_step(self.batch, self.wrapper)
        return (time.process_time() - start) / count


def costs(steps: int) -> dict[str, float]:
    """Median seconds of a step of each method, all taken in turn."""
    runs = {method: Steps(method) for method in METHODS}
    rounds = max(steps // 10, 1)
    taken = {method: [] for method in runs}
    for _ in range(rounds + 1):
        for method, run in runs.items():
            taken[method].append(run.seconds(min(steps, 10)))
    return {method: statistics.median(values[1:]) for method, values in taken.items()}


def train(cfg: Config, folder: Path, images: int) -> tuple[nn.Module, float]:
    """The trained model, and the computing time that it took."""
    cfg.train_dataloader.dataset.indices = images
    cfg.default_hooks.checkpoint.interval = -1
    cfg.experiment_name = folder.name
    runner = build_runner(prepare(cfg, LaunchOptions(work_dir=str(folder), no_validate=True)))
    start = time.process_time()
    model = runner.train()
    return model.eval(), time.process_time() - start


def scores(
    model: nn.Module,
    cfg: Config,
    images: int,
    held_out: int,
    seed: int,
    timestep: int | None,
    encode: Callable = pooled_features,
) -> dict:
    """20-NN and linear accuracy of ``encode(model, images)``, on the test images or on those held out."""
    cfg = Config(dict(cfg._cfg_dict))
    cfg.test_dataloader = cfg.test_dataloader or cfg.val_dataloader_of_scores
    train_cfg, test_cfg = (dict(part) for part in probe_dataloaders(cfg))
    train_cfg['dataset'] = dict(train_cfg['dataset'], indices=list(range(images)))
    if held_out:
        test_cfg = dict(train_cfg, dataset=dict(train_cfg['dataset'], indices=list(range(images, images + held_out))))
    if timestep is not None:
        model.backbone.timestep = timestep
    features = [
        extract_features(partial(encode, model), labelled_dataloader(part, None), model.data_preprocessor)
        for part in (train_cfg, test_cfg)
    ]
    found = score(PROTOCOL, *features[0], *features[1], seed=seed).as_dict()
    return {metric: found[metric] for metric in ('knn', 'linear')}


class Results:
    """Lines of JSON, one a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def find(self, **wanted: Any) -> dict | None:
        """The line with these values."""
        return next((line for line in self.lines if wanted.items() <= line.items()), None)

    def add(self, line: dict) -> None:
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open('a') as file:
            file.write(json.dumps(line) + '\n')


def run_all(args: argparse.Namespace, epochs: dict[str, int], results: Results) -> list[dict]:
    """Train and score what isn't in the results yet; the lines of all."""
    images = args.train_images - args.held_out
    wanted = [
        dict(method=method, seed=seed, lr=lr or config_of(method).optim_wrapper.optimizer.lr)
        | dict(epochs=epochs[method], images=images, held_out=args.held_out)
        for seed in args.seeds
        for method in args.methods
        for lr in args.lrs
    ]
    lines = []
    for run in wanted:
        line = results.find(**run)
        if line is None:
            line = run | measure(run, args)
            results.add(line)
        lines.append(line)
        print(json.dumps(line), flush=True)
    return lines


def measure(run: dict, args: argparse.Namespace) -> dict:
    """Train one method with one seed, and score it."""
    cfg = config_of(run['method'], run['seed'], run['lr'], run['epochs'])
    cfg.log_level = 'WARNING'
    name = f'{run["method"].replace(", ", "-")}-{run["lr"]:g}-{run["seed"]}-{run["images"]}'
    model, seconds = train(cfg, args.work_dir / name, run['images'])
    timesteps = args.timesteps if hasattr(model, 'tokenizer') else [None]
    by_timestep = {}
    for timestep in timesteps:
        found = scores(model, cfg, run['images'], run['held_out'], run['seed'], timestep)
        by_timestep[str(getattr(model.backbone, 'timestep', None))] = found
    return dict(seconds=round(seconds, 1), by_timestep=by_timestep)


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there is one."""
    mean = f'{statistics.mean(values):.1f}'
    return mean if len(values) == 1 else f'{mean} ± {statistics.stdev(values):.1f}'


def report(lines: list[dict]) -> None:
    """The table, by method, learning rate and time step."""
    groups: dict[tuple, list[dict]] = {}
    for line in lines:
        for timestep, found in line['by_timestep'].items():
            key = (line['method'], line['lr'], line['epochs'], timestep)
            groups.setdefault(key, []).append(dict(line, **found))
    print('\n| method | lr | epochs | computing seconds | t | 20-NN | linear | seeds |')
    print('|---|---:|---:|---:|---:|---:|---:|---:|')
    for (method, lr, epochs, timestep), runs in groups.items():
        seconds, knn, linear = (spread([run[key] for run in runs]) for key in ('seconds', 'knn', 'linear'))
        print(f'| {method} | {lr:g} | {epochs} | {seconds} | {timestep} | {knn} | {linear} | {len(runs)} |')


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    results = Results(args.work_dir / 'results.jsonl')
    found = results.find(kind='cost', steps=args.steps)
    cost = found['seconds'] if found else costs(args.steps)
    print(f'the demo, batch 64, one thread, torch {torch.__version__}')
    for method, seconds in cost.items():
        print(f'{method:>16}: {seconds * 1e3:7.2f} ms a step, against a step of MAE {seconds / cost["MAE"]:.0%}')
    if args.cost_only:
        return
    if not found:
        results.add(dict(kind='cost', steps=args.steps, seconds=cost, torch=torch.__version__))
    epochs = {m: max(int(args.epochs * cost['MAE'] / cost[m]), 2) for m in METHODS}
    report(run_all(args, epochs, results))


if __name__ == '__main__':
    main()
