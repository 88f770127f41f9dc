#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the images of a folder into shards: ``tools/pack_dataset.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('pack-dataset'))
