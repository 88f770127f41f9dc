# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor
from torch.nn import functional as F

from ldae.models import PatchPCATokenizer
from ldae.models.layers import patch_view
from ldae.models.tokenizers import PixelCovariance, PixelNormalization, streaming_covariance
from ldae.models.tokenizers.fit import fit_tokenizer


def images(count: int = 40, channels: int = 3) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, channels, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def rows(sample: torch.Tensor) -> np.ndarray:
    """Patches of 4 x 4 in float64, by another way."""
    return F.unfold(sample.double(), 4, stride=4).transpose(1, 2).flatten(0, 1).numpy()


def statistics(sample: torch.Tensor, use_bytes: bool, batch: int = 7, **kwargs) -> tuple:
    stream = PixelCovariance((sample.shape[1], 4, 4), use_bytes=use_bytes, **kwargs)
    for part in sample.split(batch):
        stream.update(patch_view(part, 4))
    return stream.finalize()


@pytest.mark.parametrize('use_bytes', [False, True])
def test_mean_and_covariance_agree_with_numpy_in_float64(use_bytes):
    if use_bytes and not streaming_covariance.byte_products_pay():
        pytest.skip('this CPU has no such product')
    mean, covariance, count = statistics(images(), use_bytes)
    expected = rows(images())
    assert count == len(expected)
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(expected, rowvar=False), rtol=1e-11, atol=1e-9)


def test_neither_order_nor_chunks_nor_the_kind_of_product_changes_a_bit():
    first = statistics(images(), False)
    for other in (
        statistics(images().flip(0), False, batch=40),
        statistics(images(), False, chunk_size=5),
        statistics(images(), None),
    ):
        assert torch.equal(first[0], other[0])
        assert torch.equal(first[1], other[1])


@pytest.mark.parametrize('value', [0, 255])
def test_extreme_pixels_overflow_nothing(value):
    """The largest products, in chunks as long as they get."""
    stream = PixelCovariance(2, chunk_size=10**9)
    for _ in range(2):
        stream.update(torch.full((streaming_covariance.BYTE_ROWS + 1, 2), value, dtype=torch.uint8))
    mean, covariance, _ = stream.finalize()
    assert torch.equal(mean, torch.full((2,), float(value), dtype=torch.float64))
    assert torch.equal(covariance, torch.zeros(2, 2, dtype=torch.float64))


def test_a_product_that_saturates_is_not_used(monkeypatch):
    product = torch._int_mm
    monkeypatch.setattr(torch, '_int_mm', lambda a, b: product(a, b).clamp(max=10**6))
    assert not streaming_covariance.byte_products_pay.__wrapped__()


def test_normalisation_of_statistics_is_that_of_pixels():
    sample = images()
    mean, std = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([50.0, 60.0, 70.0])
    expected = rows((sample.double() - mean[:, None, None]) / std[:, None, None])
    found = PixelNormalization(mean, std).of_statistics(*statistics(sample, None)[:2])
    np.testing.assert_allclose(found[0], expected.mean(0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found[1], np.cov(expected, rowvar=False), rtol=1e-11, atol=1e-13)


class Bytes(torch.utils.data.Dataset):
    def __init__(self, dtype: torch.dtype) -> None:
        self.images = F.interpolate(images(60).float(), (8, 8)).to(dtype)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index])


@pytest.mark.parametrize('options', [dict(mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0], to_rgb=True), dict()])
def test_a_fit_to_bytes_is_the_fit_to_what_the_preprocessor_makes_of_them(options):
    """A data set of floats takes the way through the preprocessor."""
    found, expected = (PatchPCATokenizer(8, 4, 3, 5) for _ in range(2))
    fit_tokenizer(found, Bytes(torch.uint8), SelfSupDataPreprocessor(**options), batch_size=25)
    fit_tokenizer(expected, Bytes(torch.float32), SelfSupDataPreprocessor(**options), batch_size=25)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-4, atol=1e-4)


def test_a_preprocessor_that_does_more_is_asked():
    class Other(SelfSupDataPreprocessor):
        def forward(self, data, training=False):
            return dict(inputs=super().forward(data)['inputs'] * 2)

    found, expected = (PatchPCATokenizer(8, 4, 3, 5, latent_norm='none') for _ in range(2))
    fit_tokenizer(found, Bytes(torch.uint8), Other())
    fit_tokenizer(expected, Bytes(torch.uint8), SelfSupDataPreprocessor())
    torch.testing.assert_close(found.mean, expected.mean * 2)
