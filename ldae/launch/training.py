# SPDX-License-Identifier: Apache-2.0
"""A config, trained, and what came of it."""

import copy
import inspect
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ldae.apis import FeatureExtractor
from ldae.config import load_config, set_data_root
from ldae.config.images import fit_images
from ldae.config.recipe import fit_recipe
from ldae.datasets.roots import name_of_root
from ldae.engine.resume.safe_checkpoint import latest_checkpoint
from ldae.export.plain_vit import plain_vit
from ldae.export.timm_format import build
from ldae.utils import ConfigError
from ldae.utils.locks import claimed
from ldae.utils.models import unwrapped

from .auto import auto_scale, parse_duration
from .batch import rank, world_size
from .build import build_runner
from .prepare import LaunchOptions, prepare

IMAGES = tuple(inspect.signature(fit_images).parameters)[1:]
RECIPE = tuple(name for name in inspect.signature(fit_recipe).parameters if name not in ('cfg', 'processes', *IMAGES))


class Curve(NamedTuple):
    """Values by step: numbers of steps taken when they were measured, and the values."""

    steps: list[int]
    values: list[float]


class Metrics(Hook):
    """Keep what each validation has measured, and after how many steps."""

    def __init__(self) -> None:
        self.curves: dict[str, Curve] = {}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        for name, value in (metrics or {}).items():
            curve = self.curves.setdefault(name, Curve([], []))
            curve.steps.append(runner.iter)
            curve.values.append(float(value))


class Run:
    """A training that has ended. What isn't here is looked for in mmengine's Runner, ``run.runner``."""

    def __init__(self, runner: Runner, metrics: dict[str, Curve]) -> None:
        self.runner, self._metrics = runner, metrics

    @property
    def work_dir(self) -> Path:
        """The folder with checkpoints, logs and the config."""
        return Path(self.runner.work_dir)

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint in it, if there is one."""
        return latest_checkpoint(self.work_dir)

    @property
    def model(self) -> nn.Module:
        """The trained l-DAE, MAE, classifier or trainer of a tokenizer."""
        model = unwrapped(self.runner.model)
        model._config = self.runner.cfg  # as of ldae.get_model: for FeatureExtractor, denoise, ...
        return model

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder as timm's plain ViT on the CPU, with the time step merged in: normalised images (B, C, H, W) ->
        features (B, embed_dims). Raises ConfigError if it can't be a plain ViT, with the reason: take :meth:`features`.
        """
        return build(plain_vit(copy.deepcopy(self.model).cpu().eval(), where='the run'))

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """``'loss'``, ``'lr'`` and whatever else each step logs, and the metrics of validations, by step."""
        logged = {name.removeprefix('train/'): buffer for name, buffer in self.runner.message_hub.log_scalars.items()}
        values = {
            name: buffer.data[0].tolist() for name, buffer in logged.items() if not name.startswith(('val/', 'test/'))
        }
        last, count = self.runner.iter, len(values.get('lr', ()))
        of_steps = {name: each for name, each in values.items() if len(each) == count}
        return {
            name: Curve(list(range(last - count + 1, last + 1)), each) for name, each in of_steps.items()
        } | self._metrics

    def features(self, images: Any, **options: Any) -> Tensor:
        """Features of any pictures: :class:`ldae.FeatureExtractor` of the model, with its options."""
        return FeatureExtractor(self.model, **options)(images)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.__dict__['runner'], name)

    def __repr__(self) -> str:
        loss = self.curves.get('loss')
        last = f', loss {loss.values[-1]:.4g}' if loss else ''
        first = next((f', {name} {curve.values[-1]:.4g}' for name, curve in self._metrics.items()), '')
        return f'Run({self.runner.iter} steps{last}{first}; {self.checkpoint or self.work_dir})'


def train(
    config: str | Path | Config,
    cfg_options: dict | None = None,
    scale: str | None = None,
    budget: float | str | None = None,
    **options: Any,
) -> Run:
    """Pre-train, fine-tune or probe what a config describes; the run holds encoder, curves, work directory and Runner.
    Raises ConfigError for what can't be trained, before any step where it can be known.

    Args:
        config: A file, ``'ldae::PATH'`` for one that ships with ldae, or a config.
        cfg_options: Dotted keys and values merged into a config that is named.
        scale: A scale to bring a config that is named to (:func:`ldae.config.apply_scale`); ``'auto'`` chooses one for
            ``data_root`` and this machine (:func:`ldae.launch.auto.auto_scale`).
        budget: Of time, for ``'auto'``: seconds, or a text such as ``'30m'`` (the default).
        options: Of :class:`LaunchOptions`, such as ``work_dir``, ``data_root``, ``precision``; and of
            :func:`ldae.config.recipe.fit_recipe`: ``epochs``, ``batch_size``, ``lr``, ``model``; and of
            :func:`ldae.config.images.fit_images`: ``img_size``, ``patch_size``, ``channels``, ``value_range``, ...
    """
    recipe, images = ({name: options.pop(name, None) for name in names} for names in (RECIPE, IMAGES))
    if budget is not None and scale != 'auto':
        raise ConfigError('--budget belongs to --scale auto')
    if scale == 'auto':
        options['work_dir'] = (
            options.get('work_dir') or f'work_dirs/{name_of_root(str(options.get("data_root") or ""))}'
        )
        seconds = budget if isinstance(budget, int | float) else parse_duration(budget or '30m')
        scale = auto_scale(config, seconds, **options)
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config, cfg_options, scale)
    launch = LaunchOptions(**options)
    fit_recipe(cfg, **recipe, processes=world_size(launch.launcher))
    if images['channels'] and launch.data_root is not None:  # of which something is measured
        set_data_root(cfg, launch.data_root)
    fit_images(cfg, **images)
    return run_training(prepare(cfg, launch))


def run_training(cfg: Config) -> Run:
    """Train what a prepared config describes, in a work directory that no other run is using."""
    with claimed(cfg.work_dir) if rank(cfg.launcher) == 0 else nullcontext():
        runner, metrics = build_runner(cfg), Metrics()
        runner.register_hook(metrics, priority='LOWEST')
        runner.train()
    for loader in (runner.train_dataloader, runner.val_loop and runner.val_dataloader):
        if getattr(loader, '_iterator', None) is not None:
            loader._iterator = None  # or its workers would live as long as the run
    return Run(runner, metrics.curves)
