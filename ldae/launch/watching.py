# SPDX-License-Identifier: Apache-2.0
"""Ways to watch a run beside its log: curves in other programs, and pictures."""

import copy
from collections.abc import Sequence
from importlib.util import find_spec

from mmengine.config import Config, ConfigDict

from ldae.utils import ConfigError, check_choice

#: Of mmengine, by the library that each needs.
VIS_BACKENDS = dict(
    tensorboard='TensorboardVisBackend',
    wandb='WandbVisBackend',
    mlflow='MLflowVisBackend',
    clearml='ClearMLVisBackend',
    neptune='NeptuneVisBackend',
    dvclive='DVCLiveVisBackend',
    aim='AimVisBackend',
)
#: How many of a run's epochs are drawn.
PICTURES = 10


def show_curves_in(cfg: Config, names: Sequence[str]) -> None:
    """Give the visualizer a backend by name, beside those that it has. Raises ConfigError for an unknown name, or a
    library that is not installed."""
    for name in names:
        check_choice('--vis', name, VIS_BACKENDS)
        if find_spec(name) is None:
            raise ConfigError(f'--vis {name} needs the library {name}, which is not installed: pip install {name}')
    backends = [
        *(cfg.get('vis_backends') or [dict(type='LocalVisBackend')]),
        *(dict(type=VIS_BACKENDS[name]) for name in names),
    ]
    cfg.visualizer = dict(cfg.get('visualizer') or dict(type='UniversalVisualizer'), vis_backends=backends)
    cfg.vis_backends = backends


def draw_pictures(cfg: Config) -> None:
    """Let a run draw its loss and, where it learns to denoise, images: about ten times, and at the end."""
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    interval = -(-((cfg.get('train_cfg') or {}).get('max_epochs') or 1) // PICTURES)
    hooks.setdefault('loss_curve', ConfigDict(type='ldae.LossCurveHook', interval=interval))
    if cfg.model.type in ('ldae.LDAE', 'LDAE'):
        pictures = hooks.setdefault('pictures', ConfigDict(type='ldae.DenoisingPicturesHook', interval=interval))
        if cfg.get('val_dataloader') is None and 'dataloader' not in pictures:
            kept = ('dataset', 'collate_fn')
            train = {key: copy.deepcopy(value) for key, value in cfg.train_dataloader.items() if key in kept}
            pictures.dataloader = ConfigDict(train, batch_size=8, num_workers=0)
