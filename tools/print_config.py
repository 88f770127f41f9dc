#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Print a config with all that it inherits: ``tools/print_config.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('print-config'))
