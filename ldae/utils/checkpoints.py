# SPDX-License-Identifier: Apache-2.0
"""Reading checkpoint files without running what they hold."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError

#: torch's own switch, which a user sets for a file whose origin they trust.
UNSAFE_VARIABLE = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a ``.pth`` or ``.safetensors`` file, on the CPU; a bare state dict becomes ``{'state_dict': ...}``.

    Raises:
        ConfigError: The file is missing, damaged, no checkpoint, or holds pickled objects, which are never run.
    """
    path = Path(path).expanduser()
    if (path / 'config.json').is_file() or path.suffix == '.onnx':
        raise ConfigError(
            f'{path} is an encoder exported for another library ({_library(path)}), not a checkpoint of a model: name the .pth '
            'file that it was exported from'
        )
    if path.is_dir():
        raise ConfigError(f'{path} is a folder: name a .pth file that training wrote, such as {_newest(path)}')
    if not path.is_file():
        raise ConfigError(f'checkpoint {str(path)!r} does not exist')
    content = _read_safetensors(path) if path.suffix == '.safetensors' else _read_pth(path)
    if isinstance(content, dict) and isinstance(content.get('state_dict'), dict):
        return content
    if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(state_dict=content)
    raise ConfigError(
        f'{path} is not a checkpoint of a model: it has no state_dict; name the .pth file that training wrote'
    )


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
    try:
        # None leaves it to torch, whose default is to load safely and whose switch is the named opt-in.
        return torch.load(path, map_location='cpu', weights_only=None)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            raise ConfigError(
                f'{path} holds pickled Python objects, which loading could run as code; if you trust where it comes from, '
                f'set {UNSAFE_VARIABLE}=1'
            ) from error
        raise ConfigError(f'{path} is not a checkpoint file: name the .pth file that training wrote') from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f'{path} is damaged or truncated ({reason}): use the checkpoint before it') from error


def _is_pickle(path: Path) -> bool:
    """Whether a file has the first bytes of torch's zip archives, or of a bare pickle."""
    with path.open('rb') as file:
        start = file.read(2)
    return start == b'PK' or start[:1] == b'\x80'


def report_keys(what: str, missing: list[str], mismatched: list[str], total: int) -> None:
    """Raise ConfigError, naming a few keys, if anything is missing or of another shape."""
    for keys, problem in ((mismatched, 'holds another shape for'), (missing, 'lacks')):
        if keys:
            raise ConfigError(
                f"{what} {problem} {len(keys)} of the model's {total} tensors ({', '.join(keys[:3])}...): "
                'use the config that it was made with'
            )
