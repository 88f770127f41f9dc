# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from ldae.evaluation import feature_stack
from ldae.evaluation.feature_stack import FeatureStack, mean_and_scale


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return [100 + (i + 1) * torch.randn(1000, 6, generator=generator) for i in range(2)]


@pytest.mark.parametrize('block', [7, 8192])
def test_standardised_rows_equal_scikit_learn(features, monkeypatch, block):
    monkeypatch.setattr(feature_stack, 'BLOCK', block)
    expected = [StandardScaler().fit_transform(x.double().numpy()) for x in features]
    rows = FeatureStack(features).rows(slice(None))
    assert rows.shape == (2, 1000, 6)
    np.testing.assert_allclose(rows.numpy(), expected, atol=2e-5)


def test_a_far_away_mean_costs_no_digits():
    x = torch.tensor([[1e4 + 1], [1e4 - 1]]).repeat(500, 1)
    mean, scale = mean_and_scale(x)
    assert (mean.item(), scale.item()) == (1e4, 1)


@pytest.mark.parametrize('capacity', [1000, 256, 100])
def test_each_row_comes_once_an_epoch_whether_or_not_all_fit(features, capacity):
    stack = FeatureStack(features)
    whole, numbers = stack.rows(slice(None)), torch.arange(1000)[::2].flip(0)
    batches = list(stack.batches(numbers, 2, 50, torch.Generator().manual_seed(0), capacity))
    assert len(batches) == 20
    for epoch in (batches[:10], batches[10:]):
        assert torch.cat([part for part, _, _ in epoch]).sort().values.tolist() == list(range(0, 1000, 2))
    assert not torch.equal(batches[0][0], batches[10][0])
    for part, rows, _ in batches:
        torch.testing.assert_close(rows, whole[:, part])
    assert [progress for _, _, progress in batches] == pytest.approx([i / 20 for i in range(20)])


def test_no_more_rows_are_read_at_once_than_fit(features, monkeypatch):
    stack, sizes = FeatureStack(features), []
    read = FeatureStack.rows
    monkeypatch.setattr(FeatureStack, 'rows', lambda self, numbers: sizes.append(len(numbers)) or read(self, numbers))
    batches = list(stack.batches(torch.arange(1000), 1, 32, torch.Generator().manual_seed(0), 300))
    assert max(sizes) <= 300
    # Runs from all over the data set meet in a batch, though the rows of a run lie side by side.
    spread = [part.max() - part.min() for part, _, _ in batches]
    assert min(spread) > 300


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_tokens_are_standardised_over_images_and_places(dtype, monkeypatch):
    monkeypatch.setattr('ldae.evaluation.feature_stack.BLOCK', 30)
    tokens = (5 + 3 * torch.randn(50, 7, 4, generator=torch.Generator().manual_seed(0))).to(dtype)
    mean, scale = mean_and_scale(tokens)
    rows = tokens.double().flatten(0, 1)
    assert mean.dtype == scale.dtype == torch.float32
    torch.testing.assert_close(mean.double(), rows.mean(dim=0))
    torch.testing.assert_close(scale.double(), 1 / rows.std(dim=0, correction=0))
    stack = FeatureStack([tokens])
    assert stack.width == 4
    torch.testing.assert_close(stack.rows(slice(3))[0], (tokens[:3].float() - mean) * scale)
