# SPDX-License-Identifier: Apache-2.0
"""From a picture to what a model takes, as the model's own test pipeline says."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor, nn

from ldae.config import pipeline_of
from ldae.config.data import scale_steps
from ldae.datasets.load_image import reader_of, reads_files
from ldae.datasets.packed import packed_pipeline
from ldae.datasets.resize import with_faster_steps
from ldae.registry import TRANSFORMS
from ldae.utils import ConfigError
from ldae.utils.models import unwrapped
from ldae.utils.sizes import as_size

from .images import read_images

TEST_LOADERS = ('test_dataloader', 'val_dataloader')


class Preprocess:
    """The preparation of a model's test images: :meth:`transform` for one, :meth:`batch` for several.

    That is the pipeline of ``test_dataloader`` (or ``val_dataloader``) in the model's config and its data preprocessor;
    for encoders of other libraries, what these say of them. Where a config has no such pipeline (MAE's pre-training, images in
    memory), the shorter edge is resized to the model's size, bicubic, and the centre is cropped. Raises ConfigError for
    a model that doesn't say what it takes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        #: Of files and arrays: of bands, where the model's own images have them.
        self.reader = reader_of(pipeline_of(getattr(self.model, '_config', None) or Config(), TEST_LOADERS) or ())
        #: Whether what :meth:`batch` returns has its channels in the order blue, green, red.
        self.is_bgr = False
        if hasattr(self.model, 'pretrained_cfg'):
            self._steps = _timm_steps(self.model)
        elif hasattr(self.model, 'data_preprocessor'):
            self._steps = self._own_steps()
        else:
            raise ConfigError(
                f'{type(self.model).__name__} does not say what images it takes: give a model that ldae.get_model builds'
            )

    def read(self, images: Any) -> Iterator[np.ndarray]:
        """Pictures in any form, as :func:`ldae.apis.images.read_images` takes them, for :meth:`transform`."""
        return read_images(images, self.reader)

    def transform(self, image: np.ndarray) -> Tensor:
        """uint8 BGR (H, W, 3), or bands -> (C, H', W'), not yet normalised unless the model is another library's."""
        return self._steps(image)

    def batch(self, images: Sequence[Tensor]) -> Tensor:
        """Transformed images -> what the model takes (B, C, H, W), on its device. Raises ConfigError if the images
        differ in size, or have another number of channels than the model."""
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise ConfigError(
                f"after the model's test pipeline images have several shapes, {sorted(shapes)[:2]}: batch_size=1 takes them"
            )
        stacked = torch.stack(list(images))
        if hasattr(self.model, 'pretrained_cfg'):
            return stacked.to(next(self.model.parameters()).device)
        return self.model.data_preprocessor(dict(inputs=stacked, data_samples=None), False)['inputs']

    def _own_steps(self) -> Callable[[np.ndarray], Tensor]:
        size, channels = image_shape_of(self.model)
        pipeline = pipeline_of(getattr(self.model, '_config', None) or Config(), TEST_LOADERS)
        preprocessor = self.model.data_preprocessor
        converts = getattr(preprocessor, '_channel_conversion', False) or getattr(preprocessor, 'to_rgb', False)
        # Without a pipeline, data sets hand over RGB unless the data preprocessor is told to turn it.
        gives_bgr = pipeline is not None or converts
        self.is_bgr = channels == 3 and gives_bgr != bool(converts)
        if pipeline is None:
            pipeline = [*packed_pipeline(dict(crop='center', edge=size, size=size)), dict(type='PackInputs')]
            scale_steps(pipeline, size)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            steps = Compose([TRANSFORMS.build(dict(s)) for s in with_faster_steps(pipeline) if not reads_files(s)])

        def run(image: np.ndarray) -> Tensor:
            if self.reader.channels:
                pass
            elif channels == 1:
                image = np.asarray(Image.fromarray(image[..., ::-1]).convert('L'))
            elif not gives_bgr:
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            shape = image.shape[:2]
            return steps(dict(img=image, img_shape=shape, ori_shape=shape))['inputs']

        return run


def image_shape_of(model: nn.Module) -> tuple[int | tuple[int, int], int]:
    """Image size, one number for squares, and channels that a model was built for."""
    tokenizer = getattr(model, 'tokenizer', None)
    if tokenizer is not None:
        return tokenizer.geometry.img_size, tokenizer.geometry.in_channels
    backbone = getattr(model, 'backbone', model)
    size = getattr(backbone, 'img_size', 224)
    first = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels * first.groups
    return as_size(size), channels


def _timm_steps(model: nn.Module) -> Callable[[np.ndarray], Tensor]:
    from timm.data import create_transform, resolve_model_data_config

    data_cfg = resolve_model_data_config(model)
    transform = create_transform(**data_cfg, is_training=False)
    mode = 'L' if data_cfg['input_size'][0] == 1 else 'RGB'
    return lambda image: transform(Image.fromarray(image[..., ::-1]).convert(mode))
