# SPDX-License-Identifier: Apache-2.0
"""Reading checkpoint files without running what they hold."""

import argparse
import os
import pickle
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError

#: torch's own switch, which a user sets for a file whose origin they trust.
UNSAFE_VARIABLE = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
STATES = ('model', 'teacher', 'target_encoder')


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a ``.pth`` or ``.safetensors`` file, on the CPU; a bare state dict becomes ``{'state_dict':
    ...}``. Raises ConfigError if the file is missing, damaged, no checkpoint, or holds pickled objects, which are never
    run."""
    path = Path(path).expanduser()
    if (path / 'config.json').is_file() or path.suffix == '.onnx':
        raise ConfigError(
            f'{path} is an encoder exported for another library ({_library(path)}), not a checkpoint of a model: name the .pth '
            'file that it was exported from'
        )
    if path.is_dir():
        raise ConfigError(f'{path} is a folder: name a .pth file that training wrote, such as {_newest(path)}')
    check_is_there(path)
    content = _read_safetensors(path) if path.suffix == '.safetensors' else _read_pth(path)
    if isinstance(content, dict) and isinstance(content.get('state_dict'), dict):
        _check_state(path, content['state_dict'])
        return content
    # MAE's own checkpoints, and those of what followed it, have another name for it; of the two networks of DINO and of
    # I-JEPA, features are the average's.
    for state in (*map(content.get, STATES), content) if isinstance(content, dict) else ():
        if isinstance(state, dict) and state and all(isinstance(value, Tensor) for value in state.values()):
            _check_state(path, state)
            return dict(state_dict=state)
    raise ConfigError(
        f'{path} is not a checkpoint of a model: it has no state_dict; name the .pth file that training wrote'
    )


def check_is_there(*paths: str | os.PathLike) -> None:
    """Raise ConfigError unless these are files, or folders, which whoever reads them knows about: of several, before the first takes its
    minutes."""
    for path in (Path(path).expanduser() for path in paths):
        if not path.is_file() and not path.is_dir():
            raise ConfigError(f'checkpoint {str(path)!r} {"is not a file" if path.exists() else "does not exist"}')


def _check_state(path: Path, state: dict) -> None:
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) and not key.endswith('_extra_state'):
            raise ConfigError(
                f'{path} is not a checkpoint of a model: {str(key)[:80]!r} of its state_dict is not a tensor'
            )


def averaged_weights(path: str | os.PathLike, content: dict[str, Any]) -> dict[str, Any]:
    """The state dict of a checkpoint with the running average (EMA) of the weights in their place.

    mmengine's EMAHook writes it so; ``SkipAwareEMAHook(in_place=False)`` writes the average beside the weights. Raises
    ConfigError if it holds no average."""
    average = content.get('ema_state_dict')
    if not isinstance(average, dict):
        raise ConfigError(
            f'{path} holds no average of the weights (EMA): leave --ema out, or train with '
            "default_hooks.ema=dict(type='ldae.SkipAwareEMAHook', momentum=1e-4, in_place=False)"
        )
    if content.get('ema_in_place', True):
        return content['state_dict']
    average = {key.removeprefix('module.'): value for key, value in average.items() if key.startswith('module.')}
    _check_state(Path(path), average)
    return {**content['state_dict'], **average}


def hint_of_names(names: Iterable[str]) -> str:
    """How to use a checkpoint whose layers have another library's names; '' if they haven't."""
    names = ' '.join(names)
    if 'blocks.0.attn.qkv.' in names:
        return "; its layers have timm's names, as in MAE's own files: name its model of timm, 'timm::vit_base_patch16_224'"
    if 'layer.0.attention.attention.query.' in names:
        return (
            "; its layers have transformers' names: name the same model of timm, with --pretrained, or use its config"
        )
    return ''


def _library(path: Path) -> str:
    """The library that an export is for."""
    if path.suffix == '.onnx':
        return 'ONNX'
    return 'transformers' if '"model_type"' in (path / 'config.json').read_text(errors='replace') else 'timm'


def _newest(folder: Path) -> Path:
    """The checkpoint of a folder that was written last, else the name of one."""
    files = sorted(folder.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    return next((path for path in reversed(files) if not path.name.startswith('tokenizer')), folder / 'epoch_100.pth')


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f'{path} is damaged or no safetensors file: {error}') from error


def _read_pth(path: Path) -> Any:
    check_archive(path)
    try:
        # None leaves it to torch, whose default is to load safely and whose switch is the named opt-in. A Namespace, in
        # which MAE and DINO keep their options, is nothing but its values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location='cpu', weights_only=None)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            raise ConfigError(
                f'{path} holds pickled Python objects, which loading could run as code; if you trust where it comes from, '
                f'set {UNSAFE_VARIABLE}=1'
            ) from error
        raise ConfigError(f'{path} is not a checkpoint file: name the .pth file that training wrote') from error
    except PermissionError:
        raise
    except Exception as error:  # its pickle may be anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f'{path} is damaged or truncated ({reason}): use the checkpoint before it') from error


def check_archive(path: str | os.PathLike) -> None:
    """Compare what a file of ``torch.save`` holds with the checksums in it, which torch doesn't; other files pass.
    Raises ConfigError if it has changed since it was written."""
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if sum(part.file_size for part in parts) > path.stat().st_size:  # torch compresses nothing
                raise ConfigError(f'{path} was not written by torch.save: name the .pth file that training wrote')
            # By an option, torch leaves all checksums out.
            damaged = archive.testzip() if any(part.CRC for part in parts) else None
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f'{path} is damaged ({" ".join(str(error).split())}): take another copy, or the file before it'
        ) from error
    if damaged is not None:
        raise ConfigError(
            f'{path} is damaged: {damaged[:80]!r} in it is not as it was written: take another copy, or the file before it'
        )


def name_of_run(checkpoint: str | Path) -> str:
    """``<run>_<checkpoint>``; a run of a study is named with its row: ``vit-b_pca_seed0_epoch_4``."""
    path = Path(checkpoint).absolute()
    return f'{names_of_runs([path.parent])[path.parent]}_{path.stem}'


def names_of_runs(folders: Iterable[Path]) -> dict[Path, str]:
    """Names of runs by their folders, which are absolute: as :func:`name_of_run` has them, and with as many of the folders above in
    front as tell several of one name apart."""
    taken = {folder: 2 if re.fullmatch(r'seed\d.*', folder.name) else 1 for folder in folders}
    while True:
        names = {folder: '_'.join(folder.parts[1:][-count:]) for folder, count in taken.items()}
        counts = Counter(names.values())
        shared = [
            folder for folder, name in names.items() if counts[name] > 1 and taken[folder] < len(folder.parts) - 1
        ]
        if not shared:
            return names
        taken |= {folder: taken[folder] + 1 for folder in shared}


def _is_pickle(path: Path) -> bool:
    """Whether a file has the first bytes of torch's zip archives, or of a bare pickle."""
    with path.open('rb') as file:
        start = file.read(2)
    return start == b'PK' or start[:1] == b'\x80'


def report_keys(what: str, missing: list[str], mismatched: list[str], total: int, found: Iterable[str] = ()) -> None:
    """Raise ConfigError, naming a few keys, if anything is missing or of another shape; ``found`` are the checkpoint's."""
    for keys, problem in ((mismatched, 'holds another shape for'), (missing, 'lacks')):
        if keys:
            raise ConfigError(
                f"{what} {problem} {len(keys)} of the model's {total} tensors ({', '.join(keys[:3])}...)"
                f'{hint_of_names(found) or ": use the config that it was made with"}'
            )


def compare_keys(
    what: str,
    own: Mapping[str, Tensor],
    loaded: Mapping[str, Tensor],
    found: Iterable[str] = (),
    optional: tuple[str, ...] = (),
) -> None:
    """:func:`report_keys` of a state dict beside a model's own, of which keys that end so, ``optional``, may be missing."""
    missing = [key for key in own if key not in loaded and not key.endswith(optional)]
    mismatched = [key for key in own if key in loaded and loaded[key].shape != own[key].shape]
    report_keys(what, missing, mismatched, len(own), found)
