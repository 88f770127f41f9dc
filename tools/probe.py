#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Score an encoder by k-NN and linear layers: ``tools/probe.py --help``."""

import sys

from ldae.cli import run_tool

if __name__ == '__main__':
    sys.exit(run_tool('probe'))
