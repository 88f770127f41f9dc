# SPDX-License-Identifier: Apache-2.0
"""List the images of a folder that can't be read, before a run meets them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ldae.utils import ConfigError
from ldae.utils.files import atomic_write_text

from .options import DATA, add_folder_options, add_image_options, image_options, make_parser

FOUND_BAD = 1


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Folder, split, and where the lists go."""
    parser = make_parser(
        'verify-dataset',
        'Read every image of a folder and list those that cannot be read. Exit status: 0 all can, 1 some cannot, 2 error.',
        'tools/verify_dataset.py data/imagenet --split train --write-ann data/imagenet/meta/train.txt',
    )
    add = parser.add_argument
    add('data_root', help=DATA)
    add_folder_options(parser)
    add_image_options(parser, model=False)
    add('--max-pixels', type=int, metavar='N', help='call larger images bad (as ldae.LoadImage)')
    about = 'also list images of which parts are damaged, which training reads all the same'
    add('--strict', action='store_true', help=about)
    add('--format', choices=['text', 'json'], default='text', help='of the list (text)')
    add('--out', metavar='FILE', help='write the list there instead of printing it')
    add('--write-ann', metavar='FILE', help='write an annotation file of the images that can be read')
    add('--force', action='store_true', help='overwrite files that exist')
    return parser.parse_args(argv)


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
    from ldae.datasets.roots import is_source
    from ldae.datasets.verify import annotation_lines, verify_folder

    if args.write_ann and is_source(args.data_root):
        raise ConfigError(f'--write-ann lists files of a folder, and {args.data_root} is not one: take --out')
    place = args.data_root, args.split, args.ann_file
    reading = image_options(args) | ({} if args.max_pixels is None else dict(max_pixels=args.max_pixels))
    found = verify_folder(*place, reading, num_workers=args.workers, strict=args.strict, progress=True)
    if found.unlabelled:
        print(f'labels are not read: {found.unlabelled}', file=sys.stderr)
    listed = [vars(verdict) for verdict in found.bad + found.passed_over]
    text = ''.join(f'{verdict["path"]}\t{verdict["reason"]}\n' for verdict in listed)
    if args.format == 'json':
        fields = dict(folder=found.dataset.img_prefix, images=len(found.dataset), bad=listed)
        text = json.dumps(fields, indent=2) + '\n'
    if args.out:
        atomic_write_text(Path(args.out), text)
    else:
        print(text, end='')
    if args.write_ann:
        lines = annotation_lines(found.dataset, found.bad)
        atomic_write_text(Path(args.write_ann), '\n'.join(lines) + '\n')
    print(found.summary(), file=sys.stderr)
    return FOUND_BAD if found.bad else 0
