# SPDX-License-Identifier: Apache-2.0
"""Read an image file right, or say in one line why it can't be."""

import errno
import io
import os
import stat
import warnings
import zlib

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from PIL import Image, ImageOps

from ldae.registry import TRANSFORMS
from ldae.utils import ConfigError, check_range

# What may be wrong with a file; a reason's position in this list is what a data set keeps of it, in one byte.
REASONS = (
    '',
    'is empty',
    'is truncated',
    'is damaged',
    'is not a readable image',
    'does not exist',
    'is a broken link',
    'may not be read',
    'is not a file',
    'cannot be read',
    'has too many pixels',
    'is too long and narrow',
)
MAX_PIXELS = 89_478_485  # from here on Pillow warns of a decompression bomb
MAX_ASPECT = 100  # resized by its short side, such an image would fill the memory
PNG, CHECKED = b'\x89PNG\r\n\x1a\n', (b'IHDR', b'PLTE', b'IDAT')
JPEG, END_OF_IMAGE, START_OF_SCAN = b'\xff\xd8\xff', b'\xff\xd9', b'\xff\xda'
# Not the file's fault: too many open files, no memory.
OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class BadImageError(ConfigError):
    """A file that is no image, or only a part of one; its text is ``path reason``, of :data:`REASONS`."""

    reason = ''


def bad_image(path: str, reason: str) -> BadImageError:
    """The error of a file for one of :data:`REASONS`."""
    error = BadImageError(
        f'{path} {reason}'
    )  # one argument: errors of workers are built again from their text
    error.reason = reason
    return error


def is_remote(path: str) -> bool:
    """Whether a path names a storage backend ('s3://...') rather than a local file."""
    return '://' in path


def read_file(path: str, backend_args: dict | None = None) -> bytes:
    """The bytes of a file; raise :class:`BadImageError` if it isn't one or can't be read."""
    if is_remote(path) or backend_args:
        return fileio.get(path, backend_args=backend_args)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise bad_image(path, 'is not a file')  # opening a pipe would wait for ever
        with open(path, 'rb') as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise bad_image(path, 'is a broken link' if os.path.islink(path) else 'does not exist') from error
    except PermissionError as error:
        raise bad_image(path, 'may not be read') from error
    except OSError as error:
        if error.errno in OF_THE_MACHINE:
            raise
        raise bad_image(path, 'cannot be read') from error


def decode(data: bytes, path: str = '', max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The image that the bytes of a file hold, as uint8 BGR (H, W, 3), upright by its EXIF orientation.

    Grey is repeated, 16 bits are scaled to 8, CMYK is converted, transparency is dropped, of an animation the first frame
    is taken. OpenCV decodes, as in mmcv's ``LoadImageFromFile``; what it refuses, Pillow tries.

    Raises:
        BadImageError: It is no image, a truncated one, or one beyond ``max_pixels`` or :data:`MAX_ASPECT`.
    """
    if not data:
        raise bad_image(path, 'is empty')
    _check_size(data, path, max_pixels)
    # Decoders make up what is missing, more or less of it by their version.
    if data.startswith(JPEG) and _is_cut_off(data):
        raise bad_image(path, 'is truncated')
    if data.startswith(PNG):
        _check_chunks(data, path)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    return _decode_by_pillow(data, path) if image is None else image


def _check_size(data: bytes, path: str, max_pixels: int) -> None:
    """Judge by the header, which costs nothing, before any pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            width, height = Image.open(io.BytesIO(data)).size
    except Image.DecompressionBombError as error:
        raise bad_image(path, 'has too many pixels') from error
    except Exception:  # a format that Pillow doesn't know, or a header that it can't read
        return
    if width * height > max_pixels:
        raise bad_image(path, 'has too many pixels')
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise bad_image(path, 'is too long and narrow')


def _is_cut_off(jpeg: bytes) -> bool:
    # Scans escape 0xff, so the marker of the end stands in none; a thumbnail has one too, before the scan.
    end = jpeg.rfind(END_OF_IMAGE)
    return end < 0 or jpeg.find(START_OF_SCAN, end) >= 0


def _check_chunks(png: bytes, path: str) -> None:
    """Whether all chunks are there and those that hold pixels have the checksums that they say."""
    start = len(PNG)
    while True:
        head = png[start : start + 8]
        if len(head) < 8:
            raise bad_image(path, 'is truncated')
        end = start + 8 + int.from_bytes(head[:4], 'big')
        if end + 4 > len(png):
            raise bad_image(path, 'is truncated')
        if head[4:] in CHECKED and zlib.crc32(png[start + 4 : end]) != int.from_bytes(
            png[end : end + 4], 'big'
        ):
            raise bad_image(path, 'is damaged')
        if head[4:] == b'IEND':
            return
        start = end + 4


def _decode_by_pillow(data: bytes, path: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in ('F', 'I'):
                raise ValueError('no range of values is known')
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1].copy()
    except MemoryError:
        raise
    except Exception as error:  # its readers raise many kinds
        reason = 'is truncated' if 'truncated' in str(error) else 'is not a readable image'
        raise bad_image(path, reason) from error


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path`` into ``img``: uint8 BGR (H, W, 3), see :func:`decode`.

    It equals mmcv's ``LoadImageFromFile`` on whole images of ordinary size.

    Args:
        max_pixels: Images of more are refused before they are decoded, at least 1.
        backend_args: Of mmengine's storage backend, if the images don't lie on a local disk.

    Raises:
        BadImageError: The file is no image, see :data:`REASONS`.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, backend_args: dict | None = None) -> None:
        check_range('LoadImage.max_pixels', max_pixels, 1, kind=int)
        self.max_pixels, self.backend_args = max_pixels, backend_args

    def transform(self, results: dict) -> dict:
        """Add ``img``, ``img_shape`` and ``ori_shape``."""
        path = results['img_path']
        image = decode(read_file(path, self.backend_args), path, self.max_pixels)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_pixels={self.max_pixels})'
