# SPDX-License-Identifier: Apache-2.0
"""Write the images of a folder at the size of training into shards that are read without decoding, or with little."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ldae.utils import ConfigError

from .options import DATA, add_folder_options, add_image_options, image_options, make_parser, size_of

if TYPE_CHECKING:
    from ldae.datasets import ImageFolder

FOUND_BAD = 1


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Folder, split, and how images are stored."""
    parser = make_parser(
        'pack-dataset',
        'Write the images of a folder at the size of training into shards, which ldae.PackedImages reads. Run again after'
        ' a stop, it goes on. Exit status: 0 done, 1 --verify found damaged files, 2 error.',
        'tools/pack_dataset.py data/imagenet --out data/imagenet-256',
    )
    add = parser.add_argument
    add('data_root', nargs='?', help=DATA)
    add('--out', required=True, metavar='DIR', help='folder of the shards; gets DIR/SPLIT')
    add_folder_options(parser)
    add('--no-label', action='store_true', help='images at any depth, labels are not read')
    about = 'center: squares, as under centre crop; none: whole images, for random crops (center)'
    add('--crop', choices=['center', 'none'], default='center', help=about)
    add('--edge', type=int, default=256, metavar='N', help='short edge after resizing (256)')
    add('--size', type=int, nargs='+', metavar='N', help='of the centre crop (as --edge), or its height and width')
    add_image_options(parser, model=False)
    about = 'uint8: no decoding, about 8 times the room (uint8; float32 of 16 bits and floats; jpeg with --crop none)'
    add('--format', choices=['uint8', 'jpeg', 'float32'], help=about)
    add('--quality', type=int, default=95, metavar='N', help='of JPEGs (95)')
    add('--shard-size', type=int, default=4096, metavar='N', help='images a shard (4096)')
    add('--max-bad', type=float, metavar='X', help='share that may be unreadable (train: 0.01, else 0)')
    add('--verify', action='store_true', help='only compare the files with their checksums')
    add('--force', action='store_true', help='begin anew where something was packed before')
    return parser.parse_args(argv)


def open_folder(args: argparse.Namespace) -> 'ImageFolder':
    """The images to pack."""
    from ldae.datasets import ImageFolder
    from ldae.datasets.roots import is_source

    if args.data_root is None:
        raise ConfigError('which folder? `ldae pack-dataset FOLDER --out DIR`')
    labelled = not args.no_label and args.split != 'test'
    if not is_source(args.data_root) and Path(args.out).expanduser().resolve().is_relative_to(
        Path(args.data_root).expanduser().resolve()
    ):
        raise ConfigError(f'--out {args.out} lies in the folder of the images: name another one')
    options = dict(with_label=labelled, max_bad=args.max_bad)
    return ImageFolder(
        args.data_root,
        args.split,
        args.ann_file,
        pipeline=[dict(type='ldae.LoadImage', **image_options(args))],
        **options,
    )


def check(folder: Path, workers: int) -> int:
    """Compare with the checksums; each damaged file is a line."""
    from ldae.datasets.packing import verify

    found = verify(folder, workers, progress=True)
    print(*found, sep='\n', end='\n' if found else '')
    advice = 'remove their shards and pack again, which writes only those' if found else 'all is as it was written'
    print(f'{folder}: {len(found)} damaged files; {advice}', file=sys.stderr)
    return FOUND_BAD if found else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ldae pack-dataset`` and ``tools/pack_dataset.py``."""
    args = parse_args(argv)
    from ldae.datasets.image_folder import describe_bad
    from ldae.datasets.packed import find_packed
    from ldae.datasets.packing import PackOptions, pack

    if args.verify:
        return check(find_packed(args.out, args.split), args.workers)
    size = args.size and size_of(args.size, '--size')
    stored = args.format or ('jpeg' if args.crop == 'none' else 'uint8')
    options = PackOptions(
        args.crop, args.edge, size, stored, args.quality, args.shard_size, image_options(args) or None
    )
    dataset = open_folder(args)
    if options.reading and args.format is None and dataset.look() != 'uint8':
        options = replace(options, format='float32')
    folder = Path(args.out).expanduser() / args.split
    print(f'{dataset.img_prefix}: {len(dataset):,} images -> {folder}', file=sys.stderr)
    manifest = pack(dataset, folder, options, args.workers, args.force, progress=True)
    skipped = {name: reason for shard in manifest['shards'] for name, reason in shard['skipped']}
    for name, reason in skipped.items():
        print(f'{name}\t{reason}')
    size = sum(size for shard in manifest['shards'] for size, _ in shard['files'].values())
    left_out = f'; left out: {describe_bad(skipped, len(dataset))}' if skipped else ''
    print(f'{folder}: {len(dataset) - len(skipped):,} images, {size / 1e9:.2f} GB{left_out}', file=sys.stderr)
    return 0
