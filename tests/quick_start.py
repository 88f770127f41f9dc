# SPDX-License-Identifier: Apache-2.0
"""Runs of the tests start without what takes a second, says nothing about them and isn't ours."""

from types import SimpleNamespace

import pytest
from mmengine.config import config as config_module

import ldae  # noqa: F401  (its work-around of the formatter comes first)

FORMAT_CODE = config_module.FormatCode


def start_without_delay(patch: pytest.MonkeyPatch) -> None:
    """Find out nothing about compilers and drivers, lay no config out, collect no garbage for each data set."""
    patch.setattr('mmengine.runner.runner.collect_env', dict)
    patch.setattr(config_module, 'FormatCode', lambda text, **_: (f'{text}\n', True))
    patch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=lambda: 0))
