# SPDX-License-Identifier: Apache-2.0
"""Read an image file right, or say in one line why it can't be."""

import errno
import io
import logging
import math
import os
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import IO

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine import fileio
from PIL import Image, ImageOps

try:
    import simplejpeg
except ImportError:  # the extra `fast`
    simplejpeg = None

from ldae.registry import TRANSFORMS
from ldae.utils import ConfigError, NaturalInt, PositiveInt, checked
from ldae.utils.optional import import_extra

from .hf_rows import read_row
from .tar_shards import read_member

OTHER_TIFF = (
    'is a TIFF of a kind that is not read: save it with 8 or 16 bits, or say how many bands it has (--channels)'
)
PALETTE = 'has numbers of a palette, which are no band: convert it to grey or to colours'
NAN = 'holds NaN or infinite values: say which value stands for none (nodata)'
# What may be wrong with a file; a reason's position in this list is what a data set keeps of it, in one byte.
REASONS = (
    '', 'is empty', 'is truncated', 'is damaged', 'is not a readable image', 'does not exist', 'is a broken link',
    'may not be read', 'is not a file', 'cannot be read', 'has too many pixels', 'is too long and narrow',
    'is too large a file', 'has too many parts, or scans for its size',
    OTHER_TIFF,
    NAN, 'has a band of nothing but nodata', 'holds objects, not numbers',
    PALETTE,
)  # fmt: skip
#: The formats that are read, by the names that Pillow has for them: no other is tried, whatever a file is called. Some of
#: Pillow's run programs (EPS), some of OpenCV's say their size too late (PAM, HDR).
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'GIF', 'TIFF', 'WEBP', 'AVIF', 'JPEG2000', 'PPM', 'TGA')
_suffixes = Image.registered_extensions()
FORMATS = tuple(kind for kind in FORMATS if kind in Image.OPEN)
#: How their files' names end, as far as this Pillow is built with them; an MPO is a JPEG with others after it.
SUFFIXES = tuple(sorted(suffix for suffix, kind in _suffixes.items() if kind in (*FORMATS, 'MPO')))
#: What reads an image of a kind of data that isn't a folder, by how its address begins.
CONTAINERS = dict(wds=read_member, hf=read_row)
#: numpy's files, which are images where a reader is told how many bands these have.
ARRAYS = ('.npy', '.npz')
MAX_PIXELS = 89_478_485  # from here on Pillow warns of a decompression bomb
MAX_BYTES = 1 << 30  # a sparse file says that it has any number
# Chunks of a PNG or segments of a JPEG that hold no pixels: Pillow takes seconds for a million.
MAX_PARTS = 10_000
MAX_SCANS = 10  # of an image of MAX_PIXELS, more of smaller ones; each is decoded like an image
MAX_ASPECT = 100  # resized by its short side, such an image would fill the memory
PNG, CHECKED = b'\x89PNG\r\n\x1a\n', (b'IHDR', b'PLTE', b'IDAT')
# Colour profiles and texts change no pixel here, and libpng complains of odd ones, on stderr and each time that it reads them.
NEEDLESS = (b'iCCP', b'sRGB', b'gAMA', b'cHRM', b'iTXt', b'tEXt', b'zTXt')
JPEG, END_OF_IMAGE, START_OF_SCAN = b'\xff\xd8\xff', b'\xff\xd9', b'\xff\xda'
SEQUENTIAL, FRAMES = (0xC0, 0xC1), set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # segments that say the size
TIFF = (b'II*\0', b'MM\0*')
BIG_TIFF = (b'II+\0', b'MM\0+')
NPY, NPZ = b'\x93NUMPY', b'PK\3\4'
#: Of 16 bits and 8, all that there is; of other numbers nobody knows it.
RANGES = {np.dtype(np.uint8): (0, 255), np.dtype(np.uint16): (0, 65535)}
EXIF = b'Exif\0\0'
# JPEG decoders compute 1/n of an image's size directly.
REDUCED = {n: getattr(cv2, f'IMREAD_REDUCED_COLOR_{n}') for n in (8, 4, 2)} | {1: cv2.IMREAD_COLOR}
# Not the file's fault: too many open files, no memory.
MACHINE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


#: Steps of a pipeline that read files, in whatever scope.
READERS = ('LoadImage', 'LoadImageFromFile')
OURS = ('LoadImage', 'ldae.LoadImage')


def suffixes_of(channels: int | None) -> tuple[str, ...]:
    """How the files of images are named that a reader told of so many bands reads."""
    return SUFFIXES if channels is None else (*SUFFIXES, *ARRAYS)


def reads_files(step: Mapping) -> bool:
    """Whether a step of a pipeline, as a config has it, reads the image."""
    return str(step.get('type')).rpartition('.')[2] in READERS


class BadImageError(ConfigError):
    """A file that is not an image, or only a part of one; its text is ``path reason``, of :data:`REASONS`."""

    reason = ''


def bad_image(path: str, reason: str) -> BadImageError:
    """The error of a file for one of :data:`REASONS`."""
    error = BadImageError(f'{path} {reason}')  # one argument: errors of workers are built again from their text
    error.reason = reason
    return error


def is_remote(path: str) -> bool:
    """Whether a path names a storage backend ('s3://...') rather than a local file."""
    return '://' in path


def read_file(path: str, backend_args: dict | None = None) -> bytes:
    """The bytes of a file; raise :class:`BadImageError` if it isn't one or can't be read."""
    if (kind := path.partition('::')[0]) in CONTAINERS:
        with _explained(path):
            return CONTAINERS[kind](path)
    if is_remote(path) or backend_args:
        return fileio.get(path, backend_args=backend_args)
    with _explained(path):
        check_file(path)
        with open(path, 'rb') as file:
            return file.read()


def check_file(path: str) -> None:
    """Raise :class:`BadImageError` for what can't be a file with an image in it, before it is opened."""
    with _explained(path):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise bad_image(path, 'is not a file')  # opening a pipe would wait for ever
    if status.st_size > MAX_BYTES:
        raise bad_image(path, 'is too large a file')


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise bad_image(path, 'is a broken link' if os.path.islink(path) else 'does not exist') from error
    except PermissionError as error:
        raise bad_image(path, 'may not be read') from error
    except OSError as error:
        if error.errno in MACHINE_ERRORS:
            raise
        raise bad_image(path, 'cannot be read') from error


def decode(data: bytes, path: str = '', max_pixels: int = MAX_PIXELS, min_edge: int | None = None) -> np.ndarray:
    """The image that the bytes of a file hold, as uint8 BGR (H, W, 3), upright by its EXIF orientation.

    Grey is repeated, 16 bits are scaled to 8, CMYK is converted, transparency is dropped, of an animation the first
    frame is taken. OpenCV decodes, as in mmcv's ``LoadImageFromFile``; plain JPEGs simplejpeg, where it is
    installed, to the same pixels; what they refuse, Pillow tries. With ``min_edge``, a JPEG is decoded at 1/2, 1/4
    or 1/8 of its size, the least that leaves its short edge at least so long. Raises BadImageError if it is not an
    image, a truncated one, or one beyond ``max_pixels`` or :data:`MAX_ASPECT`."""
    data, size = check_image(data, path, max_pixels)
    is_jpeg = data.startswith(JPEG)
    plain = is_jpeg and _is_plain_jpeg(data)
    factor = 1
    if is_jpeg and min_edge is not None:
        factor = next(n for n in REDUCED if n == 1 or min(size) >= n * min_edge)
    image = _decode_by_turbojpeg(data) if plain and factor == 1 else None
    image = _decode_by_opencv(data, REDUCED[factor]) if image is None else image
    return _decode_by_pillow(data, path) if image is None else image


def check_image(data: bytes, path: str, max_pixels: int = MAX_PIXELS) -> tuple[bytes, tuple[int, int]]:
    """The bytes of a file as a decoder may be given them, and (width, height), before a pixel is decoded.

    Raises:
        BadImageError: As of :func:`decode`.
    """
    if not data:
        raise bad_image(path, 'is empty')
    is_jpeg = data.startswith(JPEG)
    if data.startswith(PNG):
        data = _checked_chunks(data, path)
    size, scans = _frame(data, path) if is_jpeg else (None, 1)
    size = _size(data, path) if size is None else size
    _check_size(size, scans, path, max_pixels)
    # Decoders make up what is missing, more or less of it by their version. Scans escape 0xff, so the marker of the end stands
    # in none; a thumbnail has one too, before the scan.
    end = data.rfind(END_OF_IMAGE)
    if is_jpeg and (end < 0 or data.find(START_OF_SCAN, end) >= 0):
        raise bad_image(path, 'is truncated')
    if size is None:
        raise bad_image(path, _unread(data))
    return data, size


def _check_first(original: Callable) -> Callable:
    """mmcv's reader, of files that ours would decode: it waits at a pipe, and reads formats and sizes without a limit."""

    @wraps(original)
    def transform(self: LoadImageFromFile, results: dict) -> dict | None:
        path = results['img_path']
        is_contained = path.partition('::')[0] in CONTAINERS
        if is_contained or not (is_remote(path) or self.backend_args or self.file_client_args):
            try:
                data, _ = check_image(read_file(path), path)
            except BadImageError:
                if self.ignore_empty:
                    return None
                raise
        if not is_contained:
            return original(self, results)
        image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        if image is None:
            raise bad_image(path, _unread(data))
        image = image.astype(np.float32) if self.to_float32 else image
        return dict(results, img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])

    return transform


if not hasattr(LoadImageFromFile.transform, '__wrapped__'):
    LoadImageFromFile.transform = _check_first(LoadImageFromFile.transform)


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether simplejpeg decodes as OpenCV does: grey or YCbCr, and not turned by its EXIF orientation."""
    if simplejpeg is None or _has_exif(data):
        return False
    try:
        return simplejpeg.decode_jpeg_header(data)[2] in ('YCbCr', 'Gray')
    except ValueError:
        return False


def _has_exif(jpeg: bytes) -> bool:
    """By the segments before the scan: to search all of a file for five bytes takes as long as a copy of its pixels."""
    place = 2
    while jpeg.startswith(b'\xff', place) and not jpeg.startswith(START_OF_SCAN, place):
        if jpeg.startswith(EXIF, place + 4):
            return True
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], 'big')
    return not jpeg.startswith(START_OF_SCAN, place) and EXIF in jpeg


def _decode_by_turbojpeg(data: bytes) -> np.ndarray | None:
    """None for what a strict decoder refuses, such as a damaged scan."""
    try:
        return simplejpeg.decode_jpeg(data, 'BGR')
    except (ValueError, MemoryError):
        return None


def _decode_by_opencv(data: bytes, flags: int) -> np.ndarray | None:
    if data[4:8] == b'ftyp' and (b'avif' in data[8:64] or b'avis' in data[8:64]):  # AVIF, which it doesn't turn upright
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _size(data: bytes, path: str) -> tuple[int, int] | None:
    """(width, height) by the header, which costs nothing; None where Pillow can't tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return Image.open(io.BytesIO(data), formats=FORMATS).size
    except Image.DecompressionBombError as error:
        raise bad_image(path, 'has too many pixels') from error
    except Exception:  # a format that Pillow doesn't know, or a header that it can't read
        return None


def _frame(jpeg: bytes, path: str) -> tuple[tuple[int, int] | None, int]:
    """(width, height), None if it isn't said, and how many scans a decoder passes through: one, unless the image is
    progressive or its components come one by one."""
    place, size, components, kind = 2, None, b'', 0
    for _ in range(MAX_PARTS):
        if not jpeg.startswith(b'\xff', place):
            return size, jpeg.count(START_OF_SCAN)
        if jpeg.startswith(START_OF_SCAN, place):
            one = kind in SEQUENTIAL and jpeg[place + 4 : place + 5] == components
            return size, 1 if one else jpeg.count(START_OF_SCAN)
        if jpeg[place + 1 : place + 2] and jpeg[place + 1] in FRAMES:
            kind, components = jpeg[place + 1], jpeg[place + 9 : place + 10]
            height, width = (int.from_bytes(jpeg[place + i : place + i + 2], 'big') for i in (5, 7))
            size = (width, height) if width and height else None
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], 'big')
    raise bad_image(path, 'has too many parts, or scans for its size')


def _check_size(size: tuple[int, int] | None, scans: int, path: str, max_pixels: int) -> None:
    """Judge before any pixel is decoded."""
    if size is None:
        return
    if size[0] * size[1] > max_pixels:
        raise bad_image(path, 'has too many pixels')
    if max(size) > MAX_ASPECT * min(size):
        raise bad_image(path, 'is too long and narrow')
    # A scan of few pixels takes its time as well.
    if scans * (size[0] * size[1] + 10_000) > MAX_SCANS * max(max_pixels, MAX_PIXELS):
        raise bad_image(path, 'has too many parts, or scans for its size')


def _checked_chunks(png: bytes, path: str) -> bytes:
    """The file without :data:`NEEDLESS` chunks, if all are there and those that hold pixels have the checksums that they say."""
    kept, begin, start, parts = [], 0, len(PNG), 0
    while True:
        head = png[start : start + 8]
        if len(head) < 8:
            raise bad_image(path, 'is truncated')
        end = start + 8 + int.from_bytes(head[:4], 'big')
        if end + 4 > len(png):
            raise bad_image(path, 'is truncated')
        if head[4:] in CHECKED and zlib.crc32(png[start + 4 : end]) != int.from_bytes(png[end : end + 4], 'big'):
            raise bad_image(path, 'is damaged')
        parts += head[4:] != b'IDAT'
        if parts > MAX_PARTS:
            raise bad_image(path, 'has too many parts, or scans for its size')
        if head[4:] in NEEDLESS:
            kept.append(png[begin:start])
            begin = end + 4
        if head[4:] == b'IEND':
            return b''.join([*kept, png[begin:]]) if kept else png
        start = end + 4


def _unread(data: bytes) -> str:
    is_tiff = data.startswith(TIFF)
    return OTHER_TIFF if is_tiff else 'is not a readable image'


def _decode_by_pillow(data: bytes, path: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode in ('F', 'I'):
                raise ValueError('no range of values is known')
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1].copy()
    except MemoryError:
        raise
    except Exception as error:  # its readers raise many kinds
        reason = 'is truncated' if 'truncated' in str(error) else _unread(data)
        raise bad_image(path, reason) from error


def read_bands(
    data: bytes, path: str, channels: int, key: str | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """The image that the bytes of a file hold, as it is stored: its ``channels`` bands in their order, (H, W, channels).

    An array is (H, W, C), (C, H, W) or (H, W); of an ``.npz``, the one named ``key``. A TIFF has its bands in one page or in
    several. Raises BadImageError as :func:`decode`, and ConfigError for another number of bands, or numbers that are none."""
    image = read_array(data, path, key, max_pixels)
    if image is None:
        data, _ = check_image(data, path, max_pixels)
        # With transparency as a band only where there are four.
        flags = cv2.IMREAD_UNCHANGED if channels == 4 else cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
        image = _decode_by_opencv(data, flags)
        image = _decode_by_pillow(data, path) if image is None else image
        if image.ndim == 3:
            image = image[..., [2, 1, 0, *range(3, image.shape[2])]]
    return arrange(image, path, channels, max_pixels)


def arrange(image: np.ndarray, name: str, channels: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An array of bands as (H, W, channels); errors as of :func:`read_bands`."""
    if image.dtype.kind not in 'uif':
        raise ConfigError(f'{name} holds values of type {image.dtype}: bands are integers or floats')
    shape, image = image.shape, image.astype(image.dtype.newbyteorder('='), copy=False)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim == 3 and image.shape[2] != channels == image.shape[0]:
        image = np.moveaxis(image, 0, 2)
    if image.ndim != 3 or image.shape[2] != channels:
        found = f'{min(image.shape[0], image.shape[2])} bands' if image.ndim == 3 else f'{image.ndim} axes'
        raise ConfigError(f'{name} has {found} (its shape is {shape}), and all images must have channels={channels}')
    if not image.size:
        raise bad_image(name, 'is empty')
    _check_size(image.shape[1::-1], 1, name, max_pixels)
    return image


def read_array(data: bytes, path: str, key: str | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray | None:
    """The array in one of numpy's files or a TIFF, as it is stored; None for other files. Errors as of :func:`read_bands`."""
    if data.startswith((*TIFF, *BIG_TIFF)):
        return _read_tiff(data, path, max_pixels)
    if not data.startswith((NPY, NPZ)):
        return None
    try:
        if data.startswith(NPY):
            return _whole_array(io.BytesIO(data), len(data), path)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name.removesuffix('.npy') for name in archive.namelist()]
            key = names[0] if key is None and len(names) == 1 else key
            if key not in names:
                about = 'has several arrays' if key is None else f'has no array {key!r}'
                raise ConfigError(f'{path} {about}: say which of {", ".join(names[:8])} is the image (key)')
            member = archive.infolist()[names.index(key)]
            if member.file_size > MAX_BYTES:
                raise bad_image(path, 'is too large a file')
            with archive.open(member) as file:
                return _whole_array(file, member.file_size, path)
    except (ValueError, EOFError, OSError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, ConfigError):
            raise
        raise bad_image(path, 'is not a readable image') from error


def _whole_array(file: IO[bytes], size: int, path: str) -> np.ndarray:
    """The array in a file of so many bytes, which are looked at before memory is taken; nothing in it is run."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise bad_image(path, 'holds objects, not numbers')
    if math.prod(shape) * dtype.itemsize > size:
        raise bad_image(path, 'is truncated')
    file.seek(0)
    return np.load(file, allow_pickle=False)


def _read_tiff(data: bytes, path: str, max_pixels: int) -> np.ndarray:
    """By tifffile: OpenCV and Pillow read some bands of some files, and others wrong."""
    library = import_extra('tifffile', 'tiff', f'{path}, a TIFF of bands,')
    logging.getLogger('tifffile').setLevel(logging.CRITICAL)  # what is wrong with a file is said below
    try:
        with library.TiffFile(io.BytesIO(data)) as file:
            page, series = file.pages.first, file.series[0]
            if page.photometric == library.PHOTOMETRIC.PALETTE:
                raise bad_image(path, PALETTE)
            _check_size((page.imagewidth, page.imagelength), 1, path, max_pixels)
            if series.nbytes > MAX_BYTES:
                raise bad_image(path, 'is too large a file')
            return series.asarray(maxworkers=1)
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # its readers raise many kinds
        if 'imagecodecs' in str(error):
            raise ConfigError(
                f'{path} is compressed, and tifffile needs imagecodecs: pip install imagecodecs'
            ) from error
        raise bad_image(path, 'is not a readable image') from error


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path`` into ``img``: uint8 BGR (H, W, 3), see :func:`decode`; or, with ``channels``, all bands as they are.

    It equals mmcv's ``LoadImageFromFile`` on whole images of ordinary size, unless ``min_edge`` or ``channels`` is set. Raises
    BadImageError if the file is not an image, see :data:`REASONS`, and ConfigError for other bands than it is told of.

    Args:
        max_pixels: Images of more are refused before they are decoded, at least 1.
        backend_args: Of mmengine's storage backend, if the images don't lie on a local disk.
        min_edge: Decode large JPEGs at 1/2, 1/4 or 1/8 of their size, so long as the short edge stays at least this, in
            pixels; faster, and other pixels after resizing. None: at full size. Not of bands.
        channels: Bands that each file has, of any depth; three are kept as blue, green, red, one as (H, W). None: pictures.
        bands: Numbers, from 0, of those to keep, in this order. None: all.
        value_range: The values that become 0 and 255, in float32; those beyond stay beyond. None: 8 bits stay as they are, 16
            bits have all of theirs, and other numbers are refused.
        nodata: The value that stands for none, as NaN then does; such pixels get the mean of the others of their band and image.
        key: Of the array in ``.npz`` files of several.
    """

    @checked
    def __init__(
        self,
        max_pixels: PositiveInt = MAX_PIXELS,
        backend_args: dict | None = None,
        min_edge: PositiveInt | None = None,
        channels: PositiveInt | None = None,
        bands: Sequence[NaturalInt] | None = None,
        value_range: tuple[float, float] | None = None,
        nodata: float | None = None,
        key: str | None = None,
    ) -> None:
        self.max_pixels, self.backend_args, self.min_edge = max_pixels, backend_args, min_edge
        self.channels, self.bands, self.value_range, self.nodata, self.key = channels, bands, value_range, nodata, key
        for name in ('bands', 'value_range', 'nodata', 'key'):
            if channels is None and getattr(self, name) is not None:
                raise ConfigError(f'LoadImage.{name} needs channels, the number of bands that each file has')
        if bands is not None and (not bands or max(bands) >= channels):
            raise ConfigError(
                f'LoadImage.bands={list(bands)}: images of channels={channels} have bands 0 to {channels - 1}'
            )
        if value_range is not None and not value_range[0] < value_range[1] < math.inf:
            raise ConfigError(f'LoadImage.value_range={tuple(value_range)} must be two numbers, the lower one first')

    @property
    def num_bands(self) -> int:
        """Channels of the images that it gives."""
        return len(self.bands) if self.bands else self.channels or 3

    def read(self, path: str) -> np.ndarray:
        """The image of a file, as :meth:`transform` gives it."""
        data = read_file(path, self.backend_args)
        if self.channels is None:
            return decode(data, path, self.max_pixels, self.min_edge)
        if not data:
            raise bad_image(path, 'is empty')
        return self.finish(read_bands(data, path, self.channels, self.key, self.max_pixels), path)

    def finish(self, image: np.ndarray, name: str) -> np.ndarray:
        """Bands (H, W, channels) as they are stored -> those that are kept, at the scale that is asked for."""
        image = image if self.bands is None else image[..., list(self.bands)]
        if image.dtype != np.uint8 or self.value_range or self.nodata is not None:
            image = self._scaled(image, name)
        image = image[..., ::-1] if image.shape[2] == 3 else image
        return np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)

    def _scaled(self, image: np.ndarray, name: str) -> np.ndarray:
        if self.value_range is None and image.dtype not in RANGES:
            if not np.isfinite(image).all():
                raise bad_image(name, NAN)
            raise ConfigError(
                f'{name} has {image.dtype} values, here {image.min():g} to {image.max():g}: say which become 0 and 255 (value_range)'
            )
        low, high = self.value_range or RANGES[image.dtype]
        values = image.astype(np.float32)
        none = np.isnan(values) if self.nodata is None else np.isnan(values) | (image == self.nodata)
        if np.isinf(values).any() or self.nodata is None and none.any():
            raise bad_image(name, NAN)
        if none.any():
            count = (~none).sum((0, 1))
            if not count.all():
                raise bad_image(name, 'has a band of nothing but nodata')
            values = np.where(none, np.where(none, 0, values).sum((0, 1), dtype=np.float64) / count, values)
        # In this order, 16 bits that are 257 times 8 become exactly these.
        return ((values - low) * 255 / (high - low)).astype(np.float32)

    def transform(self, results: dict) -> dict:
        """Add ``img``, ``img_shape`` and ``ori_shape``."""
        image = self.read(results['img_path'])
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        told = (
            ('max_pixels', 'min_edge')
            if self.channels is None
            else ('channels', 'bands', 'value_range', 'nodata', 'key')
        )
        return f'{type(self).__name__}({", ".join(f"{name}={getattr(self, name)}" for name in told)})'


def reader_of(pipeline: Sequence[Mapping]) -> LoadImage:
    """The reader that a pipeline, as a config has it, begins with, where it is ours; else one of pictures."""
    first = dict(pipeline[0]) if pipeline else {}
    return LoadImage(**first) if first.pop('type', '') in OURS else LoadImage()
