# SPDX-License-Identifier: Apache-2.0
"""Score samples against the images that they should look like."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ldae.utils import ConfigError

from .options import add_cfg_options, add_data_root, add_device, add_import, check_arguments, make_parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae fid``."""
    parser = make_parser(
        'fid',
        'Fréchet distance of images to others; beside it kernel distance, precision, recall and Inception score. SAMPLES and\n'
        'DATA are each a folder of images, wds::, hf:: or csv:: data, an .npz of images (arr_0) or of statistics, or a config,'
        ' CONFIG:train or CONFIG:val.\n'
        'The distance is called FID only if the file of Inception made the features.',
        'tools/fid.py samples/images --reference vit-b_pca:train --data-root data/imagenet --inception inception.pth',
    )
    add = parser.add_argument
    add('samples', metavar='SAMPLES', help='the images that are scored')
    add('--reference', required=True, metavar='DATA', help='the images that they are compared with')
    add('--num', type=int, metavar='N', help='so many of the samples, chosen at random (all)')
    add('--reference-num', type=int, metavar='N', help='so many of the reference (all)')
    about = 'resize the short edge and crop the centre, N x N (images of one size, as they are)'
    add('--size', type=int, metavar='N', help=about)
    network = parser.add_argument_group('features', 'Which network compares the images: one of the two.')
    about = 'pt_inception-2015-12-05-6726825d.pth: the distance is FID'
    network.add_argument('--inception', metavar='FILE', help=about)
    about = 'a checkpoint or folder, timm::, transformers:: or mmpretrain::NAME, or a config'
    network.add_argument('--features', metavar='MODEL', help=about)
    network.add_argument('--weights', metavar='FILE', help='of that model (what timm or mmpretrain downloads)')
    data = parser.add_argument_group('configs', 'Of a config that names the images.')
    data.add_argument('--scale', metavar='NAME', help='bring it to a scale, as tools/train.py does')
    add_data_root(data, 'config')
    add_cfg_options(data, 'override its settings')
    add_import(parser)
    add('--subset', type=int, default=10_000, metavar='N', help='images for all but the Fréchet distance (10000)')
    add('--batch-size', type=int, default=64, metavar='N', help='images a pass (64)')
    add('--workers', type=int, default=2, metavar='N', help='threads that decode files (2)')
    add('--seed', type=int, default=0, help='of what is chosen (0)')
    about = "folder of the reference's statistics, used again if they fit (work_dirs/statistics)"
    add('--cache', default='work_dirs/statistics', metavar='DIR', help=about)
    add('--refresh', action='store_true', help='compute them anew: images of a config have changed in place')
    add_device(parser)
    add('--out', metavar='FILE', help='write all figures, and what they were made from, to a .json file')
    add('--force', action='store_true', help='replace what exists')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae fid`` and ``tools/fid.py``."""
    args = parse_args(argv)
    out = args.out and Path(args.out)
    if out and out.exists() and not args.force:
        raise ConfigError(f'--out {out} exists: name another file, or add --force to replace it')
    from ldae.generation import frechet_distance
    from ldae.utils.files import atomic_write_text

    check_arguments(args, frechet_distance)
    rest = ('imports', 'out', 'force')
    found = frechet_distance(**{name: value for name, value in vars(args).items() if name not in rest})
    print(found.text())
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out, json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + '\n')
        print(f'written: {out}')
