# SPDX-License-Identifier: Apache-2.0
"""Fit the tokenizer when training starts; write one that was trained to a file that pre-training configs name."""

import hashlib
import json
import time
from pathlib import Path

from mmengine import dist
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from ldae.datasets.listing import listing_key
from ldae.engine.hook import LDAEHook
from ldae.models.tokenizers import BaseTokenizer
from ldae.models.tokenizers.base import load_tokenizer, load_tokenizer_state, save_tokenizer
from ldae.models.tokenizers.fit import fit_tokenizer
from ldae.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from ldae.utils import ConfigError, NaturalInt, PositiveInt, checked
from ldae.utils.collective import from_main_process
from ldae.utils.models import unwrapped


class FittingHook(LDAEHook):
    """Fit a tokenizer to a random sample of ``num_images`` training images (None: all), ``batch_size`` at a time;
    ``seed`` is that of the sample."""

    @checked
    def __init__(
        self, num_images: PositiveInt | None = 50_000, batch_size: PositiveInt = 256, seed: NaturalInt = 0
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed

    def fit(self, tokenizer: BaseTokenizer, runner: Runner) -> None:
        """Fit it to images as the model sees them."""
        preprocessor, loader = unwrapped(runner.model).data_preprocessor, runner.train_dataloader
        sample = self.num_images, self.batch_size, loader.num_workers, self.seed
        fit_tokenizer(tokenizer, loader.dataset, preprocessor, *sample)


@HOOKS.register_module()
class FitTokenizerHook(FittingHook):
    """Fit the model's tokenizer on the training set before the first step.

    The result is the same on all ranks, travels in checkpoints (a resumed run doesn't fit again), and is kept in the
    work directory as ``tokenizer_<key>.pth``, the key being made of all that it depends on.

    Args:
        num_images, batch_size, seed: See :class:`FittingHook`.
    """

    # Before hooks that look at the model when training starts.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        tokenizer = getattr(unwrapped(runner.model), 'tokenizer', None)
        if tokenizer is None or not tokenizer.needs_fit or tokenizer.is_fitted:
            return
        # A Runner built from objects instead of a config has nothing to tell two tokenizers apart by: fit anew.
        path = None
        if 'model' in runner.cfg:
            key = self.key(runner.cfg, listing_key(runner.train_dataloader.dataset))
            path = Path(runner.work_dir) / f'tokenizer_{key}.pth'
        if path is None or not self._load(tokenizer, path, runner):
            self._fit(tokenizer, path, runner)

    def key(self, cfg: dict, images: str = '') -> str:
        """Hash of the tokenizer's, data set's and normalisation's configs, of what ``images`` says of the data set's listing, and of
        this hook's options."""
        model, data = cfg['model'], cfg['train_dataloader']['dataset']
        parts = [model['tokenizer'], model.get('data_preprocessor') or cfg.get('data_preprocessor'), data]
        text = json.dumps([*parts, images, self.num_images, self.seed], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _load(self, tokenizer: BaseTokenizer, path: Path, runner: Runner) -> bool:
        """Take the file that rank 0 finds, if there is one."""
        if not from_main_process(path.is_file()):
            return False
        state = load_tokenizer_state(path) if dist.is_main_process() else None
        load_tokenizer(tokenizer, from_main_process(state), path)
        runner.logger.info(f'Tokenizer taken from {path}')
        return True

    def _fit(self, tokenizer: BaseTokenizer, path: Path | None, runner: Runner) -> None:
        total, start = len(runner.train_dataloader.dataset), time.perf_counter()
        count = min(self.num_images or total, total)
        runner.logger.info(f'Fitting {type(tokenizer).__name__} on {count} of {total} training images')
        self.fit(tokenizer, runner)
        if path is not None and dist.is_main_process():
            save_tokenizer(tokenizer, path)
        kept = tokenizer.kept_variance
        share = '' if kept is None else f': {tokenizer.latent_dim} dimensions keep {kept:.1%} of the variance'
        where = '' if path is None else f'; saved to {path}'
        runner.logger.info(f'Fitted in {time.perf_counter() - start:.1f} s{share}{where}')


@HOOKS.register_module()
class WriteTokenizerHook(FittingHook):
    """Measure what the trained tokenizer's latents are scaled by, and write it to ``<work_dir>/tokenizer.pth``.

    Args:
        num_images, batch_size, seed: See :class:`FittingHook`.
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
        super().__init__(num_images, batch_size, seed)
        self.filename = filename

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        if not hasattr(model, 'export'):
            raise ConfigError(f'WriteTokenizerHook: {type(model).__name__} trains no tokenizer: remove the hook')

    def after_train(self, runner: Runner) -> None:
        tokenizer, path = unwrapped(runner.model).export(), Path(runner.work_dir, self.filename)
        self.fit(tokenizer, runner)
        if dist.is_main_process():
            save_tokenizer(tokenizer, path)
        scale, name = float(tokenizer.scale.float().mean()), type(tokenizer).__name__
        runner.logger.info(f'{name}, latents scaled by 1 / {scale:.4g}, written to {path}')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class AdversarialOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """One optimizer for a model's ``net`` and one, with the same options, for its ``adversarial`` loss, as LDM has them."""

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        model = unwrapped(model)
        if getattr(model, 'adversarial', None) is None:
            raise ConfigError(
                f'optim_wrapper: AdversarialOptimWrapperConstructor is for models with an adversarial loss, and this '
                f'{type(model).__name__} has none: set model.adversarial, or remove the constructor'
            )
        return OptimWrapperDict(**{name: self._part(getattr(model, name)) for name in ('net', 'adversarial')})

    def _part(self, module: nn.Module):
        # mmengine's constructor uses up the configs it is given.
        cfg = dict(self.optim_wrapper_cfg, optimizer=self.optimizer_cfg.copy())
        return DefaultOptimWrapperConstructor(cfg, self.paramwise_cfg)(module)
