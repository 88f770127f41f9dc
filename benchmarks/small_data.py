# SPDX-License-Identifier: Apache-2.0
"""What helps l-DAE on small data: variations of the demo, one or a few changes each, scored on held-out training images.

    python benchmarks/small_data.py --list
    python benchmarks/small_data.py                                  # all of them, one seed: about an hour and a half
    python benchmarks/small_data.py 'decoder: *' --seeds 0 1 2       # some of them
    python benchmarks/small_data.py MAE demo --held-out 0            # scored on the test images, at the end

Each is trained without the last ``--held-out`` training images, and scored on them by the protocol of every tool, at
several time steps. What is measured is kept in ``--work-dir``, a line a run, and not measured again. Seconds are the
time that the process computes, beside which cost in operations would say the same on any machine.
"""

import argparse
import json
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from masked import Results, scores, spread, train

from ldae.ablation.demo import set_epochs
from ldae.ablation.jobs import run_config
from ldae.ablation.worker import REFERENCES
from ldae.apis import get_model
from ldae.config import load_config

DEMO, MAE = 'ldae::ldae/demo_fashion-mnist.py', 'ldae::mae/demo_fashion-mnist.py'
#: What all are measured against.
PIXELS = 'raw pixels'
#: Options of MAE, likewise.
ANCESTOR: dict[str, dict] = {'MAE': {}, 'MAE, 40 epochs': dict(epochs=40)}
LIGHT = {'model.neck.arch': dict(embed_dims=96, num_layers=1, num_heads=3, feedforward_channels=384)}
#: MAE's decoder, in proportion: 8 blocks of half the width.
NARROW = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)
PATCH4 = {'model.tokenizer.patch_size': 4}


def width(dims: int, layers: int = 3) -> dict:
    """An encoder of so wide blocks, heads of 32, before a decoder of one block of 96."""
    arch = dict(embed_dims=dims, num_layers=layers, num_heads=dims // 32, feedforward_channels=4 * dims)
    return LIGHT | {'model.backbone.arch': dict(_delete_=True, **arch)}


LR = 'optim_wrapper.optimizer.lr'
#: Each token has a level of noise of its own.
EACH = {'model.noiser.type': 'ldae.TokenNoiser', 'model.noiser.share': 1.0, 'model.noiser.level': 'each'}
VELOCITY = {'model.noiser.schedule': 'flow', 'model.backbone.input_type': 'latent'}
VELOCITY |= {'model.head': dict(_delete_=True, type='ldae.LatentHead', prediction='velocity')}
MASKED = {'model.masking': dict(type='ldae.RandomMasking', ratio=0.75, fill='mask'), LR: 2e-3}
NOISE = {'model.head': dict(_delete_=True, type='ldae.NoiseHead')}
#: Options of each variation of the demo's l-DAE; ``epochs`` is not one of the config.
VARIATIONS: dict[str, dict] = {
    'demo': {},
    'epochs: 5': dict(epochs=5),
    'epochs: 20': dict(epochs=20),
    'epochs: 40': dict(epochs=40),
    'lr: 1e-3': {LR: 1e-3},
    'lr: 2e-3': {LR: 2e-3},
    'lr: 8e-3': {LR: 8e-3},
    'decoder: 1 block': LIGHT,
    'decoder: 0 blocks': {'model.neck.arch': dict(LIGHT['model.neck.arch'], num_layers=0)},
    'decoder: 1 block of 48': {'model.neck.arch': dict(NARROW, num_layers=1)},
    'decoder: 2 blocks of 48': {'model.neck.arch': NARROW},
    'masked: decoder of 2 blocks of 48': MASKED | {'model.neck.arch': NARROW},
    'masked: decoder of 2 blocks of 48, 20 epochs': MASKED | {'model.neck.arch': NARROW, 'epochs': 20},
    'masked: decoder of 2 blocks of 48, 40 epochs': MASKED | {'model.neck.arch': NARROW, 'epochs': 40},
    'masked: decoder of 2 blocks of 48, 40 epochs, lr 4e-3': MASKED
    | {'model.neck.arch': NARROW, 'epochs': 40, LR: 4e-3},
    'masked: decoder of 2 blocks of 48, width 144, 30 epochs': width(144)
    | MASKED
    | {'model.neck.arch': NARROW, 'epochs': 30},
    'masked: decoder of 2 blocks of 48, half of the tokens, 30 epochs': MASKED
    | {'model.neck.arch': NARROW, 'model.masking.ratio': 0.5, 'epochs': 30},
    'encoder: without time step': {'model.backbone.conditioned': False, 'model.neck.conditioned': True},
    'encoder: without time step, decoder of 1': LIGHT
    | {'model.backbone.conditioned': False, 'model.neck.conditioned': True},
    'decoder: 1 block, 15 epochs': LIGHT | dict(epochs=15),
    'decoder: 1 block, 30 epochs': LIGHT | dict(epochs=30),
    'decoder: 1 block, 30 epochs, lr 2e-3': LIGHT | {'epochs': 30, LR: 2e-3},
    'decoder: 1 block, 40 epochs': LIGHT | dict(epochs=40),
    'width: 160': width(160),
    'width: 192': width(192),
    'width: 192, lr 2e-3': width(192) | {LR: 2e-3},
    'width: 256, 2 blocks': width(256, 2),
    'width: 256, 2 blocks, lr 2e-3': width(256, 2) | {LR: 2e-3},
    'patch: 4, d = 4': PATCH4 | {'model.tokenizer.latent_dim': 4},
    'patch: 4, d = 8': PATCH4,
    'patch: 4, d = 8, decoder of 1': PATCH4 | LIGHT,
    'patch: 4, d = 4, decoder of 1': PATCH4 | LIGHT | {'model.tokenizer.latent_dim': 4},
    'd: 4': {'model.tokenizer.latent_dim': 4},
    'd: 16': {'model.tokenizer.latent_dim': 16},
    'd: 32': {'model.tokenizer.latent_dim': 32},
    'tail: 0': {'model.head.tail_weight': 0.0},
    'tail: 0.5': {'model.head.tail_weight': 0.5},
    'tail: 1': {'model.head.tail_weight': 1.0},
    'sigma: to 0.6': {'model.noiser.schedule': dict(_delete_=True, type='linear_sigma', max_sigma=0.6)},
    'sigma: to 1': {'model.noiser.schedule': dict(_delete_=True, type='linear_sigma', max_sigma=1.0)},
    'sigma: to 2.5': {'model.noiser.schedule': dict(_delete_=True, type='linear_sigma', max_sigma=2.5)},
    'sigma: to 5': {'model.noiser.schedule': dict(_delete_=True, type='linear_sigma', max_sigma=5.0)},
    'sigma: one of 0.58': {'model.noiser.schedule': 'single_level'},
    'sigma: one of 1': {'model.noiser.schedule': dict(_delete_=True, type='single_level', sigma=1.0)},
    'sigma: one of 2': {'model.noiser.schedule': dict(_delete_=True, type='single_level', sigma=2.0)},
    'weight: uniform': {'model.noiser.weighting': 'uniform'},
    'weight: snr': {'model.noiser.weighting': 'snr'},
    'norm: whiten': {'model.tokenizer.latent_norm': 'whiten'},
    'target: noise': NOISE,
    'target: noise, scaled input': NOISE | {'model.noiser.schedule': 'linear_gamma_sq'},
    'target: noise, latent input': NOISE
    | {'model.noiser.schedule': 'linear_gamma_sq', 'model.backbone.input_type': 'latent'},
    'target: clean latent': {'model.head': dict(_delete_=True, type='ldae.CleanLatentHead')},
    'target: velocity': VELOCITY,
    'level: of each token': EACH,
    'level: of each token, lr 2e-3': EACH | {LR: 2e-3},
    'level: of each token, decoder of 1': EACH | LIGHT,
    'level: of each token, decoder of 1, 15 epochs': EACH | LIGHT | dict(epochs=15),
    'level: of each token, width 192': EACH | width(192),
    'level: of each token, width 192, lr 2e-3': EACH | width(192) | {LR: 2e-3},
    'level: of each token, velocity': EACH | VELOCITY,
    'level: of each token, velocity, lr 2e-3': EACH | VELOCITY | {LR: 2e-3},
    'level: of each token, velocity, decoder of 1': EACH | VELOCITY | LIGHT,
    'crop: 0.2 to 1': {'train_dataloader.dataset.crop_scale': (0.2, 1.0)},
    'crop: 0.6 to 1': {'train_dataloader.dataset.crop_scale': (0.6, 1.0)},
    'batch: 32': {'train_dataloader.batch_size': 32, LR: 2.8e-3},
    'decay: 0.05': {'optim_wrapper.optimizer.weight_decay': 0.05},
    'beta2: 0.999': {'optim_wrapper.optimizer.betas': (0.9, 0.999)},
}
TRAIN_IMAGES = 10_000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('variations', nargs='*', default=['*'], help='names or globs of --list (all)')
    parser.add_argument('--list', action='store_true', help='the names')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--held-out', type=int, default=2000, help='training images to score on; 0: the test images')
    parser.add_argument('--timesteps', type=int, nargs='+', default=[10, 100, 300, 600, 800])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/small_data'))
    return parser.parse_args()


def measure(name: str, seed: int, args: argparse.Namespace) -> dict:
    """Train one variation with one seed, and score it at each time step."""
    options = dict(({PIXELS: {}} | ANCESTOR | VARIATIONS)[name])
    epochs = options.pop('epochs', 10)
    cfg = run_config(load_config(DEMO if name in VARIATIONS else MAE, options), seed)
    set_epochs(cfg, epochs)
    for hook in ('health', 'pictures', 'online_knn'):
        cfg.default_hooks.pop(hook, None)
    cfg.val_dataloader_of_scores, cfg.log_level = cfg.pop('val_dataloader', None), 'WARNING'
    images = TRAIN_IMAGES - args.held_out
    if name == PIXELS:
        found = scores(get_model(cfg), cfg, images, args.held_out, seed, None, REFERENCES['pixels'])
        return dict(epochs=0, seconds=0.0, by_timestep={'None': found})
    folder = name.replace(': ', '_').replace(', ', '_').replace(' ', '-').replace('=', '')
    model, seconds = train(cfg, args.work_dir / f'{folder}-{seed}-{images}', images)
    levels = args.timesteps if hasattr(model, 'tokenizer') else [None]
    found = {str(t): scores(model, cfg, images, args.held_out, seed, t) for t in levels}
    return dict(epochs=epochs, seconds=round(seconds, 1), by_timestep=found)


def report(lines: list[dict]) -> None:
    """The table, a row a variation: at the time step that is best on average of the seeds."""
    print(
        '\n| variation | epochs | computing seconds | t | 20-NN | linear | seeds |\n|---|---:|---:|---:|---:|---:|---:|'
    )
    for name in dict.fromkeys(line['variation'] for line in lines):
        runs = [line for line in lines if line['variation'] == name]
        best = max(runs[0]['by_timestep'], key=lambda t: sum(run['by_timestep'][t]['linear'] for run in runs))
        knn, linear = (spread([run['by_timestep'][best][key] for run in runs]) for key in ('knn', 'linear'))
        seconds = spread([run['seconds'] for run in runs])
        print(f'| {name} | {runs[0]["epochs"]} | {seconds} | {best} | {knn} | {linear} | {len(runs)} |')


def main() -> None:
    args = parse_args()
    names = [PIXELS, *ANCESTOR, *VARIATIONS]
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in args.variations)]
    if args.list or not chosen:
        print('\n'.join(names))
        return
    torch.set_num_threads(1)
    results, lines = Results(args.work_dir / 'results.jsonl'), []
    for seed in args.seeds:
        for name in chosen:
            run = dict(variation=name, seed=seed, held_out=args.held_out)
            line = results.find(**run)
            if line is None:
                line = run | measure(name, seed, args)
                results.add(line)
            lines.append(line)
            print(json.dumps(line), flush=True)
    report(lines)


if __name__ == '__main__':
    main()
