#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run rows of the paper's tables and compare them: ``tools/ablate.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('ablate'))
