#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An l-DAE's loss beside its bound: ``tools/bound.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('bound'))
