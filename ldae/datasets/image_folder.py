# SPDX-License-Identifier: Apache-2.0
"""Any folder of images, with classes or without."""

from pathlib import Path

from mmengine.fileio import list_from_file
from mmpretrain.datasets import ImageNet

from ldae.registry import DATASETS
from ldae.utils import ConfigError


def is_remote(path: str) -> bool:
    """Whether a path names a storage backend ('s3://...') rather than a local file."""
    return '://' in path


def _folder_of(root: Path, split: str, ann_file: str) -> str:
    if (root / split).is_dir():
        return split
    listed = ann_file or (root / 'meta' / f'{split}.txt').is_file()
    others = [name for name in ('train', 'val') if (root / name).is_dir()]
    if others and not listed:
        # Falling back to the root would take the other split for this one.
        hint = ' or pass --no-validate' if split == 'val' else ''
        raise ConfigError(f'{root} has a folder {others[0]!r} but none named {split!r}: make one{hint}')
    return '.'


@DATASETS.register_module()
class ImageFolder(ImageNet):
    """mmpretrain's ImageNet for any classes, or none, in either of its two layouts.

    Images lie in ``data_root/<split>/`` where that folder exists, else in ``data_root`` itself: one folder a class, or
    listed in an annotation file (lines ``path label``; ``data_root/meta/<split>.txt`` is found by itself). With
    ``with_label=False`` the layout is free and labels in an annotation file are ignored.

    Args:
        data_root: The folder.
        split: 'train' or 'val' ('test' has no labels, as in ImageNet).
        ann_file: Annotation file, relative to ``data_root``.
        with_label: Whether samples carry ``gt_label``.
        **kwargs: As in ImageNet (``pipeline``, ``indices``, ...).

    Raises:
        ConfigError: A folder or file is missing, empty or unreadable, or the classes of val differ from those of train.
    """

    METAINFO = dict()  # no fixed classes: they are read from the folder

    def __init__(
        self, data_root: str, split: str = 'train', ann_file: str = '', with_label: bool = True, **kwargs
    ):
        root = Path(data_root).expanduser()
        local = not is_remote(data_root)
        if local:
            if not root.is_dir():
                raise ConfigError(
                    f'data_root={data_root!r} is not a folder: pass --data-root with a folder of images'
                )
            if ann_file and not (root / ann_file).is_file():
                raise ConfigError(f'ann_file={ann_file!r} is not a file in {root}')
            data_root = str(root)
        prefix = kwargs.pop('data_prefix', '') or (_folder_of(root, split, ann_file) if local else split)
        super().__init__(
            data_root=data_root,
            split=split,
            data_prefix=prefix,
            ann_file=ann_file,
            with_label=with_label,
            **kwargs,
        )

    def _find_samples(self) -> list:
        try:
            samples = super()._find_samples()
        except RuntimeError as error:
            hint = '; unlabelled images need with_label=False' if self.with_label else ''
            layout = 'one folder a class' if self.with_label else 'at any depth'
            raise ConfigError(
                f'{self.img_prefix} holds no images ({layout}; {", ".join(sorted(self.extensions))}){hint}'
            ) from error
        if self.with_label:
            self._check_classes()
        return samples

    def _check_classes(self) -> None:
        # Labels are positions in the sorted list of folders, so another list means other labels.
        train = Path(self.data_root) / 'train'
        if is_remote(self.data_root) or not train.is_dir() or Path(self.img_prefix) == train:
            return
        known = {folder.name for folder in train.iterdir() if folder.is_dir()}
        differ = sorted(known ^ set(self.folder_to_idx))
        if known and differ:
            raise ConfigError(
                f'{self.img_prefix} and {train} must have the same class folders; {differ[:5]} is in one of them only'
                ' (an empty folder will do)'
            )

    def load_data_list(self) -> list[dict]:
        """Image paths and labels, as ImageNet's; annotation files may have labels that aren't wanted."""
        if not self.ann_file:
            return super().load_data_list()
        lines = [line.strip() for line in list_from_file(self.ann_file) if line.strip()]
        if not lines:
            raise ConfigError(f'{self.ann_file} is empty: it must list one image a line')
        return [self._parse_line(line, number) for number, line in enumerate(lines, 1)]

    def _parse_line(self, line: str, number: int) -> dict:
        name, _, label = line.rpartition(' ')
        labelled = bool(name) and label.lstrip('-').isdigit()
        if self.with_label and not labelled:
            raise ConfigError(f'{self.ann_file}, line {number}: {line!r} should read "path label"')
        if not labelled:
            return dict(img_path=f'{self.img_prefix}/{line}')
        info = dict(img_path=f'{self.img_prefix}/{name}')
        return dict(info, gt_label=int(label)) if self.with_label else info

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline; a file that isn't an image is named in one line."""
        try:
            return super().prepare_data(idx)
        except (AssertionError, OSError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            path = self.get_data_info(idx)['img_path']
            if not is_remote(path) and not Path(path).is_file():
                raise ConfigError(
                    f'{path} does not exist: correct {self.ann_file or self.data_root}'
                ) from error
            if 'failed to load image' in str(error) or isinstance(error, OSError):
                raise ConfigError(f'{path} is not a readable image: remove or replace it') from error
            raise
