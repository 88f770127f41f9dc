# SPDX-License-Identifier: Apache-2.0
"""A run that is broken off at any step and resumed equals one that wasn't, bit for bit."""

import itertools
import logging
import multiprocessing
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ldae.engine.resume.loops import Resumable
from ldae.launch import build_runner, prepare
from ldae.utils.signals import SIGNALS, end_workers

NUMBER = itertools.count()
ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
CROP = [
    dict(type='ldae.LoadImage'),
    dict(type='RandomResizedCrop', scale=16),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.2),
    dict(type='PackInputs'),
]
BY_EPOCH, BY_STEP = dict(by_epoch=True, max_epochs=3), dict(by_epoch=False, max_iters=10, val_interval=5)


@pytest.mark.parametrize(('differs', 'rank'), [(False, 0), (True, 0), (True, 1)])
def test_all_processes_draw_by_the_seed_that_a_checkpoint_holds(differs, rank, tmp_path, monkeypatch):
    """That of the first, which alone writes it; mmengine adds the rank to a Runner's."""
    for place in ('ldae.engine.resume.loops.get_rank', 'mmengine.runner.utils.get_rank'):
        monkeypatch.setattr(place, lambda: rank)
    runner = Runner(nn.Linear(1, 1), str(tmp_path), randomness=dict(seed=7, diff_rank_seed=differs))
    assert runner.seed == 7 + rank * differs
    loop = SimpleNamespace(runner=runner, dataloader=DataLoader(range(4)))
    Resumable._take_order(loop)
    assert loop.order.seed == 7


class BrokenOff(Exception):
    pass


class BreakOffHook(Hook):
    """Ends the run after a step, when all else of that step is done."""

    priority = 'LOWEST'

    def __init__(self, step: int | None) -> None:
        self.step = step

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.step:
            raise BrokenOff


class Validated(Hook):
    def __init__(self) -> None:
        self.steps = []

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.steps.append(runner.iter)


def config(folder, work_dir, train_cfg, workers=0, accumulate=1, **checkpoint) -> Config:
    loader = dict(batch_size=4, num_workers=workers, collate_fn=dict(type='default_collate'))
    images = dict(type='ldae.ImageFolder', data_root=str(folder), with_label=False)
    by_epoch = train_cfg['by_epoch']
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)
    steady = [CROP[0], dict(type='Resize', scale=(16, 16)), CROP[-1]]
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ldae.LDAE',
                data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.0] * 3, std=[60.0] * 3),
                tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=16, patch_size=4, latent_dim=4),
                noiser=dict(type='ldae.GaussianNoiser'),
                backbone=dict(type='ldae.LDAEViT', arch=ARCH),
            ),
            train_dataloader=dict(loader, sampler=sampler, dataset=dict(images, split='train', pipeline=CROP)),
            val_dataloader=dict(
                loader,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(images, split='val', pipeline=steady),
            ),
            val_cfg=dict(),
            val_evaluator=dict(type='ldae.DenoisingMetric'),
            train_cfg=train_cfg,
            optim_wrapper=dict(
                accumulative_counts=accumulate, optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=1.0)
            ),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
                dict(type='CosineAnnealingLR', T_max=3, by_epoch=by_epoch),
            ],
            default_hooks=dict(
                runtime_info=dict(type='ldae.ReducedRuntimeInfoHook'),
                logger=dict(type='LoggerHook', interval=3),
                checkpoint=dict(dict(type='CheckpointHook', interval=1, by_epoch=by_epoch), **checkpoint),
                fit_tokenizer=dict(type='ldae.FitTokenizerHook'),
                ema=dict(type='ldae.SkipAwareEMAHook', momentum=0.1, in_place=accumulate == 1),
            ),
            log_level='ERROR',
            randomness=dict(seed=3, diff_rank_seed=True),
            work_dir=str(work_dir),
            experiment_name=f'{work_dir.name}_{next(NUMBER)}',
            visualizer=dict(type='UniversalVisualizer', vis_backends=[]),
        )
    )


def train(cfg: Config, stop_after: int | None = None, resume: bool = False) -> tuple[Runner, list[int]]:
    """Train up to a step, or to the end; return also the steps before which there was a validation."""
    cfg.resume = resume
    runner = build_runner(prepare(cfg))
    runner.logger.setLevel(logging.ERROR)
    validated = Validated()
    runner.register_hook(validated)
    runner.register_hook(BreakOffHook(stop_after))
    try:
        runner.train()
    except BrokenOff:
        assert stop_after is not None
        end_workers()  # as the end of the process would
    return runner, validated.steps


def state(work_dir) -> dict:
    """All that a run ended with, but for times."""
    name = (work_dir / 'last_checkpoint').read_text()
    saved = torch.load(work_dir / name, weights_only=True)
    scalars = saved['message_hub']['log_scalars']
    history = {key: value['log'] for key, value in scalars.items() if 'time' not in key}
    parts = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'progress')
    return dict(name=name, history=history, **{part: saved[part] for part in parts})


def assert_same(a, b, where: str = '') -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=where)
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, list):
        for n, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f'{where}[{n}]')
    else:
        assert a == b, where


@pytest.mark.parametrize(
    ('train_cfg', 'workers', 'accumulate', 'stops'),
    [
        (BY_EPOCH, 0, 1, (1, 4, 7)),
        (BY_EPOCH, 2, 3, (7,)),  # 4 steps an epoch: gradients wait at the end of the first two
        (BY_STEP, 0, 1, (5,)),
        (BY_STEP, 2, 2, (4,)),
    ],
)
def test_a_run_broken_off_at_any_step_and_resumed_equals_another(
    monkeypatch, tiny_image_folder, tmp_path, train_cfg, workers, accumulate, stops
):
    monkeypatch.setattr('os.fsync', lambda descriptor: None)  # as long as a step, on a busy disk
    every_step = dict(type='ldae.SafeCheckpointHook', max_keep_ckpts=1)
    every_step |= dict(step_interval=1) if train_cfg['by_epoch'] else {}
    options = dict(workers=workers, accumulate=accumulate, **every_step)
    _, validated = train(config(tiny_image_folder, tmp_path / 'whole', train_cfg, **options))
    whole, seen = state(tmp_path / 'whole'), []
    broken = tmp_path / 'broken'
    for n, stop in enumerate([*stops, None]):
        seen += train(config(tiny_image_folder, broken, train_cfg, **options), stop, resume=n > 0)[1]
        # The last of the epochs, the last of the steps after it, and the tokenizer.
        assert len(list(broken.glob('*.pth'))) <= 3
    assert_same(state(broken), whole)
    assert sorted(set(seen)) == validated


@pytest.mark.parametrize('train_cfg', [BY_EPOCH, BY_STEP])
def test_after_a_run_that_failed_signals_mean_what_they_meant(tiny_image_folder, tmp_path, train_cfg):
    before = [signal.getsignal(number) for number in SIGNALS]
    runner, _ = train(config(tiny_image_folder, tmp_path / 'failed', train_cfg), stop_after=1)
    assert runner.iter == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize('train_cfg', [BY_EPOCH, BY_STEP])
def test_a_run_that_came_to_its_end_leaves_no_workers(tiny_image_folder, tmp_path, train_cfg):
    before = set(multiprocessing.active_children())
    runner, _ = train(config(tiny_image_folder, tmp_path, train_cfg, workers=1))
    assert runner.train_dataloader.persistent_workers
    assert set(multiprocessing.active_children()) <= before
    assert sum(len(batch['inputs']) for batch in runner.val_loop.dataloader) > 0  # it can be read again
    end_workers()
