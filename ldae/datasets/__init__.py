# SPDX-License-Identifier: Apache-2.0
"""Data sets that mmpretrain lacks: small images served in whole batches, and folders with any classes, or none."""

from .cifar10 import CIFAR10
from .idx import IDXDataset, batch_collate
from .image_folder import ImageFolder
from .in_memory import InMemoryDataset
from .latents import LatentDataset
from .load_image import BadImageError, LoadImage
from .packed import PackedImages
from .resize import FastPackInputs, FastRandomResizedCrop, FastResizeEdge, PillowRandomResizedCrop, ResizeToCover
from .workers import start_worker
