# SPDX-License-Identifier: Apache-2.0
"""The images that a ``data_root`` names which isn't a folder of them: tar shards, tables of ``datasets``, a list of files."""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ldae.utils import ConfigError
from ldae.utils.errors import nearest
from ldae.utils.optional import import_extra

from .hf_rows import LABELS, TABLES, open_table
from .listing import tell
from .load_image import ARRAYS, SUFFIXES, read_file
from .roots import Root, absolute_root, decoded, files_of_split, in_both, parse_root
from .tar_shards import ADDRESS, Member, members_of, read_part

#: Columns of a list of files, where it names its columns.
PATHS = ('path', 'file', 'filename', 'file_name', 'filepath', 'image', 'img', 'image_path', 'name')

#: Labels that are numbers of classes, and such as look like numbers and are of none.
NUMBER, ODD = re.compile('[0-9]{1,9}'), re.compile(r'-[0-9]+|[0-9]{10,}|-?[0-9]*\.[0-9]+(e.*)?')


class Source(NamedTuple):
    """Images in their order: how each is named, for :func:`ldae.datasets.load_image.read_file`; and, where they are asked for, its
    class's number and the classes' names, where they have any."""

    paths: list[str]
    labels: list[int] | None = None
    classes: tuple[str, ...] | None = None
    #: A hash of the names and labels of all, and of the table or list that they come from.
    identity: tuple[str, ...] = ()


def open_source(data_root: str, split: str, with_label: bool | None = True) -> Source:
    """The images of a split; None for ``with_label`` takes labels where there are any. Raises ConfigError if there are no images, a
    label is missing, not all are numbers or not all names, or a class is not one of training's."""
    root = parse_root(data_root)
    if with_label is None:
        try:
            return open_source(data_root, split, True)
        except ConfigError:
            with_label = False
    found = OPENERS[root.kind](root, split, with_label)
    words = [found[:2], TABLES[absolute_root(data_root), split].dataset._fingerprint if root.kind == 'hf' else '']
    source = _numbered(root, *found)._replace(identity=(hashlib.sha256(repr(words).encode()).hexdigest()[:16],))
    if not source.paths:
        raise ConfigError(f'{data_root} has no {split} images')
    if not source.classes or split == 'train':
        return source
    classes = open_source(data_root, 'train').classes or ()
    if stray := sorted(set(source.classes) - set(classes)):
        raise ConfigError(
            f'{data_root}: no training image has class {stray[0]!r} of {split}: all must be of its classes'
        )
    places = [classes.index(name) for name in source.classes]
    return source._replace(classes=classes, labels=[places[label] for label in source.labels])


def name_in_source(path: str) -> str:
    """An image's name, short: the shard's name and the member's, or the number of a row."""
    match = ADDRESS.fullmatch(path)
    if match:
        return f'{Path(match[1]).name}/{match[4]}'
    return f'row {path.rpartition("::")[2]}' if path.startswith('hf::') else path


def _numbered(root: Root, paths: list[str], labels: Sequence[object] | None, names: tuple[str, ...] | None) -> Source:
    """Give each class a number: the one that the labels are, or its place among their sorted names."""
    if labels is None:
        return Source(paths)
    texts = ['' if label is None else str(int(label) if isinstance(label, bool) else label) for label in labels]
    numbers = [bool(NUMBER.fullmatch(text)) for text in texts]
    for path, label, text, is_number in zip(paths, labels, texts, numbers, strict=True):
        if is_number == numbers[0] and (is_number or text and isinstance(label, str) and not ODD.fullmatch(text)):
            continue
        why = f'has label {label!r}, which is neither a whole number from 0 nor a name'
        if not text or text == '-1':
            why = 'has no label: labels are needed of all, or none are read (with_label=False)'
        elif isinstance(label, str | int) and not ODD.fullmatch(text):
            why = f'has label {text!r}, and the first is {texts[0]!r}: all must be numbers, or names'
        raise ConfigError(f'{root.text}: {name_in_source(path)} {why}')
    if not texts or numbers[0]:
        return Source(paths, list(map(int, texts)), names)
    classes = {name: place for place, name in enumerate(sorted({*texts}))}
    return Source(paths, [classes[text] for text in texts], tuple(classes))


Found = tuple[list[str], Sequence[object] | None, tuple[str, ...] | None]


def _open_table(root: Root, split: str, with_label: bool) -> Found:
    data_root = absolute_root(root.text)
    table = open_table(data_root, split)
    labels, names = table.labels() if with_label else (None, None)
    return [f'{data_root}::{split}::{row}' for row in range(len(table.dataset))], labels, names


def _open_shards(root: Root, split: str, with_label: bool) -> Found:
    """Files of one name, but for what follows its first dot, are a sample, as the library has it."""
    expand_urls = import_extra('webdataset.shardlists', 'wds', 'wds::').expand_urls
    try:
        shards = files_of_split(root, split, '.tar', braces=expand_urls)
    except AssertionError as error:  # of a variable of the environment
        raise ConfigError(f'{root.text}: the pattern cannot be expanded ({error})') from error
    paths, texts, folders, others = [], [], [], Counter()
    kinds = root.options.get('image', ','.join(suffix[1:] for suffix in SUFFIXES)).lower().split(',')
    label = root.options.get('label', 'cls').lower()
    for shard in shards:
        for key, files in _samples(shard, others).items():
            images = [kind for kind in files if kind in kinds]
            if len(images) > 1:
                raise ConfigError(
                    f'{shard} has several images of key {key!r}, {", ".join(images)}: say which, ::image='
                )
            if not images:
                others['samples without an image'] += 1
                continue
            image, text = files[images[0]], files.get(label)
            paths.append(f'wds::{shard}::{image.place}+{image.size}::{image.name}')
            texts.append(
                text and decoded(read_part(shard, text.place, min(text.size, 1000))).strip() if with_label else ''
            )
            folders.append(key.removeprefix('./').rpartition('/')[0].partition('/')[0])
    if others:
        tell(
            f'{root.text}: {len(paths):,} images; left out are {", ".join(f"{n:,} {what}" for what, n in others.items())}'
        )
    if not with_label:
        return paths, None, None
    if label == 'folder' or 'label' not in root.options and not any(texts) and all(folders):
        names = sorted(set(folders))
        return paths, list(map({name: n for n, name in enumerate(names)}.get, folders)), tuple(names)
    if paths and not any(texts):
        raise ConfigError(
            f'{root.text} has no labels: no sample has a file .{label}, or say ::label=SUFFIX, or ::label=folder'
        )
    return paths, texts, None


def _samples(shard: str, others: Counter[str]) -> dict[str, dict[str, Member]]:
    """The files of each sample, by its key and their suffixes, in the order of the shard."""
    base_plus_ext = import_extra('webdataset.tariterators', 'wds', 'wds::').base_plus_ext
    samples: dict[str, dict[str, Member]] = {}
    for member in members_of(shard):
        key, suffix = base_plus_ext(member.name)
        if not member.is_plain:
            others['links and what else is not a plain file'] += 1
        elif key is None:
            others['files without a suffix'] += 1
        elif suffix.lower() in (files := samples.setdefault(key, {})):
            raise ConfigError(
                f'{shard} holds two files .{suffix} of key {key!r}: write it again, with a key for each sample'
            )
        else:
            files[suffix.lower()] = member
    return samples


def _open_list(root: Root, split: str, with_label: bool) -> Found:
    paths, labels = _read_lists(root, split, with_label)
    if split != 'train':
        try:
            training = set(_read_lists(root, 'train', False)[0])
        except ConfigError:
            training = set()
        if both := [path for path in paths if path in training]:
            raise in_both(root, split, f'{both[0]} is one of {len(both)} images')
    return paths, [labels[path] for path in paths] if with_label else None, None


def _read_lists(root: Root, split: str, with_label: bool) -> tuple[list[str], dict[str, str]]:
    """Paths of images, and each one's label, by the columns' names, if the first line has any; else the first column is the path and
    the second the label."""
    labels: dict[str, str] = {}
    paths: list[str] = []
    for file in files_of_split(root, split, '.csv'):
        for line, path, label in _listed(root, file, with_label):
            if not path or '\0' in path or '://' in path:
                raise ConfigError(f'{file}, line {line}: {path[:99]!r} is not the path of a file')
            paths.append(os.path.normpath(os.path.join(os.path.dirname(file), path)))
            if labels.setdefault(paths[-1], label) != label:
                raise ConfigError(f'{file}, line {line}: {path} has label {label!r}, and {labels[paths[-1]]!r} above')
    if paths and not any(map(os.path.exists, paths[:10])):
        raise ConfigError(f'{root.text}: {paths[0]} does not exist: paths are relative to the folder of the list')
    return paths, labels


def _listed(root: Root, file: str, with_label: bool) -> Iterator[tuple[int, str, str]]:
    """Line, path and label ('' if it isn't wanted) of each image."""
    text = decoded(read_file(file))
    head = text.partition('\n')[0]
    delimiter = '\t' if '\t' in head else ';' if ';' in head and ',' not in head else ','
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, list(map(str.strip, cells))) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise ConfigError(f'{file}, line {reader.line_num}: {error}') from error
    if not rows or '\0' in text:
        raise ConfigError(f'{file} is not a list of images, one a line')
    names = rows[0][1]
    has_names = bool({'image', 'label'} & set(root.options)) or not any(
        n.lower().endswith((*SUFFIXES, *ARRAYS)) for n in names
    )
    image, label = (
        _place(
            root, file, option, known, names if has_names else [], place if len(names) < 3 or not has_names else None
        )
        for place, (option, known) in enumerate(dict(image=PATHS, label=LABELS).items())
    )
    if image is None or with_label and (label is None or label >= len(names)):
        what = 'image' if image is None else 'label'
        raise ConfigError(f'{file} has no column of {what}s: say which, ::{what}=, of {", ".join(names)}')
    for line, cells in rows[has_names:]:
        if len(cells) <= max(image, label if with_label else 0):
            raise ConfigError(f'{file}, line {line}: it has {len(cells)} columns, and the first line {len(names)}')
        yield line, cells[image], cells[label] if with_label else ''


def _place(
    root: Root, file: str, option: str, known: Sequence[str], names: list[str], default: int | None
) -> int | None:
    """Which column is the one of images or of labels."""
    if (name := root.options.get(option)) is not None:
        if name not in names:
            raise ConfigError(f'{file} has no column {name!r}: {", ".join(names)}{nearest(name, names)}')
        return names.index(name)
    return next((place for place, name in enumerate(names) if name.lower() in known), default)


OPENERS: dict[str, Callable[[Root, str, bool], Found]] = dict(hf=_open_table, wds=_open_shards, csv=_open_list)
