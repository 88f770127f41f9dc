# SPDX-License-Identifier: Apache-2.0
"""The cost of a pre-training: images that it sees, and floating-point operations of a forward and backward pass an image."""

from copy import deepcopy

from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldae.evaluation.probe_data import labelled_dataloader
from ldae.utils.rng import preserved_rng

#: Images that operations are counted of; two views of one image make no batch norm.
COUNTED = 4


def training_cost(model: nn.Module, cfg: Config) -> dict[str, float]:
    """``images``: how many a config's training sees, each as often as it does; ``gflop``: floating-point operations (a
    multiplication and an addition are two) that the loss of one image and its gradients take, in 1e9; as torch counts those of
    matrix products and convolutions, whatever computes attention.

    Args:
        model: The config's, with a fitted tokenizer; it isn't changed.
    """
    loader = dict(deepcopy(cfg.train_dataloader), batch_size=COUNTED, num_workers=0, persistent_workers=False)
    model = deepcopy(model).train()
    hub = MessageHub.get_current_instance()
    if hub.get_info('max_iters') is None:  # momentum encoders ask how far training is; none has run in this process
        hub.update_info('max_iters', 1)
    with preserved_rng():
        counted = labelled_dataloader(loader, None)
        batch = model.data_preprocessor(next(iter(counted)), True)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model.parse_losses(model(**batch, mode='loss'))[0].backward()
    total, batch_size = len(counted.dataset), cfg.train_dataloader.batch_size
    steps = total // batch_size if cfg.train_dataloader.get('drop_last') else total / batch_size
    steps = cfg.train_cfg.get('max_iters') or steps * cfg.train_cfg.max_epochs
    return dict(images=round(steps * batch_size), gflop=counter.get_total_flops() / COUNTED / 1e9)
