# SPDX-License-Identifier: Apache-2.0
"""Pictures of validation images as the model sees them, while it is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldae.engine.hook import NO_DATA, LDAEHook
from ldae.engine.speed.sharding import is_sharded
from ldae.evaluation.probe_data import read_spread
from ldae.generation.denoising import draw_denoising
from ldae.registry import HOOKS
from ldae.utils import NaturalInt, PositiveInt, checked
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
        num_images: Rows of a picture: images of different classes, or of all parts of data without labels.
        timesteps: Noise levels.
        dataloader: Config of the images; the runner's validation data by default. Without any, the hook is left out.
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
        self.batch: dict | None = None

    def before_train(self, runner: Runner) -> None:
        self.left_out = False
        if self.dataloader is None and runner.val_loop is None:
            self.leave_out(runner, 'there is no validation data to show; give it a dataloader')
            return
        try:
            self._build(runner)
        except NO_DATA as error:
            self.leave_out(runner, error)

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
        if self.batch is None:
            self.batch = read_spread(self._build(runner), self.num_images)
        return model.data_preprocessor(self.batch, False)['inputs']

    def _build(self, runner: Runner) -> DataLoader:
        if isinstance(self.dataloader, dict):
            sampler = dict(type='DefaultSampler', shuffle=False)
            self.dataloader = runner.build_dataloader(dict(dict(sampler=sampler), **self.dataloader), seed=0)
        return self.dataloader or runner.val_dataloader


@HOOKS.register_module()
class ReconstructionPicturesHook(DenoisingPicturesHook):
    """Save validation images and their reconstructions after every ``interval`` epochs and after the last.

    The pictures are ``pictures/epoch_N.png`` in the work dir and ``reconstruction`` in the visualizer. Options are as in
    :class:`DenoisingPicturesHook`."""

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
