# SPDX-License-Identifier: Apache-2.0
"""Models that don't fit into memory: each process holds its share of weights, gradients and optimizer state (FSDP2)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch.distributed as dist
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.utils import apply_to
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from ldae.registry import MODEL_WRAPPERS
from ldae.utils import ConfigError
from ldae.utils.models import transformer_blocks

WHERE = 'model_wrapper_cfg: FullyShardedModel'
#: Those that treat each number of a weight by itself, as LARS, for one, doesn't.
OPTIMIZERS = (SGD, Adam, AdamW)
#: What hooks call of a pre-training model beside ``forward``. A classifier's ``loss`` needs more weights after it has called
#: ``extract_feat``, at whose end they would be gone.
FORWARDS = ('extract_feat', 'denoise')


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """Share weights, gradients and the optimizer's state among the processes, which gather each Transformer block's weights
    while they compute it.

    The model is whole until the first training step: checkpoints are loaded, checked and resumed from, and tokenizers
    fitted, as in any other run. Names in checkpoints don't change, and a checkpoint is the same file as without
    sharding (:func:`full_state_dicts`). Results are those of distributed data-parallel training to rounding. Raises
    ConfigError for a model without Transformer blocks; an optimizer that can't be sharded.

    Args:
        module: The model, which the Runner gives.
    """

    def __init__(self, module: BaseModel) -> None:
        super().__init__()
        self.module = module
        self.blocks()
        self.is_sharded = False

    def blocks(self) -> list[nn.Module]:
        """The parts that are gathered one at a time."""
        return transformer_blocks(self.module, WHERE, 'remove the wrapper')

    def forward(self, *args, **kwargs) -> Any:
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """The model's own step, of shards from the first one on."""
        if not self.is_sharded:
            self.shard(optim_wrapper)
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> list:
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list:
        return self.module.test_step(data)

    def shard(self, optim_wrapper: OptimWrapper) -> None:
        """Keep this process's share of the weights and of the optimizer's state; all processes must call this."""
        check_optimizer(optim_wrapper)
        names = {param: name for name, param in self.module.named_parameters()}
        mesh = init_device_mesh(next(iter(names)).device.type, (dist.get_world_size(),))
        # The root as well gives its weights back after each forward pass, also one without a backward pass.
        for part in [*self.blocks(), self.module]:
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
        for name in FORWARDS if isinstance(self.module, BaseSelfSupervisor) else ():
            if hasattr(self.module, name):
                register_fsdp_forward_method(self.module, name)
        shards = dict(self.module.named_parameters())
        shard_optimizer(optim_wrapper.optimizer, {param: shards[name] for param, name in names.items()})
        self.is_sharded = True


def shard_optimizer(optimizer: Optimizer, shards: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Let an optimizer go on, with the state that it has, with the shards of its parameters."""
    for group in optimizer.param_groups:
        group['params'][:] = [shards[param] for param in group['params']]
    for param in list(optimizer.state):
        shard = shards[param]
        state = optimizer.state.pop(param)
        optimizer.state[shard] = {key: shard_like(value, shard) for key, value in state.items()}


def shard_like(value: Any, like: DTensor) -> Any:
    """This process's part of a tensor of the shape of the parameter ``like``; anything else as it is."""
    if not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    # All processes have the same: nothing is sent.
    part = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    local = part.to_local().clone()  # a view would keep the whole
    layout = dict(run_check=False, shape=value.shape, stride=value.stride())
    return DTensor.from_local(local, like.device_mesh, like.placements, **layout)


def is_sharded(model: nn.Module) -> bool:
    """Whether this process holds a share of the weights only: all processes must then call the model together."""
    return isinstance(model, FullyShardedModel) and model.is_sharded


@contextmanager
def full_state_dicts(runner: Runner, moments: bool = True) -> Iterator[None]:
    """While the context is open, ``state_dict()`` of the main process's model and, with ``moments``, of its optimizer give
    whole tensors on the host, as if nothing were sharded; all processes must call this."""
    if not is_sharded(runner.model):
        yield
        return
    module, optimizer = runner.model.module, runner.optim_wrapper.optimizer
    weights = gather(module.state_dict())
    state = gather(optimizer.state_dict()['state']) if moments else {}
    if not is_main_process():
        yield
        return
    with (
        module.register_state_dict_post_hook(lambda _, found, *__: found.update(weights)),
        optimizer.register_state_dict_post_hook(lambda _, found: dict(found, state=state)),
    ):
        yield


def gather(state: Mapping) -> Mapping:
    """Whole tensors on the host of the main process, one after the other, and None on the others."""

    def whole(value: DTensor) -> Tensor | None:
        value = value.full_tensor()
        return value.cpu() if is_main_process() else None

    return apply_to(state, lambda value: isinstance(value, DTensor), whole)


def prepare_sharding(runner: Runner) -> None:
    """Let a Runner whose config asks for it save whole checkpoints; refuse what would hang, or be wrong in silence.
    Raises ConfigError for a hook or setting that doesn't go with shards."""
    if not isinstance(runner.model, FullyShardedModel):
        wanted = str((runner.cfg.get('model_wrapper_cfg') or {}).get('type'))
        if wanted.endswith(FullyShardedModel.__name__):
            runner.logger.warning(f'{WHERE} shards nothing in one process: start with tools/dist_train.sh')
        return
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise ConfigError(f'{WHERE} keeps no average of the weights: remove the EMAHook')
    if runner.cfg.get('compile'):
        raise ConfigError(f'{WHERE} does not go with compile: use ldae.CompileBlocksHook, or --fast')
    runner.save_checkpoint = partial(save_checkpoint, runner, runner.save_checkpoint)


def save_checkpoint(runner: Runner, save: Callable[..., None], *args, save_optimizer: bool = True, **options) -> None:
    """The Runner's own ``save``, which writes in the main process alone, with what only all of them have together."""
    with full_state_dicts(runner, moments=save_optimizer):
        save(*args, save_optimizer=save_optimizer, **options)


def check_optimizer(wrapper: OptimWrapper) -> None:
    """Raise ConfigError for an optimizer that can't go on with shards."""
    if isinstance(wrapper, OptimWrapperDict):
        raise ConfigError(f'{WHERE} takes one optimizer, not several')
    if isinstance(wrapper, AmpOptimWrapper):
        raise ConfigError(f'{WHERE} does not scale losses: use ldae.AutocastOptimWrapper (bfloat16), or --amp')
    if not isinstance(wrapper.optimizer, OPTIMIZERS):
        names = ', '.join(kind.__name__ for kind in OPTIMIZERS)
        raise ConfigError(f'{WHERE}: {type(wrapper.optimizer).__name__} is not known to be right: use {names}')
