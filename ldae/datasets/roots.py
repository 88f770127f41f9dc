# SPDX-License-Identifier: Apache-2.0
"""Data that lie elsewhere than in a folder of images, as ``data_root`` names them: ``KIND::WHERE[::OPTION=VALUE]...``."""

import codecs
import glob
import os
import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from ldae.utils import ConfigError

_SPLITS = ('train', 'val', 'test')
#: What may follow each kind; a split's is where its images lie.
OPTIONS = dict(
    wds=('image', 'label', *_SPLITS),
    hf=('config', 'revision', 'image', 'label', *_SPLITS),
    csv=('image', 'label', *_SPLITS),
)
NAMES = dict(train=('train', 'training'), val=('val', 'validation', 'valid', 'dev'), test=('test', 'testing'))
#: Why images of training are not scored on.
SCORES_NOTHING = 'as no score of images that it was trained on says what a model has learned'
#: Names of images: a part of a shard, a row of a table.
ADDRESS = re.compile(r'wds::.+?::\d+\+\d+::|hf::.+::(?:train|val|test)::\d+$', re.DOTALL)
_words = '|'.join(name for names in NAMES.values() for name in names)
#: The name of a split in that of a file or folder.
WORD = re.compile(f'(?<![A-Za-z])(?:{_words})(?![A-Za-z])')


class Root(NamedTuple):
    """The parts of such a name, and all of it."""

    kind: str
    where: str
    options: dict[str, str]
    text: str


def is_source(data_root: object) -> bool:
    """Whether a text names such data, and neither a folder nor one of the images in such data."""
    return isinstance(data_root, str) and data_root.partition('::')[0] in OPTIONS and not ADDRESS.match(data_root)


def parse_root(text: str) -> Root:
    """The parts of a ``data_root``. Raises ConfigError for a kind or an option that there isn't, and for commands and addresses."""
    kind, where, *given = text.split('::')
    if kind not in OPTIONS:
        known = ', '.join(f'{name}::' for name in OPTIONS)
        raise ConfigError(f'data_root={text!r} begins with {kind}::, and what is not a folder with {known}')
    options: dict[str, str] = {}
    for word in given:
        name, _, value = word.partition('=')
        if name not in OPTIONS[kind] or name in options or not value:
            listed = ', '.join(f'::{option}=' for option in OPTIONS[kind])
            raise ConfigError(f'data_root={text!r}: after {kind}::WHERE come, once each, {listed}; not {word!r}')
        options[name] = value
    for place in (where, *(options[split] for split in _SPLITS if split in options)):
        if not place or '\0' in place:
            raise ConfigError(f'data_root={text!r} names no place: write {kind}::WHERE')
        if '://' in place or place.strip().startswith('pipe:'):
            raise ConfigError(
                f'data_root={text!r}: addresses and commands are not opened: download the files, and name them'
            )
    return Root(kind, where, options, text)


def absolute_root(data_root: str) -> str:
    """A ``data_root`` that means the same in any working directory."""
    if not is_source(data_root):
        return str(Path(data_root).expanduser().absolute())
    root = parse_root(data_root)
    if is_of_hub(data_root):
        return data_root
    places = _SPLITS if root.kind != 'hf' else ()
    path = lambda place: os.path.abspath(os.path.expanduser(place))  # noqa: E731
    options = [f'{key}={path(value) if key in places else value}' for key, value in root.options.items()]
    return '::'.join([root.kind, path(root.where), *options])


def is_of_hub(data_root: object) -> bool:
    """Whether reading a ``data_root`` asks a network."""
    return is_source(data_root) and data_root.startswith('hf::') and not expand(parse_root(data_root).where)


def name_of_root(data_root: str) -> str:
    """The last part of where the data lie, as a name for a run's folder."""
    if not is_source(data_root):
        return Path(data_root).name
    return plain_name(Path(parse_root(data_root).where).name) or 'data'


def plain_name(name: str) -> str:
    """A name as it can stand anywhere, in a program too: letters and digits of English alone."""
    return re.sub('[^A-Za-z0-9_.-]+', '_', name).strip('_')


def expand(place: str, suffix: str = '', braces: Callable[[str], Sequence[str]] = lambda text: [text]) -> list[str]:
    """The files that a folder holds at any depth, by their suffix, or that a pattern or name stands for, in their order; also
    those that a name says and aren't there, but for patterns."""
    path = os.path.abspath(os.path.expanduser(place))
    if suffix and os.path.isdir(path):
        return sorted(str(file) for file in Path(path).rglob(f'*{suffix}') if not file.name.startswith('.'))
    names = [(name, glob.has_magic(name) and not os.path.exists(name)) for name in braces(path)]
    files = [file for name, magic in names for file in (sorted(glob.glob(name, recursive=True)) if magic else [name])]
    return files if any(map(os.path.exists, files)) else []


def files_of_split(root: Root, split: str, suffix: str, **expanding: Callable) -> list[str]:
    """The files of a split of those that a root names: what its option says; of a folder, or a pattern of files of several
    splits, those with the name of the split in theirs; else what the root says, with the name of the split in place of
    'train'. Where no name says a split, all are for training. Raises ConfigError if there are none, one is missing, or one is
    of training too."""
    files = _find_split(root, split, suffix, **expanding)
    if split != 'train' and not root.options.keys().isdisjoint(_SPLITS):  # names alone put no file into two splits
        try:
            training = set(map(os.path.realpath, _find_split(root, 'train', suffix, **expanding)))
        except ConfigError:
            training = set()
        if both := [file for file in files if os.path.realpath(file) in training]:
            raise in_both(root, split, f'{both[0]} is one of {len(both)} files')
    return files


def _find_split(root: Root, split: str, suffix: str, **expanding: Callable) -> list[str]:
    where, is_told = root.options.get(split, root.where), split in root.options
    files = expand(where, suffix, **expanding)
    is_folder = os.path.isdir(folder := os.path.expanduser(where))
    base = folder if is_folder or not files else os.path.commonpath([os.path.dirname(file) for file in files])
    named = {file: (WORD.findall(os.path.relpath(file, base)) or ['train'])[-1] for file in files}
    is_mixed = sum(any(name in names for name in named.values()) for names in NAMES.values()) > 1
    if not is_told and (is_folder or is_mixed):  # a pattern of all shards, too
        files = [file for file in files if named[file] in NAMES[split]]
    elif not is_told and split != 'train':
        files = []
    if not files and not is_told and split != 'train':
        others = (expand(other, suffix, **expanding) for other in _renamed(where, split))
        files = next((found for found in others if found and all(map(os.path.isfile, found))), [])
    if not files and not is_told and expand(root.where, suffix, **expanding):
        raise no_split(root, split, 'no name of a file tells of it')
    if not files:
        raise ConfigError(f'{root.text}: {where} matches no {suffix} file: name a folder, a file or a pattern of files')
    if missing := [file for file in files if not os.path.isfile(file)]:
        raise ConfigError(
            f'{root.text}: {missing[0]} does not exist, one of {len(missing)} missing of {len(files)} files'
        )
    return files


def _renamed(where: str, split: str) -> list[str]:
    """Where the files of another split may be than those of training: in as many of them as there are, if not in as many."""
    places = [match.span() for match in WORD.finditer(where) if match[0] in NAMES['train']]
    found = []
    for name, (start, end) in product(NAMES[split], places[-1:]):
        for other in (WORD.sub(name, where), where[:start] + name + where[end:]):
            found += [other, re.sub(r'\{[^{}]*\.\.[^{}]*\}', '*', other)]
    return found


def no_split(root: Root, split: str, why: str) -> ConfigError:
    """The error of a root that has other splits."""
    hint = ' or pass --no-validate to ldae train' if split == 'val' else ''
    return ConfigError(f'{root.text} has no images of {split!r} ({why}): say where they are, ::{split}=...{hint}')


def in_both(root: Root, split: str, what: str) -> ConfigError:
    """The error of a root whose images of training are to be scored on."""
    return ConfigError(
        f'{root.text}: {what} of both training and {split!r}: name others, ::train=... or ::{split}=..., {SCORES_NOTHING}'
    )


def decoded(data: bytes) -> str:
    """A file's text: UTF-8, or UTF-16 that says so; other bytes stand for themselves, as in names of files."""
    coding = 'utf-16' if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else 'utf-8-sig'
    return data.decode(coding, errors='replace' if coding == 'utf-16' else 'surrogateescape')
