#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Open a page to play with pictures and a model: ``tools/page.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('page'))
