# SPDX-License-Identifier: Apache-2.0
"""The images of a folder as shards, tables and a list, written by the libraries themselves."""

import csv
import os
from pathlib import Path

import pytest

SPLITS = ('train', 'val')
SHARD = 6


def images_of(images: Path, split: str) -> list[Path]:
    return sorted((images / split).rglob('*.jpg'))


def write_shards(images: Path, folder: Path) -> str:
    """Shards of a few images each, with numbers for labels."""
    webdataset = pytest.importorskip('webdataset')
    folder.mkdir()
    classes = sorted(path.name for path in (images / 'train').iterdir())
    for split in SPLITS:
        with webdataset.ShardWriter(f'{folder}/{split}-%04d.tar', maxcount=SHARD, verbose=0) as writer:
            for path in images_of(images, split):
                key, label = f'{path.parent.name}/{path.stem}', classes.index(path.parent.name)
                writer.write({'__key__': key, 'jpg': path.read_bytes(), 'cls': str(label)})
    return f'wds::{folder}/train-{{0000..0002}}.tar'


def tables_of(images: Path) -> dict:
    pytest.importorskip('datasets.load')  # and not the folder of tests of this name
    datasets = pytest.importorskip('datasets')
    datasets.disable_progress_bars()
    classes = sorted(path.name for path in (images / 'train').iterdir())
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=classes))
    tables = {}
    for split in SPLITS:
        paths = images_of(images, split)
        columns = dict(
            image=[dict(bytes=path.read_bytes(), path=path.name) for path in paths],
            label=[path.parent.name for path in paths],
        )
        tables[split] = datasets.Dataset.from_dict(columns, features=features)
    return tables


def write_parquet(images: Path, folder: Path) -> str:
    folder.mkdir()
    for split, table in tables_of(images).items():
        table.to_parquet(folder / f'{split}-00000-of-00001.parquet')
    return f'hf::{folder}'


def write_arrow(images: Path, folder: Path) -> str:
    """As ``save_to_disk`` writes a data set."""
    tables = tables_of(images)
    pytest.importorskip('datasets').DatasetDict(tables).save_to_disk(folder)
    return f'hf::{folder}'


def write_list(images: Path, folder: Path) -> str:
    """Paths relative to the list, and names of classes."""
    folder.mkdir()
    for split in SPLITS:
        with (folder / f'{split}.csv').open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(('path', 'label'))
            for path in images_of(images, split):
                writer.writerow((os.path.relpath(path, folder), path.parent.name))
    return f'csv::{folder}/train.csv'


WRITERS = dict(shards=write_shards, parquet=write_parquet, arrow=write_arrow, list=write_list)
