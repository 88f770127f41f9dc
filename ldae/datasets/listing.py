# SPDX-License-Identifier: Apache-2.0
"""The images of a folder, the same for everybody who asks."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import BaseStorageBackend, get_file_backend
from mmengine.logging import MMLogger, print_log
from torch import Tensor
from torch.utils.data import Dataset

from ldae.utils import ConfigError

from .load_image import SUFFIXES, is_remote

#: What systems and programs leave in folders, beside names that begin with a dot.
SYSTEM = frozenset(
    ('@eadir', '__macosx', '__pycache__', 'thumbs.db', 'ehthumbs.db', 'desktop.ini', '#recycle', '$recycle.bin')
    + ('@recycle', 'lost+found', 'system volume information')
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name, below the one that is listed, is the system's and not its user's."""
    return name.startswith('.') or name.lower() in SYSTEM


@dataclass
class Listing:
    """The images of a folder, and what else lies there.

    Attributes:
        files: Its images at any depth, as paths relative to it, sorted.
        folders: The folders right in it, sorted: the classes, where there are any.
        not_files: (path, reason) of each name of an image that isn't a file.
        others: Number of files of other kinds, by suffix.
        hidden: Number of hidden files and folders, and of those of systems, nothing of which is read.
    """

    root: str
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    not_files: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def left_out(self) -> str:
        """One line of what is not among :attr:`files`; '' if it is nothing."""
        kinds = ', '.join(f'{count} {suffix or "without a suffix"}' for suffix, count in self.others.most_common(5))
        parts = [
            (sum(self.others.values()), f'of other kinds ({kinds})'),
            (self.hidden, 'hidden or of the system'),
            (len(self.not_files), 'links that lead nowhere, and other names without a file'),
        ]
        told = '; '.join(f'{count:,} {what}' for count, what in parts if count)
        return told and f'{self.root}: {len(self.files):,} images; left out are {told}'


def list_images(folder: str | os.PathLike, suffixes: Sequence[str] = SUFFIXES) -> Listing:
    """The listing of a folder, which may be one of a storage backend ('s3://...'): images are told by their names alone.

    Links are followed, but not back into a folder that they lie in."""
    listing = Listing(str(folder))
    if is_remote(listing.root):
        _list_remote(listing, tuple(suffixes))
    else:
        _list_local(listing, tuple(suffixes), '', ())
    listing.files.sort()
    listing.folders.sort()
    return listing


def _list_local(listing: Listing, suffixes: tuple[str, ...], below: str, above: tuple[tuple[int, int], ...]) -> None:
    folder = os.path.join(listing.root, below)
    here = os.stat(folder)
    above = *above, (here.st_dev, here.st_ino)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except PermissionError as error:
        raise ConfigError(f'{folder} may not be read: change its permissions, or move it away') from error
    for entry in entries:
        path = below + entry.name
        if is_hidden(entry.name):
            listing.hidden += 1
        elif _leads_to(entry.is_dir):
            status = os.stat(entry.path)
            if (status.st_dev, status.st_ino) in above:
                listing.not_files.append((entry.path, 'is a link to a folder that it lies in'))
                continue
            if entry.name.lower().endswith(suffixes):
                listing.not_files.append((entry.path, 'is not a file'))
            if not below:
                listing.folders.append(entry.name)
            _list_local(listing, suffixes, f'{path}/', above)
        elif not entry.name.lower().endswith(suffixes):
            listing.others[PurePosixPath(entry.name).suffix.lower()] += 1
        elif _leads_to(entry.is_file):
            listing.files.append(path)
        else:
            is_link = entry.is_symlink() and not os.path.exists(entry.path)
            listing.not_files.append((entry.path, 'is a broken link' if is_link else 'is not a file'))


def _leads_to(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def listing_backend(root: str) -> BaseStorageBackend:
    """The storage backend of an address. Raises ConfigError if there is none, its library isn't installed, or it can't
    list."""
    with _explained(root):
        backend = get_file_backend(root, enable_singleton=True)
        backend.list_dir_or_file  # noqa: B018  (that of http has none)
        return backend


@contextmanager
def _explained(root: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each backend, and the library that it needs, has its own
        raise ConfigError(
            f'{root} cannot be listed ({type(error).__name__}: {" ".join(str(error).split())[:200]}): name a local folder,'
            ' or an address of a storage backend of mmengine that can list, with its library installed'
        ) from error


def _list_remote(listing: Listing, suffixes: tuple[str, ...]) -> None:
    backend = listing_backend(listing.root)
    with _explained(listing.root):
        folders, files = (
            list(backend.list_dir_or_file(listing.root, list_dir=wanted, list_file=not wanted, recursive=not wanted))
            for wanted in (True, False)
        )
    listing.folders = [name for name in folders if not is_hidden(name)]
    for name in files:
        if any(map(is_hidden, name.split('/'))):
            listing.hidden += 1
        elif name.lower().endswith(suffixes):
            listing.files.append(name)
        else:
            listing.others[PurePosixPath(name).suffix.lower()] += 1


def tell(text: str) -> None:
    """Say something once: in the log where a run has one, else on stderr, since tools print lists on stdout."""
    if MMLogger._instance_dict:
        print_log(text, 'current')
    elif text and is_main_process():
        print(text, file=sys.stderr)


def listing_key(dataset: Dataset) -> str:
    """A hash of which images a data set has, in their order, and of their labels, without reading a file of one: for keys of what is
    kept. Data sets within others count with what chooses from them."""
    digest = hashlib.sha256(repr(getattr(dataset, 'identity', ())).encode())
    for part in [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())]:
        if part is not None:
            digest.update(listing_key(part).encode())
    for name in ('data_bytes', 'images', 'labels', 'targets', 'data_list', 'indices', 'repeat_indices'):
        value = getattr(dataset, name, None)
        if isinstance(value, Tensor):  # numpy has no bfloat16
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif isinstance(value, list | tuple | range) and name != 'images':
            digest.update(repr(value).encode())
    return digest.hexdigest()[:16]
