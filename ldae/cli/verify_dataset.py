# SPDX-License-Identifier: Apache-2.0
"""List the images of a folder that can't be read, before a run meets them."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ldae.utils import ConfigError
from ldae.utils.files import atomic_write_text

from .options import make_parser

if TYPE_CHECKING:
    from ldae.datasets import ImageFolder
    from ldae.datasets.verify import Verdict

FOUND_BAD = 1


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Folder, split, and where the lists go."""
    parser = make_parser(
        'verify-dataset',
        'Read every image of a folder and list those that cannot be read. Exit status: 0 all can, 1 some cannot, 2 error.',
        'tools/verify_dataset.py data/imagenet --split train --write-ann data/imagenet/meta/train.txt',
    )
    parser.add_argument('data_root', help="the folder that a config's data_root names")
    parser.add_argument(
        '--split', choices=['train', 'val', 'test'], default='train', help='which images of it (train)'
    )
    parser.add_argument(
        '--ann-file',
        default='',
        metavar='FILE',
        help='annotation file that lists the images, below the folder',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar='N',
        help='processes (one a core)',
    )
    parser.add_argument(
        '--max-pixels', type=int, metavar='N', help='call larger images bad (as ldae.LoadImage)'
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='also list images of which parts are damaged, which training reads all the same',
    )
    parser.add_argument('--format', choices=['text', 'json'], default='text', help='of the list (text)')
    parser.add_argument('--out', metavar='FILE', help='write the list there instead of printing it')
    parser.add_argument(
        '--write-ann', metavar='FILE', help='write an annotation file of the images that can be read'
    )
    parser.add_argument('--force', action='store_true', help='overwrite files that exist')
    return parser.parse_args(argv)


def open_folder(args: argparse.Namespace) -> 'ImageFolder':
    """The data set, with labels where its layout gives them."""
    from ldae.datasets import ImageFolder

    options = dict(data_root=args.data_root, split=args.split, ann_file=args.ann_file)
    if args.split == 'test':
        return ImageFolder(**options, with_label=False)
    try:
        return ImageFolder(**options)
    except ConfigError as labelled:
        try:
            dataset = ImageFolder(**options, with_label=False)
        except ConfigError:
            raise labelled from None
        print(f'labels are not read: {labelled}', file=sys.stderr)
        return dataset


def report(dataset: 'ImageFolder', found: 'list[Verdict]', style: str) -> str:
    """The list as text (``path<TAB>reason``) or JSON."""
    if style == 'text':
        return ''.join(f'{verdict.path}\t{verdict.reason}\n' for verdict in found)
    fields = dict(folder=dataset.img_prefix, images=len(dataset), bad=[vars(verdict) for verdict in found])
    return json.dumps(fields, indent=2) + '\n'


def check_outputs(args: argparse.Namespace) -> None:
    """Raise ConfigError for a file that exists, or whose folder doesn't, before anything is read."""
    for path in filter(None, (args.out, args.write_ann)):
        if Path(path).exists() and not args.force:
            raise ConfigError(f'{path} exists: pass --force to overwrite it, or name another file')
        if not Path(path).absolute().parent.is_dir():
            raise ConfigError(f'{path}: its folder does not exist')


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae verify-dataset`` and ``tools/verify_dataset.py``."""
    args = parse_args(argv)
    check_outputs(args)
    from ldae.datasets.image_folder import describe_bad
    from ldae.datasets.load_image import MAX_PIXELS
    from ldae.datasets.verify import annotation_lines, unlisted, verify_files

    dataset = open_folder(args)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    max_pixels = MAX_PIXELS if args.max_pixels is None else args.max_pixels
    bad = verify_files(paths, args.workers, max_pixels, args.strict, progress=True)
    listed = set(paths)
    passed_over = [v for v in unlisted(dataset.img_prefix, dataset.extensions) if v.path not in listed]
    text = report(dataset, bad + passed_over, args.format)
    if args.out:
        atomic_write_text(Path(args.out), text)
    else:
        print(text, end='')
    if args.write_ann:
        atomic_write_text(Path(args.write_ann), '\n'.join(annotation_lines(dataset, bad)) + '\n')
    summary = describe_bad({v.path: v.reason.partition(':')[0] for v in bad}, len(paths)) + ' cannot be read'
    if not bad:
        summary = f'all {len(paths):,} images can be read'
    ignored = f'; {len(passed_over)} names of no file are passed over' if passed_over else ''
    print(f'{dataset.img_prefix}: {summary}{ignored}', file=sys.stderr)
    return FOUND_BAD if bad else 0
