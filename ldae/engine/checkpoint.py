# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are written whole or not at all, and the newest one that can be read."""

import os
from pathlib import Path
from typing import IO, Any

import torch
from mmengine.logging import print_log

from ldae.utils import ConfigError
from ldae.utils.files import write_text_whole

POINTER = 'last_checkpoint'


def save_whole(content: Any, path: str | os.PathLike) -> None:
    """``torch.save`` to a temporary file beside ``path``, flush it to the disk, and rename it.

    A kill or a full disk leaves the file that was there before. Nothing is held in memory twice.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.unfinished')
    try:
        with unfinished.open('wb') as file:
            _save(content, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _save(content: Any, file: IO[bytes]) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # Torch's writer fails a second time, when it closes what a full disk has cut off.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def write_pointer(work_dir: str | os.PathLike, name: str) -> None:
    """Let ``last_checkpoint`` name a checkpoint of the folder, by its name alone, so that the folder can be moved."""
    write_text_whole(Path(work_dir) / POINTER, name)


def latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names if it can be read, else the newest that can; None if there is none.

    Raises:
        ConfigError: If there are some and none can be read, which starting anew would overwrite.
    """
    candidates = _candidates(Path(work_dir))
    for path in candidates:
        try:
            # Memory-mapped: checks the file's structure without reading the tensors.
            torch.load(path, map_location='cpu', weights_only=True, mmap=True)
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
    found = sorted(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    found = [path for path in found if path.name.startswith(('epoch_', 'iter_'))]
    pointer = work_dir / POINTER
    # mmengine's pointer holds an absolute path: its name is what still holds after a move.
    named = work_dir / Path(pointer.read_text().strip()).name if pointer.is_file() else None
    return [path for path in [named] if path in found] + [path for path in found if path != named]


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems can't
    finally:
        os.close(descriptor)
