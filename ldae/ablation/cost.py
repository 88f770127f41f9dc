# SPDX-License-Identifier: Apache-2.0
"""The cost of a pre-training: images that it sees, and floating-point operations of a forward and backward pass an image."""

import json
import logging
import math
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import lru_cache
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.structures import DataSample
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldae.apis.models import forget_files
from ldae.config import walk_dicts
from ldae.config.methods import FACTS, arch_of, geometry_of, method_of
from ldae.config.packed import use_packed_data
from ldae.config.reading import output_size
from ldae.config.stored import read_stored_config
from ldae.evaluation.probe_data import labelled_dataloader
from ldae.models.tokenizers import BaseTokenizer
from ldae.registry import DATASETS, MODELS
from ldae.utils import ConfigError
from ldae.utils.errors import short
from ldae.utils.rng import preserved_rng
from ldae.utils.sizes import Size, height_width

#: Training images of ImageNet-1k, on which the paper trains.
IMAGENET = 1_281_167
#: What the paper says of the 12 + 12 blocks of a ViT-L's width in 400 epochs: 12 hours of 256 TPU v3 cores.
PUBLISHED_SIZE, PUBLISHED_EPOCHS = (1024, 12), 400
PUBLISHED_HOURS, PUBLISHED_CORES = 12, 256
#: Images that operations are counted of; two views of one image make no batch norm.
COUNTED = 4
#: Models whose operations are remembered; weights and patches of one for which real tensors are made.
MOST_MODELS, MOST_WEIGHTS, MOST_TOKENS = 512, 10**9, 1024


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
    try:
        return Estimate(images_seen(cfg, total), operations_of(cfg), '', is_here)
    except Exception as error:  # whatever a component can't do without data: the others are still counted
        return Estimate(images_seen(cfg, total), None, short(error), is_here)


def stored_operations(text: str) -> float | None:
    """1e9 operations of an image by a config that is read as data; None where they can't be counted, as of a foreign or damaged
    one."""
    try:
        cfg = read_stored_config(text, 'the config')
        if not ('tokenizer' in cfg.model or method_of(cfg) or 'img_size' in cfg.model.backbone):
            return None  # it doesn't say how large images are
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            return operations_of(cfg)
    except Exception:  # of whatever somebody else's components raise
        return None


def operations_of(cfg: Config) -> float:
    """1e9 operations that a model's loss of one image and its gradients take; raises what its components do."""
    model = cfg.model.to_dict()
    for node in walk_dicts(model):
        forget_files(node, has_weights=True)
    geometry = geometry_of(cfg)
    return _count(json.dumps(model), geometry, sizes_of_views(cfg, geometry[0]))


def sizes_of_views(cfg: Config, size: Size) -> tuple[tuple[int, int], ...]:
    """Height and width of each view of an image that a training sees, of images of a size."""
    found = []
    for node in walk_dicts(cfg.get('train_dataloader')):
        found += [view.get('size', size) for view in node.get('views') or ()]
        if node.get('type') == 'MultiView' and not found:
            counts = [node.num_views] if isinstance(node.num_views, int) else node.num_views
            for count, steps in zip(counts, node.transforms, strict=True):
                found += [output_size(steps) or size] * count
    return tuple(map(height_width, found or [size] * FACTS[method_of(cfg) or 'ldae'].views))


class _ShapesAlone(FakeTensorMode):
    """Tensors with shapes and no values. A copy of one, which a momentum encoder asks for, would copy its mode, with the addresses in
    its weak references to storages: torch then frees each of them twice, and breaks the heap."""

    def __deepcopy__(self, memo: dict) -> '_ShapesAlone':
        return self


@lru_cache(MOST_MODELS)
def _count(model: str, geometry: tuple, views: tuple) -> float:
    """1e9 operations of one image by a model of that config: of tensors with shapes and no values, where it can do without."""
    hub = MessageHub.get_current_instance()
    if hub.get_info('max_iters') is None:
        hub.update_info('max_iters', 1)
    logging.disable(logging.CRITICAL)  # what models, and torch, say meanwhile
    try:
        return _operations(model, geometry[2], views, _ShapesAlone(allow_non_fake_inputs=True))
    except RuntimeError:  # a momentum encoder is a copy of real tensors; some losses look at values
        _check_real(json.loads(model)['backbone'], geometry)
        return _operations(model, geometry[2], views, nullcontext())
    finally:
        logging.disable(logging.NOTSET)


def _check_real(backbone: dict, geometry: tuple) -> None:
    """Raise ConfigError for an encoder that real tensors would need much memory for."""
    with _ShapesAlone():
        weights = sum(one.numel() for one in MODELS.build(backbone).parameters())
    tokens = math.prod(height_width(geometry[0])) // geometry[1] ** 2
    if weights > MOST_WEIGHTS or tokens > MOST_TOKENS:
        raise ConfigError(f'{weights:,} weights and {tokens:,} patches are too many to be counted here')


def _operations(model: str, channels: int, views: tuple, mode: AbstractContextManager) -> float:
    with preserved_rng(), mode, FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        built = MODELS.build(json.loads(model)).train()
        for module in built.modules():
            if isinstance(module, BaseTokenizer):
                module.take_as_fitted()
        images = [torch.zeros(COUNTED, channels, *size) for size in views]
        samples = [DataSample().set_gt_label(torch.zeros(1, dtype=torch.long)) for _ in range(COUNTED)]
        losses = built(images if len(images) > 1 else images[0], data_samples=samples, mode='loss')
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
