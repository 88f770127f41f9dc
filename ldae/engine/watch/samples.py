# SPDX-License-Identifier: Apache-2.0
"""Samples of the model as it is, in validation and in ``tools/test.py``."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from ldae.engine.hook import LDAEHook
from ldae.engine.speed.sharding import is_sharded
from ldae.generation import build_extractor, compare, compute_statistics, open_images
from ldae.generation.folder import grid_of, save_image
from ldae.generation.image_sets import images_of_config
from ldae.generation.sampling import Samples, sample
from ldae.registry import HOOKS
from ldae.utils import ConfigError, PositiveInt, checked
from ldae.utils.collective import from_main_process
from ldae.utils.models import unwrapped


@HOOKS.register_module()
class SamplesHook(LDAEHook):
    """Sample from the model after every ``interval`` validations, and after a test: a picture of the first 64, and how far they
    are from the training images.

    The pictures are ``pictures/samples_N.png`` in the work dir, N the epoch (or step, where these are counted), and ``samples`` in the
    visualizer. Where a network is named, ``samples/distance`` and ``samples/kernel_distance`` (``samples/fid`` and ``samples/kid`` for Inception's true weights,
    and only then) join the metrics. The samples' noise is the same each time.

    Args:
        interval: Validations between samples.
        num: Samples, of which the distance depends.
        features, weights, inception: See :func:`ldae.frechet_distance`; None of them: pictures only.
        **options: Of :func:`ldae.sample`: steps, sampler, guidance, labels, seed, batch_size.

    Raises:
        ConfigError: An option out of range; a network's file or library that is missing.
    """

    priority = 'NORMAL'  # before the logger, which writes the metrics

    @checked
    def __init__(
        self,
        interval: PositiveInt = 1,
        num: PositiveInt = 64,
        features: str | None = None,
        weights: str | None = None,
        inception: str | None = None,
        **options: Any,
    ) -> None:
        self.interval, self.num, self.options = interval, num, options
        named = (features, weights, inception) != (None, None, None)
        self.extractor = build_extractor(features, weights, inception) if named else None
        self._reference = None

    def before_train(self, runner: Runner) -> None:
        """Refuse to choose the best checkpoint by what most validations have not."""
        keys = [key for hook in runner.hooks for key in getattr(hook, 'key_indicators', None) or ()]
        if self.interval > 1 and (of_samples := [key for key in keys if str(key).startswith('samples/')]):
            raise ConfigError(
                f'save_best={of_samples[0]!r} needs samples at each validation: set interval=1 of SamplesHook, or choose by another'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if validations_before(runner) % self.interval == 0:
            self._add(runner, metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._add(runner, metrics)

    def _add(self, runner: Runner, metrics: dict[str, float] | None) -> None:
        model, samples, figures = unwrapped(runner.model), None, {}
        if is_main_process() or is_sharded(runner.model):
            model._config = getattr(model, '_config', None) or runner.cfg
            samples = sample(model, self.num, progress=False, **self.options)
        if is_main_process():
            self._draw(runner, samples)
            figures = self._figures(runner, samples) if self.extractor else {}
        if metrics is not None:
            metrics.update(from_main_process(figures))

    def _draw(self, runner: Runner, samples: Samples) -> None:
        picture = grid_of(samples.images, unwrapped(runner.model).shown_bands)
        folder = Path(runner.work_dir, 'pictures')
        folder.mkdir(parents=True, exist_ok=True)
        place = epochs_or_steps(runner)
        save_image(picture, folder / f'samples_{place}.png')
        runner.visualizer.add_image('samples', picture, step=place)

    def _figures(self, runner: Runner, samples: Samples) -> dict[str, float]:
        if self._reference is None:
            self._reference = compute_statistics(
                images_of_config('training images', runner.cfg, 'train'), self.extractor
            )
        found = compare(compute_statistics(open_images(samples.images), self.extractor), self._reference)
        figures = dict(zip(found.metric_names, (found.frechet, found.kernel), strict=True), images=len(samples.images))
        return {f'samples/{name}': value for name, value in figures.items() if value is not None}


def epochs_or_steps(runner: Runner) -> int:
    """Epochs of the training so far, or its steps where these are counted."""
    return runner.iter if isinstance(runner._train_loop, IterBasedTrainLoop) else runner.epoch


def validations_before(runner: Runner) -> int:
    """Validations of the training so far, the present one among them, of a resumed run too; 0 where nothing is trained."""
    loop = runner._train_loop
    if not isinstance(loop, BaseLoop):
        return 0
    return -(-epochs_or_steps(runner) // loop.val_interval) - (loop.val_begin - 1) // loop.val_interval
