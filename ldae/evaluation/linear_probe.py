# SPDX-License-Identifier: Apache-2.0
"""Linear classification of frozen features: standardised as by a parameter-free BatchNorm, then one linear layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from ldae.utils import ConfigError, check_choice, check_range

from .knn import accuracy, check_classes, check_features


@dataclass(frozen=True)
class Setting:
    """One head's hyper-parameters: ``lr`` is None for the solver that has none."""

    weight_decay: float
    lr: float | None = None


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy in percent of the setting that did best on the held-out part of the training set."""

    accuracy: float
    setting: Setting
    held_out_accuracy: dict[Setting, float]


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    solver: str = 'sgd',
    lrs: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3),
    weight_decays: Sequence[float] = (0.0, 1e-3, 1e-2),
    epochs: int = 90,
    batch_size: int = 256,
    held_out: float = 0.2,
    seed: int = 0,
) -> ProbeResult:
    """Score features (n, C) by linear classification.

    The setting (learning rate x weight decay) is chosen on a held-out part of the training set; the chosen head is then
    trained on the whole training set, and meets the test set once. The result depends on the seed alone.

    Args:
        solver: ``'sgd'`` (momentum, cosine schedule) trains all heads together as one batched product;
            ``'lbfgs'`` finds the minimum of mean cross-entropy + weight_decay / 2 |W|^2 over the full batch, which is
            scikit-learn's LogisticRegression at C = 1 / (n weight_decay), and ignores ``lrs``, ``epochs``, ``batch_size``.
        held_out: Part of the training set that selects the setting; unused for a single setting.

    Raises:
        ConfigError: Features that aren't finite, shapes that don't fit, a test class that training lacks.
    """
    check_choice('solver', solver, ('sgd', 'lbfgs'))
    check_range('held_out', held_out, 0.01, 0.9)
    check_features('train_x', train_x, train_y)
    check_features('test_x', test_x, test_y)
    check_classes(train_y, test_y)
    num_classes = int(train_y.max()) + 1
    settings = _settings(solver, lrs, weight_decays)
    generator = torch.Generator().manual_seed(seed)

    def fit(x: Tensor, y: Tensor, settings: list[Setting]) -> tuple[Tensor, Tensor]:
        if solver == 'lbfgs':
            return fit_lbfgs(x, y, num_classes, [s.weight_decay for s in settings])
        return fit_sgd(x, y, num_classes, settings, epochs, batch_size, generator)

    train_x, test_x = standardise(train_x, test_x)
    scores, best = {}, settings[0]
    if len(settings) > 1:
        chosen = torch.randperm(len(train_x), generator=generator).to(train_x.device)
        val, rest = chosen.tensor_split([round(held_out * len(chosen))])
        heads = fit(train_x[rest], train_y[rest], settings)
        scores = dict(zip(settings, head_accuracies(*heads, train_x[val], train_y[val]), strict=True))
        best = max(scores, key=scores.get)
    score = head_accuracies(*fit(train_x, train_y, [best]), test_x, test_y)[0]
    return ProbeResult(score, best, scores)


def _settings(solver: str, lrs: Sequence[float], weight_decays: Sequence[float]) -> list[Setting]:
    if not weight_decays or (solver == 'sgd' and not lrs):
        raise ConfigError('linear_probe: lrs and weight_decays need at least one value each')
    if solver == 'lbfgs':
        return [Setting(wd) for wd in sorted(weight_decays, reverse=True)]
    return [Setting(wd, lr) for lr, wd in product(lrs, weight_decays)]


def standardise(train_x: Tensor, test_x: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit variance by the statistics of ``train_x``; a constant feature becomes 0."""
    std, mean = torch.std_mean(train_x, dim=0, correction=0)
    scale = torch.where(std > 1e-6 * std.max(), 1 / std, 0.0)
    return (train_x - mean) * scale, (test_x - mean) * scale


def fit_sgd(
    x: Tensor,
    y: Tensor,
    num_classes: int,
    settings: Sequence[Setting],
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Train one head a setting on the same batches: weights (C, S, K) and biases (S, K).

    All heads share one product forward and one backward; the gradient of the softmax is written out.
    """
    weight = x.new_zeros(x.shape[1], len(settings), num_classes)
    bias = x.new_zeros(len(settings), num_classes)
    weight_step, bias_step = torch.zeros_like(weight), torch.zeros_like(bias)
    decay = x.new_tensor([s.weight_decay for s in settings]).view(-1, 1)
    lrs = x.new_tensor([s.lr for s in settings]).view(-1, 1)
    steps_per_epoch = -(-len(x) // batch_size)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for i, rows in enumerate(order.split(batch_size)):
            progress = (epoch + i / steps_per_epoch) / epochs
            lr = lrs * (0.5 + 0.5 * math.cos(math.pi * progress))
            inputs, residual = x[rows], _softmax_residual(weight, bias, x[rows], y[rows])
            weight_step.mul_(0.9).add_((inputs.t() @ residual.flatten(1)).view_as(weight)).addcmul_(
                decay, weight
            )
            bias_step.mul_(0.9).add_(residual.sum(dim=0))
            weight.addcmul_(lr, weight_step, value=-1)
            bias.addcmul_(lr, bias_step, value=-1)
    return weight, bias


def _softmax_residual(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradient (B, S, K) of each head's mean cross-entropy with respect to its logits."""
    # Probabilities that round to denormal numbers would make the products that follow 20 times slower on a CPU.
    residual = F.threshold_(torch.softmax(logits(weight, bias, x), dim=-1), 1e-12, 0.0)
    residual[torch.arange(len(x), device=x.device), :, y] -= 1
    return residual / len(x)


def fit_lbfgs(
    x: Tensor, y: Tensor, num_classes: int, weight_decays: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Minimise over the full batch for each weight decay, each starting from the last one's minimum."""
    weight = x.new_zeros(x.shape[1], num_classes, requires_grad=True)
    bias = x.new_zeros(num_classes, requires_grad=True)
    weights, biases = [], []
    for decay in weight_decays:
        _minimise(weight, bias, x, y, decay)
        weights.append(weight.detach().clone())
        biases.append(bias.detach().clone())
    return torch.stack(weights, dim=1), torch.stack(biases)


@torch.enable_grad()
def _minimise(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, decay: float) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=300,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn='strong_wolfe',
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(torch.addmm(bias, x, weight), y) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def logits(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """(B, C) -> (B, S, K) for weights (C, S, K) and biases (S, K)."""
    return (x @ weight.flatten(1)).view(len(x), *bias.shape) + bias


def head_accuracies(
    weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, block_size: int = 4096
) -> list[float]:
    """Accuracy of each head in percent, in blocks of rows."""
    predicted = torch.cat([logits(weight, bias, rows).argmax(dim=-1) for rows in x.split(block_size)])
    return [accuracy(column, y) for column in predicted.unbind(dim=1)]
