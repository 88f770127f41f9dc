#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""List the images of a folder that can't be read: ``tools/verify_dataset.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('verify-dataset'))
