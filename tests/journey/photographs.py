# SPDX-License-Identifier: Apache-2.0
"""A labelled folder of natural photographs, cut from pictures that scikit-image and scikit-learn ship.

A class is a picture. Training crops lie in its left two thirds, test crops in the right third, so no pixel is in both. Crops
differ in size; most are colour JPEGs, and as in anybody's folder some are grey, some have an alpha channel, and some an ICC
profile.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

PICTURES = {
    'skimage/data': (
        *('astronaut.png', 'brick.png', 'chelsea.png', 'coffee.png', 'coins.png', 'grass.png', 'gravel.png'),
        *('hubble_deep_field.jpg', 'ihc.png', 'motorcycle_left.png', 'retina.jpg', 'rocket.jpg'),
    ),
    'sklearn/datasets/images': ('china.jpg', 'flower.jpg'),
}
SHARES = dict(train=(0, 2 / 3), val=(2 / 3, 1))
SIDES = (72, 160)


def pictures() -> dict[str, Image.Image]:
    """Name of the class -> picture of it."""
    found = {}
    for folder, names in PICTURES.items():
        package, _, below = folder.partition('/')
        spec = find_spec(package)
        if spec is None:
            raise SystemExit(f'error: {package} is not installed: pip install scikit-image scikit-learn')
        root = Path(spec.submodule_search_locations[0]) / below
        found |= {name.rpartition('.')[0].split('_')[0]: Image.open(root / name) for name in names}
    return found


def cut(picture: Image.Image, share: tuple[float, float], rng: np.random.Generator) -> Image.Image:
    """A random square crop of the part of the picture between two shares of its width."""
    left, right = (round(edge * picture.width) for edge in share)
    side = int(rng.integers(SIDES[0], min(SIDES[1], right - left, picture.height), endpoint=True))
    x, y = int(rng.integers(left, right - side, endpoint=True)), int(rng.integers(picture.height - side, endpoint=True))
    return picture.crop((x, y, x + side, y + side))


def write(crop: Image.Image, path: Path, number: int) -> None:
    """A crop as a file: every eighth grey, every eighth with alpha, every fourth with an ICC profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes() if number % 4 == 1 else None
    if number % 8 == 2:
        crop.convert('L').save(path.with_suffix('.png'))
    elif number % 8 == 3:
        crop.convert('RGBA').save(path.with_suffix('.png'))
    elif number % 8 == 5:
        crop.convert('RGB').save(path.with_suffix('.png'), icc_profile=profile)
    else:
        crop.convert('RGB').save(path.with_suffix('.jpg'), quality=92, icc_profile=profile)


def make(folder: Path, train: int, val: int, seed: int = 0) -> int:
    """Write ``folder/{train,val}/CLASS/NUMBER.{jpg,png}``, so many of a class; returns how many in all."""
    rng, written = np.random.default_rng(seed), 0
    for name, picture in pictures().items():
        for split, count in dict(train=train, val=val).items():
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                write(cut(picture, SHARES[split], rng), target / f'{number:03d}', number)
            written += count
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description='Write a labelled folder of natural photographs.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--train', type=int, default=60, help='training images of a class (60)')
    parser.add_argument('--val', type=int, default=16, help='test images of a class (16)')
    args = parser.parse_args()
    print(f'{make(args.folder, args.train, args.val)} photographs in {args.folder}')


if __name__ == '__main__':
    main()
