# SPDX-License-Identifier: Apache-2.0
import os
import warnings
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_files import BAD, JPEG, NO_FILES, PICTURE, PIXELS, PNG, UNUSUAL, encoded
from mmcv.transforms import LoadImageFromFile
from PIL import Image, ImageCms

from ldae.datasets import BadImageError, LoadImage, load_image
from ldae.datasets.load_image import REASONS, decode
from ldae.utils import ConfigError


def load(path: Path, **options: int) -> np.ndarray:
    return LoadImage(**options)(dict(img_path=str(path)))['img']


@pytest.fixture(autouse=True)
def _warnings_of_its_own():
    with warnings.catch_warnings():
        yield


def refused(path: Path, **options: int) -> str:
    warnings.simplefilter('error')
    with pytest.raises(BadImageError) as caught:
        load(path, **options)
    assert str(caught.value) == f'{path} {caught.value.reason}'
    return caught.value.reason


@pytest.mark.parametrize('name', UNUSUAL)
def test_unusual_images_are_read_right_whatever_their_suffix(name: str, tmp_path: Path):
    data, expected, tolerance = UNUSUAL[name]
    path = tmp_path / 'image.JPEG'
    path.write_bytes(data)
    image = load(path)
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert np.abs(image[..., ::-1].astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize('name', BAD)
def test_bad_files_are_refused_with_their_reason(name: str, tmp_path: Path):
    path = tmp_path / 'image.JPEG'
    path.write_bytes(BAD[name][0])
    assert refused(path) == BAD[name][1]


@pytest.mark.parametrize('name', NO_FILES)
def test_what_is_no_file_is_refused_with_its_reason(name: str, tmp_path: Path):
    make, reason = NO_FILES[name]
    make(tmp_path / name)
    assert refused(tmp_path / name) == reason


def test_there_are_more_than_thirty_of_them():
    assert len(BAD) + len(NO_FILES) >= 30


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def forbidden(*args: object) -> None:
        raise PermissionError(13, 'Permission denied')

    (tmp_path / 'a.jpg').write_bytes(JPEG)
    monkeypatch.setattr('builtins.open', forbidden)  # chmod stops everyone but root
    assert refused(tmp_path / 'a.jpg') == 'may not be read'


def test_want_of_file_handles_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def exhausted(*args: object) -> None:
        raise OSError(24, 'Too many open files')

    (tmp_path / 'a.jpg').write_bytes(JPEG)
    monkeypatch.setattr('builtins.open', exhausted)
    with pytest.raises(OSError, match='Too many'):
        load(tmp_path / 'a.jpg')


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp'])
@pytest.mark.parametrize('size', [(1, 1), (7, 13), (375, 500)])
def test_ordinary_images_are_bit_equal_to_those_of_mmcv(suffix: str, size: tuple, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    path = tmp_path / f'image{suffix}'
    assert cv2.imwrite(str(path), pixels)
    ours, theirs = (kind()(dict(img_path=str(path))) for kind in (LoadImage, LoadImageFromFile))
    assert ours.keys() == theirs.keys()
    assert np.array_equal(ours['img'], theirs['img'])
    assert ours['img_shape'] == theirs['img_shape'] == ours['ori_shape'] == size


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('name', BAD)
def test_the_reader_of_mmcv_takes_no_other_formats_and_sizes(name: str, backend: str, tmp_path: Path):
    data, reason = BAD[name]
    path = tmp_path / 'x.jpg'
    path.write_bytes(data)
    with suppress(BadImageError):
        load_image.check_image(data, str(path))
        return  # it is found out by decoding only
    with pytest.raises(BadImageError, match=reason):
        LoadImageFromFile(imdecode_backend=backend)(dict(img_path=str(path)))
    assert LoadImageFromFile(ignore_empty=True)(dict(img_path=str(path))) is None


def test_the_reader_of_mmcv_does_not_wait_at_a_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / 'x.jpg')
    with pytest.raises(BadImageError, match='x.jpg is not a file'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'x.jpg')))


def test_what_opencv_refuses_pillow_reads_as_well(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> None:
        raise cv2.error('no such codec')

    with monkeypatch.context() as patch:
        patch.setattr(cv2, 'imdecode', refuse)
        images = [decode(data) for data in (JPEG, PNG)]
    assert np.array_equal(images[1][..., ::-1], PIXELS)
    assert np.abs(images[0].astype(int) - decode(JPEG)).max() <= 2


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA'])
def test_odd_profiles_of_a_png_change_nothing_and_libpng_says_nothing_of_them(mode: str, capfd: pytest.CaptureFixture):
    picture, profile = PICTURE.convert(mode), ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    for odd in (b'odd' * 99, profile):
        data = encoded(picture, 'PNG', icc_profile=odd)
        assert b'iCCP' in data
        assert np.array_equal(decode(data), decode(encoded(picture, 'PNG')))
    assert capfd.readouterr().err == ''


def test_the_orientation_is_found_in_whatever_segment_it_stands():
    pytest.importorskip('simplejpeg')
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(PICTURE, 'JPEG', exif=exif, icc_profile=b'p' * 70_000)
    end = 4 + int.from_bytes(JPEG[4:6], 'big')
    for found in (data, JPEG[:2] + b'\xff' + JPEG[2:end] + data[2:]):  # a fill byte hides where segments begin
        assert load_image._has_exif(found)
        assert decode(found).shape == (PICTURE.width, PICTURE.height, 3)
    assert not load_image._has_exif(JPEG)
    assert not load_image._has_exif(encoded(PICTURE, 'JPEG', comment=b'a: Exif\0\0'))


def test_the_limit_of_pixels_is_an_option(tmp_path: Path):
    path = tmp_path / 'a.png'
    path.write_bytes(encoded(PICTURE, 'PNG'))
    count = PICTURE.width * PICTURE.height
    assert load(path, max_pixels=count).shape == PIXELS.shape
    assert refused(path, max_pixels=count - 1) == 'has too many pixels'
    with pytest.raises(ConfigError, match='max_pixels=0 is out of range'):
        LoadImage(max_pixels=0)


def test_a_reason_fits_into_a_byte_and_zero_is_none():
    assert REASONS[0] == ''
    assert len(REASONS) < 256
    assert {reason for _, reason in [*BAD.values(), *NO_FILES.values()]} <= set(REASONS)


@pytest.mark.parametrize('options', [{}, dict(subsampling=0), dict(subsampling=1), dict(progressive=True)])
@pytest.mark.parametrize('quality', [30, 75, 95])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_simplejpeg_decodes_to_the_pixels_of_opencv(options: dict, quality: int, mode: str):
    pytest.importorskip('simplejpeg')
    rng = np.random.default_rng(quality)
    for size in [(1, 1), (17, 31), (64, 48), (375, 251)]:
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)
        data = encoded(picture, 'JPEG', quality=quality, **options)
        assert load_image._is_plain_jpeg(data)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(load_image._decode_by_turbojpeg(data), expected)


@pytest.mark.parametrize('name', [*UNUSUAL, *BAD])
def test_without_simplejpeg_all_is_read_and_refused_alike(name: str, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip('simplejpeg')

    def outcome() -> object:
        try:
            return decode((UNUSUAL | BAD)[name][0]).tobytes()
        except BadImageError as error:
            return error.reason

    found = outcome()
    monkeypatch.setattr(load_image, 'simplejpeg', None)
    assert outcome() == found


def test_what_simplejpeg_refuses_opencv_reads():
    pytest.importorskip('simplejpeg')
    data = bytearray(JPEG)
    data[-40:-30] = b'\xff\xd0' * 5  # restart markers where none belong: pixels are made up from here on
    assert load_image._decode_by_turbojpeg(bytes(data)) is None
    assert np.array_equal(decode(bytes(data)), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize(('size', 'edge'), [(200, 200), (400, 200), (399, 399), (800, 200), (1700, 212)])
def test_large_jpegs_are_decoded_smaller_down_to_the_edge_asked_for(size: int, edge: int, tmp_path: Path):
    picture = PICTURE.resize((size + 30, size))
    path = tmp_path / 'a.jpg'
    path.write_bytes(encoded(picture, 'JPEG', quality=95))
    image = load(path, min_edge=200)
    assert min(image.shape[:2]) == pytest.approx(edge, abs=1)
    expected = picture.resize(image.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(image[..., ::-1].astype(int) - np.asarray(expected)).mean() < 3
    assert load(path).shape[0] == size
    with pytest.raises(ConfigError, match='min_edge=0'):
        LoadImage(min_edge=0)
