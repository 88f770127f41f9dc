# SPDX-License-Identifier: Apache-2.0
"""What a run left behind."""

import json
from pathlib import Path

import torch


def scalars(work_dir: Path) -> list[dict]:
    """The log of the last run in a work directory, a dict per line."""
    path = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    return [json.loads(line) for line in path.read_text().splitlines()]


def checkpoint(path: Path) -> dict:
    return torch.load(path, map_location='cpu', weights_only=True)
