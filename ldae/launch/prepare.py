# SPDX-License-Identifier: Apache-2.0
"""A config, a command's options and this machine, brought together; what makes a run faster, and shows how it goes."""

import copy
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ldae import compat
from ldae.config import find_config
from ldae.config.packed import use_packed_data
from ldae.config.reading import LOADERS, set_data_root
from ldae.config.sections import check_sections
from ldae.engine.resume.safe_checkpoint import latest_checkpoint
from ldae.registry import DATASETS
from ldae.utils import ConfigError, check_choice, checked
from ldae.utils.device import choose_precision, has_bf16, use_device
from ldae.utils.ranges import LogLevel, Precision

from .batch import scale_batch

RESTART_COUNTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')
# Seconds that a process waits for the others, and for a batch from a worker, before it gives up.
PROCESS_TIMEOUT, WORKER_TIMEOUT = 1800, 600
#: Optimizer wrappers by the precision of their forward pass.
WRAPPERS = dict(fp32='OptimWrapper', bf16='ldae.AutocastOptimWrapper', fp16='AmpOptimWrapper')


@checked
@dataclass
class LaunchOptions:
    """The options of ``tools/train.py`` that change a config; see its ``--help``.

    Args:
        precision: None is that of the config, but fp32 where the config asks for bf16 and the device has no instructions
            for it; ``'auto'`` is bf16 where it has.
        device: ``'auto'``, ``'cpu'``, ``'cuda'`` or ``'mps'``.
        amp: The same as ``precision='bf16'``.
        pictures: Draw the loss, and denoised images, into the work dir.
        vis: Names of :data:`VIS_BACKENDS`, to which curves and pictures go too.
        log_level: Of the console.
    """

    work_dir: str | os.PathLike | None = None
    data_root: str | os.PathLike | None = None
    resume: str | os.PathLike | None = None
    precision: Precision | None = None
    device: str = 'auto'
    new_schedule: bool = False
    amp: bool = False
    fast: bool = False
    no_validate: bool = False
    auto_scale_lr: bool = False
    keep_batch: bool = False
    no_pin_memory: bool = False
    no_persistent_workers: bool = False
    launcher: str = 'none'
    pictures: bool = False
    vis: Sequence[str] = ()
    log_level: LogLevel | None = None

    def __post_init__(self) -> None:
        if self.amp and self.precision not in (None, 'bf16'):
            raise ConfigError(f'amp is precision bf16, which is not {self.precision}: leave one of them out')
        self.precision = 'bf16' if self.amp else self.precision
        for name in ('work_dir', 'data_root', 'resume'):  # a config can't hold a path object
            if isinstance(getattr(self, name), os.PathLike):
                setattr(self, name, os.fspath(getattr(self, name)))

    @classmethod
    def of(cls, options: Any) -> 'LaunchOptions':
        """Take what is there from any object with such attributes, as argparse's Namespace."""
        names = [field.name for field in fields(cls) if hasattr(options, field.name)]
        return cls(**{name: getattr(options, name) for name in names})


def prepare(cfg: Config, options: Any = None) -> Config:
    """Merge command-line options (a :class:`LaunchOptions`, or any object with some of its attributes) into a
    config, in place, fit it to this machine, and scale lr or batch. Raises ConfigError if ``--keep-batch`` cannot be
    met, or a launcher's variables are missing."""
    options = LaunchOptions.of(options)
    device = use_device(options.device)
    check_sections(cfg)
    cfg.launcher = options.launcher
    if options.work_dir is not None:  # which goes before the config, and the config before its file's name
        cfg.work_dir = options.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'./work_dirs/{Path(cfg.filename or "run").stem}'
    if options.data_root is not None:
        set_data_root(cfg, options.data_root)
    use_packed_data(cfg)
    if options.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if options.resume is not None:
        cfg.resume = True
        cfg.load_from = None if options.resume == 'auto' else _checkpoint_at(options.resume)
    # torchrun or Slurm has started this job before: it goes on by itself.
    was_restarted = any(int(os.environ.get(name) or 0) > 0 for name in RESTART_COUNTS)
    if was_restarted and latest_checkpoint(cfg.work_dir) is not None:
        cfg.resume, cfg.load_from = True, None  # whatever the first start was from
    if options.new_schedule:
        if not cfg.get('resume'):
            raise ConfigError('--new-schedule is for a run that is resumed: add --resume')
        cfg.new_schedule = True
        _cover_training(cfg)
    if options.vis:
        show_curves_in(cfg, options.vis)
    if options.pictures:
        draw_pictures(cfg)
    if options.log_level is not None:
        cfg.log_level = options.log_level
    if options.fast:
        use_fast_settings(cfg)
    set_precision(cfg, options.precision, device)
    fuse_optimizer(cfg)
    _set_dataloader_options(cfg, options, device)
    if device != 'cuda':
        _fit_to_cpu(cfg)
    if cfg.launcher != 'none':
        cfg.setdefault('env_cfg', ConfigDict()).setdefault('dist_cfg', ConfigDict(backend='nccl'))
        cfg.env_cfg.dist_cfg.setdefault('timeout', PROCESS_TIMEOUT)
    scale_batch(cfg, options.auto_scale_lr, options.keep_batch)
    return cfg


def _checkpoint_at(path: str) -> str:
    """A checkpoint, or the newest one of a folder."""
    if not Path(path).expanduser().is_dir():
        return path
    latest = latest_checkpoint(Path(path).expanduser())
    if latest is None:
        raise ConfigError(
            f'--resume {path}: this folder holds no checkpoints (epoch_N.pth, iter_N.pth): name one that does'
        )
    return str(latest)


def _cover_training(cfg: Config) -> None:
    """Let schedules whose last one ends before the training does end with it."""
    length = cfg.get('train_cfg') or {}
    several = cfg.get('param_scheduler') or []
    for schedules in several.values() if isinstance(several, dict) and 'type' not in several else [several]:
        last = schedules if isinstance(schedules, dict) else schedules[-1] if schedules else {}
        total = length.get('max_epochs' if last.get('by_epoch', True) else 'max_iters')
        begin, period = last.get('begin', 0), last.get('T_max')
        end = last.get('end', period and begin + period)
        if total and end and end < total:
            last.update(end=total, **(dict(T_max=total - begin) if period == end - begin else {}))


def set_precision(cfg: Config, asked: str | None, device: str) -> None:
    """Let a config train in the precision that is asked for, else in its own where the device has it;
    ``cfg.chosen_precision`` says which, and why. A wrapper of an optimizer of one's own is left alone unless another
    precision is asked for. Raises ConfigError for fp16 without a GPU of NVIDIA's."""
    cfg.pop('chosen_precision', None)  # of the run that has dumped the config
    wrapper = cfg.get('optim_wrapper') or ConfigDict()
    own = _own_precision(wrapper) if wrapper else None
    if own is None and asked is None:
        return
    fits = own == 'fp32' or own == 'fp16' and device == 'cuda'
    chosen = choose_precision(asked or (own if fits else 'auto'), device)
    if wrapper and chosen != own or wrapper.get('type') == WRAPPERS['fp16'] and device != 'cuda':  # it asserts a GPU
        wrapper.type = WRAPPERS[chosen]
        for option in ('dtype', 'loss_scale'):
            wrapper.pop(option, None)
        if chosen == 'fp16':
            wrapper.loss_scale = 'dynamic'
    cfg.chosen_precision = f'precision {chosen}'
    if chosen == 'bf16' and not has_bf16(device):
        cfg.chosen_precision += f', for which this {device} has no instructions: fp32 may take a small part of the time'
    elif asked is None and chosen != own:
        cfg.chosen_precision += f': the config asks for {own}, for which this {device} has no instructions'


def _own_precision(wrapper: ConfigDict) -> str | None:
    """That of a config's ``optim_wrapper``; None if it isn't known."""
    kind = str(wrapper.get('type', 'OptimWrapper')).rpartition('.')[2]
    if kind == 'OptimWrapper':
        return 'fp32'
    default = dict(AutocastOptimWrapper='bfloat16', AmpOptimWrapper='float16').get(kind)
    return default and dict(bfloat16='bf16', float16='fp16').get(wrapper.get('dtype') or default)


def _set_dataloader_options(cfg: Config, options: LaunchOptions, device: str) -> None:
    cores = len(os.sched_getaffinity(0))
    cfg.pop('fewer_workers', None)
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        if (workers := loader.get('num_workers') or 0) > cores:
            loader.num_workers = cores  # what an image's reader draws doesn't depend on it
            cfg.fewer_workers = f'num_workers {workers} -> {cores}: this machine has no more cores'
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
        compat.keep_worker_options_consistent(loader, device == 'cuda')


def _fit_to_cpu(cfg: Config) -> None:
    cfg.setdefault('env_cfg', ConfigDict()).setdefault('dist_cfg', ConfigDict())
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    if cfg.launcher != 'none':
        kind = (cfg.get('model_wrapper_cfg') or {}).get('type', 'MMDistributedDataParallel')
        if not str(kind).startswith('ldae.'):  # a kind of DistributedDataParallel
            cfg.model_wrapper_cfg = compat.cpu_model_wrapper(cfg.get('find_unused_parameters', False), kind)


FRAGMENT = 'ldae::_base_/fast.py'
# Optimizers with a fused kernel, and options that exclude it.
FUSED, OTHER_KERNELS = ('Adam', 'AdamW'), ('fused', 'foreach', 'capturable', 'differentiable')


def fuse_optimizer(cfg: Config) -> None:
    """Let Adam and AdamW do their update in one kernel, unless the config chooses another: the same to rounding."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if optimizer.get('type') in FUSED and not any(key in optimizer for key in OTHER_KERNELS):
        optimizer.fused = True


def use_fast_settings(cfg: Config) -> None:
    """Merge ``configs/_base_/fast.py``: compiled blocks, bfloat16 autocast, TF32 and cuDNN's search for algorithms; and
    let the training data set resize by torch, unless the config says whether it does. Raises ConfigError if the config
    trains nothing."""
    if not cfg.get('optim_wrapper') or not cfg.get('train_cfg'):
        raise ConfigError(f'--fast is for training, and {cfg.filename or "this config"} has no optim_wrapper')
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    cfg.merge_from_dict(copy.deepcopy(Config.fromfile(find_config(FRAGMENT)).to_dict()))
    cfg.optim_wrapper.pop('loss_scale', None)
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    kind = DATASETS.get(dataset.get('type', '')) if isinstance(dataset.get('type', ''), str) else dataset.type
    if kind is not None and 'fast_resize' in inspect.signature(kind).parameters:
        dataset.setdefault('fast_resize', True)


#: Of mmengine, by the library that each needs.
VIS_BACKENDS = dict(
    tensorboard='TensorboardVisBackend', wandb='WandbVisBackend', mlflow='MLflowVisBackend', clearml='ClearMLVisBackend',
    neptune='NeptuneVisBackend', dvclive='DVCLiveVisBackend', aim='AimVisBackend',
)  # fmt: skip
#: How many of a run's epochs are drawn.
PICTURES = 10


def show_curves_in(cfg: Config, names: Sequence[str]) -> None:
    """Give the visualizer a backend by name, beside those that it has. Raises ConfigError for an unknown name, or a
    library that is not installed."""
    for name in names:
        check_choice('--vis', name, VIS_BACKENDS)
        if find_spec(name) is None:
            raise ConfigError(f'--vis {name} needs the library {name}, which is not installed: pip install {name}')
    backends = [
        *(cfg.get('vis_backends') or [dict(type='LocalVisBackend')]),
        *(dict(type=VIS_BACKENDS[name]) for name in names),
    ]
    cfg.visualizer = dict(cfg.get('visualizer') or dict(type='UniversalVisualizer'), vis_backends=backends)
    cfg.vis_backends = backends


def draw_pictures(cfg: Config) -> None:
    """Let a run draw its loss and, where it learns to denoise, images: about ten times, and at the end."""
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    interval = -(-((cfg.get('train_cfg') or {}).get('max_epochs') or 1) // PICTURES)
    hooks.setdefault('loss_curve', ConfigDict(type='ldae.LossCurveHook', interval=interval))
    if cfg.model.type in ('ldae.LDAE', 'LDAE'):
        pictures = hooks.setdefault('pictures', ConfigDict(type='ldae.DenoisingPicturesHook', interval=interval))
        if cfg.get('val_dataloader') is None and 'dataloader' not in pictures:
            kept = ('dataset', 'collate_fn')
            train = {key: copy.deepcopy(value) for key, value in cfg.train_dataloader.items() if key in kept}
            pictures.dataloader = ConfigDict(train, batch_size=8, num_workers=0)
