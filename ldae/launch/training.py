# SPDX-License-Identifier: Apache-2.0
"""A config, trained."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from ldae.config import load_config

from .build import build_runner
from .prepare import LaunchOptions, prepare


def train(
    config: str | Path | Config, cfg_options: dict | None = None, scale: str | None = None, **options: Any
) -> Runner:
    """Pre-train, fine-tune or probe what a config describes; the Runner holds model, metrics and work directory.

    Args:
        config: A file, ``'ldae::PATH'`` for one that ships with ldae, or a config.
        cfg_options: Dotted keys and values merged into a config that is named.
        scale: A scale to bring a config that is named to (:func:`ldae.config.apply_scale`).
        options: Of :class:`LaunchOptions`, such as ``work_dir``, ``data_root``, ``amp``.

    Raises:
        ConfigError: What can't be trained, before any step where it can be known.
    """
    cfg = config if isinstance(config, Config) else load_config(config, cfg_options, scale)
    runner = build_runner(prepare(cfg, LaunchOptions(**options)))
    runner.train()
    return runner
