# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: The package's own folder.
PACKAGE = Path(__file__).resolve().parents[1]


def atomic_write_text(path: Path, text: str) -> None:
    """Write a small file that is at every moment the old one or the new one."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding='utf-8', errors='surrogateescape')  # names of files are bytes
        flush(unfinished)


def write_json(path: Path, value: object) -> None:
    """Write a file that is at every moment the old one or the new one."""
    atomic_write_text(path, json.dumps(value, indent=2) + '\n')


@contextmanager
def whole_file(path: Path, suffix: str = '.unfinished') -> Iterator[Path]:
    """Where to write a file of this name, which it gets once the context closes; after an error nothing of it is left."""
    unfinished = unfinished_path(path, suffix)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def unfinished_path(path: Path, suffix: str = '.unfinished') -> Path:
    """Where this process writes a file of this name before it is whole, beside it; no other one does."""
    return path.with_name(f'.{path.name}.{platform.node()}-{os.getpid()}{suffix}')


def atomic_save(content: Any, path: str | os.PathLike) -> None:
    """``torch.save`` to a temporary file beside ``path``, flush it to the disk, and rename it.

    A kill or a full disk leaves the file that was there before. Nothing is held in memory twice."""
    import torch  # seconds, which a tool's --help need not wait for

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as unfinished, unfinished.open('wb') as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        # Torch's writer fails a second time, when it closes what a full disk has cut off.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Let a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if path.is_file():
            raise
        # Some network file systems can't do this to folders.
    finally:
        os.close(descriptor)
