# SPDX-License-Identifier: Apache-2.0
"""Tables of the library ``datasets`` as rows to read from at any place: which there are, their labels, and the bytes of an image.

Rows are data: images are taken from their bytes alone, whatever files a row names, and nothing that comes with a table is run.
"""

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ldae.utils import ConfigError
from ldae.utils.errors import nearest, short
from ldae.utils.optional import import_extra

from .roots import NAMES, Root, expand, files_of_split, in_both, no_split, parse_root

#: Builders of the library that read tables with the images in them.
BUILDERS = ('Parquet', 'Arrow')
#: Files of ``save_to_disk``.
SAVED = ('state.json', 'dataset_dict.json')
IMAGES, LABELS = ('image', 'img'), ('label', 'labels', 'class', 'target', 'cls')


class Table(NamedTuple):
    """A split, opened: what names it, the library's data set, and its column of images."""

    root: Root
    dataset: Any
    images: Any

    def read(self, row: int) -> bytes:
        """The bytes of an image. Raises OSError where there are none."""
        value = self.images[row].column(0)[0].as_py()
        found = value.get('bytes') if isinstance(value, dict) else value
        if found is None:
            raise OSError('no bytes')
        return found

    def labels(self) -> tuple[list, tuple[str, ...] | None]:
        """The labels, and the classes' names where the table says them. Raises ConfigError if it has none."""
        features = self.dataset.features
        classes = [name for name, feature in features.items() if type(feature).__name__ == 'ClassLabel']
        name = _column(self.root, features, 'label', LABELS, classes or [name for name in LABELS if name in features])
        if name is None:
            raise ConfigError(
                f'{self.root.text} has no column of labels: say which, ::label=, of {", ".join(features)}'
            )
        column = self.dataset.select_columns([name]).with_format('arrow')[:][name]
        names = getattr(features[name], 'names', None)
        return column.to_pylist(), names and tuple(names)


#: Splits that are open, by what names them; processes that are forked share them.
TABLES: dict[tuple[str, str], Table] = {}


def read_row(address: str) -> bytes:
    """The bytes of the image at ``<data_root>::<split>::<row>``."""
    data_root, split, row = address.rsplit('::', 2)
    table = TABLES.get((data_root, split)) or open_table(data_root, split)
    return table.read(int(row))


def open_table(data_root: str, split: str) -> Table:
    """Open a split, for its rows to be read. Raises ConfigError if it can't be, or has no images in it."""
    root = parse_root(data_root)
    dataset = _loaded(root, split)
    name = _column_of_images(root, dataset)
    table = Table(root, dataset, dataset.select_columns([name]).with_format('arrow'))
    try:
        if len(dataset):
            table.read(0)
    except OSError as error:
        raise ConfigError(
            f'{data_root}: row 0 of {name!r} names a file and has not its bytes, and no file is read that a table names: save_to_disk'
            ' of datasets puts them into it, and csv:: reads a list of files'
        ) from error
    TABLES[data_root, split] = table
    return table


def _loaded(root: Root, split: str) -> Any:
    library = import_extra('datasets.load', 'datasets', 'hf::')
    folder = Path(root.where).expanduser()
    is_saved = any((folder / name).is_file() for name in SAVED)
    with _explained(root):
        if is_saved:
            found = library.load_from_disk(str(folder))
            found = found if hasattr(found, 'values') else dict(train=found)
        elif expand(root.where) or re.search(r'^[/.~]|[*?]|/.*/|\.(parquet|arrow)$', root.where):
            return _of_files(library, root, split)
        else:
            found = _of_hub(library, root)
        for file in chain.from_iterable(part.cache_files for part in found.values()) if is_saved else ():
            if not Path(file['filename']).resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f'{root.text}: it names {file["filename"]}, which lies outside of it')
    name = _name_of_split(root, split, found)
    if name not in found:
        raise no_split(root, split, f'its splits are {", ".join(found)}')
    if split != 'train' and name == _name_of_split(root, 'train', found):
        raise in_both(root, split, f'{name!r} is the split')
    return found[name]


def _name_of_split(root: Root, split: str, found: Collection[str]) -> str | None:
    name = root.options.get(split) or next((name for name in NAMES[split] if name in found), None)
    return next(iter(found)) if name is None and split == 'train' and len(found) == 1 else name


def _of_files(library: Any, root: Root, split: str) -> Any:
    """The rows of local files, of one kind."""
    suffixes = ['.arrow', '.parquet'] if root.where.endswith('.arrow') else ['.parquet', '.arrow']
    suffix = next((suffix for suffix in suffixes if expand(root.where, suffix)), suffixes[0])
    files = files_of_split(root, split, suffix)
    return library.load_dataset(suffix[1:], data_files=dict(train=files), split='train')


def _of_hub(library: Any, root: Root) -> Any:
    """The splits of a data set of the hub, from the library's cache where it lies there."""
    config, revision = map(root.options.get, ('config', 'revision'))
    builder = library.load_dataset_builder(root.where, config, revision=revision)
    kinds = [base.__name__ for base in type(builder).__mro__]
    if not set(kinds) & set(BUILDERS):
        raise ConfigError(
            f'{root.text} is kept as {kinds[0]}: tables with the images in them are read ({", ".join(BUILDERS)}), which save_to_disk of'
            ' datasets makes of any data set'
        )
    builder.download_and_prepare()
    return builder.as_dataset()


@contextmanager
def _explained(root: Root) -> Iterator[None]:
    """The libraries' errors, of many kinds, in a line, and not what they log before."""
    loggers = [logging.getLogger(name) for name in ('datasets', 'huggingface_hub')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    except ConfigError:
        raise
    except Exception as error:
        is_local = expand(root.where)
        advice = 'write or download it again' if is_local else 'no file is here: check its name, ::config=, the network'
        raise ConfigError(f'{root.text} cannot be opened ({short(error, 200)}): {advice}') from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _column(root: Root, features: dict, option: str, names: tuple[str, ...], found: list[str]) -> str | None:
    """The column that an option names, or the only one that may be meant."""
    if (name := root.options.get(option)) is not None:
        if name not in features:
            raise ConfigError(f'{root.text} has no column {name!r}: {", ".join(features)}{nearest(name, features)}')
        return name
    named = [name for name in names if name in found] or found
    if len(named) > 1 and named[0] not in names:
        raise ConfigError(f'{root.text} has several columns of {option}s, {", ".join(named)}: say which, ::{option}=')
    return named[0] if named else None


def _column_of_images(root: Root, dataset: Any) -> str:
    features = dataset.features
    shown = {name: getattr(feature, 'dtype', type(feature).__name__) for name, feature in features.items()}
    images = [name for name, feature in features.items() if type(feature).__name__ == 'Image']
    inner = {name: feature.get('bytes') if isinstance(feature, dict) else feature for name, feature in features.items()}
    files = [name for name in inner if 'binary' in str(getattr(inner[name], 'dtype', ''))]
    name = _column(root, features, 'image', IMAGES, images or files)
    if name not in (*images, *files):
        what = f'column {name!r} holds none' if name else 'no column holds any'
        listed = ', '.join(f'{name} ({kind})' for name, kind in shown.items())
        raise ConfigError(f'{root.text} has no images, as Image or the bytes of their files: {what}, of {listed}')
    return name
