# SPDX-License-Identifier: Apache-2.0
"""Errors on a user's side, in one line each."""

import errno
import gc
import os
import pickle
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from ldae.utils import ConfigError

from .signals import INTERRUPTED_STATUS, end_with_named_parent, end_workers, hear_interrupts

EXIT_STATUS = 2
TRACEBACK_VARIABLE = 'LDAE_TRACEBACK'
SECONDS_TO_GIVE_WAY = 10.0
LOST_PEER = re.compile('Connection (?:closed|reset) by peer|Broken pipe.*gloo|gloo.*Broken pipe')
TIMED_OUT = re.compile(r'Timed out waiting|Watchdog caught collective operation timeout|wait timeout after')
OUT_OF_MEMORY = re.compile(r"(?:CUDA|MPS|HIP).* out of memory|DefaultCPUAllocator: (?:can't|not enough)")
DEAD_WORKER = re.compile(
    r'DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal: ([^.]+)|exited unexpectedly)'
)
# By the signal that has ended a worker.
CAUSES = {
    'Killed': 'often for want of memory: lower num_workers of the data loader',
    'Bus error': 'often for want of shared memory: enlarge /dev/shm, or set num_workers=0 of the data loader',
    'Terminated': 'another process has sent it',
}
# What a DataLoader worker raised arrives as the text of a traceback, with the error in its last line.
RAISED = re.compile(r'^(?:[\w.]+\.)?(?:Config|BadImage)Error: (.*)$', re.MULTILINE)


def run_explained(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)``; print a known error as ``error: <one line>`` and return 2, or the status it has, let the
    others through.

    With ``LDAE_TRACEBACK=1`` every error keeps its traceback."""
    hear_interrupts()
    end_with_named_parent()
    try:
        status = main(argv) or 0
        leave_processes()
        return status
    except SystemExit:
        leave_processes()
        raise
    except BrokenPipeError:
        # The reader, say `head`, has seen enough: leave nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr, flush=True)
        end_workers()
        return INTERRUPTED_STATUS
    except Exception as error:
        if LOST_PEER.search(str(error)):
            time.sleep(SECONDS_TO_GIVE_WAY)  # the one that failed knows why, and the launcher ends this one
        line = one_line(error)
        if line is None or os.environ.get(TRACEBACK_VARIABLE, '0') not in ('', '0'):
            raise
        # What all ranks meet is said once: the launcher ends the others as soon as one has failed. What only one meets, such
        # as an unreadable image, is said by that one.
        if os.environ.get('LOCAL_RANK', '0') != '0':
            time.sleep(SECONDS_TO_GIVE_WAY)
        print(f'error: {line}', file=sys.stderr, flush=True)
        end_workers()
        return getattr(error, 'exit_status', EXIT_STATUS)


def leave_processes() -> None:
    """Close the process group of a run that has come to its end, and end its data loaders' workers. After an error the
    group is left alone, since closing it would wait for processes that are lost."""
    end_workers()
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()  # a model that still holds the group would keep its threads, which can abort an interpreter that exits
        distributed.destroy_process_group()


def one_line(error: BaseException) -> str | None:
    """The line that explains an error to a user, or None if it isn't one of theirs."""
    text = str(error)
    if isinstance(error, ConfigError) or 'ConfigError: ' in text:
        raised = RAISED.findall(text)
        return raised[-1] if raised else ' '.join(text.split())
    if isinstance(error, pickle.UnpicklingError):
        return (
            'the checkpoint holds pickled Python objects, which loading could run as code; if you trust where it comes'
            ' from, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'
        )
    if isinstance(error, RecursionError) and 'DictAction' in ''.join(traceback.format_tb(error.__traceback__, 20)):
        return '--cfg-options takes no nested calls such as dict(...): give its keys one by one, or write a config'
    if OUT_OF_MEMORY.search(text):
        return (
            f'the memory is too small for this ({" ".join(text.split())[:120]}): lower the batch size (--keep-batch '
            'accumulates up to that of the recipe), or add ldae.ActivationCheckpointHook'
        )
    image = re.search(r'failed to load image: (.*)', text)
    if image:
        return f'{image[1].strip()} is not a readable image: remove or replace it'
    return _one_line_of_processes(_with_causes(error)) or _one_line_of_os(error, text)


def _with_causes(error: BaseException | None) -> str:
    """Also of what it was raised over: a dead worker is told of in whatever code happens to run."""
    texts = []
    while error is not None and len(texts) < 5:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return '\n'.join(texts)


def _one_line_of_processes(text: str) -> str | None:
    dead = DEAD_WORKER.search(text)
    if dead:
        how = f'was killed ({dead[1].strip()})' if dead[1] else 'ended unexpectedly'
        cause = CAUSES.get((dead[1] or '').strip(), f'it says why above, or it was killed {CAUSES["Killed"]}')
        return f'a worker process of the data loader {how}: {cause}; --resume goes on from the last checkpoint'
    if 'DataLoader timed out' in text:
        return f'no worker of the data loader gave a batch in time ({text}): check the disk, or raise its timeout'
    if LOST_PEER.search(text):
        return 'another process of this job has ended: its message says why; --resume goes on from the last checkpoint'
    if TIMED_OUT.search(text):
        return (
            'another process of this job did not answer within env_cfg.dist_cfg.timeout seconds: see its log; --resume goes'
            ' on from the last checkpoint'
        )
    return None


def _one_line_of_os(error: BaseException, text: str) -> str | None:
    if 'No space left' in text or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return 'no space left on the disk: free some, or write elsewhere (--work-dir, --out)'
    if isinstance(error, FileNotFoundError):
        return f'{error.filename or " ".join(text.split())} does not exist'
    if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
        how = 'is a folder' if isinstance(error, IsADirectoryError) else 'is a file, or lies below one'
        return f'{error.filename or " ".join(text.split())} {how}: name another path'
    if isinstance(error, PermissionError):
        return f'{error.filename or " ".join(text.split())} may not be accessed'
    if 'PytorchStreamReader' in text or 'unexpected EOF' in text:
        return f'the checkpoint is damaged or truncated ({text.splitlines()[0]}): use the one before it'
    return None
