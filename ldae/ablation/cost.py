# SPDX-License-Identifier: Apache-2.0
"""The cost of a pre-training: images that it sees, and floating-point operations of a forward and backward pass an image."""

import json
import logging
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import lru_cache
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldae.apis.models import forget_files
from ldae.config import walk_dicts
from ldae.config.methods import FACTS, arch_of, geometry_of, method_of
from ldae.config.packed import use_packed_data
from ldae.evaluation.probe_data import labelled_dataloader
from ldae.models.tokenizers import BaseTokenizer
from ldae.registry import DATASETS, MODELS
from ldae.utils import ConfigError
from ldae.utils.errors import short
from ldae.utils.rng import preserved_rng

#: Training images of ImageNet-1k, on which the paper trains.
IMAGENET = 1_281_167
#: What the paper says of the 12 + 12 blocks of a ViT-L's width in 400 epochs: 12 hours of 256 TPU v3 cores.
PUBLISHED_SIZE, PUBLISHED_EPOCHS = (1024, 12), 400
PUBLISHED_HOURS, PUBLISHED_CORES = 12, 256
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
    return dict(images=images_seen(cfg, len(counted.dataset)), gflop=counter.get_total_flops() / COUNTED / 1e9)


def images_seen(cfg: Config, total: int) -> int:
    """How many of a data set's images a config's training sees, each as often as it does."""
    batch_size = cfg.train_dataloader.batch_size
    steps = total // batch_size if cfg.train_dataloader.get('drop_last') else total / batch_size
    steps = cfg.train_cfg.get('max_iters') or steps * cfg.train_cfg.max_epochs
    return round(steps * batch_size)


class Estimate(NamedTuple):
    """Of a training that hasn't been: images seen, operations of one in 1e9 (None with the reason why), whether the data are here."""

    images: int
    gflop: float | None
    why: str
    is_here: bool


def estimate(cfg: Config) -> Estimate:
    """The same as :func:`training_cost`, without images, weights or computing: of ImageNet-1k where the data aren't here."""
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    try:
        read = deepcopy(cfg)
        use_packed_data(read)
        total, is_here = len(DATASETS.build(read.train_dataloader.dataset)), True
    except (ConfigError, OSError):
        total, is_here = IMAGENET, False
    model = cfg.model.to_dict()
    for node in walk_dicts(model):
        forget_files(node, has_weights=True)
    views = FACTS[method_of(cfg) or 'ldae'].views
    try:
        return Estimate(images_seen(cfg, total), _count(json.dumps(model), geometry_of(cfg)[::2], views), '', is_here)
    except Exception as error:  # whatever a component can't do without data: the others are still counted
        return Estimate(images_seen(cfg, total), None, short(error), is_here)


@lru_cache
def _count(model: str, geometry: tuple, views: int) -> float:
    """1e9 operations of one image by a model of that config: of tensors with shapes and no values, where it can do without."""
    hub = MessageHub.get_current_instance()
    if hub.get_info('max_iters') is None:
        hub.update_info('max_iters', 1)
    logging.disable(logging.CRITICAL)  # what models, and torch, say meanwhile
    try:
        return _operations(model, geometry, views, FakeTensorMode(allow_non_fake_inputs=True))
    except RuntimeError:  # a momentum encoder is a copy of real tensors; some losses look at values
        return _operations(model, geometry, views, nullcontext())
    finally:
        logging.disable(logging.NOTSET)


def _operations(model: str, geometry: tuple, views: int, mode: AbstractContextManager) -> float:
    size, channels = geometry
    with preserved_rng(), mode, FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        built = MODELS.build(json.loads(model)).train()
        for module in built.modules():
            if isinstance(module, BaseTokenizer):
                module.take_as_fitted()
        images = torch.zeros(COUNTED, channels, *(size if isinstance(size, tuple) else (size, size)))
        samples = [DataSample().set_gt_label(torch.zeros(1, dtype=torch.long)) for _ in range(COUNTED)]
        losses = built(images if views == 1 else [images] * views, data_samples=samples, mode='loss')
        built.parse_losses(losses)[0].backward()
    return counter.get_total_flops() / COUNTED / 1e9


def is_published(cfg: Config) -> bool:
    """Whether the paper says what such a pre-training cost: 12 + 12 blocks of a ViT-L's width, 400 epochs."""
    model = cfg.model
    if model.type not in ('ldae.LDAE', 'LDAE') or cfg.train_cfg.get('max_epochs') != PUBLISHED_EPOCHS:
        return False
    encoder = arch_of(model.backbone)[1]
    decoder = (model.get('neck') or {}).get('arch') or encoder  # of the encoder's size unless it says otherwise
    return all((arch['embed_dims'], arch['num_layers']) == PUBLISHED_SIZE for arch in (encoder, decoder))
