# SPDX-License-Identifier: Apache-2.0
"""Formats that aren't read are not decoded, and sizes are known before anything is."""

import struct

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin

from ldae.apis.images import read_images
from ldae.datasets.load_image import BadImageError, decode, read_file
from ldae.datasets.verify import judge

PIXELS = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n%%EOF\n'
WIDE = 100_000


def header(size: int) -> dict[str, bytes]:
    """Files that say that they have so many pixels along each side, and have none."""
    dib = struct.pack('<IiiHHIIiiII', 40, size, size, 1, 24, 0, 0, 0, 0, 0, 0)
    entries = [(256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 64), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags = b''.join(struct.pack('<HHII', *entry) for entry in entries)
    return dict(
        ppm=b'P6\n%d %d\n255\n' % (size, size),
        bmp=b'BM' + struct.pack('<IHHI', 54, 0, 0, 54) + dib,
        tiff=b'II*\0' + struct.pack('<IH', 8, len(entries)) + tags + bytes(4),
        gif=b'GIF89a'
        + struct.pack('<HHBBB', 60_000, 60_000, 0, 0, 0)
        + b','
        + struct.pack('<HHHHB', 0, 0, 60_000, 60_000, 0)
        + b'\x08\0;',
    )


@pytest.mark.parametrize('reader', [lambda path: decode(read_file(path), path), lambda path: next(read_images(path))])
def test_ghostscript_is_never_started(tmp_path, monkeypatch, reader):
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *args, **kwargs: pytest.fail('Ghostscript'))
    (tmp_path / 'x.jpg').write_bytes(EPS)
    assert judge(str(tmp_path / 'x.jpg')) == 'is not a readable image'
    with pytest.raises(BadImageError, match='is not a readable image'):
        reader(str(tmp_path / 'x.jpg'))


@pytest.mark.parametrize(
    'data',
    [
        b'P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n' % (WIDE, WIDE),
        b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n' % (WIDE, WIDE),
        b'PF\n%d %d\n-1.0\n' % (WIDE, WIDE),
        cv2.imencode('.hdr', PIXELS.astype(np.float32))[1].tobytes(),
        cv2.imencode('.pam', PIXELS)[1].tobytes(),
        cv2.imencode('.ras', PIXELS)[1].tobytes(),
    ],
    ids=['pam', 'hdr', 'pfm', 'whole hdr', 'whole pam', 'sun raster'],
)
def test_formats_that_are_not_listed_are_not_decoded(data, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: pytest.fail('decoded'))
    with pytest.raises(BadImageError, match='is not a readable image'):
        decode(data)


@pytest.mark.parametrize('name', header(1))
def test_too_many_pixels_are_seen_before_any_is_decoded(name, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: pytest.fail('decoded'))
    with pytest.raises(BadImageError, match='has too many pixels|is a TIFF of a kind'):
        decode(header(WIDE)[name])
