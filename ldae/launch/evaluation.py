# SPDX-License-Identifier: Apache-2.0
"""A checkpoint, evaluated as its config says."""

from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.evaluator import DumpResults
from torch import nn

from ldae.config import load_config
from ldae.utils import ConfigError
from ldae.utils.device import autocast

from .build import build_runner
from .prepare import LaunchOptions, prepare


def evaluate(
    config: str | Path | Config,
    checkpoint: str | Path,
    cfg_options: dict | None = None,
    scale: str | None = None,
    out: str | None = None,
    out_item: str = 'pred',
    tta: bool = False,
    pictures: dict | None = None,
    **options: Any,
) -> dict[str, float]:
    """Metrics of a checkpoint on the test images of a config; of a pre-training config, on its validation images.
    Raises ConfigError for a config without images to test on, or that can't be built.

    Args:
        out: A .pkl, .json or .yml file for the metrics or the predictions.
        out_item: What it holds: ``'metrics'`` or ``'pred'``.
        tta: Average over the image and its mirror image, or over what ``tta_pipeline`` of the config says.
        pictures: Options of mmpretrain's visualization hook, which is switched on.
        options: Of :class:`LaunchOptions`.
    """
    cfg = config if isinstance(config, Config) else load_config(config, cfg_options, scale)
    options = LaunchOptions(**options)
    if cfg.get('test_dataloader') is None:  # pre-training configs name no test set: theirs is the validation set
        if cfg.get('val_dataloader') is None:
            raise ConfigError(f'{cfg.filename} has neither test_dataloader nor val_dataloader: nothing to evaluate on')
        cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
        cfg.test_cfg = {key: value for key, value in (cfg.val_cfg or {}).items() if key == 'fp16'}
    # Nothing of training is built.
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.load_from, cfg.resume = str(checkpoint), False
    if pictures:
        hook = cfg.get('default_hooks', {}).get('visualization')
        if hook is None:
            raise ConfigError('--show needs default_hooks.visualization in the config')
        hook.update(enable=True, **pictures)
    if tta:
        _augment_at_test_time(cfg)
    runner = build_runner(prepare(cfg, options))
    if options.precision is not None:
        _compute_in(runner.model, options.precision)
    if out and out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
    metrics = runner.test()
    if out and out_item == 'metrics':
        mmengine.dump(metrics, out)
    return metrics


def _compute_in(model: nn.Module, precision: str) -> None:
    """Let a model's test steps run under autocast."""
    step = model.test_step

    def test_step(data: Any) -> list:
        with autocast(precision, get_device()):
            return step(data)

    model.test_step = test_step


def _augment_at_test_time(cfg: Config) -> None:
    pipeline = cfg.test_dataloader.dataset.pipeline
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])]
    model = cfg.get('tta_model') or dict(type='mmpretrain.AverageClsScoreTTA')
    cfg.model = ConfigDict(**model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
