# SPDX-License-Identifier: Apache-2.0
"""``make install``, with a made-up Python that writes down what it is asked to do."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: As ``python -m venv DIR`` it makes DIR/bin/python and DIR/bin/pip, which are it again.
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
[ "$2" != venv ] || { mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pip"; }
[ "$1" != -c ] || exit "$INDEX_STATUS"
"""
FROM_INDEX = 'pip install -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch torchvision'
THE_REST = 'pip install -c constraints.txt -e .[test]'


@pytest.mark.skipif(Path('/proc/driver/nvidia').exists(), reason='what happens without a GPU')
@pytest.mark.parametrize(
    ('status', 'gpu', 'options', 'installs'),
    [
        (0, False, [], [FROM_INDEX, THE_REST]),
        (1, False, [], [THE_REST]),
        (0, True, [], [THE_REST]),
        (0, False, ['CPU_INDEX='], [THE_REST]),
    ],
    ids=['the index answers', 'it does not', 'a GPU', 'no index'],
)
def test_torch_comes_without_cuda_where_no_gpu_is_seen(
    status: int, gpu: bool, options: list, installs: list, tmp_path: Path
):
    tools = tmp_path / 'tools'
    tools.mkdir()
    for name in ('made-up-python', *(['nvidia-smi'] if gpu else [])):
        (tools / name).write_text(PYTHON)
        (tools / name).chmod(0o755)
    calls = tmp_path / 'calls'
    environment = dict(os.environ, CALLS=str(calls), INDEX_STATUS=str(status), PATH=f'{tools}:{os.environ["PATH"]}')
    command = ['make', 'install', 'PYTHON=made-up-python', f'VENV={tmp_path / "venv"}', *options]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert [line for line in calls.read_text().splitlines() if line.startswith('pip')] == installs
