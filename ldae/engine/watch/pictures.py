# SPDX-License-Identifier: Apache-2.0
"""Pictures of validation images as the model sees them, while it is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import Tensor, nn

from ldae.apis.denoising import draw_denoising
from ldae.engine.hook import LDAEHook
from ldae.engine.speed.sharding import is_sharded
from ldae.registry import HOOKS
from ldae.utils import ConfigError, NaturalInt, PositiveInt, checked
from ldae.utils.models import evaluating, unwrapped
from ldae.utils.rng import preserved_rng
from ldae.visualization import figure_to_array, loss_curve, reconstruction_grid, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@HOOKS.register_module()
class DenoisingPicturesHook(LDAEHook):
    """Save clean, noisy and denoised validation images after every ``interval`` epochs and after the last.

    The pictures are ``pictures/epoch_N.png`` in the work dir and ``denoising`` in the visualizer. Images and noise are
    the same each time.

    Args:
        interval: Epochs between pictures.
        num_images: Rows of a picture, the first images of the data.
        timesteps: Noise levels.
        dataloader: Config of the images; the runner's validation data by default.

    Raises:
        ConfigError: If there is no data.
    """

    priority = 'LOWEST'
    after_checkpoint = True
    name = 'denoising'

    @checked
    def __init__(
        self,
        interval: PositiveInt = 10,
        num_images: PositiveInt = 8,
        timesteps: Sequence[NaturalInt] = (100, 300, 500, 700, 900),
        dataloader: dict | None = None,
    ) -> None:
        self.interval, self.num_images, self.timesteps = interval, num_images, tuple(timesteps)
        self.dataloader = dataloader
        self.batches: list[dict] | None = None

    def before_train(self, runner: Runner) -> None:
        if self.dataloader is None and runner.val_loop is None:
            name = type(self).__name__
            raise ConfigError(f'{name}: there is no validation data to show: give it a dataloader')

    def after_train_epoch(self, runner: Runner) -> None:
        if not self.is_due(runner, self.interval) or not (is_main_process() or is_sharded(runner.model)):
            return
        figure = self.picture(runner)
        if is_main_process():
            save_figure(figure, Path(runner.work_dir, 'pictures', f'epoch_{runner.epoch + 1}.png'))
            runner.visualizer.add_image(self.name, figure_to_array(figure), step=runner.epoch + 1)

    def picture(self, runner: Runner) -> 'Figure':
        """The matplotlib figure of the model as it is."""
        model = unwrapped(runner.model)
        with evaluating(model), preserved_rng():
            return self.draw(model, self._images(runner, model))

    def draw(self, model: nn.Module, images: Tensor) -> 'Figure':
        """The figure of normalised images (B, C, H, W)."""
        return draw_denoising(model, images, self.timesteps)

    def _images(self, runner: Runner, model: nn.Module) -> Tensor:
        if self.batches is None:
            self.batches = list(self._first_batches(runner))
        inputs = [model.data_preprocessor(batch, False)['inputs'] for batch in self.batches]
        return torch.cat(inputs)[: self.num_images]

    def _first_batches(self, runner: Runner) -> Iterator[dict]:
        loader, seen = runner.val_dataloader if self.dataloader is None else self.dataloader, 0
        if isinstance(loader, dict):
            sampler = dict(type='DefaultSampler', shuffle=False)
            loader = runner.build_dataloader(dict(dict(sampler=sampler), **loader), seed=0)
        for batch in loader:
            yield batch
            seen += len(batch['inputs'])
            if seen >= self.num_images:
                return


@HOOKS.register_module()
class ReconstructionPicturesHook(DenoisingPicturesHook):
    """Save validation images and their reconstructions after every ``interval`` epochs and after the last.

    The pictures are ``pictures/epoch_N.png`` in the work dir and ``reconstruction`` in the visualizer.

    Args:
        interval, num_images, dataloader: See :class:`DenoisingPicturesHook`.
    """

    name = 'reconstruction'

    def __init__(self, interval: PositiveInt = 1, num_images: PositiveInt = 8, dataloader: dict | None = None) -> None:
        super().__init__(interval, num_images, dataloader=dataloader)

    def draw(self, model: nn.Module, images: Tensor) -> 'Figure':
        samples = model.predict(images)
        columns = ([sample.get(key) for sample in samples] for key in ('clean', 'reconstructed'))
        return reconstruction_grid(*columns)


@HOOKS.register_module()
class LossCurveHook(LDAEHook):
    """Draw the loss of the steps so far, after every ``interval`` epochs and after the last: ``pictures/loss.png`` in the work dir.

    Args:
        interval: Epochs between pictures.
    """

    priority = 'LOWEST'
    after_checkpoint = True

    @checked
    def __init__(self, interval: PositiveInt = 1) -> None:
        self.interval = interval

    def after_train_epoch(self, runner: Runner) -> None:
        losses = runner.message_hub.log_scalars.get('train/loss')
        if losses is not None and is_main_process() and self.is_due(runner, self.interval):
            save_figure(loss_curve(losses.data[0], runner.iter), Path(runner.work_dir, 'pictures', 'loss.png'))
