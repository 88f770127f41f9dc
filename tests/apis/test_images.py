# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ldae.apis.images import read_images, some_of
from ldae.utils import ConfigError

FORMS = {
    'array': lambda x: x,
    'float array': lambda x: x / 255,
    'float32 array': lambda x: (x / 255).astype(np.float32),
    'array of 16 bits': lambda x: x.astype(np.uint16) * 257,
    'array not contiguous': lambda x: np.asfortranarray(x),
    'RGBA array': lambda x: np.dstack([x, np.full(x.shape[:2], 7, np.uint8)]),
    'batch of arrays': lambda x: x[None],
    'tensor': lambda x: torch.from_numpy(x).permute(2, 0, 1),
    'float tensor': lambda x: torch.from_numpy(x).permute(2, 0, 1) / 255,
    'batch of tensors': lambda x: torch.from_numpy(x).permute(2, 0, 1)[None],
    'PIL image': Image.fromarray,
    'RGBA PIL image': lambda x: Image.fromarray(x).convert('RGBA'),
    'list': lambda x: [x],
    'generator': lambda x: (x for _ in range(1)),
    'nested list': lambda x: [[Image.fromarray(x)]],
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_of_a_picture_gives_the_same_pixels(form: str, rgb: np.ndarray):
    (image,) = read_images(FORMS[form](rgb))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(image[..., ::-1], rgb)


@pytest.mark.parametrize('kind', [str, Path, lambda path: [path], lambda path: path.parent])
def test_a_file_a_list_and_a_folder_are_read_alike(kind, tmp_path: Path, rgb: np.ndarray):
    (tmp_path / 'deep').mkdir()
    Image.fromarray(rgb).save(tmp_path / 'deep' / 'a.png')
    (tmp_path / 'deep' / 'notes.txt').write_text('not a picture')
    (image,) = read_images(kind(tmp_path / 'deep' / 'a.png'))
    assert np.array_equal(image[..., ::-1], rgb)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path, rgb: np.ndarray):
    for i in (2, 0, 1):
        Image.fromarray(np.full_like(rgb, i)).save(tmp_path / f'{i}.png')
    assert [int(image[0, 0, 0]) for image in read_images(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize(
    'grey',
    [
        lambda x: x,
        lambda x: x[..., None],
        lambda x: x[None, ..., None],
        lambda x: x / 255,
        torch.from_numpy,
        lambda x: torch.from_numpy(x)[None],
        Image.fromarray,
        lambda x: Image.fromarray(x.astype(np.uint16) * 257),
        lambda x: Image.fromarray(x.astype(np.int32) * 257),
    ],
)
def test_grey_is_repeated(grey, rgb: np.ndarray):
    (image,) = read_images(grey(rgb[..., 0]))
    assert np.array_equal(image, rgb[..., :1].repeat(3, axis=2))


def test_sixteen_bits_in_a_file_and_in_an_array_are_the_same(tmp_path: Path):
    pixels = np.random.default_rng(1).integers(0, 65536, (8, 9), dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    from_file, from_array, from_pil = read_images([tmp_path / 'a.png', pixels, Image.open(tmp_path / 'a.png')])
    assert np.array_equal(from_file, from_array)
    assert np.array_equal(from_file, from_pil)


def test_the_exif_orientation_is_obeyed_by_files_and_by_pil_images(tmp_path: Path):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise: what is right comes down
    Image.fromarray(pixels).save(tmp_path / 'a.jpg', exif=exif, quality=100)
    for image in read_images([tmp_path / 'a.jpg', Image.open(tmp_path / 'a.jpg')]):
        assert image.shape == (64, 32, 3)
        assert image[:24].mean() < 10 < 245 < image[40:].mean()


def test_cmyk_is_converted(rgb: np.ndarray):
    cmyk = Image.fromarray(rgb).convert('CMYK')
    (image,) = read_images(cmyk)
    assert np.array_equal(image[..., ::-1], np.asarray(cmyk.convert('RGB')))


def test_pictures_are_read_when_they_are_asked_for(rgb: np.ndarray):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield rgb

    pictures = read_images(endless())
    next(pictures)
    next(pictures)
    assert len(taken) == 2


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ([], 'there are no images'),
        ((x for x in ()), 'there are no images'),
        (torch.zeros(0, 3, 4, 4), 'holds no images'),
        ('nowhere.png', r'nowhere\.png does not exist'),
        (None, 'NoneType is not an image'),
        (b'\x89PNG', 'bytes is not an image'),
        ([3], 'int is not an image'),
        (np.full((4, 4, 3), 255.0), r'values from 255 to 255, .*divide by 255'),
        (np.full((4, 4, 3), -0.5), r'undo any normalisation'),
        (torch.full((3, 4, 4), float('nan')), 'NaN'),
        (np.zeros((4, 4, 3), np.int64), 'values must be uint8'),
        (np.zeros((4, 4, 3), bool), 'values must be uint8'),
        (np.zeros((3, 8, 8), np.uint8), r'arrays must be \(H, W\), \(H, W, C\)'),
        (torch.zeros(8, 8, 3), r'Tensors must be \(H, W\), \(C, H, W\)'),
        (np.zeros(5, np.uint8), r'must be \(H, W\)'),
        (np.zeros((0, 4, 3), np.uint8), 'is empty'),
        (np.zeros((1, 500, 3), np.uint8), 'too long and narrow'),
        (Image.new('F', (4, 4)), 'no known range'),
    ],
)
def test_what_is_no_picture_is_one_line(images, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        list(read_images(images))
    assert '\n' not in str(caught.value)


def test_a_bad_one_among_many_is_named_by_its_place(rgb: np.ndarray):
    with pytest.raises(ConfigError, match='image 2 '):
        list(read_images([rgb, rgb, rgb.astype(float), rgb]))


def test_unreadable_files_and_empty_folders_are_named(tmp_path: Path, rgb: np.ndarray):
    with pytest.raises(ConfigError, match='holds no images'):
        list(read_images(tmp_path))
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'a.png').read_bytes()[:-200])
    (tmp_path / 'text.jpg').write_text('no picture')
    with pytest.raises(ConfigError, match=r'cut\.png is truncated'):
        list(read_images(tmp_path / 'cut.png'))
    with pytest.raises(ConfigError, match=r'text\.jpg is not a readable image'):
        list(read_images(tmp_path / 'text.jpg'))
    Image.fromarray(rgb).save(tmp_path / 'a.jpg')
    (tmp_path / 'b.jpg').write_bytes((tmp_path / 'a.jpg').read_bytes()[:-400])
    with pytest.raises(ConfigError, match='image 0 .*cannot be read'):
        list(read_images(Image.open(tmp_path / 'b.jpg')))


def test_some_of_a_folder_are_of_different_folders(tiny_image_folder: Path):
    chosen = some_of([str(tiny_image_folder / 'train')], 4)
    assert [path.relative_to(tiny_image_folder / 'train').as_posix() for path in chosen] == [
        *('a/0.jpg', 'a/4.jpg', 'b/0.jpg', 'b/4.jpg')
    ]
    assert some_of(np.zeros((2, 3, 3)), 1).shape == (2, 3, 3)
