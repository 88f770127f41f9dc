# SPDX-License-Identifier: Apache-2.0
"""Any folder of images, with classes or without."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import torch
from mmengine import fileio
from mmpretrain.datasets import ImageNet
from torch import Tensor

from ldae.registry import DATASETS
from ldae.utils import ConfigError, PositiveInt, Seed, Share, checked

from .listing import Listing, is_hidden, list_images, listing_backend, tell
from .load_image import ARRAYS, OURS, REASONS, SUFFIXES, BadImageError, is_remote, reader_of, suffixes_of
from .low_shot import Fraction, Split, part_of_each_class
from .resize import with_faster_steps
from .roots import SCORES_NOTHING, decoded, is_source, parse_root
from .sources import name_in_source, open_source

OTHERS = 'what begins with wds::, hf:: or csv:: (docs/data.md)'
MAX_BAD = dict(train=0.01)  # elsewhere none: a score over other images than those asked for is another score


def _folder_of(root: Path, split: str, ann_file: str) -> str:
    listed = ann_file or (root / 'meta' / f'{split}.txt').is_file()
    others = [name for name in ('train', 'val') if (root / name).is_dir()]
    hint = ' or pass --no-validate to ldae train' if split == 'val' else ''
    if (root / split).is_dir():
        if split == 'val' and 'train' in others and not listed and (root / 'val').samefile(root / 'train'):
            raise ConfigError(
                f'{root / "val"} is the folder of training: give it images of its own{hint}, {SCORES_NOTHING}'
            )
        return split
    if others and not listed:
        # Falling back to the root would take the other split for this one.
        raise ConfigError(f'{root} has a folder {others[0]!r} but none named {split!r}: make one{hint}')
    return '.'


@DATASETS.register_module()
class ImageFolder(ImageNet):
    """mmpretrain's ImageNet for any classes, or none, in either of its two layouts.

    Images lie in ``data_root/<split>/`` where that folder exists, else in ``data_root`` itself: one folder a class, or
    listed in an annotation file (lines ``path label``; ``data_root/meta/<split>.txt`` is found by itself). With
    ``with_label=False`` the layout is free and labels in an annotation file are ignored. Raises ConfigError if a folder
    or file is missing, empty or unreadable, if the classes of val differ from those of train, or if more than
    ``max_bad`` of the images can't be read.

    Args:
        data_root: The folder; or tar shards, a table or a list of files, ``wds::``, ``hf::`` or ``csv::`` (docs/data.md).
        split: 'train' or 'val' ('test' has no labels, as in ImageNet).
        ann_file: Annotation file, relative to ``data_root``.
        with_label: Whether samples carry ``gt_label``.
        max_bad: Share of the images, 0 to 1, that may be unreadable. Such an image is replaced by the next good one, in
            the order of the data set, so that what is trained on depends on the files alone. None: 0.01 in 'train', else 0.
        fraction: Part of each class's images to keep, above 0 and up to 1: round(fraction * n) of n, at least one. None: all.
        fraction_seed: Chooses them; they depend on it and on the images' order alone.
        held_out: Share of each class's images, 0 to 1 and chosen by their names, that split 'val' has and 'train' hasn't, in a
            folder without ``val/``: at least one of each class of two or more. None: 'val' of a folder without splits is the
            whole folder.
        min_edge: Decode large JPEGs at a part of their size, as :class:`ldae.LoadImage` does.
        fast_resize: Resize by torch where the pipeline says Pillow: faster, and some values differ a little.
        **kwargs: As in ImageNet (``pipeline``, ``indices``, ...).
    """

    #: What else decides about the images than options, where these may stay the same when the images don't.
    identity: tuple[str, ...] = ()
    _groups: list[int | None] | None = None  # labels, also where samples carry none
    METAINFO = dict()  # no fixed classes: they are read from the folder
    IMG_EXTENSIONS = SUFFIXES

    @checked
    def __init__(
        self,
        data_root: str,
        split: Split = 'train',
        ann_file: str = '',
        with_label: bool = True,
        max_bad: Share | None = None,
        fraction: Fraction | None = None,
        fraction_seed: Seed = 0,
        held_out: Share | None = None,
        fast_resize: bool = False,
        min_edge: PositiveInt | None = None,
        **kwargs,
    ) -> None:
        self.split = split
        self.max_bad = MAX_BAD.get(split, 0) if max_bad is None else max_bad
        self._flags = torch.zeros(0, dtype=torch.uint8)
        self.fraction, self.fraction_seed, self.held_out = fraction, fraction_seed, held_out
        if fraction is not None and not with_label:
            raise ConfigError('ImageFolder.fraction is a part of each class: it needs with_label=True')
        root = Path(data_root).expanduser()
        local = not is_remote(data_root) and not is_source(data_root)
        if is_source(data_root):
            parse_root(data_root)
            if ann_file:
                raise ConfigError(f'{data_root} says by itself which images there are: leave ann_file={ann_file!r} out')
        elif not local:
            listing_backend(data_root)
        else:
            if not root.is_dir():
                raise ConfigError(
                    f'data_root={data_root!r} is not a folder: pass --data-root with a folder of images, or {OTHERS}'
                )
            if ann_file and not (root / ann_file).is_file():
                raise ConfigError(f'ann_file={ann_file!r} is not a file in {root}')
            data_root = str(root)
        kwargs['pipeline'] = with_faster_steps(kwargs.get('pipeline', ()), by_torch=fast_resize)
        self.reader = reader_of(kwargs['pipeline'])
        kwargs.setdefault('extensions', suffixes_of(self.reader.channels))
        if min_edge is not None:
            kwargs['pipeline'] = [
                dict(step, min_edge=min_edge) if step['type'] in OURS else step for step in kwargs['pipeline']
            ]
        if held_out is not None and not ann_file and local and not (root / 'meta' / f'{split}.txt').is_file():
            ann_file = 'meta/train.txt' if (root / 'meta' / 'train.txt').is_file() else ''
        folder = 'train' if held_out is not None and (root / 'train').is_dir() else split
        prefix = kwargs.pop('data_prefix', '') or (_folder_of(root, folder, ann_file) if local else folder)
        super().__init__(
            data_root=data_root, split=split, data_prefix=prefix, ann_file=ann_file, with_label=with_label, **kwargs
        )

    def _find_samples(self) -> list:
        """Paths below the folder, with labels pairs (path, label), in the order of their names."""
        listing = list_images(self.img_prefix, self.extensions)
        samples = listing.files
        if self.with_label:
            self.folder_to_idx = {name: label for label, name in enumerate(listing.folders)}
            samples = self._labelled(listing)
        if not samples:
            hint = '; unlabelled images need with_label=False' if self.with_label else ''
            if any(listing.others[suffix] for suffix in ARRAYS):
                hint = '; arrays are read where LoadImage is told how many bands they have (--channels)'
            if (Path(self.img_prefix) / 'packed.json').is_file():
                hint = (
                    '; it holds packed ones: set dataset.type=ldae.PackedImages and collate_fn.type=ldae.batch_collate'
                )
            tables = [*Path(self.data_root).glob('*.csv')] if self.with_label and not is_remote(self.data_root) else []
            if tables:
                hint = f'; for the labels of {tables[0].name} name the table: --data-root csv::{tables[0]}'
            layout = 'one folder a class' if self.with_label else 'at any depth'
            raise ConfigError(
                f'{self.img_prefix} holds no images ({layout}; {", ".join(sorted(self.extensions))}){hint}'
            )
        if told := listing.left_out():
            tell(told)
        if self.with_label:
            self._check_classes()
        return samples

    def _labelled(self, listing: Listing) -> list[tuple[str, int]]:
        of_folder: dict[str, list[str]] = {name: [] for name in self.folder_to_idx}
        loose = 0
        for path in listing.files:
            folder, _, below = path.partition('/')
            loose += not below
            if below:
                of_folder[folder].append(path)
        if self.CLASSES is not None and len(self.CLASSES) != len(of_folder):
            raise ConfigError(
                f'{self.img_prefix} has {len(of_folder)} class folders, and metainfo names {len(self.CLASSES)} classes'
            )
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(of_folder)
        if empty := [name for name, paths in of_folder.items() if not paths]:
            shown = ', '.join(map(repr, empty[:5]))
            tell(
                f'{self.img_prefix}: {len(empty)} class folders hold no image that can be read: {shown}; they keep labels'
            )
        if loose:
            tell(f'{self.img_prefix}: {loose} images lie outside of the class folders, and are left out')
        return [(path, self.folder_to_idx[name]) for name, paths in of_folder.items() for path in paths]

    def _check_classes(self) -> None:
        # Labels are positions in the sorted list of folders, so another list means other labels.
        train = Path(self.data_root) / 'train'
        if is_remote(self.data_root) or not train.is_dir() or Path(self.img_prefix) == train:
            return
        known = {folder.name for folder in train.iterdir() if folder.is_dir() and not is_hidden(folder.name)}
        differ = sorted(known ^ set(self.folder_to_idx))
        if known and differ:
            raise ConfigError(
                f'{self.img_prefix} and {train} must have the same class folders; {differ[:5]} is in one of them only'
                ' (an empty folder will do)'
            )

    def load_data_list(self) -> list[dict]:
        """Image paths and labels, as ImageNet's; annotation files may have labels that aren't wanted."""
        if is_source(self.data_root):
            return self._of_source()
        if not self.ann_file:
            return super().load_data_list()
        lines = [line.strip() for line in decoded(fileio.get(self.ann_file)).splitlines() if line.strip()]
        if not lines:
            raise ConfigError(f'{self.ann_file} is empty: it must list one image a line')
        self._groups = [_label_in(line) for line in lines]
        return [self._parse_line(line, number) for number, line in enumerate(lines, 1)]

    def _of_source(self) -> list[dict]:
        split = self.split if self.held_out is None else 'train'
        # What is held out of each class depends on labels, also where samples carry none.
        if_any = None if self.held_out is not None else False
        found = open_source(self.data_root, split, True if self.with_label else if_any)
        if self.with_label and found.classes and self.CLASSES is None:
            self._metainfo['classes'] = found.classes
        self.identity = found.identity
        self._groups = found.labels or [0] * len(found.paths)
        if not self.with_label:
            return [dict(img_path=path) for path in found.paths]
        return [dict(img_path=path, gt_label=label) for path, label in zip(found.paths, found.labels, strict=True)]

    def _parse_line(self, line: str, number: int) -> dict:
        name = line.rpartition(' ')[0]
        is_inside = is_remote(self.img_prefix) or os.path.abspath(f'{self.img_prefix}/{name or line}').startswith(
            os.path.join(os.path.abspath(self.data_root), '')
        )
        if '\0' in line or '..' in line and not is_inside:
            raise ConfigError(f'{self.ann_file}, line {number}: {line[:99]!r} is not a file below {self.data_root}')
        label = _label_in(line)
        if self.with_label and label is None:
            raise ConfigError(f'{self.ann_file}, line {number}: {line[:99]!r} should read "path label"')
        if label is None:
            return dict(img_path=f'{self.img_prefix}/{line}')
        info = dict(img_path=f'{self.img_prefix}/{name}')
        return dict(info, gt_label=label) if self.with_label else info

    def filter_data(self) -> list[dict]:
        """The list of images, of each class the part that is asked for; ``indices`` come later."""
        data_list = super().filter_data()
        if self.held_out is not None:
            data_list = self._without_held_out(data_list)
        if self.fraction is None:
            return data_list
        labels = torch.tensor([info['gt_label'] for info in data_list], dtype=torch.long)
        keep = part_of_each_class(labels, self.fraction, self.fraction_seed, 'ImageFolder')
        return [data_list[i] for i in keep.tolist()]

    def _without_held_out(self, data_list: list[dict]) -> list[dict]:
        """The images of this split: of each class, those whose names have the least hashes are held out."""
        classes = defaultdict(list)
        for number, info in enumerate(data_list):
            folder, _, name = self.name_of(info['img_path']).rpartition('/')
            group = self._groups[number] if self._groups else None
            group = folder.partition('/')[0] if group is None else group
            classes[group].append((sha256(os.fsencode(name)).digest(), info['img_path']))
        if all(len(names) == 1 for names in classes.values()):  # nothing can be held out of any
            classes = {'': [names[0] for names in classes.values()]}
        held_out = set()
        for names in classes.values():
            count = max(1, round(self.held_out * len(names))) if len(names) > 1 and self.held_out else 0
            held_out.update(path for _, path in sorted(names)[:count])
        return [info for info in data_list if (info['img_path'] in held_out) == (self.split != 'train')]

    def name_of(self, path: str) -> str:
        """An image's path relative to the folder, or its name in what isn't one."""
        if is_source(self.data_root):
            return name_in_source(path)
        return os.path.normpath(path.removeprefix(f'{self.img_prefix}/'))

    @property
    def img_prefix(self) -> str:
        """Where the images lie."""
        return self.data_root if is_source(self.data_root) else super().img_prefix

    def full_init(self) -> None:
        """Also make room for what is found out about images, in memory that workers started later share."""
        super().full_init()
        self._bad_flags()

    def _bad_flags(self) -> Tensor:
        """uint8 (n,): 0, or why an image can't be read, as a position in REASONS."""
        if len(self._flags) != len(self):
            self._flags = torch.zeros(len(self), dtype=torch.uint8).share_memory_()
        return self._flags

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on an image, or on the next one that can be read."""
        flags = self._bad_flags()
        for step in range(len(self)):
            place = (idx + step) % len(self)
            if flags[place]:
                continue
            try:
                return self._load(place)
            except BadImageError as error:
                flags[place] = REASONS.index(error.reason)
                check_share(self, self.bad_images())
        raise ConfigError(f'{self.img_prefix}: none of {len(self)} images can be read')

    def _load(self, idx: int) -> dict:
        """A sample; whatever reader a pipeline has, a bad file is a BadImageError."""
        try:
            sample, cause = super().prepare_data(idx), None
        except ConfigError:
            raise
        except Exception as error:
            sample, cause = None, error
        if sample is None:  # for which mmengine would draw another at random
            self.reader.read(self.get_data_info(idx)['img_path'])
            raise cause or ConfigError(f'{self.get_data_info(idx)["img_path"]}: the pipeline returns nothing')
        return sample

    def look(self, most: int = 16) -> str:
        """Read some images, all over the folder, where they have bands; raise ConfigError if these differ, or can't be scaled.
        Returns the type of their values."""
        found = 'uint8'
        for number in range(0, len(self), max(1, len(self) // most)) if self.reader.channels else ():
            with suppress(BadImageError):  # of which there may be some
                found = str(self.reader.read(self.get_data_info(number)['img_path']).dtype)
        return found

    def bad_images(self) -> dict[int, str]:
        """Index and reason of each image found to be unreadable so far, by this process and its workers."""
        flags = self._bad_flags()
        return {int(i): REASONS[flags[i]] for i in flags.nonzero().flatten()}


def _label_in(line: str) -> int | None:
    """The label at the end of a line of an annotation file, where it has one."""
    name, _, label = line.rpartition(' ')
    return int(label) if name and re.fullmatch('-?[0-9]{1,9}', label) else None


def check_share(dataset: ImageFolder, bad: dict[int, str]) -> None:
    """Raise ConfigError if more images than ``dataset.max_bad`` of all are bad: index -> reason."""
    if len(bad) <= dataset.max_bad * len(dataset):
        return
    first = min(bad)
    path = dataset.get_data_info(first)['img_path']
    others = f' and so are {len(bad) - 1} more' if len(bad) > 1 else ''
    raise ConfigError(
        f'{path} {bad[first]}{others}; of {len(dataset)} images, max_bad={dataset.max_bad:g} may be so: remove or replace'
        f' what `ldae verify-dataset {dataset.data_root} --split {dataset.split}` lists, or raise max_bad of the data set'
    )


def describe_bad(bad: Mapping[object, str], size: int) -> str:
    """'3 of 1,000 images (2 is truncated, 1 is empty)', of index -> reason."""
    counts = Counter(bad.values()).most_common()
    shown = ', '.join(f'{n} {reason}' for reason, n in counts[:5]) + ', ...' * (len(counts) > 5)
    return f'{len(bad):,} of {size:,} images ({shown})'
