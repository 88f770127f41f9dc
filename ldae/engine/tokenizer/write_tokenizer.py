# SPDX-License-Identifier: Apache-2.0
"""Write the tokenizer at the end of its training into a file that pre-training configs name."""

from pathlib import Path

from mmengine import dist
from mmengine.runner import Runner

from ldae.engine.hook import LDAEHook
from ldae.models.tokenizers.files import save_tokenizer
from ldae.registry import HOOKS
from ldae.utils import ConfigError, NaturalInt, PositiveInt, checked
from ldae.utils.models import unwrapped

from .fit import fit_tokenizer


@HOOKS.register_module()
class WriteTokenizerHook(LDAEHook):
    """Measure what the trained tokenizer's latents are scaled by, and write it to ``<work_dir>/tokenizer.pth``.

    Args:
        num_images: Size of the random sample of training images that latents are measured on; None takes all.
        batch_size: Images per batch while measuring.
        seed: Of the sample.
        filename: In the work directory.
    """

    priority = 'LOW'

    @checked
    def __init__(
        self,
        num_images: PositiveInt | None = 50_000,
        batch_size: PositiveInt = 64,
        seed: NaturalInt = 0,
        filename: str = 'tokenizer.pth',
    ) -> None:
        self.num_images, self.batch_size, self.seed, self.filename = num_images, batch_size, seed, filename

    def before_train(self, runner: Runner) -> None:
        if not hasattr(unwrapped(runner.model), 'export'):
            raise ConfigError(
                f'WriteTokenizerHook: {type(unwrapped(runner.model)).__name__} trains no tokenizer: remove the hook'
            )

    def after_train(self, runner: Runner) -> None:
        model, loader = unwrapped(runner.model), runner.train_dataloader
        tokenizer = model.export()
        options = dict(num_images=self.num_images, batch_size=self.batch_size, seed=self.seed)
        fit_tokenizer(
            tokenizer, loader.dataset, model.data_preprocessor, num_workers=loader.num_workers, **options
        )
        path = Path(runner.work_dir, self.filename)
        if dist.is_main_process():
            save_tokenizer(tokenizer, path)
        scale, name = float(tokenizer.scale.float().mean()), type(tokenizer).__name__
        runner.logger.info(f'{name}, latents scaled by 1 / {scale:.4g}, written to {path}')
