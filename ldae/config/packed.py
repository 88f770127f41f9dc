# SPDX-License-Identifier: Apache-2.0
"""Configs whose ``data_root`` holds packed images."""

import inspect
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ldae.datasets.packed import PACKED, PackedImages, packed_folder, remaining
from ldae.datasets.store import read_manifest
from ldae.utils.errors import ConfigError

from .reading import LOADERS


def use_packed_data(cfg: Config) -> None:
    """Change a config whose data loaders read an ``ldae.ImageFolder`` where packed images lie, so that they read these.
    Raises ConfigError if an option or collate function has no counterpart, or the pipeline asks for other images."""
    for name in LOADERS:
        loader = cfg.get(name) or {}
        dataset = loader.get('dataset') or {}
        root, split = dataset.get('data_root'), dataset.get('split', 'train')
        if dataset.get('type') not in ('ldae.ImageFolder', 'ImageFolder'):
            continue
        if not root or not isinstance(root, str | Path) or not isinstance(split, str):
            continue  # for the checks of the config to say
        if (folder := packed_folder(root, split)) is None:
            continue
        where, collate = f'{folder} holds packed images, and {name}', loader.get('collate_fn')
        if collate not in (None, dict(type='default_collate'), dict(type='ldae.batch_collate')):
            raise ConfigError(f'{where} has a collate_fn of its own, {collate}: remove it')
        _translate(where, dataset)
        remaining(dataset.get('pipeline') or (), read_manifest(folder, PACKED)['settings'])
        loader.collate_fn = ConfigDict(type='ldae.batch_collate')
        print_log(f'{name}: packed images are read from {folder}')


def _translate(where: str, dataset: ConfigDict) -> None:
    """Name the data set that reads packed images, with the options that it shares; refuse others that are set."""
    dataset.pop('max_bad', None)  # packing has asked that
    known = inspect.signature(PackedImages).parameters
    for option in [key for key in dataset if key != 'type' and key not in known]:
        if dataset.pop(option):
            raise ConfigError(f'{where} sets {option}, which is for unpacked ones: remove it')
    dataset.type = 'ldae.PackedImages'
