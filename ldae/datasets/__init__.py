# SPDX-License-Identifier: Apache-2.0
"""What mmpretrain's datasets lack: IDX files served in whole batches, and folders with any classes, or none."""

from .idx import IDXDataset, batch_collate
from .image_folder import ImageFolder

__all__ = ['IDXDataset', 'ImageFolder', 'batch_collate']
