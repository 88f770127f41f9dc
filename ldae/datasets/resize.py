# SPDX-License-Identifier: Apache-2.0
"""Faster steps of a pipeline: Pillow with less copying and planes by OpenCV, which give the same pixels; and resizing by
torch's vector code, several times as fast as Pillow, and not bit for bit the same."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from mmpretrain.datasets import transforms
from PIL import Image
from torch.nn.functional import interpolate

from ldae.compat import turn_hue_backwards
from ldae.registry import TRANSFORMS
from ldae.utils import Choice, PositiveInt, checked

Filter = Annotated[str, Choice('bilinear', 'bicubic')]
PillowFilter = Annotated[str, Choice(tuple(name.lower() for name in Image.Resampling.__members__))]
SLOW = ('ResizeEdge', 'RandomResizedCrop')
turn_hue_backwards()


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str = 'bicubic') -> np.ndarray:
    """Resize (H, W, C), or (H, W), of bytes or floats to ``size`` = (width, height) by an antialiased filter.

    Its weights have 16 bits where Pillow's have 22: a few values in a thousand differ, by 1 or 2 of 255. The width is resized
    first, then the height; Pillow 13 begins with the height for some shapes, of which a quarter of the values differ.
    """
    if image.shape[1::-1] == tuple(size):
        return image
    planes = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image))).permute(2, 0, 1).unsqueeze(0)
    resized = interpolate(planes, size[::-1], mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).reshape(*size[::-1], *image.shape[2:]).numpy()


def is_picture(image: np.ndarray) -> bool:
    """Whether Pillow takes an image: grey or of three colours, of 8 bits."""
    return image.dtype == np.uint8 and image.shape[2:] in ((), (3,))


@TRANSFORMS.register_module()
class FastResizeEdge(transforms.ResizeEdge):
    """mmpretrain's ``ResizeEdge`` with :func:`resize`; ``backend`` is ignored."""

    @checked
    def __init__(
        self, scale: int, edge: str = 'short', backend: str = 'torch', interpolation: Filter = 'bilinear'
    ) -> None:
        super().__init__(scale, edge, 'torch', interpolation)

    def _resize_img(self, results: dict) -> None:
        (height, width), size = results['img'].shape[:2], results['scale']
        results['img'] = resize(results['img'], size, self.interpolation)
        results.update(img_shape=size[::-1], scale_factor=(size[0] / width, size[1] / height))


@TRANSFORMS.register_module()
class PillowResizeEdge(FastResizeEdge):
    """mmpretrain's ``ResizeEdge`` with Pillow; other images than its, of more bands or of floats, by :func:`resize`."""

    def __init__(self, scale: int, edge: str = 'short', backend: str = 'pillow', **kwargs) -> None:
        transforms.ResizeEdge.__init__(self, scale, edge, backend, **kwargs)

    def _resize_img(self, results: dict) -> None:
        by_pillow = self.backend == 'pillow' and is_picture(results['img'])
        (transforms.ResizeEdge if by_pillow else FastResizeEdge)._resize_img(self, results)


@TRANSFORMS.register_module()
class ResizeToCover(PillowResizeEdge):
    """Resize an image, its proportions kept, until it just covers ``scale`` = (height, width), as an oblong crop needs it."""

    @checked
    def __init__(
        self, scale: tuple[PositiveInt, PositiveInt], backend: str = 'pillow', interpolation: PillowFilter = 'bilinear'
    ) -> None:
        transforms.ResizeEdge.__init__(self, tuple(scale), 'short', backend, interpolation)

    def transform(self, results: dict) -> dict:
        """Replace ``img``."""
        edges = results['img'].shape[:2]
        ratio = max(least / edge for least, edge in zip(self.scale, edges, strict=True))
        size = (max(least, round(ratio * edge)) for least, edge in zip(self.scale, edges, strict=True))
        results['scale'] = tuple(size)[::-1]
        self._resize_img(results)
        return results


@TRANSFORMS.register_module()
class FastRandomResizedCrop(transforms.RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop`` with :func:`resize`: the same crops; ``backend`` is ignored."""

    @checked
    def __init__(self, *args, backend: str = 'torch', interpolation: Filter = 'bilinear', **kwargs) -> None:
        super().__init__(*args, backend='torch', interpolation=interpolation, **kwargs)

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by a random part of it."""
        top, left, height, width = self.rand_crop_params(results['img'])
        part = results['img'][top : top + height, left : left + width]
        results['img'] = resize(part, tuple(self.scale[::-1]), self.interpolation)
        results['img_shape'] = results['img'].shape
        return results


@TRANSFORMS.register_module()
class PillowRandomResizedCrop(transforms.RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop`` with Pillow, to the same pixels. There, Pillow is handed a part of an array, which
    it copies pixel by pixel; here that part's copy, whose rows follow each other. Other images than Pillow's: :func:`resize`."""

    @checked
    def __init__(self, *args, backend: str = 'pillow', interpolation: PillowFilter = 'bilinear', **kwargs) -> None:
        super().__init__(*args, backend='pillow', interpolation=interpolation, **kwargs)
        self._filter = Image.Resampling[interpolation.upper()]

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by a random part of it."""
        top, left, height, width = self.rand_crop_params(results['img'])
        part = np.ascontiguousarray(results['img'][top : top + height, left : left + width])
        size = tuple(self.scale[::-1])
        by_pillow = is_picture(part)
        results['img'] = (
            np.array(Image.fromarray(part).resize(size, self._filter))
            if by_pillow
            else resize(part, size, self.interpolation)
        )
        results['img_shape'] = results['img'].shape
        return results


@TRANSFORMS.register_module()
class FastPackInputs(transforms.PackInputs):
    """mmpretrain's ``PackInputs``, to the same values: OpenCV parts an image's channels ten times as fast as a copy of the
    transposed array does."""

    @staticmethod
    def format_input(input_: Any) -> Any:
        """uint8 (3, H, W) of uint8 (H, W, 3); the rest is mmpretrain's."""
        if isinstance(input_, list):  # of views
            return [FastPackInputs.format_input(view) for view in input_]
        if not (isinstance(input_, np.ndarray) and input_.dtype == np.uint8 and input_.shape[2:] == (3,)):
            return transforms.PackInputs.format_input(input_)
        planes = np.empty((3, *input_.shape[:2]), np.uint8)
        mirrored = input_.strides[1] < 0  # a view, which OpenCV would copy value by value
        cv2.split(input_[:, ::-1] if mirrored else input_, list(planes))
        for plane in planes if mirrored else ():
            cv2.flip(plane, 1, plane)
        return torch.from_numpy(planes)


def with_faster_steps(pipeline: Iterable[Mapping], by_torch: bool = False) -> list[Mapping]:
    """A pipeline whose ``PackInputs``, and ``ResizeEdge`` and ``RandomResizedCrop`` by Pillow, are those of this module: where
    there is one that gives the same pixels, or all of them by torch."""
    kinds = {name: f'ldae.{"Fast" if by_torch else "Pillow"}{name}' for name in SLOW}
    kinds['PackInputs'] = 'ldae.FastPackInputs'
    return [_faster(step, kinds) for step in pipeline]


def _faster(step: Mapping, kinds: Mapping[str, str]) -> Mapping:
    if isinstance(step, Mapping) and step.get('type') == 'MultiView':
        views = [[_faster(inner, kinds) for inner in steps] for steps in step['transforms']]
        return dict(step, transforms=views)
    return dict(step, type=kinds.get(step['type'], step['type'])) if _is_slow(step) else step


def _is_slow(step: Mapping) -> bool:
    kind = step.get('type') if isinstance(step, Mapping) else None
    return kind == 'PackInputs' or (kind in SLOW and step.get('backend') == 'pillow')
