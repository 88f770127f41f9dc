#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Repeat a training step that was skipped: ``tools/reproduce.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('reproduce'))
