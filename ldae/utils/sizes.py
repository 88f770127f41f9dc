# SPDX-License-Identifier: Apache-2.0
"""Sizes of images in pixels: one number for squares, (height, width) for others."""

from collections.abc import Iterable, Sequence

from .ranges import PositiveInt

Size = PositiveInt | tuple[PositiveInt, PositiveInt]


def height_width(size: int | Iterable[int]) -> tuple[int, int]:
    """A size as two numbers."""
    return (size, size) if isinstance(size, int) else tuple(size)


def as_size(edges: int | Sequence[int]) -> int | tuple[int, int]:
    """A size as it is written: one number for a square."""
    height, width = height_width(edges)
    return height if height == width else (height, width)


def in_words(size: int | Sequence[int]) -> str:
    """'64' of a square, '64 x 128' of others."""
    return str(as_size(size)) if isinstance(as_size(size), int) else ' x '.join(map(str, size))


def set_size(step: dict, edges: int | Iterable[int]) -> None:
    """Let a step of a pipeline give images of another size; one that resizes squares by their short edge covers oblongs."""
    height, width = height_width(edges)
    size = as_size((height, width))
    if 'scale' in step:
        step['scale'] = size
        if size != height and str(step.get('type')).endswith('ResizeEdge'):
            step.pop('edge', None)
            step['type'] = 'ldae.ResizeToCover'
        elif step.get('type') == 'ldae.ResizeToCover':
            step['scale'] = (height, width)
        elif size != height:  # of a random crop, whose proportions are those of what it becomes
            step['aspect_ratio_range'] = (3 / 4 * width / height, 4 / 3 * width / height)
    if 'crop_size' in step:
        step['crop_size'] = size if size == height else (width, height)
    if step.get('type') == 'Pad':
        step['size'] = (width, height)
