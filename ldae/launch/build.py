# SPDX-License-Identifier: Apache-2.0
"""From a prepared config to a Runner that can start, or to one line that says why it can't."""

import atexit
import itertools
import os
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model.utils import _BatchNormXd
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.models.utils import CosineEMA
from torch import nn
from torch.utils.data import DataLoader

from ldae import compat
from ldae.config.components import check_config
from ldae.engine import (
    BadImagesHook,
    BriefRunner,
    FirstStepsHook,
    PlainCheckpointHook,
    ProgressBarHook,
    ResumedSettingsHook,
    RunSummaryHook,
    StepSeedHook,
    StopOnSignalHook,
)
from ldae.engine.resume.checkpoint_notes import clean_checkpoint
from ldae.engine.resume.loops import resumable
from ldae.engine.resume.safe_checkpoint import latest_checkpoint
from ldae.engine.speed.sharding import FullyShardedModel, prepare_sharding
from ldae.evaluation.probe_data import num_classes
from ldae.utils import ConfigError, provenance
from ldae.utils.checkpoints import check_archive
from ldae.utils.files import atomic_save
from ldae.utils.models import unwrapped
from ldae.utils.signals import end_workers

from .batch import check_memory, check_size
from .dry_run import check_views, dry_run, explain_errors

RUN_NUMBERS = itertools.count(1)
#: Norms over a batch that a Runner leaves, or makes of SyncBatchNorm, for vectors.
ONE_VALUE = (nn.BatchNorm1d, nn.SyncBatchNorm, _BatchNormXd)
HOOKS_OF_MMENGINE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def build_runner(cfg: Config) -> Runner:
    """Check a prepared config, start the process group where mmengine can't, and build its Runner. Raises ConfigError
    for an unknown component or option, a value or combination that can't be built, or a missing folder or file; all
    before any data are read."""
    _find_checkpoint(cfg)
    check_config(cfg)
    if (
        number := next(RUN_NUMBERS)
    ) > 1:  # mmengine adds no more than the second to a run's name, and would share the log
        cfg.experiment_name = f'{cfg.get("experiment_name") or Path(cfg.filename or "run").stem}_{number}'
    _use_our_hooks(cfg)
    compat.write_checkpoints_by(atomic_save)
    compat.check_read_checkpoints_by(clean_checkpoint)
    compat.merge_equal_param_groups()
    if cfg.get('launcher', 'none') != 'none':
        _start_processes(cfg)
    cfg.made_with = dict(device=provenance.device(), processes=get_world_size(), commit=provenance.commit())
    cfg.made_with.update(provenance.versions())  # reports read it from the config that the run leaves
    with explain_errors('the config', only_builders=True):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else BriefRunner.from_cfg(cfg)
    prepare_sharding(runner)
    dry_run(runner)
    for line in ('chosen_precision', 'batch_arithmetic', 'small_batch', 'fewer_workers'):
        if line in cfg:
            runner.logger.info(cfg[line])
    atexit.register(end_workers)
    if isinstance(runner._train_dataloader, dict):
        _build_train_data(runner)
        if not isinstance(runner.model, FullyShardedModel):  # of which a process holds a part
            half = not cfg.get('chosen_precision', 'precision fp32').startswith('precision fp32')
            batch = runner._train_dataloader.batch_size or 1
            check_memory(unwrapped(runner.model), batch, get_device(), half)
    _check_warm_up(runner)
    _average_by_update(runner)
    for kind in (RunSummaryHook, BadImagesHook, FirstStepsHook):
        runner.register_hook(kind())
    # Configs of mmpretrain's own lack these: their checkpoints could be neither tested nor resumed exactly, nor seen to come.
    for kind in (PlainCheckpointHook, StepSeedHook, StopOnSignalHook, ProgressBarHook):
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())
    runner.register_hook(ResumedSettingsHook(runner.cfg.get('new_schedule', False)))
    if isinstance(runner._train_loop, dict):
        runner._train_loop = resumable(runner._train_loop)
    return runner


def _average_by_update(runner: Runner) -> None:
    """Let the teachers of MoCo v3, BYOL and DINO follow each update of the weights once, not each of the batches that it accumulates."""
    if (count := (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)) > 1:
        for part in unwrapped(runner.model).modules():
            if isinstance(part, CosineEMA):
                part.interval = count


def _start_processes(cfg: Config) -> None:
    """Start the process group on a CPU; tell mmengine how to on a GPU, if torch's own way fails."""
    if get_device() != 'cuda':
        compat.init_cpu_process_group(cfg.launcher, cfg.env_cfg.dist_cfg.get('timeout'))
        return
    compat.set_rank_variables(cfg.launcher)
    local_rank, devices = int(os.environ.get('LOCAL_RANK', '0')), torch.cuda.device_count()
    if local_rank >= devices:
        raise ConfigError(
            f'process {local_rank} of this machine has no GPU of its own, since it has {devices}: start at most {devices} '
            'processes on it, or add --device cpu'
        )
    options, place = cfg.env_cfg.dist_cfg, compat.rendezvous_url()
    if str(options.get('init_method')).startswith(compat.RESTARTED):
        del options['init_method']  # in the config that such a run has dumped
    if place is not None:
        options.init_method = place


def _use_our_hooks(cfg: Config) -> None:
    """Ours in place of mmengine's: checkpoints are written whole, averages of weights count updates. ``default_hooks.NAME=None``
    leaves a hook out; mmengine allows it for its own names only."""
    for hook in cfg.get('custom_hooks') or ():
        if hook.get('type') in ('EMAHook', 'mmengine.EMAHook'):
            hook.type = 'ldae.SkipAwareEMAHook'
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    for name, hook in list(cfg.default_hooks.items()):
        if hook is None and name not in HOOKS_OF_MMENGINE:
            del cfg.default_hooks[name]
    by_epoch = (cfg.get('train_cfg') or {}).get('by_epoch', True)
    default = ConfigDict(type='CheckpointHook', interval=1 if by_epoch else 1000, by_epoch=by_epoch)
    hook = cfg.default_hooks.setdefault('checkpoint', default)
    if hook is not None and hook.type in ('CheckpointHook', 'mmengine.CheckpointHook'):
        hook.type = 'ldae.SafeCheckpointHook'


def _find_checkpoint(cfg: Config) -> None:
    """Resume from the newest checkpoint of the work directory that can be read, not from what a pointer says."""
    if cfg.get('resume') and not cfg.get('load_from'):
        latest = latest_checkpoint(cfg.work_dir)
        cfg.load_from = None if latest is None else str(latest)
        if latest is None:
            print_log(f'Nothing to resume from in {cfg.work_dir}: starting from the beginning')
            cfg.resume = False
    elif cfg.get('load_from'):
        check_archive(Path(cfg.load_from).expanduser())


def _note_batch(runner: Runner, images: int) -> None:
    """Put a smaller batch into the config that the run leaves, from which reports count images."""
    if 'batch_arithmetic' in runner.cfg:
        runner.cfg.batch_arithmetic += f', but {images} a process'
        runner.dump_config()


def _build_train_data(runner: Runner) -> None:
    # Here rather than in Runner.train, whose schedulers fail on an epoch without steps before any hook is called.
    options = dict(seed=runner.seed, diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False))
    cfg = runner._train_dataloader
    loader = runner._train_dataloader = runner.build_dataloader(cfg, **options)
    getattr(loader.dataset, 'look', list)()
    if (views := getattr(loader.dataset, 'views', None)) is not None:  # of images in memory
        check_views(runner.cfg, len(views) or 1)
    images, batch = len(loader.dataset) // runner.world_size, loader.batch_size
    if batch and 0 < images < batch:
        loader = runner._train_dataloader = runner.build_dataloader(
            dict(cfg, dataset=loader.dataset, batch_size=images), **options
        )
        optimizer = (runner.optim_wrapper or {}).get('optimizer') or {}
        if 'lr' in optimizer:
            optimizer['lr'] *= images / batch
        _note_batch(runner, images)
        runner.logger.warning(f'Batch {images} a process, not {batch}: there are no more images; lr goes with it')
    elif batch and loader.drop_last and images % batch:
        left = len(loader.dataset) - len(loader) * batch * runner.world_size
        runner.logger.info(
            f'{left} of {len(loader.dataset)} images are left out of each epoch (drop_last), others each time'
        )
    check_size(len(loader.dataset), len(loader), runner.world_size, loader.batch_size)
    _check_last_batch(runner, loader)
    if not isinstance(unwrapped(runner.model), ImageClassifier):
        return
    if isinstance(runner._val_dataloader, dict):
        runner._val_dataloader = runner.build_dataloader(runner._val_dataloader, **options)
    for name in ('train_dataloader', 'val_dataloader'):
        check_labels(name, getattr(runner, f'_{name}'), unwrapped(runner.model))


def _check_last_batch(runner: Runner, loader: DataLoader) -> None:
    """One image has no variance, by which its features could be normalised."""
    size = loader.batch_size
    last = -(-len(loader.dataset) // runner.world_size) % size if size and not loader.drop_last else 0
    if (last or size) == 1 and any(isinstance(module, ONE_VALUE) for module in unwrapped(runner.model).modules()):
        raise ConfigError(
            f'train_dataloader: {"the last batch" if last else "a batch"} has one image, and BatchNorm of the model needs two: '
            'set another batch_size, or drop_last=True'
        )


def _check_warm_up(runner: Runner) -> None:
    """Say that a warm-up lasts as long as the run or longer: the learning rate never gets where it should."""
    epochs = (runner.cfg.get('train_cfg') or {}).get('max_epochs')
    schedulers = runner.cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        end = scheduler.get('end') or 0
        if epochs and scheduler.get('type') == 'LinearLR' and scheduler.get('by_epoch', True) and end >= epochs:
            runner.logger.warning(
                f'Warm-up takes {end} epochs, the run {epochs}: --epochs {epochs} fits one to the other'
            )


def check_labels(name: str, loader: DataLoader | None, model: ImageClassifier) -> None:
    """Raise ConfigError if a data loader has more classes than a classifier, before an image is read."""
    known = getattr(model.head, 'num_classes', None)
    found = None if loader is None else num_classes(loader.dataset)
    if known is not None and found is not None and found > known:
        raise ConfigError(
            f'{name}: the images have {found} classes, and the classifier {known}: set model.head.num_classes and '
            f'data_preprocessor.num_classes to {found}'
        )
