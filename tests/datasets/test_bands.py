# SPDX-License-Identifier: Apache-2.0
"""Images of any number of bands, of any depth: read as they are, or one line."""

import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ldae.datasets import ImageFolder, LoadImage, ResizeToCover
from ldae.datasets.load_image import BadImageError, reader_of
from ldae.datasets.packed import PackedImages
from ldae.datasets.packing import PackOptions, pack
from ldae.datasets.resize import FastResizeEdge, PillowRandomResizedCrop, PillowResizeEdge, resize
from ldae.datasets.verify import verify_folder
from ldae.utils import ConfigError

RNG = np.random.default_rng(0)
SIX = RNG.integers(0, 60000, (12, 16, 6)).astype(np.uint16)
BYTES = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)


def saved(folder: Path, array: np.ndarray, name: str = 'x.npy') -> str:
    np.save(folder / name, array)
    return str(folder / name)


def test_arrays_are_read_with_their_bands_first_or_last(tmp_path):
    expected = SIX.astype(np.float64) / 257
    for array in (SIX, SIX.transpose(2, 0, 1), SIX.astype('>u2')):
        np.testing.assert_allclose(LoadImage(channels=6).read(saved(tmp_path, array)), expected, rtol=1e-6)
    np.savez_compressed(tmp_path / 'x.npz', a=SIX, b=SIX[..., :2])
    np.testing.assert_allclose(LoadImage(channels=6, key='a').read(str(tmp_path / 'x.npz')), expected, rtol=1e-6)
    kept = LoadImage(channels=6, bands=[4, 1]).read(saved(tmp_path, SIX))
    np.testing.assert_allclose(kept, expected[..., [4, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    'options', [{}, dict(planarconfig='separate'), dict(compression='deflate', predictor=True), 'pages']
)
def test_a_tiff_of_bands_is_what_tifffile_wrote(tmp_path, options):
    tifffile = pytest.importorskip('tifffile')
    path = str(tmp_path / 'x.tif')
    if options == 'pages' or 'planarconfig' in options:
        layout = {} if options == 'pages' else options
        tifffile.imwrite(path, SIX.transpose(2, 0, 1), photometric='minisblack', **layout)
    else:
        tifffile.imwrite(path, SIX, photometric='minisblack', planarconfig='contig', **options)
    np.testing.assert_allclose(LoadImage(channels=6).read(path), SIX / 257.0, rtol=1e-6)
    if options != 'pages':  # of which the first is a picture
        with pytest.raises(BadImageError, match='--channels'):
            LoadImage().read(path)


def test_three_bands_are_the_same_picture_in_every_file(tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), BYTES[..., ::-1])
    expected = LoadImage().read(str(tmp_path / 'x.png'))
    for path in (str(tmp_path / 'x.png'), saved(tmp_path, BYTES), saved(tmp_path, BYTES.transpose(2, 0, 1))):
        found = LoadImage(channels=3).read(path)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    swapped = LoadImage(channels=3, bands=[2, 1, 0]).read(saved(tmp_path, BYTES))
    np.testing.assert_array_equal(swapped, BYTES)


def test_sixteen_bits_that_are_257_times_eight_are_these(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / '8.png')
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / '16.png')
    eight, sixteen = (LoadImage(channels=1).read(str(tmp_path / f'{bits}.png')) for bits in (8, 16))
    assert (eight.dtype, sixteen.dtype, eight.shape) == (np.uint8, np.float32, (16, 16))
    np.testing.assert_array_equal(eight.astype(np.float32), sixteen)


def test_a_range_becomes_0_to_255_and_nothing_is_cut_off(tmp_path):
    path = saved(tmp_path, np.array([[-2.0, -1.0], [0.0, 3.0]]))
    found = LoadImage(channels=1, value_range=(-1, 1)).read(path)
    np.testing.assert_allclose(found, [[-127.5, 0], [127.5, 510]])


def test_nodata_gets_the_mean_of_its_band(tmp_path):
    values = np.array([[1.0, 3.0], [np.nan, -99.0]])[..., None] * [1, 10]
    found = LoadImage(channels=2, value_range=(0, 255), nodata=-99).read(saved(tmp_path, values))
    np.testing.assert_allclose(found[..., 0], [[1, 3], [2, 2]])
    np.testing.assert_allclose(found[..., 1], [[10, 30], [(10 + 30 - 990) / 3, -990]])  # -990 is a number of that band
    with pytest.raises(BadImageError, match='nothing but nodata'):
        LoadImage(channels=2, value_range=(0, 1), nodata=math.nan).read(saved(tmp_path, values * np.nan))


class Dangerous:
    def __reduce__(self):
        return open, ('/tmp/it_ran', 'w')


@pytest.mark.parametrize(
    ('array', 'options', 'said'),
    [
        (SIX[..., :4], {}, r"x\.npy has 4 bands \(its shape is \(12, 16, 4\)\), and all images must have channels=6"),
        (SIX[None], {}, 'has 4 axes'),
        (SIX.astype(np.float32), {}, 'float32 values, here .*: say which become 0 and 255'),
        (SIX.astype(np.int16), {}, 'int16 values'),
        (SIX.astype(complex), {}, 'values of type complex128'),
        (SIX > 3, {}, 'values of type bool'),
        (np.full((4, 4, 6), np.nan), dict(value_range=(0, 1)), 'holds NaN or infinite values: say which'),
        (np.full((4, 4, 6), np.inf), dict(value_range=(0, 1), nodata=0), 'holds NaN or infinite'),
        (np.array([[Dangerous()]], dtype=object), {}, 'holds objects, not numbers'),
        (np.zeros((0, 4, 6), np.uint8), {}, 'is empty'),
        (np.zeros((1, 400, 6), np.uint8), {}, 'too long and narrow'),
    ],
)  # fmt: skip
def test_other_bands_and_values_are_one_line_that_names_the_file(tmp_path, array, options, said):
    path = saved(tmp_path, array)
    with pytest.raises(ConfigError, match=said) as caught:
        LoadImage(channels=6, **options).read(path)
    assert path in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not Path('/tmp/it_ran').exists()


def test_broken_arrays_are_bad_images(tmp_path):
    whole = Path(saved(tmp_path, SIX)).read_bytes()
    np.savez(tmp_path / 'x.npz', a=SIX, b=SIX)
    archive = (tmp_path / 'x.npz').read_bytes()
    head = whole[:128].replace(b'(12, 16, 6)', b'(99999,16,6)')[:128]
    for data in (whole[:60], whole[:400], archive[:700], head + whole[128:], b'\x93NUMPY\x09\x09', b''):
        (tmp_path / 'y.npy').write_bytes(data)
        with pytest.raises(BadImageError, match='truncated|not a readable|is empty'):
            LoadImage(channels=6, key='a').read(str(tmp_path / 'y.npy'))
    for key, said in ((None, 'several arrays'), ('c', "no array 'c': say which of a, b")):
        with pytest.raises(ConfigError, match=said):
            LoadImage(channels=6, key=key).read(str(tmp_path / 'x.npz'))
    (tmp_path / 'z.npy').write_bytes(pickle.dumps(Dangerous()))
    with pytest.raises(BadImageError):
        LoadImage(channels=6).read(str(tmp_path / 'z.npy'))


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(bands=[0]), 'bands needs channels'),
        (dict(channels=3, bands=[0, 3]), r'bands=\[0, 3\]: images of channels=3 have bands 0 to 2'),
        (dict(channels=3, value_range=(1, 1)), 'the lower one first'),
        (dict(channels=0), 'LoadImage.channels'),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, said):
    with pytest.raises(ConfigError, match=said):
        LoadImage(**options)


def test_a_pipeline_says_how_it_reads():
    assert reader_of([dict(type='ldae.LoadImage', channels=4, bands=[1, 2])]).num_bands == 2
    assert reader_of([dict(type='LoadImageFromFile')]).channels is None
    assert reader_of([]).channels is None


@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 3), (20, 30, 6)])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_images_of_bands_are_resized_band_by_band(shape, dtype):
    image = (RNG.random(shape) * 255).astype(dtype)
    found = resize(image, (15, 10))
    assert (found.shape, found.dtype) == ((10, 15, *shape[2:]), dtype)
    for band in range(np.atleast_3d(image).shape[2]):
        floats = Image.fromarray(np.atleast_3d(image)[..., band].astype(np.float32))
        expected = np.asarray(floats.resize((15, 10), Image.Resampling.BICUBIC))
        assert np.abs(np.atleast_3d(found)[..., band].clip(0, 255) - expected.clip(0, 255)).max() < (
            2 if dtype == np.uint8 else 0.01
        )
    assert resize(image, (30, 20)) is image


@pytest.mark.parametrize(('size', 'expected'), [((20, 30), (20, 40)), ((30, 20), (30, 60)), ((10, 30), (15, 30))])
def test_oblong_crops_are_covered_and_no_more(size, expected):
    for image in (np.zeros((50, 100, 3), np.uint8), np.zeros((50, 100, 5), np.float32)):
        assert ResizeToCover(size)(dict(img=image))['img'].shape[:2] == expected
        turned = ResizeToCover(size[::-1])(dict(img=image.swapaxes(0, 1)))['img']
        assert turned.shape[:2] == expected[::-1]


def test_other_images_than_pictures_are_resized_by_torch():
    image = RNG.random((20, 30, 6)).astype(np.float32)
    found = PillowResizeEdge(10, interpolation='bicubic')(dict(img=image))['img']
    np.testing.assert_array_equal(found, FastResizeEdge(10, interpolation='bicubic')(dict(img=image))['img'])
    crop = PillowRandomResizedCrop(
        (8, 16), crop_ratio_range=(1, 1), aspect_ratio_range=(1.5, 1.5), interpolation='bicubic'
    )
    np.testing.assert_allclose(crop.transform(dict(img=image))['img'], resize(image, (16, 8)))


PIPELINE = [
    dict(type='ldae.LoadImage', channels=6, value_range=[0, 60000]),
    dict(type='ldae.ResizeToCover', scale=(8, 16), backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=(16, 8)),
    dict(type='PackInputs'),
]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in 'ab':
        (tmp_path / 'train' / name).mkdir(parents=True)
        for i in range(3):
            saved(tmp_path / 'train' / name, RNG.integers(0, 60000, (12, 16, 6)).astype(np.uint16), f'{i}.npy')
    return tmp_path


def test_packed_bands_are_what_the_pipeline_gives(folder):
    reading = dict(channels=6, value_range=[0.0, 60000.0])
    images = ImageFolder(str(folder), pipeline=[dict(type='ldae.LoadImage', **reading)])
    pack(images, folder / 'packed' / 'train', PackOptions(size=(8, 16), format='float32', reading=reading))
    plain = ImageFolder(str(folder), pipeline=PIPELINE)
    packed = PackedImages(
        str(folder / 'packed'), pipeline=[dict(PIPELINE[0], value_range=(0.0, 60000.0)), *PIPELINE[1:]]
    )
    batch = packed.__getitems__(range(6))
    for number in range(6):
        np.testing.assert_array_equal(batch['inputs'][number], plain[number]['inputs'])
    with pytest.raises(ConfigError, match='were packed with'):
        PackedImages(str(folder / 'packed'), pipeline=[dict(type='ldae.LoadImage', channels=6), *PIPELINE[1:]])
    with pytest.raises(ConfigError, match='not packed as uint8'):
        pack(images, folder / 'other', PackOptions(size=(8, 16), reading=reading))
    with pytest.raises(ConfigError, match='holds pictures, not bands'):
        PackOptions(format='jpeg', reading=reading)


def test_a_folder_of_arrays_says_what_lacks_and_which_image_differs(folder):
    with pytest.raises(ConfigError, match=r'arrays are read where LoadImage is told .* \(--channels\)'):
        ImageFolder(str(folder))
    saved(folder / 'train' / 'b', SIX[..., :5], '1.npy')
    images = ImageFolder(str(folder), pipeline=PIPELINE)
    for read in (images.look, lambda: images[4]):
        with pytest.raises(ConfigError, match=r'b/1\.npy has 5 bands .* channels=6'):
            read()
    saved(folder / 'train' / 'b', np.full((4, 4, 6), np.nan), '2.npy')
    found = verify_folder(str(folder), reading=dict(channels=6, value_range=(0, 1)))
    assert [verdict.reason.partition(' (')[0].partition(':')[0] for verdict in found.bad] == [
        'has 5 bands',
        'holds NaN or infinite values',
    ]


def test_a_palette_is_no_band_and_floats_of_nan_are_said_to_be(tmp_path):
    pytest.importorskip('tifffile')
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert('P').save(tmp_path / 'a.tif')
    with pytest.raises(BadImageError, match='has numbers of a palette'):
        LoadImage(channels=1).read(str(tmp_path / 'a.tif'))
    np.save(tmp_path / 'b.npy', np.full((4, 4, 2), np.nan, np.float32))
    with pytest.raises(BadImageError, match='holds NaN'):
        LoadImage(channels=2).read(str(tmp_path / 'b.npy'))
