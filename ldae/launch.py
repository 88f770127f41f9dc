# SPDX-License-Identifier: Apache-2.0
"""From a config and the command line's options to a Runner that can start, or to one line that says why it can't."""

import atexit
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner import Runner

from ldae import compat
from ldae.checks import check_config
from ldae.config import set_data_root
from ldae.datasets import use_packed_data
from ldae.engine.checkpoint import latest_checkpoint
from ldae.sections import LOADERS, check_sections
from ldae.speed import fuse_optimizer, use_fast_settings
from ldae.utils import ConfigError
from ldae.utils.signals import end_workers

WORLD_SIZE_VARIABLE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
HOOKS_OF_MMENGINE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
RESTART_COUNTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')
# Seconds that a process waits for the others, and for a batch from a worker, before it gives up.
PROCESS_TIMEOUT, WORKER_TIMEOUT = 1800, 600


@dataclass
class LaunchOptions:
    """The options of ``tools/train.py`` that change a config; see its ``--help``."""

    work_dir: str | None = None
    data_root: str | None = None
    resume: str | None = None
    amp: bool = False
    fast: bool = False
    no_validate: bool = False
    auto_scale_lr: bool = False
    keep_batch: bool = False
    no_pin_memory: bool = False
    no_persistent_workers: bool = False
    launcher: str = 'none'

    @classmethod
    def of(cls, options: Any) -> 'LaunchOptions':
        """Take what is there from any object with such attributes, as argparse's Namespace."""
        names = [field.name for field in fields(cls) if hasattr(options, field.name)]
        return cls(**{name: getattr(options, name) for name in names})


def world_size(launcher: str) -> int:
    """How many processes a launcher has started."""
    variable = WORLD_SIZE_VARIABLE.get(launcher)
    if variable is None:
        return 1
    if variable not in os.environ:
        raise ConfigError(
            f'--launcher {launcher} needs {variable}: start with tools/dist_train.sh or slurm_train.sh'
        )
    return int(os.environ[variable])


def was_restarted() -> bool:
    """Whether torchrun or Slurm has started this job before: it goes on by itself."""
    return any(int(os.environ.get(name) or 0) > 0 for name in RESTART_COUNTS)


def prepare(cfg: Config, options: Any = None) -> Config:
    """Merge command-line options into a config, fit it to this machine, and scale lr or batch.

    Args:
        cfg: As :func:`ldae.config.load_config` returns it; changed in place.
        options: A :class:`LaunchOptions`, or any object with some of its attributes.

    Raises:
        ConfigError: ``--keep-batch`` cannot be met, or a launcher's variables are missing.
    """
    options = LaunchOptions.of(options)
    check_sections(cfg)
    cfg.launcher = options.launcher
    _set_work_dir(cfg, options.work_dir)
    if options.data_root is not None:
        set_data_root(cfg, options.data_root)
    use_packed_data(cfg)
    if options.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if options.resume is not None:
        cfg.resume = True
        cfg.load_from = None if options.resume == 'auto' else options.resume
    if was_restarted() and latest_checkpoint(cfg.work_dir) is not None:
        cfg.resume, cfg.load_from = True, None  # whatever the first start was from
    if options.amp:
        _use_autocast(cfg)
    if options.fast:
        use_fast_settings(cfg)
    fuse_optimizer(cfg)
    _set_dataloader_options(cfg, options)
    if not torch.cuda.is_available():
        _fit_to_cpu(cfg)
    if cfg.launcher != 'none':
        _set_process_timeout(cfg)
    scale_batch(cfg, options.auto_scale_lr, options.keep_batch)
    return cfg


def _set_work_dir(cfg: Config, work_dir: str | None) -> None:
    # The command line goes before the config, and the config before its file's name.
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'./work_dirs/{Path(cfg.filename or "run").stem}'


def _use_autocast(cfg: Config) -> None:
    cfg.optim_wrapper.type = 'ldae.AutocastOptimWrapper'
    cfg.optim_wrapper.pop('loss_scale', None)


def _set_dataloader_options(cfg: Config, options: LaunchOptions) -> None:
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        loader.setdefault('pin_memory', True)
        loader.setdefault('persistent_workers', True)
        loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
        if options.no_pin_memory:
            loader.pin_memory = False
        if options.no_persistent_workers:
            loader.persistent_workers = False
        if loader.get('num_workers'):
            loader.setdefault('timeout', WORKER_TIMEOUT)
            if 'disable_subprocess_warning' not in loader:  # of mmengine's own function
                loader.setdefault('worker_init_fn', ConfigDict(type='ldae.start_worker'))
        compat.keep_worker_options_consistent(loader, torch.cuda.is_available())


def _set_process_timeout(cfg: Config) -> None:
    cfg.setdefault('env_cfg', ConfigDict())
    cfg.env_cfg.setdefault('dist_cfg', ConfigDict(backend='nccl'))
    cfg.env_cfg.dist_cfg.setdefault('timeout', PROCESS_TIMEOUT)


def _fit_to_cpu(cfg: Config) -> None:
    cfg.setdefault('env_cfg', ConfigDict())
    cfg.env_cfg.setdefault('dist_cfg', ConfigDict())
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    if cfg.launcher != 'none':
        kind = (cfg.get('model_wrapper_cfg') or {}).get('type', 'MMDistributedDataParallel')
        if not str(kind).startswith('ldae.'):  # a kind of DistributedDataParallel
            cfg.model_wrapper_cfg = compat.cpu_model_wrapper(cfg.get('find_unused_parameters', False), kind)
    if (cfg.get('optim_wrapper') or {}).get('type') == 'AmpOptimWrapper':
        _use_autocast(cfg)  # mmengine's asserts a GPU


def scale_batch(cfg: Config, auto_scale_lr: bool = False, keep_batch: bool = False) -> None:
    """Fit lr, or the number of accumulated batches, to the batch that ``auto_scale_lr.base_batch_size`` asks for.

    The effective batch is ``processes x batch_size x accumulative_counts``. What was done is put into
    ``cfg.batch_arithmetic``, which :func:`build_runner` logs. mmengine's own scaling is switched off: it leaves
    accumulation out.
    """
    if cfg.get('optim_wrapper') is None or cfg.get('train_dataloader') is None:
        return
    world, per_process = world_size(cfg.launcher), _batch_size(cfg.train_dataloader)
    scaling = cfg.get('auto_scale_lr') or ConfigDict()
    base = scaling.get('base_batch_size')
    if base is None and (auto_scale_lr or keep_batch):
        flag = '--keep-batch' if keep_batch else '--auto-scale-lr'
        raise ConfigError(f'{flag} needs auto_scale_lr=dict(base_batch_size=...) in the config')
    if keep_batch:
        cfg.optim_wrapper.accumulative_counts = accumulation_for(base, world, per_process)
    count = cfg.optim_wrapper.get('accumulative_counts', 1)
    batch = world * per_process * count
    scale = base is not None and base != batch and (auto_scale_lr or scaling.get('enable', False))
    cfg.batch_arithmetic = f'batch {world} x {per_process} x {count} = {batch}'
    if base is not None:
        cfg.batch_arithmetic += f' of {base}: ' + _scale_lr(cfg.optim_wrapper.optimizer, batch / base, scale)
        # From here on the config's lr is that of `batch`: also when the dumped config is used again.
        cfg.auto_scale_lr = ConfigDict(base_batch_size=batch if scale else base, enable=False)


def _batch_size(dataloader: ConfigDict) -> int:
    batch_sampler = dataloader.get('batch_sampler') or {}
    return dataloader.get('batch_size') or batch_sampler.get('batch_size') or 1


def accumulation_for(base: int, world: int, per_process: int) -> int:
    """How many batches to accumulate so that the effective batch is ``base``."""
    if base % (world * per_process):
        raise ConfigError(
            f'--keep-batch: {base} is not a multiple of {world} processes x {per_process} images;'
            ' change train_dataloader.batch_size'
        )
    return base // (world * per_process)


def _scale_lr(optimizer: ConfigDict, ratio: float, scale: bool) -> str:
    old = optimizer.lr
    if scale:
        optimizer.lr = old * ratio
        return f'lr {old:.3g} -> {optimizer.lr:.3g}'
    return f'lr {old:.3g}' + (
        '' if ratio == 1 else ' unchanged (--auto-scale-lr scales it, --keep-batch accumulates)'
    )


def build_runner(cfg: Config) -> Runner:
    """Check a prepared config, start the process group where mmengine can't, and build its Runner.

    Raises:
        ConfigError: An unknown component or option, a value or combination that can't be built, or a missing folder or
            file; all before any data are read.
    """
    from mmengine.registry import RUNNERS

    from ldae.engine.hooks import BadImagesHook, RunSummaryHook
    from ldae.engine.loops import resumable
    from ldae.engine.sharding import prepare_sharding
    from ldae.rehearsal import explained, rehearse

    _find_checkpoint(cfg)
    check_config(cfg)
    _leave_hooks_out(cfg)
    _use_safe_checkpoints(cfg)
    compat.write_checkpoints_whole()
    compat.merge_equal_param_groups()
    if cfg.get('launcher', 'none') != 'none':
        _meet(cfg)
    with explained('the config', only_builders=True):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    prepare_sharding(runner)
    rehearse(runner)
    if 'batch_arithmetic' in cfg:
        runner.logger.info(cfg.batch_arithmetic)
    atexit.register(end_workers)
    if isinstance(runner._train_dataloader, dict):
        _build_train_data(runner)
    runner.register_hook(RunSummaryHook())
    runner.register_hook(BadImagesHook())
    _add_hooks_for_resuming(runner)
    if isinstance(runner._train_loop, dict):
        runner._train_loop = resumable(runner._train_loop)
    return runner


def _meet(cfg: Config) -> None:
    """Start the process group on a CPU; tell mmengine how to on a GPU, if torch's own way fails."""
    if not torch.cuda.is_available():
        compat.init_cpu_process_group(cfg.launcher, cfg.env_cfg.dist_cfg.get('timeout'))
        return
    options, place = cfg.env_cfg.dist_cfg, compat.meeting_place()
    if str(options.get('init_method')).startswith(compat.RESTARTED):
        del options['init_method']  # in the config that such a run has dumped
    if place is not None:
        options.init_method = place


def _use_safe_checkpoints(cfg: Config) -> None:
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    hook = cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if hook is not None and hook.type in ('CheckpointHook', 'mmengine.CheckpointHook'):
        hook.type = 'ldae.SafeCheckpointHook'


def _leave_hooks_out(cfg: Config) -> None:
    """``default_hooks.NAME=None`` leaves a hook out; mmengine allows it for its own names only."""
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None and name not in HOOKS_OF_MMENGINE]:
        del hooks[name]


def _add_hooks_for_resuming(runner: Runner) -> None:
    """Configs of mmpretrain's own lack them: their checkpoints could be neither tested nor resumed exactly."""
    from ldae.engine.hooks import PlainCheckpointHook, StepSeedHook, StopOnSignalHook

    for kind in (PlainCheckpointHook, StepSeedHook, StopOnSignalHook):
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())


def _find_checkpoint(cfg: Config) -> None:
    """Resume from the newest checkpoint of the work directory that can be read, not from what a pointer says."""
    if cfg.get('resume') and not cfg.get('load_from'):
        latest = latest_checkpoint(cfg.work_dir)
        cfg.load_from = None if latest is None else str(latest)
        if latest is None:
            print_log(f'Nothing to resume from in {cfg.work_dir}: starting from the beginning')
            cfg.resume = False


def _build_train_data(runner: Runner) -> None:
    # Here rather than in Runner.train, whose schedulers fail on an epoch without steps before any hook is called.
    diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
    loader = runner.build_dataloader(
        runner._train_dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
    )
    check_size(len(loader.dataset), len(loader), runner.world_size, loader.batch_size)
    runner._train_dataloader = loader


def check_size(images: int, steps: int, world: int, batch_size: int | None) -> None:
    """Raise ConfigError if there are more processes than images, or an epoch without a step."""
    if images < world:
        raise ConfigError(f'{images} training images for {world} processes: start fewer processes')
    if steps == 0:
        raise ConfigError(
            f'{images} training images give no batch of {world} x {batch_size}: lower train_dataloader.batch_size'
        )
