# SPDX-License-Identifier: Apache-2.0
"""A program that imports ldae once, and starts runs of tools/train.py as forks of itself, which die where they are told to.

It reads a line of JSON for each request: arguments of :func:`start`, which answers with a process id, or ``{"wait": pid}``,
which answers with its exit status, negative if a signal ended it.
"""

import gc
import json
import os
import resource
import signal
import sys
from importlib import import_module
from types import FrameType

from mmengine.runner import Runner

from ldae.cli import run_tool
from ldae.engine import SafeCheckpointHook
from ldae.utils.files import atomic_save

IMPORTED = [
    'ldae.cli.train',
    'ldae.datasets',
    'ldae.evaluation',
    'ldae.launch',
    'ldae.models',
    'ldae.launch.dry_run',
    'matplotlib.backends.backend_agg',
    'mmpretrain.datasets',
    'mmpretrain.models',
]
PLACES = dict(training=Runner.train, save=SafeCheckpointHook._store, file=atomic_save)
SECONDS = 200


class Death:
    """Kills its process, and the workers with it, at a call of a function, or in the middle of a file.

    Args:
        place: One of :data:`PLACES`, which has to be entered first.
        call: How many calls and returns after that; None: not so.
        size: Bytes of a file that are written after that, before the kernel ends the process; None: not so.
    """

    def __init__(self, place: str, call: int | None = None, size: int | None = None) -> None:
        self.code, self.call, self.size = PLACES[place].__code__, call, size
        self.entered = False
        os.register_at_fork(after_in_child=lambda: sys.setprofile(None))  # not the data loader's workers
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if not self.entered:
            self.entered = event == 'call' and frame.f_code is self.code
            if self.entered and self.size is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))
            return
        if self.call is not None:
            self.call -= 1
            if self.call < 0:
                os.killpg(0, signal.SIGKILL)


class Count:
    """Counts what :class:`Death` counts, into a file: of the whole training, and of its last save."""

    def __init__(self, path: str) -> None:
        self.path, self.calls, self.entered_at = path, 0, dict.fromkeys(PLACES)
        self.places = {function.__code__: place for place, function in PLACES.items()}
        self.counts = {}
        os.register_at_fork(after_in_child=lambda: sys.setprofile(None))
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        self.calls += 1
        place = self.places.get(frame.f_code)
        if place is None:
            return
        if event == 'call':
            self.entered_at[place] = self.calls
        elif event == 'return':
            self.counts[place] = self.calls - self.entered_at[place]
            if place == 'training':
                sys.setprofile(None)
                with open(self.path, 'w') as file:
                    json.dump(self.counts, file)


def start(
    argv: list[str], folder: str, log: str, env: dict, death: dict | None = None, count: str | None = None
) -> int:
    """Fork a run of a tool with its arguments, in that folder, that prints into ``log``; only the parent returns."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgrp()
    os.chdir(folder)
    sys.path.insert(0, folder)
    os.environ.update(env)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream, target in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(target, stream)
    if death:
        Death(**death)
    if count:
        Count(count)
    sys.exit(run_tool(argv[0], argv[1:]))


def wait(pid: int) -> int:
    """The exit status of a run; one that doesn't end is killed."""
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(pid, signal.SIGKILL))
    signal.alarm(SECONDS)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.alarm(0)
    return status


def main() -> None:
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # what is imported is garbage in no run
    for line in sys.stdin:
        request = json.loads(line)
        print(wait(request['wait']) if 'wait' in request else start(**request), flush=True)


if __name__ == '__main__':
    main()
