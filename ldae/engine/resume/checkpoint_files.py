# SPDX-License-Identifier: Apache-2.0
"""The newest checkpoint of a folder that can be read, and the pointer that names it."""

import os
from pathlib import Path

import torch
from mmengine.logging import print_log

from ldae.utils import ConfigError
from ldae.utils.checkpoints import check_archive
from ldae.utils.files import atomic_write_text

POINTER = 'last_checkpoint'


def write_pointer(work_dir: str | os.PathLike, name: str) -> None:
    """Let ``last_checkpoint`` hold the bare name of a checkpoint of the folder, so that the folder can be moved."""
    atomic_write_text(Path(work_dir) / POINTER, name)


def latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names if it can be read, else the newest that can; None if there is none.
    Raises ConfigError if there are some and none can be read, which starting anew would overwrite."""
    candidates = _candidates(Path(work_dir))
    for path in candidates:
        try:
            check_archive(path)
            # Memory-mapped, since the tensors are read later.
            content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
            if not isinstance(content, dict):
                raise ConfigError(f'it holds a {type(content).__name__}, not a checkpoint')
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print_log(f'{path} cannot be read ({reason}): trying the one before', 'current', level=30)
            continue
        return path
    if candidates:
        raise ConfigError(
            f'none of the {len(candidates)} checkpoints in {work_dir} can be read: move them away to start anew'
        )
    return None


def _candidates(work_dir: Path) -> list[Path]:
    """Checkpoints in the folder, the pointed one first, then from new to old."""
    # Not a pipe, at which reading would wait, and not a link that leads nowhere.
    files = [path for path in work_dir.glob('*.pth') if path.is_file()]
    found = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    found = [path for path in found if path.name.startswith(('epoch_', 'iter_'))]
    pointer = work_dir / POINTER
    # mmengine's pointer holds an absolute path: its name is what still holds after a move.
    named = work_dir / Path(pointer.read_text(errors='replace').strip()).name if pointer.is_file() else None
    return [path for path in [named] if path in found] + [path for path in found if path != named]
