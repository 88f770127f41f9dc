# SPDX-License-Identifier: Apache-2.0
"""Which labelled images a frozen encoder is scored on."""

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ldae import compat
from ldae.config.reading import LOADERS, gives_bgr
from ldae.datasets.listing import listing_key
from ldae.datasets.low_shot import some_of_each_class, spread_over_classes
from ldae.models.encoders import EncoderPreprocessor, fitted
from ldae.registry import DATASETS, MODELS
from ldae.utils import ConfigError

from .knn import check_classes

# What makes a training set smaller or its images random.
NOT_PROBED = ('indices', 'crop_scale', 'flip', 'views')


def probe_dataloaders(cfg: Config, labelled: bool = True) -> tuple[dict, dict]:
    """Configs of training and test images, both as the test images are prepared: no augmentation; with labels unless ``labelled``
    leaves that to the config. Raises ConfigError if the config names no training images, or no others to test on."""
    held_out = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    for split, loader in (('training', cfg.get('train_dataloader')), ('test', held_out)):
        if not loader:
            raise ConfigError(
                f'{cfg.filename or "the config"} names no {split} images: name data that do (--data of ldae probe, or --scale)'
            )
    test = dict(held_out)
    with_label = dict(with_label=True) if labelled else {}
    test['dataset'] = dict(test['dataset'], **with_label)
    dataset = dict(cfg.train_dataloader['dataset'], **with_label)
    for name in NOT_PROBED:
        dataset.pop(name, None)
    if 'pipeline' in test['dataset']:
        dataset['pipeline'] = test['dataset']['pipeline']
    return dict(test, dataset=dataset), test


def labelled_dataloaders(
    cfg: Config, limits: Sequence[int | None], k: int, option: str = 'k', per_class: int = 0
) -> list[DataLoader]:
    """Training and test images to score on, whole and in order. Raises ConfigError if there are none, fewer than
    neighbours, or a class is missing: known before an image is read.

    Args:
        limits: At most so many of each, chosen by class; None for all.
        k: How many neighbours there must be, for what ``option`` asks.
        per_class: So many of each class whatever the limits.
    """
    loaders = []
    for loader, limit in zip(probe_dataloaders(cfg), limits, strict=True):
        dataset = DATASETS.build(loader['dataset'])
        labels = labels_of_dataset(dataset)
        if limit is not None and labels is not None:
            limit = max(limit, per_class * len(labels.unique()))
        loaders.append(labelled_dataloader(dict(loader, dataset=dataset), limit))
    check_class_names(*loaders)
    if k > (count := len(loaders[0].dataset)):
        raise ConfigError(f'k={k}: there are only {count} training images: lower {option}')
    labels = [labels_of_dataset(loader.dataset) for loader in loaders]
    if all(part is not None for part in labels):
        check_classes(*labels)
    return loaders


def image_dataloader(cfg: Config, of_test: bool, limit: int | None = None) -> DataLoader:
    """Training or test images as probes see them, at most ``limit``, for what asks nothing of labels: where there are none, too."""
    try:
        return labelled_dataloader(probe_dataloaders(cfg)[of_test], limit)
    except ConfigError:
        return labelled_dataloader(probe_dataloaders(cfg, labelled=False)[of_test], limit)


def labelled_dataloader(cfg: dict, limit: int | None) -> DataLoader:
    """Images in order, of at most ``limit`` a choice by class that is the same each time."""
    cfg = ConfigDict(cfg)
    cfg.setdefault('collate_fn', dict(type='default_collate'))
    # As a run's preparation does, which a config that only names images hasn't gone through.
    cfg.num_workers = min(cfg.get('num_workers') or 0, len(os.sched_getaffinity(0)))
    compat.keep_worker_options_consistent(cfg, torch.cuda.is_available())
    cfg.update(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False)
    cfg.pop('batch_sampler', None)
    return build_bounded_dataloader(cfg, sys.maxsize if limit is None else limit)


def build_bounded_dataloader(cfg: dict, max_images: int) -> DataLoader:
    """Build a data loader of at most ``max_images`` images, a choice that is the same each time.

    Each class keeps its share of the images, and at least one, where the data set knows its labels without reading
    images; where it doesn't, which is logged, the choice is random. Raises ConfigError if ``max_images`` is less than
    the number of classes."""
    dataset = cfg['dataset']
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dataset)
    if len(dataset) > max_images:
        name, labels = type(dataset).__name__, labels_of_dataset(dataset)
        if labels is not None:
            numbers = some_of_each_class(labels, max_images, 0, f'{name}: a limit of images')
        else:
            print_log(
                f'{name} shows no labels (get_gt_labels, labels or targets): {max_images} of its {len(dataset)} images are '
                'chosen regardless of their class',
                'current',
                logging.WARNING,
            )
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
            numbers = order[:max_images].sort().values
        dataset = Subset(dataset, numbers.tolist())
    sampler = cfg.get('sampler', dict(type='DefaultSampler', shuffle=False))
    return Runner.build_dataloader(dict(cfg, dataset=dataset, sampler=sampler), seed=0)


def labels_of_dataset(dataset: Dataset) -> Tensor | None:
    """Labels (n,) without reading an image; None where the data set has none, or can't say."""
    if isinstance(dataset, Subset):
        labels = labels_of_dataset(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    try:
        labels = dataset.get_gt_labels()  # mmpretrain's data sets
    except (AttributeError, KeyError):  # another's, or unlabelled
        labels = getattr(dataset, 'labels', getattr(dataset, 'targets', None))
    if labels is None or len(labels) != len(dataset):
        return None
    return torch.as_tensor(labels).long()


def num_classes(dataset: Dataset) -> int | None:
    """How many classes a data set names or has, without reading an image; None where it can't say."""
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if names and not getattr(dataset, 'ann_file', None):
        return len(names)
    labels = labels_of_dataset(dataset)
    if labels is None or not len(labels):
        return None
    if labels.min() < 0:
        raise ConfigError(f'label {int(labels.min())} of {type(dataset).__name__} is not a class: they start at 0')
    return int(labels.max()) + 1


def labelled_dataset(loader: dict | None) -> Dataset:
    """The data set of a data loader's config. Raises ConfigError if there is none, or its images have no labels."""
    if not loader:
        raise ConfigError('there are no labelled images to score on')
    dataset = loader['dataset']
    dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    if getattr(dataset, 'with_label', True) is False:
        raise ConfigError(f'{type(dataset).__name__} has no labels to score against: set with_label=True')
    return dataset


def read_spread(loader: DataLoader, count: int) -> dict:
    """A batch of at most ``count`` images of different classes, or of all parts of a data set that shows no labels: folders are
    sorted by class."""
    dataset = loader.dataset
    labels = labels_of_dataset(dataset)
    numbers = spread_over_classes(torch.zeros(len(dataset)) if labels is None else labels, count)
    whole = hasattr(dataset, '__getitems__')
    return loader.collate_fn(dataset.__getitems__(numbers) if whole else [dataset[number] for number in numbers])


def check_class_names(train: DataLoader, test: DataLoader) -> None:
    """Raise :class:`ConfigError` if both data sets name their classes, and not the same ones."""
    names = [getattr(_all_images(loader), 'metainfo', {}).get('classes') for loader in (train, test)]
    differ = sorted(set(names[0]) ^ set(names[1])) if all(names) else []
    if differ:
        raise ConfigError(f'training and test images have different classes: {differ[:5]} is in one of them only')


def data_description(loader: DataLoader) -> list:
    """Kind, folder, number of images, preparation and listing of a data set, for the key of a cache."""
    dataset, count = _all_images(loader), len(loader.dataset)
    where = [str(getattr(dataset, name, None)) for name in ('data_root', 'split', 'data_prefix', 'ann_file')]
    return [type(dataset).__name__, *where, count, repr(getattr(dataset, 'pipeline', None)), listing_key(dataset)]


def _all_images(loader: DataLoader) -> Dataset:
    return loader.dataset.dataset if isinstance(loader.dataset, Subset) else loader.dataset


class AdaptedPreprocessor(nn.Module):
    """A data preprocessor of images that differ from those of its model's training.

    Args:
        preprocessor: Is handed the adapted images.
        turned: Reverse the order of their channels: RGB for BGR, or BGR for RGB.
        size: Bring them to this height and width, and grey ones to the model's channels; None leaves both.
    """

    def __init__(self, preprocessor: nn.Module, turned: bool, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.preprocessor, self.turned, self.size = preprocessor, turned, size

    def forward(self, data: dict, training: bool = False) -> dict:
        """A batch of images (B, C, H, W), or a list of (C, H, W)."""
        inputs = data['inputs']
        if self.turned:
            inputs = inputs.flip(-3) if isinstance(inputs, Tensor) else [image.flip(-3) for image in inputs]
        if self.size is not None:
            inputs = fitted(inputs, len(getattr(self.preprocessor, 'mean', 'RGB')), self.size)
        return self.preprocessor(dict(data, inputs=inputs), training)


def preprocessor_of(model: nn.Module, data: Config) -> partial:
    """The model's own data preprocessor, as for test images, for what ``data`` give: where these have red and blue the other
    way round than the images that the model was trained on, they are turned. For a model of timm, the data's with timm's mean and std."""
    preprocessor, is_bgr = getattr(model, 'data_preprocessor', None), gives_bgr(data)
    if preprocessor is None:
        settings = dict(type='ClsDataPreprocessor') | dict(data.get('data_preprocessor') or {}, to_rgb=is_bgr)
        says = getattr(model, 'pretrained_cfg', None) or {}
        settings |= {key: [255 * value for value in says[key]] for key in ('mean', 'std') if key in says}
        preprocessor = MODELS.build(settings).to(next(model.parameters()).device)
    else:
        own = getattr(model, '_config', None) or {}
        knows = any(own.get(name) for name in (*LOADERS, 'data_preprocessor'))
        fits = isinstance(preprocessor, EncoderPreprocessor)  # any size, in RGB
        turned = is_bgr != (gives_bgr(own) if knows else is_bgr and not fits)
        size = None if fits else getattr(model, 'input_size', None)
        if turned or size:
            preprocessor = AdaptedPreprocessor(preprocessor, turned, size)
    return partial(preprocessor, training=False)
