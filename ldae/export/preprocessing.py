# SPDX-License-Identifier: Apache-2.0
"""From a picture to what an encoder takes, as numbers that any library can follow."""

from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from ldae.apis.images import read_images
from ldae.config import pipeline_of
from ldae.datasets.load_image import reads_files
from ldae.utils import ConfigError

#: Whose steps count, the first that has any.
SOURCES = ('val_dataloader', 'test_dataloader', 'train_dataloader')
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'lanczos', 'box', 'hamming')


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter edge to ``img_size / crop_pct``, crop the centre, and normalise RGB (or grey) pixels of 0
    to 1 by one mean and deviation a channel."""

    img_size: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = 'bicubic'
    crop_pct: float = 1.0

    @property
    def resize(self) -> int:
        """Shorter edge in pixels before the crop."""
        return int(self.img_size / self.crop_pct)

    def as_dict(self) -> dict:
        """All of it, for formats that have no form of their own for it."""
        return dict(asdict(self), resize=self.resize, channels='RGB' if self.in_channels == 3 else 'grey')

    def __call__(self, image: Image.Image) -> Tensor:
        """A picture -> (C, H, W)."""
        image = image.convert('RGB' if self.in_channels == 3 else 'L')
        width, height = image.size
        ratio = self.resize / min(width, height)
        size = [max(self.resize, int(ratio * edge)) for edge in (width, height)]
        image = image.resize(size, getattr(Image.Resampling, self.interpolation.upper()))
        left, top = (round((edge - self.img_size) / 2) for edge in size)
        image = image.crop((left, top, left + self.img_size, top + self.img_size))
        pixels = torch.from_numpy(np.array(image)).float().div(255).reshape(self.img_size, self.img_size, -1)
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1)


def preprocessing_of(model: nn.Module, img_size: int, in_channels: int) -> Preprocessing:
    """A model's data preprocessor and validation pipeline in these numbers. Raises ConfigError for what can't be said
    in these numbers."""
    cfg = getattr(model, '_config', None) or Config()
    preprocessor = model.data_preprocessor
    mean, std = np.zeros(in_channels), np.full(in_channels, 1.0)
    if getattr(preprocessor, '_enable_normalize', False):
        mean, std = (getattr(preprocessor, name).flatten().double().numpy() for name in ('mean', 'std'))
    if in_channels not in (1, 3):
        raise ConfigError(f'an encoder of {in_channels} channels takes no pictures: only grey and RGB are exported')
    steps = pipeline_of(cfg, SOURCES) or []
    # mmcv reads pictures as BGR, and the data preprocessor turns them; the name differs between mmpretrain's preprocessors.
    is_rgb = any(getattr(preprocessor, name, False) for name in ('to_rgb', '_channel_conversion'))
    if in_channels == 3 and any(map(reads_files, steps)) and not is_rgb:
        raise ConfigError('the model takes BGR images (data_preprocessor.to_rgb=False), which other libraries do not')
    mean, std = (np.broadcast_to(values / 255, in_channels).round(9).tolist() for values in (mean, std))
    return Preprocessing(img_size, in_channels, tuple(mean), tuple(std), *_geometry(steps))


def _geometry(steps: list[dict]) -> tuple[str, float]:
    """Interpolation, and the crop's share of the resized image."""
    by_type = {step['type']: step for step in steps}
    resize = by_type.get('ResizeEdge') or by_type.get('Resize') or by_type.get('RandomResizedCrop') or {}
    interpolation = resize.get('interpolation', 'bilinear' if resize else 'bicubic')
    crop, scale = by_type.get('CenterCrop', {}).get('crop_size'), resize.get('scale')
    share = crop / scale if isinstance(crop, int) and isinstance(scale, int) else 1.0
    if share < 1 and int(crop / share) != scale:
        share = crop / (scale + 1e-6)  # who divides by it rounds down
    return interpolation if interpolation in INTERPOLATIONS else 'bicubic', min(1.0, share)


def read_pictures(paths: list[str], preprocessing: Preprocessing, count: int) -> Tensor:
    """The first ``count`` pictures of files and folders, as (n, C, H, W). Raises ConfigError for a path that doesn't
    exist, a folder without pictures, or a file that isn't one."""
    try:
        pictures = list(islice(read_images(paths), count))
    except ConfigError as error:
        raise ConfigError(f'--check: {error}') from error
    return torch.stack([preprocessing(Image.fromarray(bgr[..., ::-1])) for bgr in pictures])
