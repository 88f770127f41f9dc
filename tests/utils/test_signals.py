# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

RUN = """
import sys
from torch.utils.data import DataLoader
from ldae.utils.error_lines import run_explained
from ldae.datasets import start_worker

def main(argv=None):
    loader = DataLoader(range(8), num_workers=2, persistent_workers=True, worker_init_fn=start_worker)
    loader.itself = loader  # as a Runner and its hooks hold each other
    print(sum(int(batch) for batch in loader))
    {end}

sys.exit(run_explained(main))
"""


@pytest.mark.parametrize(
    ('end', 'status', 'said'),
    [
        ('return 0', 0, ''),
        ('sys.exit(3)', 3, ''),
        ('raise KeyboardInterrupt', 130, 'interrupted\n'),
        ('from ldae.utils import ConfigError; raise ConfigError("no")', 2, 'error: no\n'),
    ],
)
def test_a_tool_leaves_no_worker_that_has_to_be_waited_for(end: str, status: int, said: str):
    code = RUN.format(end=end)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, '28\n', said)
