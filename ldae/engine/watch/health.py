# SPDX-License-Identifier: Apache-2.0
"""Log signs of trouble while pre-training that need no labels and next to no time."""

import math
from collections import deque

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from ldae.compat import as_list
from ldae.engine.hook import Batch, LDAEHook, parts_of
from ldae.engine.non_finite.skip_non_finite import gradient_norm
from ldae.engine.non_finite.step_snapshots import recent_losses
from ldae.evaluation.features import pooled_features
from ldae.evaluation.metrics import FeatureStatistics
from ldae.registry import HOOKS
from ldae.utils import ConfigError, PositiveInt, checked
from ldae.utils.models import evaluating, unwrapped
from ldae.utils.rng import preserved_rng


@HOOKS.register_module()
class HealthHook(LDAEHook):
    """Every ``interval`` steps: effective rank and norm of the features, the norm of the gradient, the loss by noise level.

    Features are those of transfer (average-pooled, clean input), of the last training images of all ranks. Losses are
    those that training computed anyway, kept on the device; nothing is read back between two intervals, and training
    goes the same way with and without the hook. Logged are ``health/effective_rank`` (RankMe), ``health/feature_norm``
    and ``health/feature_norm_std`` over images, ``health/grad_norm`` (before clipping), and ``health/loss_t<t>``, t being
    the first time step of a range.

    Args:
        interval: Steps.
        num_images: Whose features are taken, at least; the batches of at most ``interval`` steps.
        num_levels: Ranges of time steps of equal width.
    """

    priority = 'LOW'

    @checked
    def __init__(
        self, interval: PositiveInt = 500, num_images: PositiveInt = 2048, num_levels: PositiveInt = 10
    ) -> None:
        self.interval, self.num_images, self.num_levels = interval, num_images, num_levels
        self._losses: list[tuple[Tensor, Tensor]] = []
        self._batches: deque[dict] = deque()
        self._norms: dict[int, Tensor] = {}
        self._handles: list = []
        self._wants_norm = False

    def before_train(self, runner: Runner) -> None:
        self.after_train(runner)
        model = unwrapped(runner.model)
        if not hasattr(model, 'backbone'):
            raise ConfigError(f'HealthHook: {type(model).__name__} has no encoder to take features of: remove the hook')
        optimizers = [part.optimizer for part in parts_of(runner.optim_wrapper)]
        self._handles = [optimizer.register_step_pre_hook(self._take_norm) for optimizer in optimizers]

    def _take_norm(self, optimizer: Optimizer, *_) -> None:
        if self._wants_norm:
            # Of fused optimizers torch's GradScaler leaves it to them to divide by its scale.
            scale = getattr(optimizer, 'grad_scale', None)
            norm = gradient_norm(optimizer)
            self._norms[id(optimizer)] = norm if scale is None else norm / scale

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Batch = None) -> None:
        # The last update before the interval is full, which may be some accumulated batches earlier.
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        self._wants_norm = self._steps_left(runner) < accumulated

    def _steps_left(self, runner: Runner) -> int:
        return -(runner.iter + 1) % self.interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Batch = None, **_: Batch) -> None:
        if (recent := recent_losses(unwrapped(runner.model))) is not None:
            self._losses.append(recent)
        batch_size = len(as_list(data_batch['inputs'])[0]) * get_world_size()
        if self._steps_left(runner) < math.ceil(self.num_images / batch_size):
            self._batches.append(data_batch)
        if self._steps_left(runner) == 0:
            self._report(runner)

    def _report(self, runner: Runner) -> None:
        figures = self._features(runner) | self._gradient(runner)
        images, levels = figures.pop('images'), self._levels(runner)
        scalars = {f'health/{key}': value for key, value in (figures | levels).items()}
        runner.message_hub.update_scalars(scalars)
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        text = ', '.join(f'{key.replace("_", " ")} {value:.4g}' for key, value in figures.items())
        losses = ' '.join(f'{key[6:]}: {value:.4g}' for key, value in levels.items())
        runner.logger.info(
            f'Iter [{runner.iter + 1}/{runner.max_iters}]  {text} ({images:.0f} images)'
            + (f'; loss from t = {losses}' if losses else '')
        )

    @torch.no_grad()
    def _features(self, runner: Runner) -> dict[str, float]:
        model, statistics = unwrapped(runner.model), FeatureStatistics()
        with evaluating(model), preserved_rng(), runner.optim_wrapper.optim_context(model):
            while self._batches:
                batch = model.data_preprocessor(self._batches.popleft(), training=False)
                statistics.add(pooled_features(model, as_list(batch['inputs'])[0]))  # of several views, the first
        return statistics.summary()

    def _gradient(self, runner: Runner) -> dict[str, float]:
        clipped = runner.message_hub.log_scalars.get('train/grad_norm')
        if getattr(runner.optim_wrapper, 'clip_grad_kwargs', None) and clipped is not None:
            return dict(grad_norm=clipped.current())
        norms = [norm.item() for norm in self._norms.values()]
        self._norms.clear()
        return dict(grad_norm=math.hypot(*norms)) if norms else {}

    def _levels(self, runner: Runner) -> dict[str, float]:
        """Mean loss of each range of time steps that was drawn."""
        if not self._losses:
            return {}
        t, loss = (torch.cat(parts).flatten() for parts in zip(*self._losses, strict=True))
        self._losses.clear()
        num_timesteps = unwrapped(runner.model).noiser.num_timesteps
        sums = loss_by_level(t, loss, num_timesteps, self.num_levels)
        all_reduce(sums)
        firsts = [-(-i * num_timesteps // self.num_levels) for i in range(self.num_levels)]
        return {f'loss_t{first}': s / n for first, (s, n) in zip(firsts, sums.tolist(), strict=True) if n}

    def after_train(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()
        for kept in (self._handles, self._batches, self._losses, self._norms):
            kept.clear()


def loss_by_level(t: Tensor, loss: Tensor, num_timesteps: int, num_levels: int) -> Tensor:
    """Sum of losses and number of samples (num_levels, 2) in ranges of t of equal width; t and loss are (n,)."""
    # Not as a product with indicators: one loss that isn't a number shall not spread to the other levels.
    parts = torch.stack([loss.double(), torch.ones_like(loss, dtype=torch.float64)], dim=1)
    return parts.new_zeros(num_levels, 2).index_add_(0, t * num_levels // num_timesteps, parts)
