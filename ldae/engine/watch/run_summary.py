# SPDX-License-Identifier: Apache-2.0
"""Log what will run before it runs."""

import torch
from mmengine.device import get_device
from mmengine.runner import Runner
from torch import nn

from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS
from ldae.utils.models import unwrapped


@HOOKS.register_module()
class RunSummaryHook(LDAEHook):
    """Before training, log the model, its parameters, the data, the steps and the device in one line."""

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Called before tests too, which say themselves what they do."""
        if runner._train_loop is not None and not isinstance(runner._train_loop, dict):
            runner.logger.info(describe_training(runner))


def describe_training(runner: Runner) -> str:
    """One line: what will be trained on what, for how long, where."""
    model = unwrapped(runner.model)
    loop, loader = runner.train_loop, runner.train_dataloader
    epochs = f'{loop.max_epochs} epochs x ' if loop.max_epochs and loop.max_epochs > 1 else ''
    steps = len(loader) if epochs else loop.max_iters
    return (
        f'{type(model).__name__}: {describe_parameters(model)}; {len(loader.dataset):,} images; '
        f'{epochs}{steps:,} steps; {runner.world_size} x {describe_device()}; {runner.work_dir}'
    )


def describe_parameters(model: nn.Module) -> str:
    """'85.80 M parameters and 0.10 M frozen'."""
    sizes = [(p.numel() / 1e6, p.requires_grad) for p in model.parameters()]
    trained, frozen = (sum(size for size, learns in sizes if learns is flag) for flag in (True, False))
    return f'{trained:.2f} M parameters' + (f' and {frozen:.2f} M frozen' if frozen >= 0.005 else '')


def describe_device() -> str:
    """'NVIDIA H100' or 'cpu (2 threads)'."""
    if (device := get_device()) == 'cuda':
        return torch.cuda.get_device_name()
    return f'{device} ({torch.get_num_threads()} threads)'
