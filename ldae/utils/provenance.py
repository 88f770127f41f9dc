# SPDX-License-Identifier: Apache-2.0
"""Commit, versions and device that a result was measured with."""

import platform
import subprocess
from importlib import import_module
from pathlib import Path

from ldae.version import __version__

from .files import PACKAGE


def commit() -> str | None:
    """The clone's commit, with ``-dirty`` if tracked files differ from it; None for an installed package."""
    command = ['git', '-C', str(PACKAGE.parent), 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    is_ours = (PACKAGE.parent / '.git').exists()  # and not a repository that holds a virtual environment
    return result.stdout.strip() if result.returncode == 0 and is_ours else None


def versions() -> dict[str, str]:
    """Of what decides about numbers."""
    libraries = {name: import_module(name).__version__ for name in ('torch', 'mmengine', 'mmpretrain')}
    return dict(ldae=__version__, **libraries, python=platform.python_version())


def device() -> str:
    """'NVIDIA H100' or the CPU's name."""
    import torch
    from mmengine.device import get_device

    return torch.cuda.get_device_name() if get_device() == 'cuda' else cpu_name()


def cpu_name(info: Path = Path('/proc/cpuinfo')) -> str:
    """The processor's model."""
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
