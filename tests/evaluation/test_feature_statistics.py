# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from ldae.evaluation import FeatureStatistics, effective_rank


def rank_me(features: np.ndarray) -> float:
    """As the paper writes it, with numpy's SVD of the feature matrix itself."""
    s = np.linalg.svd(features, compute_uv=False)
    p = s / np.abs(s).sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def statistics(features: torch.Tensor, parts: int = 1) -> dict[str, float]:
    result = FeatureStatistics()
    for rows in features.chunk(parts):
        result.add(rows)
    return result.summary()


@pytest.mark.parametrize('rank', [1, 3, 12])
def test_effective_rank_of_orthogonal_directions_of_equal_strength_is_their_number(rank):
    values = torch.tensor([5.0] * rank + [0.0] * (12 - rank))
    assert effective_rank(values) == pytest.approx(rank, rel=1e-4)


@pytest.mark.parametrize('decay', [0.0, 0.3, 2.0])
def test_effective_rank_is_that_of_the_singular_values_of_the_features(decay):
    rng = np.random.default_rng(0)
    features = rng.normal(1.0, 1.0, (200, 24)) * np.exp(-decay * np.arange(24))
    found = statistics(torch.from_numpy(features).float(), parts=3)['effective_rank']
    assert found == pytest.approx(rank_me(features.astype(np.float32)), rel=1e-4)


def test_norms_are_those_of_numpy_and_parts_make_no_difference():
    features = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    norms = np.linalg.norm(features.double().numpy(), axis=1)
    whole, parts = statistics(features), statistics(features, parts=4)
    assert whole['feature_norm'] == pytest.approx(norms.mean())
    assert whole['feature_norm_std'] == pytest.approx(norms.std())
    assert whole['images'] == 50
    assert parts == pytest.approx(whole)


def test_features_that_are_not_finite_have_no_rank_and_raise_nothing():
    features = torch.ones(4, 3)
    features[1, 2] = float('nan')
    found = statistics(features)
    assert np.isnan([found[key] for key in ('effective_rank', 'feature_norm', 'feature_norm_std')]).all()
