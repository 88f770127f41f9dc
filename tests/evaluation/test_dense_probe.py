# SPDX-License-Identifier: Apache-2.0
"""The dense probe against scikit-learn's logistic regression of patches, its and torchmetrics' mean IoU, and torch's layers."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score
from torch import nn

from ldae.evaluation.dense_probe import (
    DenseOptions,
    DenseScore,
    confusion_matrix,
    dense_probe,
    predict_mask,
    upsampled_logits,
)
from ldae.evaluation.linear_probe import LinearHead

K, GRID, WIDTH = 3, (4, 6), 5


def draw(count, seed):
    """Patches of which class each is, roughly: features (n, N, C) and masks (n, h, w) of one pixel a patch."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(K, (count, *GRID), generator=generator)
    centres = torch.randn(K, WIDTH, generator=torch.Generator().manual_seed(9))
    tokens = centres[masks.flatten(1)] + 0.8 * torch.randn(count, math.prod(GRID), WIDTH, generator=generator)
    masks[:, 0, 0] = -1
    return 100 * tokens + 7, masks


@pytest.fixture(scope='module')
def patches():
    return *draw(60, 0), *draw(20, 1)


def probe(patches, **options):
    train, train_masks, test, test_masks = patches
    seed = options.pop('seed', 0)
    options = DenseOptions(**dict(epochs=10, weight_decays=(0.0,)) | options)
    masks = train_masks.__getitem__, test_masks.__getitem__
    return dense_probe(train, masks[0], test, masks[1], K, GRID, options, seed)


def test_of_patches_it_is_the_logistic_regression_of_scikit_learn(patches):
    result = probe(patches, epochs=40)
    train, train_masks, test, test_masks = patches
    known, there = train_masks.flatten() >= 0, test_masks.flatten() >= 0
    model = LogisticRegression(C=1e6, max_iter=2000).fit(
        (train.flatten(0, 1)[known] - 7) / 100, train_masks.flatten()[known]
    )
    expected = model.predict((test.flatten(0, 1) - 7) / 100)
    found = torch.stack([predict_mask(result.head, tokens, GRID, GRID) for tokens in test]).flatten()
    assert (found.numpy() == expected).mean() > 0.98
    scores = [jaccard_score(test_masks.flatten()[there], p[there], average='macro') for p in (found, expected)]
    assert result.score.miou == pytest.approx(100 * scores[0])
    assert abs(scores[0] - scores[1]) < 0.02
    assert result.score.constant_miou < 20 < 100 * scores[0]


def random_masks(classes=K):
    generator = torch.Generator().manual_seed(3)
    masks = torch.randint(-1, classes, (4, 20, 30), generator=generator)
    wrong = torch.rand(masks.shape, generator=generator) < 0.3
    predicted = torch.where(wrong, torch.randint(classes, masks.shape, generator=generator), masks.clamp(min=0))
    return masks, predicted


def score_of(masks, predicted, classes):
    return DenseScore(sum(confusion_matrix(a, b, classes) for a, b in zip(masks, predicted, strict=True)))


def test_the_mean_is_that_of_scikit_learn():
    masks, predicted = random_masks()
    score, there = score_of(masks, predicted, K), masks >= 0
    expected = jaccard_score(masks[there], predicted[there], average=None)
    assert score.iou.tolist() == pytest.approx(100 * expected)
    assert score.miou == pytest.approx(100 * expected.mean())
    assert score.accuracy == pytest.approx(100 * (masks == predicted)[there].double().mean().item())
    # A class that nobody has or predicts counts for nothing.
    assert score_of(masks, predicted, K + 2).miou == pytest.approx(score.miou)


def test_the_mean_is_that_of_torchmetrics():
    classification = pytest.importorskip('torchmetrics.classification')
    masks, predicted = random_masks()
    metric = classification.MulticlassJaccardIndex(K + 1, ignore_index=-1)
    for mask, one in zip(masks, predicted, strict=True):
        metric.update(one[None], mask[None])
    assert score_of(masks, predicted, K + 1).miou == pytest.approx(100 * float(metric.compute()), abs=1e-4)


def test_logits_are_those_of_torchs_layers():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, math.prod(GRID), WIDTH, generator=generator)
    norm, conv = nn.BatchNorm2d(WIDTH, affine=False, eps=0), nn.Conv2d(WIDTH, K, 1)
    norm.running_mean.copy_(torch.randn(WIDTH, generator=generator))
    norm.running_var.copy_(torch.rand(WIDTH, generator=generator) + 0.1)
    layers = nn.Sequential(norm, conv, nn.Upsample((13, 17), mode='bilinear')).eval()
    head = LinearHead(conv.weight.flatten(1), conv.bias, norm.running_mean, norm.running_var.rsqrt())
    expected = layers(tokens.transpose(1, 2).unflatten(2, GRID))
    torch.testing.assert_close(upsampled_logits(head, tokens, GRID, (13, 17)), expected)


def test_the_seed_decides_and_test_masks_choose_nothing(patches):
    options = dict(epochs=2, lrs=(0.001, 0.1), widen=1)
    one, same, other = (probe(patches, seed=seed, **options) for seed in (3, 3, 4))
    assert one.held_out == same.held_out != other.held_out
    assert torch.equal(one.score.confusion, same.score.confusion)
    train, train_masks, test, test_masks = patches
    swapped = probe((train, train_masks, test, test_masks.flip(0)), seed=3, **options)
    assert swapped.held_out == one.held_out
    assert swapped.setting == one.setting
    assert one.held_out[one.setting] == max(one.held_out.values())


def test_the_grid_goes_on_beyond_its_end(patches):
    for widen, lrs in enumerate(([1e-6, 1e-5], [1e-6, 1e-5, 1e-4])):
        result = probe(patches, epochs=1, lrs=lrs[:2], widen=widen)
        assert [setting.lr for setting in result.held_out] == lrs


def test_pixels_that_do_not_count_and_constant_features_change_nothing(patches):
    train, train_masks, test, test_masks = patches
    nothing = torch.full_like(train_masks[:16], -1)
    more = torch.cat([train[:16], train]), torch.cat([nothing, train_masks]), test, test_masks
    assert probe(more, lrs=(0.03,)).score.miou > 0.9 * probe(patches, lrs=(0.03,)).score.miou
    result = probe((torch.ones_like(train), train_masks, torch.ones_like(test), test_masks), epochs=1)
    assert 0 < result.score.accuracy < 50
