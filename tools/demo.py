#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pre-train, probe and draw on the data that ships with ldae: ``tools/demo.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('demo'))
