# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmpretrain.models.utils import SelfSupDataPreprocessor
from torch import nn

from ldae.utils.files import atomic_write_text
from ldae.utils.models import psnr, to_pixels, unwrapped


def test_pixels_are_what_mmpretrains_preprocessor_was_given():
    preprocessor = SelfSupDataPreprocessor(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    normalised = preprocessor(dict(inputs=images, data_samples=None))['inputs']
    torch.testing.assert_close(to_pixels(normalised, preprocessor), images.float(), atol=1e-3, rtol=0)
    assert to_pixels(normalised + 10, preprocessor).max() <= 255
    assert torch.equal(to_pixels(images.float(), SelfSupDataPreprocessor()), images.float())


def test_only_a_wrapper_of_distributed_training_is_taken_off():
    inner = nn.Linear(1, 1)
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = inner
    assert unwrapped(wrapper) is unwrapped(inner) is inner
    own = nn.Module()
    own.module = inner  # a part that happens to have this name
    assert unwrapped(own) is own


def test_a_file_is_replaced_at_once_and_leaves_no_rest(tmp_path):
    path = tmp_path / 'pointer'
    for text in ('one', 'two'):
        atomic_write_text(path, text)
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_psnr_is_scikit_images():
    metrics = pytest.importorskip('skimage.metrics')
    clean, noisy = (torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(i)) * 255 for i in (0, 1))
    expected = [
        metrics.peak_signal_noise_ratio(*pair, data_range=255)
        for pair in zip(clean.numpy(), noisy.numpy(), strict=True)
    ]
    torch.testing.assert_close(psnr(noisy, clean), torch.tensor(expected, dtype=torch.float32))
    assert psnr(clean, clean).tolist() == pytest.approx([10 * math.log10(255**2 / 1e-8)] * 3)
