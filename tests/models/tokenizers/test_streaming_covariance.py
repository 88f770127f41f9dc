# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch
from torch.nn import functional as F

from ldae.models.layers import patch_view
from ldae.models.tokenizers import StreamingCovariance


def test_mean_and_covariance_agree_with_numpy_in_float64():
    rows = torch.randn(5000, 12, generator=torch.Generator().manual_seed(0)) @ torch.randn(12, 12) + 3
    stream = StreamingCovariance(12, chunk_size=512)
    for batch in rows.split(700):
        stream.update(batch)
    mean, covariance, count = stream.finalize()
    assert count == 5000
    np.testing.assert_allclose(mean, rows.double().numpy().mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(rows.double().numpy(), rowvar=False), rtol=1e-4, atol=1e-4)


def test_a_large_offset_costs_no_precision():
    rows = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)) + 1000
    stream = StreamingCovariance(4)
    for batch in rows.split(500):
        stream.update(batch)
    expected = np.cov(rows.double().numpy(), rowvar=False)
    np.testing.assert_allclose(stream.finalize()[1], expected, rtol=1e-4, atol=1e-5)


def test_patches_of_a_strided_view_are_rows_in_row_major_order():
    images = torch.randn(7, 3, 8, 12)
    view, stream = StreamingCovariance((3, 4, 4), chunk_size=10), StreamingCovariance(48)
    view.update(patch_view(images, 4))
    stream.update(F.unfold(images, 4, stride=4).transpose(1, 2))
    for a, b in zip(view.finalize()[:2], stream.finalize()[:2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_state_does_not_grow_with_the_number_of_rows():
    stream, sizes = StreamingCovariance(6), set()
    for _ in range(3):
        stream.update(torch.randn(100, 6))
        sizes.add(sum(value.numel() for value in vars(stream).values() if isinstance(value, torch.Tensor)))
    assert len(sizes) == 1
