# SPDX-License-Identifier: Apache-2.0
"""Stop a run whose checkpoint doesn't fit its model; mmengine only warns, and trains from random weights."""

from pathlib import Path

import torch
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint, _load_checkpoint_with_prefix
from torch import nn

from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS
from ldae.utils import ConfigError
from ldae.utils.checkpoints import check_archive, compare_keys, hint_of_names, read_checkpoint, report_keys
from ldae.utils.models import unwrapped

#: Norms that transfer adds after pooling; no pre-training checkpoint has them.
NEW_IN_TRANSFER = ('ln1.', 'ln2.')


@HOOKS.register_module()
class CheckLoadedHook(LDAEHook):
    """Check every checkpoint before training: those that ``init_cfg=dict(type='Pretrained')`` names, and the one that
    the run resumes from or loads."""

    def before_run(self, runner: Runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            return  # testing: the tested checkpoint brings all weights
        for name, module in runner.model.named_modules():
            for cfg in _pretrained(module):
                check_pretrained(name.removeprefix('module.'), module, cfg)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = unwrapped(runner.model)
        state, own = checkpoint.get('state_dict', checkpoint), model.state_dict()
        loaded = {key.removeprefix('module.'): value for key, value in state.items()}
        compare_keys('the checkpoint', own, loaded, optional=('num_batches_tracked',))


def _pretrained(module: nn.Module) -> list[dict]:
    cfgs = getattr(module, 'init_cfg', None) or []
    cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
    return [cfg for cfg in cfgs if cfg.get('type') == 'Pretrained']


def check_pretrained(name: str, module: nn.Module, init_cfg: dict) -> None:
    """Load the checkpoint that ``init_cfg`` names into ``module``. Raises ConfigError if it is missing, or lacks
    parameters of the module, or holds them in another shape."""
    path, where = init_cfg.get('checkpoint'), f'model.{name}.init_cfg.checkpoint'
    if not path:
        raise ConfigError(f'{where} is not set: name the pre-trained checkpoint, --cfg-options {where}=FILE')
    if '://' not in path and not Path(path).expanduser().is_file():
        raise ConfigError(f'{where}: file {path} does not exist')
    state = load_state(path, init_cfg.get('prefix'), where)
    try:
        missing = module.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        message = f'{path} does not fit {where}: {reason} Use the config that it was made with'
        raise ConfigError(message) from error
    # A tokenizer of the encoder's own has come from its own file.
    known = (*NEW_IN_TRANSFER, 'tokenizer.', 'patch_embed.patch_map.')
    missing = [key for key in missing if not key.startswith(known)]
    report_keys(f'{path} (prefix {init_cfg.get("prefix")!r})', missing, [], len(module.state_dict()), state)


def load_state(path: str, prefix: str | None, where: str) -> dict[str, torch.Tensor]:
    """State dict under ``prefix`` of the checkpoint at ``path``."""
    if '://' not in path and prefix is None:
        return read_checkpoint(path)['state_dict']
    check_archive(path)
    if prefix is None:
        checkpoint = _load_checkpoint(path, map_location='cpu')
        return checkpoint.get('state_dict', checkpoint)
    try:
        return _load_checkpoint_with_prefix(prefix, path, map_location='cpu')
    except AssertionError as error:
        hint = '' if '://' in path else hint_of_names(read_checkpoint(path)['state_dict'])
        message = f'{where}: {path} has no parameter under {prefix!r}{hint or ": is it a pre-training checkpoint?"}'
        raise ConfigError(message) from error
