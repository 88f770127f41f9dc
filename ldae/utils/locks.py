# SPDX-License-Identifier: Apache-2.0
"""A folder that one run at a time writes to."""

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError

LOCK_FILE = '.lock'
#: The number of a job, and how often it was started again, by the variables of those that do so.
JOBS = {'SLURM_JOB_ID': 'SLURM_RESTART_COUNT', 'TORCHELASTIC_RUN_ID': 'TORCHELASTIC_RESTART_COUNT'}
HELD: set[int] = set()


@contextmanager
def claimed(folder: str | os.PathLike) -> Iterator[int]:
    """Have a folder to ourselves, and remove what an earlier owner has left of unfinished checkpoints; the descriptor of the
    lock, for processes that shall hold it too.

    The kernel lets go of the lock when the last process that holds it ends, however it does. Who holds it stands in the
    file, for others to read, and for machines that don't see each other's locks. Raises ConfigError if another process
    has it, or had it on another machine and didn't end well; the line says which."""
    folder = Path(folder)
    path, is_new = folder / LOCK_FILE, not folder.exists()
    lock, mine = _lock(path), _me()
    HELD.add(lock)
    try:
        _take_over(lock, path, mine)
        for rest in folder.glob('.*.pth*unfinished'):
            rest.unlink(missing_ok=True)
        yield lock
    finally:
        if os.getpid() == mine['pid']:
            if _owner(lock) == mine:
                path.unlink(missing_ok=True)
            HELD.discard(lock)
            os.close(lock)
            if is_new:
                with contextlib.suppress(OSError):  # it is in use
                    folder.rmdir()


def _lock(path: Path) -> int:
    """A locked file, which is still the one of this name."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = _name(_owner(lock))
            os.close(lock)
            raise ConfigError(
                f'{path.parent} is in use by {who} or what it left running: wait for it, or take another folder'
            ) from error
        except OSError:  # a file system without locks
            return lock
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            return lock
        os.close(lock)  # whose owner has removed it meanwhile


def _take_over(lock: int, path: Path, mine: dict) -> None:
    """Write down whose the lock is, unless it may be somebody's whose lock isn't seen from here."""
    owner = _owner(lock)
    again = owner.get('job') is not None and owner['job'] == mine['job'] and owner.get('start') != mine['start']
    if owner and owner.get('host') != mine['host'] and not again:
        raise ConfigError(
            f'{path.parent} is in use by {_name(owner)}, or was when that was killed: wait for it, or remove {path}'
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(mine).encode(), 0)


def _me() -> dict:
    name, start = next((pair for pair in JOBS.items() if os.environ.get(pair[0], 'none') != 'none'), (None, ''))
    job = name and f'{name} {os.environ[name]}'
    since = time.strftime('%Y-%m-%d %H:%M:%S')
    return dict(host=platform.node(), pid=os.getpid(), since=since, job=job, start=os.environ.get(start, '0'))


def _owner(lock: int) -> dict:
    try:
        owner = json.loads(os.pread(lock, 4096, 0))
    except (ValueError, RecursionError):  # empty, or cut short
        return {}
    return owner if isinstance(owner, dict) else {}


def _name(owner: dict) -> str:
    known = {'host', 'pid', 'since'} <= set(owner)
    text = 'process {pid} on {host} since {since}'.format(**owner) if known else ''
    return ' '.join(text.split())[:200] or 'another run of this tool'


def _close_in_child() -> None:
    """Workers of a data loader, say, which may live a moment longer than what forked them."""
    while HELD:
        os.close(HELD.pop())


os.register_at_fork(after_in_child=_close_in_child)
