# SPDX-License-Identifier: Apache-2.0
"""Files as they lie among images: good ones of unusual kinds, with what must be read, and bad ones, with the reason."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ldae.datasets.load_image import OTHER_TIFF as UNREAD

HEIGHT, WIDTH = 40, 48
# Smooth, as photographs are, so that JPEG keeps it up to a few levels.
PIXELS = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8),
    (WIDTH, HEIGHT),
    interpolation=cv2.INTER_LINEAR,
)
PICTURE = Image.fromarray(PIXELS)
GREY = np.asarray(PICTURE.convert('L'))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, kind: str = 'JPEG', **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(PICTURE, kind, exif=exif, **options)


def with_alpha(mode: str) -> bytes:
    picture = PICTURE.convert('RGBA')
    picture.putalpha(Image.fromarray(np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)))
    return encoded(picture.convert(mode), 'PNG')


def palette(**options: object) -> tuple[bytes, np.ndarray]:
    picture = PICTURE.convert('P')
    return encoded(picture, 'PNG', **options), np.asarray(picture.convert('RGB'))


def sixteen_bits(pixels: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, pixels[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels, in few bytes."""
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan stands there so often."""
    whole = encoded(PICTURE, 'JPEG', progressive=True)
    last = whole[whole.rindex(b'\xff\xda') : -2]
    return whole[:-2] + count * last + whole[-2:]


def grey3(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=2)


JPEG, PNG = encoded(PICTURE, 'JPEG', quality=97, subsampling=0), encoded(PICTURE, 'PNG')
WITH_THUMBNAIL = JPEG[:2] + b'\xff\xe1' + struct.pack('>H', 2 + len(JPEG)) + JPEG + JPEG[2:]
FRAMES = dict(save_all=True, append_images=[PICTURE.rotate(180)])

# name -> (bytes, RGB pixels that must be read, tolerance)
UNUSUAL: dict[str, tuple[bytes, np.ndarray, int]] = {
    'jpeg': (JPEG, PIXELS, 8),
    'progressive': (encoded(PICTURE, 'JPEG', quality=97, subsampling=0, progressive=True), PIXELS, 8),
    'cmyk.jpeg': (encoded(PICTURE.convert('CMYK'), 'JPEG', quality=97), PIXELS, 8),
    'grey.jpeg': (encoded(PICTURE.convert('L'), 'JPEG', quality=97), grey3(GREY), 8),
    'with_thumbnail.jpeg': (WITH_THUMBNAIL, PIXELS, 8),
    'bytes_after_the_end.jpeg': (JPEG + b'junk', PIXELS, 8),
    'png': (PNG, PIXELS, 0),
    'grey.png': (encoded(PICTURE.convert('L'), 'PNG'), grey3(GREY), 0),
    'black_and_white.png': (encoded(PICTURE.convert('1'), 'PNG'), grey3(np.asarray(PICTURE.convert('1')) * np.uint8(255)), 0),
    'alpha.png': (with_alpha('RGBA'), PIXELS, 0),
    'grey_alpha.png': (with_alpha('LA'), grey3(GREY), 0),
    'palette.png': (*palette(), 0),
    'palette_transparent.png': (*palette(transparency=5), 0),
    'grey_16_bits.png': (encoded(Image.fromarray(GREY.astype(np.uint16) * 257), 'PNG'), grey3(GREY), 0),
    'colour_16_bits.png': (sixteen_bits(PIXELS, '.png'), PIXELS, 0),
    'colour_16_bits.tiff': (sixteen_bits(PIXELS, '.tiff'), PIXELS, 0),
    'cmyk.tiff': (encoded(PICTURE.convert('CMYK'), 'TIFF'), PIXELS, 0),
    'bmp': (encoded(PICTURE, 'BMP'), PIXELS, 0),
    'webp': (encoded(PICTURE, 'WEBP', lossless=True), PIXELS, 0),
    'animated.gif': (encoded(PICTURE, 'GIF', **FRAMES), np.asarray(PICTURE.convert('P', palette=Image.ADAPTIVE).convert('RGB')), 80),
    'animated.webp': (encoded(PICTURE, 'WEBP', lossless=True, **FRAMES), PIXELS, 0),
    'only_pillow_reads.tga': (encoded(PICTURE, 'TGA'), PIXELS, 0),
    'avif': (encoded(PICTURE, 'AVIF', quality=100, subsampling='4:4:4'), PIXELS, 8),
    'upside_down.avif': (turned(3, 'AVIF', quality=100, subsampling='4:4:4'), np.rot90(PIXELS, 2), 8),
    'on_its_side.avif': (turned(6, 'AVIF', quality=100, subsampling='4:4:4'), np.rot90(PIXELS, -1), 8),
    'upside_down.jpeg': (turned(3, quality=97, subsampling=0), np.rot90(PIXELS, 2), 8),
    'on_its_side.jpeg': (turned(6, quality=97, subsampling=0), np.rot90(PIXELS, -1), 8),
    'on_its_side.png': (turned(8, 'PNG'), np.rot90(PIXELS), 0),
}  # fmt: skip

PARTS = 'has too many parts, or scans for its size'

# name -> (bytes, reason)
BAD: dict[str, tuple[bytes, str]] = {
    'empty': (b'', 'is empty'),
    'truncated.jpeg': (JPEG[: len(JPEG) // 2], 'is truncated'),
    'without_its_last_byte.jpeg': (JPEG[:-1], 'is truncated'),
    'truncated_after_thumbnail.jpeg': (WITH_THUMBNAIL[:-500], 'is truncated'),
    'truncated_header.jpeg': (JPEG[:20], 'is truncated'),
    'truncated.png': (PNG[: len(PNG) // 2], 'is truncated'),
    'truncated.bmp': (encoded(PICTURE, 'BMP')[:3000], 'is truncated'),
    'truncated.gif': (encoded(PICTURE, 'GIF')[:800], 'is truncated'),
    'truncated.tiff': (encoded(PICTURE, 'TIFF')[:3000], 'is truncated'),
    'truncated.webp': (encoded(PICTURE, 'WEBP', lossless=True)[:-900], 'is not a readable image'),
    'truncated.ppm': (encoded(PICTURE, 'PPM')[:3000], 'is truncated'),
    'wrong_byte.png': (PNG[:1000] + bytes([PNG[1000] ^ 0xFF]) + PNG[1001:], 'is damaged'),
    'text': (b'not an image\n', 'is not a readable image'),
    'page_of_an_error': (b'<!DOCTYPE html><html><title>404</title></html>', 'is not a readable image'),
    'zeros': (bytes(5000), 'is not a readable image'),
    'noise': (np.random.default_rng(1).bytes(5000), 'is not a readable image'),
    'only_a_signature.png': (PNG[:8], 'is truncated'),
    'zip': (b'PK\x03\x04' + bytes(100), 'is not a readable image'),
    'float.tiff': (encoded(Image.fromarray(PIXELS[..., 0] / np.float32(255)), 'TIFF'), UNREAD),
    'integers.tiff': (encoded(Image.fromarray(GREY.astype(np.int32)), 'TIFF'), UNREAD),
    'many_scans.jpeg': (many_scans(100_000), PARTS),
    'many_segments.jpeg': (JPEG[:2] + 20_000 * b'\xff\xfe\0\3a' + JPEG[2:], PARTS),
    'many_texts.png': (PNG[:33] + 20_000 * chunk(b'tEXt', b'a\0b') + PNG[33:], PARTS),
    'many_unknown_chunks.png': (PNG[:33] + 20_000 * chunk(b'abCd', b'a') + PNG[33:], PARTS),
    'runs_a_program.eps': (
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n',
        'is not a readable image',
    ),
    'bomb.pam': (
        b'P7\nWIDTH 60000\nHEIGHT 60000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n',
        'is not a readable image',
    ),
    'bomb.hdr': (b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 60000\n', 'is not a readable image'),
    'bomb.png': (png_of_size(60_000, 60_000), 'has too many pixels'),
    'smaller_bomb.png': (png_of_size(10_000, 10_000), 'has too many pixels'),
    'lying.ppm': (b'P6\n100000 100000\n255\n', 'has too many pixels'),
    'line.png': (encoded(Image.new('RGB', (500, 1)), 'PNG'), 'is too long and narrow'),
}


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name('nowhere'))


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 60 << 30)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


# name -> (what makes it, reason): what isn't a file with bytes of its own
NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    'missing.jpg': (lambda path: None, 'does not exist'),
    'folder.jpg': (Path.mkdir, 'is not a file'),
    'pipe.jpg': (os.mkfifo, 'is not a file'),
    'sparse.jpg': (make_sparse, 'is too large a file'),
    'link.jpg': (make_link, 'is a broken link'),
    'loop.jpg': (make_loop, 'cannot be read'),
    'no_folder/in_it.jpg': (lambda path: path.parent.write_text(''), 'does not exist'),
    'x' * 300 + '.jpg': (lambda path: None, 'cannot be read'),
}


def write_bad(folder: Path) -> dict[str, str]:
    """All bad ones, in a folder; name -> reason."""
    for name, (data, _) in BAD.items():
        (folder / f'{name}.jpg').write_bytes(data)
    for name, (make, _) in NO_FILES.items():
        make(folder / name)
    return {f'{name}.jpg': reason for name, (_, reason) in BAD.items()} | {
        name: reason for name, (_, reason) in NO_FILES.items()
    }
