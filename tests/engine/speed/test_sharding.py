# SPDX-License-Identifier: Apache-2.0
"""Two processes that share a model train it as two that have a copy each, and leave the same files."""

import gc
import itertools
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from quick_start import start_without_delay
from torch import nn
from torch.multiprocessing import ProcessExitedException, spawn

from ldae.config import load_config
from ldae.engine.speed.sharding import FullyShardedModel, check_optimizer, prepare_sharding
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.utils import ConfigError
from ldae.utils.collective import from_main_process

ARCH = dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
SHARDED = {'model_wrapper_cfg.type': 'ldae.FullyShardedModel'}
KINDS = dict(copies={}, shards=SHARDED)
#: Options of a config beside which training has to go the same way.
VARIANTS = dict(
    plain={},
    clipped={'optim_wrapper.clip_grad': dict(max_norm=0.05), 'optim_wrapper.accumulative_counts': 2},
    masked={'model.masking': dict(type='ldae.RandomMasking', ratio=0.5, fill='mask')},
    recomputed={'default_hooks.recompute': dict(type='ldae.ActivationCheckpointHook')},
    compiled={'default_hooks.compiled': dict(type='ldae.CompileBlocksHook', backend='aot_eager')},
    sgd={'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9)},
    autocast={'optim_wrapper.type': 'ldae.AutocastOptimWrapper'},
)


def runner_of(work_dir: Path, processes: int = 2, epochs: int = 2, resume: bool = False, **options):
    """A small l-DAE on 48 images: 3 steps an epoch."""
    cfg = load_config('ldae::ldae/fashion-mnist_pca.py')
    cfg.merge_from_dict(
        {
            'model.backbone.arch': ARCH,
            'train_dataloader': dict(batch_size=16 // processes, dataset=dict(data_root=None, indices=48)),
            **dict.fromkeys(
                ('val_dataloader', 'test_dataloader'), dict(batch_size=8, dataset=dict(data_root=None, indices=9))
            ),
            'train_cfg.max_epochs': epochs,
            'default_hooks': dict(logger=dict(interval=1), checkpoint=dict(interval=1), health=dict(interval=3)),
            **options,
        }
    )
    launcher = 'pytorch' if processes > 1 else 'none'
    # A precision that is asked for holds on a CPU without instructions for it, too.
    precision = 'bf16' if 'optim_wrapper.type' in options else None
    chosen = LaunchOptions(
        work_dir=str(work_dir),
        resume='auto' if resume else None,
        launcher=launcher,
        keep_batch=False,
        precision=precision,
    )
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{processes}_{epochs}_{resume}'
    return build_runner(prepare(cfg, chosen))


def start(rank, folder, *works):
    """One of two processes, which does one work after the other, each in the folder of its name."""
    torch.set_num_threads(1)
    os.environ.update(WORLD_SIZE='2', RANK=str(rank), LOCAL_RANK=str(rank))
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    with pytest.MonkeyPatch.context() as patch:
        start_without_delay(patch)
        for work in works:
            work(folder / work.__name__)
    gc.collect()  # as the tools do: a model that holds the group would keep its threads
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def done_in_two(tmp_path_factory) -> Path:
    """What two processes have left; to start them takes as long as all of their work."""
    works = train_all, train_and_resume, train_and_watch
    for last in (False, True):
        folder = tmp_path_factory.mktemp('two')
        for work in works:
            (folder / work.__name__).mkdir()
        try:
            spawn(start, (folder, *works), nprocs=2)
            break
        except ProcessExitedException as error:
            # In thousands of messages a thread of gloo's once died in its allocator; what Python does raises otherwise.
            if last or error.signal_name != 'SIGSEGV':
                raise
    return folder


def saved(work_dir: Path, name: str = 'epoch_2.pth') -> dict:
    """What a checkpoint holds of the model, the optimizer, and losses."""
    content = torch.load(work_dir / name, map_location='cpu', weights_only=True)
    logged = content['message_hub']['log_scalars']
    figures = {key: logged[key]['log'] for key in logged if key.startswith(('train/loss', 'train/grad', 'health'))}
    return dict(weights=dict(content['state_dict']), moments=content['optimizer']['state'], figures=figures)


def assert_same(first: dict, second: dict, what: str = '', tolerance: float = 1e-5):
    assert list(first['weights']) == list(second['weights'])
    for part, values in first.items():
        torch.testing.assert_close(
            values,
            second[part],
            rtol=tolerance,
            atol=tolerance / 10,
            equal_nan=True,
            msg=lambda m, part=part: f'{what} {part}: {m}',
        )


def figures_of(work_dir: Path) -> list[dict]:
    """The lines of the log of a run."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_all(folder):
    for name, options in VARIANTS.items():
        for kind, extra in KINDS.items():
            runner = runner_of(folder / f'{name}_{kind}', **options, **extra)
            runner.train()
            with runner.optim_wrapper.optim_context(runner.model.module):
                # It would hold a whole copy of each weight.
                assert torch.is_autocast_cache_enabled() == (name != 'autocast' or kind == 'copies')


def test_shards_train_as_copies_do(done_in_two):
    for name in VARIANTS:
        copies, shards = (saved(done_in_two / 'train_all' / f'{name}_{kind}') for kind in KINDS)
        assert_same(copies, shards, name)


def check_shares(runner):
    """Each process holds about a half, and nothing keeps the whole."""
    module, optimizer = runner.model.module, runner.optim_wrapper.optimizer
    weights = list(module.parameters())
    assert {id(p) for group in optimizer.param_groups for p in group['params']} <= set(map(id, weights))
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    assert len(moments) == 2 * len(optimizer.state) > 0
    for tensors in (weights, moments):
        whole = sum(tensor.numel() for tensor in tensors)
        parts = [tensor.to_local() for tensor in tensors]
        held = sum(part.untyped_storage().nbytes() for part in parts) / 4
        assert 0.45 * whole < held < 0.6 * whole
        mine = sum(part.numel() for part in parts)
        assert sum(all_gather_object(mine)) == whole


def train_and_resume(folder):
    for kind, extra in KINDS.items():
        runner_of(folder / kind, **extra).train()
        from_main_process(None)  # both have written
        if torch.distributed.get_rank() == 0:
            for goal in ('shards', 'copies', 'one'):
                (folder / f'{kind}_{goal}').mkdir()
                shutil.copy(folder / kind / 'epoch_1.pth', folder / f'{kind}_{goal}')
        from_main_process(None)
    for start, goal in itertools.product(KINDS, KINDS):
        runner = runner_of(folder / f'{start}_{goal}', resume=True, **KINDS[goal])
        runner.train()
        if goal == 'shards':
            check_shares(runner)


def test_a_checkpoint_is_that_of_copies_and_can_be_resumed_in_any_way(done_in_two):
    folder = done_in_two / 'train_and_resume'
    whole = saved(folder / 'shards')
    assert_same(saved(folder / 'shards_shards'), whole, tolerance=0)
    assert_same(saved(folder / 'shards_copies'), whole)
    assert_same(saved(folder / 'copies_shards'), whole)
    runner_of(folder / 'shards_one', processes=1, resume=True).train()
    assert_same(saved(folder / 'shards_one'), whole, tolerance=1e-4)


class Spoiled(Hook):
    """The second step's loss is not a number in one of the processes."""

    def before_train(self, runner):
        def spoil(module, args, kwargs, output):
            is_hit = runner.iter == 1 and kwargs.get('mode') == 'loss' and torch.distributed.get_rank() == 1
            return dict(output, loss=output['loss'] * float('nan')) if is_hit else None

        runner.model.module.register_forward_hook(spoil, with_kwargs=True, prepend=True)


def train_and_watch(folder):
    loader = dict(batch_size=8, num_workers=0, collate_fn=dict(type='ldae.batch_collate'))
    train, test = (
        dict(loader, dataset=dict(type='ldae.IDXDataset', split=split, indices=count, with_label=True))
        for split, count in (('train', 37), ('test', 19))
    )
    knn = dict(type='ldae.OnlineKNNHook', train_dataloader=train, test_dataloader=test, k=3)
    pictures = dict(type='ldae.DenoisingPicturesHook', interval=1, num_images=4)
    optimizers = dict(adam={}, sgd=VARIANTS['sgd'])
    for (name, optimizer), (kind, extra) in itertools.product(optimizers.items(), KINDS.items()):
        options = {'default_hooks.knn': knn, 'default_hooks.pictures': pictures}
        runner = runner_of(folder / f'{name}_{kind}', **options, **optimizer, **extra)
        runner.register_hook(Spoiled())
        runner.train()


def test_hooks_see_whole_models(done_in_two):
    for name in ('adam', 'sgd'):
        copies, shards = (done_in_two / 'train_and_watch' / f'{name}_{kind}' for kind in KINDS)
        assert_same(saved(copies), saved(shards), name)
        pictures = [cv2.imread(str(path / 'pictures' / 'epoch_2.png')).astype(int) for path in (copies, shards)]
        assert np.abs(pictures[0] - pictures[1]).max() <= 2
        scores = [[line['knn/top1'] for line in figures_of(path) if 'knn/top1' in line] for path in (copies, shards)]
        assert len(scores[0]) == 2
        assert scores[0] == scores[1]
        states = [
            torch.load(path / 'non_finite' / 'iter_2' / 'state.pth', weights_only=True)['state_dict']
            for path in (copies, shards)
        ]
        torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)


def test_one_process_shards_nothing_and_says_so(tmp_path, capsys):
    runner = runner_of(tmp_path, processes=1, epochs=1, **SHARDED)
    assert 'FullyShardedModel shards nothing in one process' in capsys.readouterr().out
    assert not isinstance(runner.model, FullyShardedModel)


def test_a_model_without_blocks_is_one_line():
    with pytest.raises(ConfigError, match='Linear has no Transformer blocks: remove the wrapper'):
        FullyShardedModel(nn.Linear(1, 1))


def optimizer_of(kind=torch.optim.AdamW):
    return kind([nn.Parameter(torch.zeros(2))], lr=0.1)


def test_optimizers_that_cannot_go_on_with_shards_are_refused():
    scaled = object.__new__(AmpOptimWrapper)  # whose constructor wants a GPU
    several = OptimWrapperDict(net=OptimWrapper(optimizer_of()))
    for wrapper, reason in (
        (scaled, 'does not scale losses: use ldae.AutocastOptimWrapper'),
        (several, 'takes one optimizer'),
        (OptimWrapper(optimizer_of(torch.optim.Adagrad)), 'Adagrad is not known to be right: use SGD'),
    ):
        with pytest.raises(ConfigError, match=reason):
            check_optimizer(wrapper)
    check_optimizer(OptimWrapper(optimizer_of()))


@pytest.mark.parametrize(
    ('hooks', 'cfg', 'reason'),
    [([EMAHook()], {}, 'keeps no average of the weights'), ([], dict(compile=True), 'does not go with compile')],
)
def test_what_does_not_go_with_shards_is_one_line(hooks, cfg, reason):
    model = FullyShardedModel.__new__(FullyShardedModel)
    with pytest.raises(ConfigError, match=reason):
        prepare_sharding(SimpleNamespace(model=model, hooks=hooks, cfg=cfg))
