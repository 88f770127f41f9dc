# SPDX-License-Identifier: Apache-2.0
"""Work-arounds for faults of ldae's dependencies and of their combinations: one function each, with its versions and reason.

``import ldae`` applies those of :data:`AT_IMPORT`, once; the others are called where they are needed. A work-around
falls away by its version check. Importing this module costs no more than importing mmengine."""

import ast
import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

PREFIX = 'ldae::'
#: Values of each logged scalar that are kept in memory and in checkpoints.
LOG_HISTORY = 10_000
#: Of a process, among those of its job and of its machine, by launcher.
RANK_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
#: Scheme of :func:`rendezvous_url`.
RESTARTED = 'ldae-restarted'


def is_old() -> bool:
    """Whether what is mended in mmengine 0.10.x is there to be mended."""
    return digit_version(version('mmengine')) < digit_version('0.11')


def wrap_once(owner: object, name: str, replacement: Callable) -> None:
    """Put ``replacement``, which is given the original and its arguments, in the place of a function of mmengine < 0.11, unless
    that was done."""
    original = getattr(owner, name)
    if not is_old() or hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def call(*args, **kwargs):
        return replacement(original, *args, **kwargs)

    setattr(owner, name, staticmethod(call) if isinstance(vars(owner)[name], staticmethod) else call)


def resolve_ldae_prefix_in_configs(find_config: Callable[[str], Path]) -> None:
    """mmengine < 0.11: ``_base_ = 'ldae::...'`` names a config of this package.

    ``Config`` maps the part before ``::`` through a fixed table of OpenMMLab's own packages, and gives what it loads a
    ``_scope_`` in every nested dict, on which ``collate_fn=dict(type='default_collate')`` fails. Ours are resolved like
    local files, without a scope."""

    def get_cfg_path(original: Callable, cfg_path: str, filename: str) -> tuple[str, str | None]:
        return (str(find_config(cfg_path)), None) if cfg_path.startswith(PREFIX) else original(cfg_path, filename)

    wrap_once(Config, '_get_cfg_path', get_cfg_path)


def write_checkpoints_by(save: Callable[[object, str], None]) -> None:
    """mmengine < 0.11: ``save_checkpoint`` writes in place, so that a kill or a full disk leaves a truncated file.

    It also holds the whole file in memory twice. Local checkpoints are written by ``save``, whole or not at all; other
    storage goes mmengine's way."""
    from mmengine.runner import runner

    def save_checkpoint(original: Callable, checkpoint: dict, filename: str, *storage, **options) -> None:
        if '://' in str(filename) or any(storage) or any(options.values()):
            original(checkpoint, filename, *storage, **options)
        else:
            save(checkpoint, filename)

    wrap_once(runner, 'save_checkpoint', save_checkpoint)


def merge_equal_param_groups() -> None:
    """mmengine < 0.11: ``paramwise_cfg`` makes one optimizer group of each parameter, and a fused optimizer then starts
    hundreds of kernels, and a scheduler sets hundreds of rates, where a few do. mmpretrain's constructor does so too.

    Which parameter gets what stays the same, and so do results; the order of parameters in the optimizer's state doesn't.
    """
    from mmengine.optim import DefaultOptimWrapperConstructor

    def call(original: Callable, self: object, model: object) -> object:
        wrapper = original(self, model)
        wrapper.optimizer.param_groups[:] = merged_groups(wrapper.optimizer.param_groups)
        return wrapper

    wrap_once(DefaultOptimWrapperConstructor, '__call__', call)


def merged_groups(groups: list[dict]) -> list[dict]:
    """Groups that differ in nothing but their parameters, made one, in the order of their first parameters."""
    merged = {}
    for group in groups:
        # mmpretrain notes the name of the one parameter.
        options = {key: value for key, value in group.items() if key not in ('params', 'param_name')}
        target = merged.setdefault(repr(sorted(options.items())), dict(params=[], **options))
        target['params'].extend(group['params'])
    return list(merged.values())


def silence_missing_mmcv_operators() -> None:
    """mmcv-lite 2.x: importing ``mmcv.cnn`` warns that a compiled operator is missing, which nothing here uses."""
    warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')


def bound_log_history() -> None:
    """mmengine < 0.11: ``HistoryBuffer.update`` copies all values so far, a million at most: 1.5 ms a scalar by then.

    The last 10 000 are kept, which no step notices; a mean over more steps than that is one over the last 10 000."""
    if is_old():
        HistoryBuffer.__init__.__defaults__ = ([], [], LOG_HISTORY)


def format_configs_once() -> None:
    """mmengine < 0.11: ``Config.pretty_text`` formats the config anew for the log, the dump and each checkpoint, half a
    second of the processor's time each.

    The same text is formatted once."""
    from mmengine.config import config

    @functools.lru_cache(maxsize=8)
    def format_text(original: Callable, text: str, options: str) -> tuple[str, bool]:
        return original(text, **ast.literal_eval(options))

    wrap_once(config, 'FormatCode', lambda original, text, **options: format_text(original, text, repr(options)))


def copy_images_without_waiting() -> None:
    """mmpretrain 1.2.0: ``SelfSupDataPreprocessor`` waits for the device twice a step: it copies batches from pinned memory
    as if from any, and reorders channels by a Python list, which has to be copied too.

    Pixels stay the same, bit for bit."""
    from mmpretrain.models.utils import SelfSupDataPreprocessor

    def forward(original: Callable, self: object, data: dict, training: bool = False) -> dict:
        self._non_blocking = True
        views = data['inputs'] if isinstance(data, dict) else None
        of_three = [getattr(view, 'ndim', 0) == 4 and view.shape[1] == 3 for view in as_list(views)]
        if not self._channel_conversion or not all(of_three):
            return original(self, data, training)
        flipped = [self.cast_data(view).flip(1) for view in as_list(views)]
        self._channel_conversion = False
        try:
            return original(self, dict(data, inputs=flipped if isinstance(views, list) else flipped[0]), training)
        finally:
            self._channel_conversion = True

    wrap_once(SelfSupDataPreprocessor, 'forward', forward)


def turn_hue_backwards() -> None:
    """mmcv 2.2 with numpy 2: ``adjust_hue`` casts a negative shift to uint8, which numpy 1 let wrap and numpy 2 refuses."""
    import mmcv
    import numpy as np
    from PIL import Image

    def adjust_hue(original: Callable, img: np.ndarray, hue_factor: float, backend: str | None = None) -> np.ndarray:
        if hue_factor >= 0 or backend != 'pillow':
            return original(img, hue_factor, backend)
        hue, *others = Image.fromarray(np.ascontiguousarray(img[..., ::-1])).convert('HSV').split()
        turned = Image.fromarray(((np.array(hue, np.int16) + int(hue_factor * 255)) % 256).astype(np.uint8))
        return np.array(Image.merge('HSV', (turned, *others)).convert('RGB'))[..., ::-1]

    wrap_once(mmcv, 'adjust_hue', adjust_hue)
    warnings.filterwarnings('ignore', message="Only use 'alpha' for pillow backend")  # which mmcv itself says to itself


def as_list(value: object) -> list:
    """The value itself if it is a list, else a list of it alone."""
    return value if isinstance(value, list) else [value]


def import_no_module_by_a_bare_name() -> None:
    """mmengine < 0.11: a ``type`` without a dot that isn't registered is imported as a module, which runs any such file."""
    from mmengine.registry import registry

    wrap_once(registry, 'get_object_from_string', lambda original, name: original(name) if '.' in name else None)


def check_read_checkpoints_by(check: Callable[[object, str], None]) -> None:
    """mmengine < 0.11: ``Runner.resume`` runs the text ``meta['config']`` of a checkpoint as a program, and uses notes in it
    as paths. ``check(content, filename)`` sees each checkpoint first."""
    from mmengine.runner import runner

    def load_checkpoint(original: Callable, filename: str, *args, **kwargs) -> object:
        content = original(filename, *args, **kwargs)
        check(content, filename)
        return content

    wrap_once(runner, '_load_checkpoint', load_checkpoint)


AT_IMPORT = (silence_missing_mmcv_operators, bound_log_history, format_configs_once, import_no_module_by_a_bare_name)


def apply(find_config: Callable[[str], Path]) -> None:
    """Apply what has to be in place before anything else of ldae is used; ``find_config`` finds the file of an ``ldae::`` name."""
    resolve_ldae_prefix_in_configs(find_config)
    for work_around in AT_IMPORT:
        work_around()


def init_cpu_process_group(launcher: str, timeout: int | None = None) -> None:
    """mmengine 0.10.x: start gloo where there is no GPU.

    ``mmengine.dist.init_dist`` calls ``torch.cuda.set_device`` whatever the backend, which a CPU-only torch refuses; the
    Runner skips it when the group exists already."""
    import torch.distributed as dist

    if dist.is_initialized():
        return
    set_rank_variables(launcher)
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    limit = timedelta(seconds=timeout) if timeout else None
    dist.init_process_group('gloo', init_method=rendezvous_url(), timeout=limit)


def rendezvous_url() -> str | None:
    """All torch versions so far: torchrun with a fixed address keeps one store over ``--max-restarts``, and processes that
    were started again read in it where those of the start before, now dead, could be found.

    The result is an ``init_method`` of ``init_process_group`` by which each start finds itself; None: torch's own will do.
    """
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    if attempt == '0':
        return None
    from torch.distributed import PrefixStore, register_rendezvous_handler, rendezvous

    def rendezvous_of_start(url: str, timeout: timedelta, **kwargs) -> Iterator[tuple]:
        store, rank, world_size = next(rendezvous('env://', timeout=timeout))
        yield PrefixStore(f'start_{attempt}', store), rank, world_size

    with contextlib.suppress(RuntimeError):  # registered already
        register_rendezvous_handler(RESTARTED, rendezvous_of_start)
    return f'{RESTARTED}://'


def set_rank_variables(launcher: str) -> None:
    """mmengine 0.10.x: say by torchrun's variables what Slurm and MPI say by theirs; DistributedDataParallel's device, for one,
    is looked up in ``LOCAL_RANK``, which mmengine leaves at 0 for MPI."""
    names = RANK_VARIABLES.get(launcher)
    if names is None:
        return
    rank, world_size, local_rank = names
    # Assigned, not defaulted: the command line sets LOCAL_RANK to 0 where no launcher did.
    os.environ['RANK'] = os.environ[rank]
    os.environ['WORLD_SIZE'] = os.environ[world_size]
    os.environ['LOCAL_RANK'] = os.environ.get(local_rank, '0')


def set_runner_device(kind: str) -> None:
    """mmengine 0.10.x: a Runner has no option for the device; it takes the one that mmengine has found at its import."""
    from mmengine.device import utils

    utils.DEVICE = kind


def cpu_model_wrapper(find_unused_parameters: bool = False, kind: str = 'MMDistributedDataParallel') -> dict:
    """mmengine 0.10.x: DistributedDataParallel without ``device_ids``, which the Runner sets even for a model on CPU."""
    options = dict(broadcast_buffers=False, find_unused_parameters=find_unused_parameters)
    return dict(type=kind, device_ids=None, **options)


def keep_worker_options_consistent(dataloader: dict, has_gpu: bool) -> None:
    """All torch versions: a DataLoader refuses ``persistent_workers`` and ``timeout`` without workers, and warns of pinned
    memory without a GPU; configs ask for them."""
    if not dataloader.get('num_workers'):
        dataloader['persistent_workers'] = False
        dataloader.pop('timeout', None)
    if not has_gpu:
        dataloader['pin_memory'] = False
