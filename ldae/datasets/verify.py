# SPDX-License-Identifier: Apache-2.0
"""Read every image of a folder once, in several processes, and say which can't be read."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ldae.utils import ConfigError, PositiveInt, checked

from .image_folder import ImageFolder, describe_bad
from .listing import list_images
from .load_image import LoadImage
from .roots import is_source
from .workers import forked_pool

CHUNK = 32  # images a task
# Reasons of this module's own, beside load_image's: what libjpeg says while it makes up the missing pixels.
DAMAGED = 'is damaged: '
COMPLAINTS = ('Corrupt', 'Premature', 'Invalid', 'error', 'extraneous')


@dataclass
class Verdict:
    """The error in one path; ``listed`` is False where a data set would not have tried to read it."""

    path: str
    reason: str
    listed: bool = True


class Verification(NamedTuple):
    """A folder, which of its images can't be read, and what is named like an image but isn't a file."""

    dataset: ImageFolder
    bad: list[Verdict]
    passed_over: list[Verdict]
    #: Why labels aren't read; None where they are, or where there are none to read.
    unlabelled: str | None

    def summary(self) -> str:
        """One line."""
        count = len(self.dataset)
        reasons = {verdict.path: verdict.reason.partition(':')[0] for verdict in self.bad}
        text = f'all {count:,} images can be read'
        if self.bad:
            text = f'{describe_bad(reasons, count)} cannot be read'
        if self.passed_over:
            text += f'; {len(self.passed_over)} names that are not files are passed over'
        return f'{self.dataset.img_prefix}: {text}'


def _start_worker() -> None:
    """Keep what the decoders' C libraries print from the terminal, for :func:`_take_messages`."""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)


def _take_messages() -> str:
    """Text that a worker's libraries have printed since the last call."""
    text = os.pread(2, os.fstat(2).st_size, 0).decode(errors='replace')
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)
    return text.strip()


def judge(path: str, reader: LoadImage | None = None) -> str:
    """Why an image can't be read, or ''."""
    try:
        (reader or LoadImage()).read(path)
    except ConfigError as error:
        return getattr(error, 'reason', '') or str(error).removeprefix(path).strip()
    except MemoryError:
        return 'needs more memory than there is'
    return ''


def _judge_chunk(paths: Sequence[str], reader: LoadImage, strict: bool) -> list[tuple[str, str]]:
    found = []
    for path in paths:
        reason = judge(path, reader)
        said = _take_messages()
        if strict and not reason and any(word in said for word in COMPLAINTS):
            reason = DAMAGED + said.splitlines()[-1]
        if reason:
            found.append((path, reason))
    return found


def verify_folder(
    data_root: str, split: str = 'train', ann_file: str = '', reading: Mapping[str, Any] = {}, **options: Any
) -> Verification:
    """Read every image of a folder as :class:`LoadImage` does with the options of ``reading``, with labels where its layout
    gives them; options as of :func:`verify_files`. Raises ConfigError for a folder without images, and as of
    :func:`verify_files`."""
    dataset, unlabelled = _open(data_root, split, ann_file, pipeline=[dict(type='ldae.LoadImage', **reading)])
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    bad = verify_files(paths, reader=dataset.reader, **options)
    listed = set(paths)
    others = [] if is_source(data_root) else list_images(dataset.img_prefix, dataset.extensions).not_files
    passed_over = [Verdict(path, reason, listed=False) for path, reason in others if path not in listed]
    return Verification(dataset, bad, passed_over, unlabelled)


def _open(data_root: str, split: str, ann_file: str, **pipeline: Any) -> tuple[ImageFolder, str | None]:
    if split == 'test':
        return ImageFolder(data_root, split, ann_file, with_label=False, **pipeline), None
    try:
        return ImageFolder(data_root, split, ann_file, **pipeline), None
    except ConfigError as labelled:
        try:
            return ImageFolder(data_root, split, ann_file, with_label=False, **pipeline), str(labelled)
        except ConfigError:
            raise labelled from None


@checked
def verify_files(
    paths: Sequence[str],
    num_workers: PositiveInt = 1,
    reader: LoadImage | None = None,
    strict: bool = False,
    progress: bool = False,
) -> list[Verdict]:
    """Decode files in ``num_workers`` processes; the bad ones in the order of ``paths``, with ``strict`` also what
    is decoded with pixels made up where the file is damaged. Raises ConfigError if a process died, as for want of
    memory."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    found: dict[str, str] = {}
    try:
        with forked_pool(num_workers, _start_worker) as pool:
            sizes = {pool.submit(_judge_chunk, chunk, reader, strict): len(chunk) for chunk in chunks}
            with tqdm(total=len(paths), desc='verify', unit='img', disable=None if progress else True) as bar:
                for done in as_completed(sizes):
                    found.update(done.result())
                    bar.update(sizes[done])
                    bar.set_postfix(bad=len(found))
    except BrokenProcessPool as error:
        raise ConfigError('a process that read images died (for want of memory?): use fewer --workers') from error
    return [Verdict(path, found[path]) for path in paths if path in found]


def annotation_lines(dataset: ImageFolder, bad: Sequence[Verdict]) -> list[str]:
    """Lines ``path label`` (or ``path``) of an annotation file without the bad images."""
    excluded = {verdict.path for verdict in bad}
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    return [
        f'{Path(info["img_path"]).relative_to(dataset.img_prefix)} {info.get("gt_label", "")}'.rstrip()
        for info in infos
        if info['img_path'] not in excluded
    ]
