# SPDX-License-Identifier: Apache-2.0
"""Fit the tokenizer when training starts, so that nothing has to be run before it."""

import hashlib
import json
import time
from pathlib import Path

from mmengine import dist
from mmengine.runner import Runner

from ldae.engine.hook import LDAEHook
from ldae.models.tokenizers.files import load_tokenizer_state, save_tokenizer
from ldae.registry import HOOKS
from ldae.utils import NaturalInt, PositiveInt, checked
from ldae.utils.collective import from_main_process
from ldae.utils.models import unwrapped

from .fit import fit_tokenizer


@HOOKS.register_module()
class FitTokenizerHook(LDAEHook):
    """Fit the model's tokenizer on the training set before the first step.

    The result is the same on all ranks, travels in checkpoints (a resumed run doesn't fit again), and is kept in the
    work directory as ``tokenizer_<key>.pth``, the key being made of all that it depends on.

    Args:
        num_images: Size of the random sample; None takes all images.
        batch_size: Images per batch while fitting.
        seed: Of the sample.
    """

    # Before hooks that look at the model when training starts.
    priority = 'VERY_HIGH'

    @checked
    def __init__(
        self, num_images: PositiveInt | None = 50_000, batch_size: PositiveInt = 256, seed: NaturalInt = 0
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        tokenizer = getattr(model, 'tokenizer', None)
        if tokenizer is None or not tokenizer.needs_fit or tokenizer.is_fitted:
            return
        # A Runner built from objects instead of a config has nothing to tell two tokenizers apart by: fit anew.
        path = None
        if 'model' in runner.cfg:
            path = Path(runner.work_dir) / f'tokenizer_{self.key(runner.cfg)}.pth'
        if path is None or not self._load(tokenizer, path, runner):
            self._fit(tokenizer, model.data_preprocessor, path, runner)

    def key(self, cfg: dict) -> str:
        """Hash of the tokenizer's, data set's and normalisation's configs and of this hook's options."""
        model, data = cfg['model'], cfg['train_dataloader']['dataset']
        parts = [model['tokenizer'], model.get('data_preprocessor') or cfg.get('data_preprocessor'), data]
        text = json.dumps([*parts, self.num_images, self.seed], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _load(self, tokenizer, path: Path, runner: Runner) -> bool:
        """Take the file that rank 0 finds, if there is one."""
        if not from_main_process(path.is_file()):
            return False
        state = load_tokenizer_state(path) if dist.is_main_process() else None
        tokenizer.load_state_dict(from_main_process(state))
        runner.logger.info(f'Tokenizer taken from {path}')
        return True

    def _fit(self, tokenizer, data_preprocessor, path: Path | None, runner: Runner) -> None:
        dataset, start = runner.train_dataloader.dataset, time.perf_counter()
        count = min(self.num_images or len(dataset), len(dataset))
        runner.logger.info(f'Fitting {type(tokenizer).__name__} on {count} of {len(dataset)} training images')
        workers = runner.train_dataloader.num_workers
        fit_tokenizer(
            tokenizer, dataset, data_preprocessor, self.num_images, self.batch_size, workers, self.seed
        )
        if path is not None and dist.is_main_process():
            save_tokenizer(tokenizer, path)
        kept = tokenizer.kept_variance
        share = '' if kept is None else f': {tokenizer.latent_dim} dimensions keep {kept:.1%} of the variance'
        where = '' if path is None else f'; saved to {path}'
        runner.logger.info(f'Fitted in {time.perf_counter() - start:.1f} s{share}{where}')
