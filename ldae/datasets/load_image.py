# SPDX-License-Identifier: Apache-2.0
"""Read an image file right, or say in one line why it can't be."""

import errno
import io
import os
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps

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
from ldae.utils import ConfigError, PositiveInt, checked

from .hf_rows import read_row
from .tar_shards import read_member

# What may be wrong with a file; a reason's position in this list is what a data set keeps of it, in one byte.
REASONS = (
    '', 'is empty', 'is truncated', 'is damaged', 'is not a readable image', 'does not exist', 'is a broken link',
    'may not be read', 'is not a file', 'cannot be read', 'has too many pixels', 'is too long and narrow',
    'is too large a file', 'has too many parts, or scans for its size',
    'is a TIFF of a kind that is not read: save it with 8 or 16 bits',
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
EXIF = b'Exif\0\0'
# JPEG decoders compute 1/n of an image's size directly.
REDUCED = {n: getattr(cv2, f'IMREAD_REDUCED_COLOR_{n}') for n in (8, 4, 2)} | {1: cv2.IMREAD_COLOR}
# Not the file's fault: too many open files, no memory.
MACHINE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


#: Steps of a pipeline that read files, in whatever scope.
READERS = ('LoadImage', 'LoadImageFromFile')


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
    return 'is a TIFF of a kind that is not read: save it with 8 or 16 bits' if is_tiff else 'is not a readable image'


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


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path`` into ``img``: uint8 BGR (H, W, 3), see :func:`decode`.

    It equals mmcv's ``LoadImageFromFile`` on whole images of ordinary size, unless ``min_edge`` is set. Raises
    BadImageError if the file is not an image, see :data:`REASONS`.

    Args:
        max_pixels: Images of more are refused before they are decoded, at least 1.
        backend_args: Of mmengine's storage backend, if the images don't lie on a local disk.
        min_edge: Decode large JPEGs at 1/2, 1/4 or 1/8 of their size, so long as the short edge stays at least this, in
            pixels; faster, and other pixels after resizing. None: at full size.
    """

    @checked
    def __init__(
        self,
        max_pixels: PositiveInt = MAX_PIXELS,
        backend_args: dict | None = None,
        min_edge: PositiveInt | None = None,
    ) -> None:
        self.max_pixels, self.backend_args, self.min_edge = max_pixels, backend_args, min_edge

    def transform(self, results: dict) -> dict:
        """Add ``img``, ``img_shape`` and ``ori_shape``."""
        path = results['img_path']
        image = decode(read_file(path, self.backend_args), path, self.max_pixels, self.min_edge)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_pixels={self.max_pixels}, min_edge={self.min_edge})'
