# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image

from ldae.datasets.mask_folder import MaskFolder
from ldae.utils import ConfigError

COLORS = np.array([(60, 60, 60), (220, 60, 40), (40, 90, 230)])


def write_shapes(root, train=3, val=2, palette=True, height=24, width=32):
    """Squares of two classes on noise; the first row of a mask is ignored."""
    rng = np.random.default_rng(0)
    for split, count in dict(train=train, val=val).items():
        for kind in ('images', 'masks'):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((height, width), np.uint8)
            for value in (1, 2):
                top, left = 4 * rng.integers(0, 3), 4 * rng.integers(0, 5)
                mask[top : top + 12, left : left + 12] = value
            image = (COLORS[mask] + rng.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)
            mask[0] = 255
            picture = Image.fromarray(mask)
            if palette:
                picture = Image.frombytes('P', (width, height), mask.tobytes())
                picture.putpalette([7 * v % 256 for v in range(768)])
            picture.save(root / 'masks' / split / f'{i}.png')
            Image.fromarray(image).save(root / 'images' / split / f'{i}.jpg', quality=95)
    return root


@pytest.fixture
def root(tmp_path):
    return write_shapes(tmp_path / 'shapes')


def test_masks_are_class_numbers_whether_grey_or_with_a_palette(root, tmp_path):
    grey = MaskFolder(write_shapes(tmp_path / 'grey', palette=False), 'train', (12, 12))
    data = MaskFolder(root, 'train', (12, 12))
    assert data.values == grey.values == [0, 1, 2]
    for number in range(3):
        mask = data.mask(number, data.values)
        assert mask.shape == (24, 32)
        assert set(mask.unique().tolist()) == {-1, 0, 1, 2}
        assert (mask[0] == -1).all()
        assert torch.equal(mask, grey.mask(number, data.values))
        small = data.mask(number, data.values, (12, 16))
        assert (small == mask[::2, ::2]).float().mean() > 0.8
    assert (data.mask(0, [2])[1:] == torch.where(data.mask(0, [0, 1, 2])[1:] == 2, 0, -1)).all()


def test_images_are_whole_and_rgb_or_grey(root):
    sample = MaskFolder(root, 'val', (12, 16))[0]['inputs']
    assert sample.shape == (3, 12, 16)
    mask = MaskFolder(root, 'val', (12, 16)).mask(0, [0, 1, 2], (12, 16))
    for value in (1, 2):
        colour = sample[:, mask == value].float().mean(1)
        assert torch.allclose(colour, torch.tensor(COLORS[value]).float(), atol=30)
    assert MaskFolder(root, 'val', (12, 16), channels=1)[0]['inputs'].shape == (1, 12, 16)


def test_an_ignored_value_of_ones_own(root):
    assert MaskFolder(root, 'train', (12, 12), ignore=0).values == [1, 2, 255]
    assert MaskFolder(root, 'train', (12, 12), ignore=None).values == [0, 1, 2, 255]


def test_a_limit_takes_the_same_images_each_time(root):
    one, same = (MaskFolder(root, 'train', (12, 12), limit=2).files for _ in range(2))
    assert one == same
    assert len(one) == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def save(array, path):
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda r: (r / 'masks/train/1.png').unlink(), r'1 files have no mask: .*images/train/1\.jpg'),
        (lambda r: (r / 'images/train/1.jpg').unlink(), r'1 files have no image: .*masks/train/1\.png'),
        (lambda r: save(np.zeros((9, 8), np.uint8), r / 'masks/train/1.png'), 'different sizes, 32 x 24 and 8 x 9'),
        (lambda r: save(np.zeros((24, 32, 3), np.uint8), r / 'masks/train/1.png'), r'1\.png has colours \(RGB\)'),
        (
            lambda r: save(np.arange(24 * 50, dtype=np.uint16).reshape(24, 50), r / 'masks/train/1.png'),
            'more than 1000 values',
        ),
        (lambda r: (r / 'masks/train/1.png').write_bytes(b'no picture'), r'1\.png is not a readable image'),
        (
            lambda r: save(np.zeros((24, 32), np.uint8), r / 'm.jpg') or (r / 'm.jpg').replace(r / 'masks/train/1.png'),
            r'1\.png cannot be read as a PNG',
        ),
        (lambda r: cut(r / 'masks/train/1.png'), r'1\.png (cannot be read as a PNG|is truncated|is damaged)'),
        (lambda r: (r / 'masks/train').rename(r / 'masks/training'), 'masks/train is not a folder'),
        (lambda r: save(np.zeros((4, 4), np.uint8), r / 'images/train/1.png'), 'several files of one name'),
    ],
)
def test_bad_folders_are_one_clear_line(root, damage, message):
    damage(root)
    with pytest.raises(ConfigError, match=message) as error:
        list(map(MaskFolder(root, 'train', (12, 12)).__getitem__, range(3)))
    assert '\n' not in str(error.value)


def test_stray_values_are_one_clear_line(root):
    mask = np.zeros((24, 32), np.uint8)
    mask[5] = 7
    save(mask, root / 'masks/val/1.png')
    with pytest.raises(ConfigError, match=r'1\.png has value 7, but there are 3 classes'):
        MaskFolder(root, 'val', (12, 12), num_classes=3)
    with pytest.raises(ConfigError, match='has class 7, which no training mask has'):
        MaskFolder(root, 'val', (12, 12)).check_values(MaskFolder(root, 'train', (12, 12)).values)
    for path in (root / 'masks/train').iterdir():
        save(np.zeros((24, 32), np.uint8), path)
    with pytest.raises(ConfigError, match='there must be two'):
        MaskFolder(root, 'train', (12, 12))
