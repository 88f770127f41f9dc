# SPDX-License-Identifier: Apache-2.0
"""Encode the images when training from latents starts, so that nothing has to be run before it."""

import time
from pathlib import Path
from typing import Annotated

from mmengine.runner import BaseLoop, Runner
from torch import nn

from ldae.datasets.latents import DTYPES, LatentDataset
from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS
from ldae.utils import Choice, ConfigError, PositiveInt, checked
from ldae.utils.collective import from_main_process
from ldae.utils.models import unwrapped

from .latent_cache import (
    check_content,
    check_latents,
    data_key,
    put_into,
    read_samples,
    tokenizer_key,
    write_latents,
)

FOLDER_NAME = 'latents'
#: Earlier versions of ldae wrote one file, which isn't read.
EARLIER_NAME = 'latents.safetensors'


@HOOKS.register_module()
class LatentCacheHook(LDAEHook):
    """Encode the training images once, before the first step, and train from their latents, which lie in memory.

    For heads that need no images, and data without augmentation. The latents are used again by later runs whose tokenizer
    and data are the same, refused by others.

    Args:
        file: The folder that is written, or used if it is there; None: ``latents`` in the work directory.
        dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``, of what is written.
        batch_size: Images encoded at a time.

    Raises:
        ConfigError: The head needs images; images are augmented; the latents are damaged, or of another tokenizer, other data
            or another dtype; there is no room for it.
    """

    # After the tokenizer is fitted, before hooks that look at the data.
    priority = 'HIGH'

    @checked
    def __init__(
        self,
        file: str | None = None,
        dtype: Annotated[str, Choice(DTYPES)] = 'float16',
        batch_size: PositiveInt = 256,
    ) -> None:
        self.file, self.dtype, self.batch_size = file, dtype, batch_size

    def before_run(self, runner: Runner) -> None:
        """Refuse what can't work before a tokenizer is fitted to it."""
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a test
        check_model(unwrapped(runner.model))
        if not isinstance(runner.train_dataloader.dataset, LatentDataset):
            read_samples(runner.train_dataloader.dataset)

    def before_train(self, runner: Runner) -> None:
        """Write the latents, or look whether they are the right ones, and train from them."""
        model, loader = unwrapped(runner.model), runner.train_dataloader
        check_model(model)
        made_of = dict(tokenizer=tokenizer_key(model.tokenizer, model.data_preprocessor))
        if isinstance(loader.dataset, LatentDataset):  # the config names the folder itself
            check_latents(loader.dataset, made_of, loader.dataset.dtype)
            return
        cfg = runner.cfg.get('train_dataloader') or {}
        made_of['data'] = data_key(loader.dataset, cfg.get('dataset'))
        path = Path(self.file or Path(runner.work_dir) / FOLDER_NAME).expanduser()
        put_into(loader, self._latents(path, model, made_of, runner))

    def _latents(
        self, path: Path, model: nn.Module, made_of: dict[str, str], runner: Runner
    ) -> LatentDataset:
        loader, start = runner.train_dataloader, time.perf_counter()
        is_there = from_main_process(path.exists())
        numbers, batch = read_samples(loader.dataset)
        if not is_there:
            if not self.file and (earlier := path.with_name(EARLIER_NAME)).exists():
                runner.logger.info(
                    f'{earlier} is of an earlier version of ldae and not read: it may be deleted'
                )
            runner.logger.info(f'Encoding {len(loader.dataset)} training images into {path}')
            reading = dict(num_workers=loader.num_workers, worker_init_fn=loader.worker_init_fn)
            write_latents(path, model, loader.dataset, made_of, self.dtype, self.batch_size, **reading)
        latents = LatentDataset(path, bool(model.num_classes))
        if is_there:
            check_latents(latents, made_of, self.dtype)
            check_content(latents, model, numbers, batch)
        runner.logger.info(
            f'Training from latents: {latents.nbytes / 1e6:,.1f} MB of {latents.dtype} in {path}, '
            f'{"verified" if is_there else "encoded"} in {time.perf_counter() - start:.1f} s'
        )
        return latents


def check_model(model: nn.Module) -> None:
    """Raise ConfigError unless a model can be trained from latents alone."""
    if not hasattr(model, 'tokenizer') or not hasattr(getattr(model, 'head', None), 'needs_images'):
        raise ConfigError(f'LatentCacheHook: {type(model).__name__} is not an l-DAE: remove the hook')
    if model.head.needs_images:
        raise ConfigError(f'LatentCacheHook: {model.head.why_images}')
