# SPDX-License-Identifier: Apache-2.0
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ldae.utils.signals import hear_interrupts, interrupts_later

# Each end in a process of its own, which is forked when all is imported.
RUN = """
import os, sys
from torch.utils.data import DataLoader
from ldae.utils import ConfigError
from ldae.utils.error_lines import run_explained
from ldae.datasets import start_worker

def main(end):
    loader = DataLoader(range(8), num_workers=2, persistent_workers=True, worker_init_fn=start_worker)
    loader.itself = loader  # as a Runner and its hooks hold each other
    print(sum(int(batch) for batch in loader))
    exec(end)

for number, end in enumerate(sys.argv[1:]):
    if os.fork() == 0:
        for stream, name in ((1, 'out'), (2, 'err')):
            os.dup2(os.open(f'{number}.{name}', os.O_WRONLY | os.O_CREAT), stream)
        sys.exit(run_explained(main, end))
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
ENDS = {
    'pass': (0, ''),
    'sys.exit(3)': (3, ''),
    'raise KeyboardInterrupt': (130, 'interrupted\n'),
    'raise ConfigError("no")': (2, 'error: no\n'),
}


@pytest.fixture(scope='module')
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Exit status and what was printed, by end."""
    folder: Path = tmp_path_factory.mktemp('ended')
    command = [sys.executable, '-W', 'ignore', '-c', RUN, *ENDS]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=True)
    printed = [[(folder / f'{n}.{name}').read_text() for name in ('out', 'err')] for n in range(len(ENDS))]
    return {end: (int(status), *texts) for end, status, texts in zip(ENDS, run.stdout.split(), printed, strict=True)}


@pytest.mark.parametrize('end', ENDS)
def test_a_tool_leaves_no_worker_that_has_to_be_waited_for(end: str, ended: dict):
    status, said = ENDS[end]
    assert ended[end] == (status, '28\n', said)


def test_an_interrupt_is_heard_also_where_a_shell_has_switched_it_off():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hear_interrupts()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('kind', [signal.SIG_DFL, signal.default_int_handler])
def test_what_else_an_interrupt_means_stays(kind):
    before = signal.signal(signal.SIGINT, kind)
    try:
        hear_interrupts()
        assert signal.getsignal(signal.SIGINT) == kind
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_end_of_a_block():
    done, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def block() -> None:
        with interrupts_later():
            signal.raise_signal(signal.SIGINT)
            done.append('the rest of it')

    try:
        with pytest.raises(KeyboardInterrupt):
            block()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ['the rest of it']
