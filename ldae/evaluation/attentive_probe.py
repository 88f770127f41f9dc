# SPDX-License-Identifier: Apache-2.0
"""Classification of an image's patch tokens by learned queries: what their average doesn't show."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, NamedTuple

import torch
from mmengine.dist import is_main_process
from torch import Tensor
from torch.nn import functional as F

from ldae.utils import Choice, NaturalInt, PositiveInt, checked
from ldae.utils.collective import failing_together, from_main_process

from .feature_stack import Features, FeatureStack
from .knn import check_features
from .linear_probe import Chooser, Decay, HeldOut, ProbeResult, Rate, Setting, check_grid

KINDS = ('aim', 'efficient')
Kind = Annotated[str, Choice(*KINDS)]
WARM_UP = 0.1
EPS = 1e-6


@checked
@dataclass(frozen=True, kw_only=True)
class AttentiveOptions:
    """How attentive probes are built, trained and chosen; they belong to the scoring protocol.

    Args:
        kind: ``'aim'`` (arXiv 2401.08541): one query, ``heads`` of keys k_i = K x_i and values V x_i, attention
            softmax(q k_i / sqrt(C / heads)), no bias; then a linear layer. ``'efficient'`` (arXiv 2506.10178): several
            ``queries`` without keys, attention softmax(q x_i / sqrt C), each for its own part of the values V x_i; then
            batch normalisation without parameters, and a linear layer.
        queries, heads: Of ``'efficient'`` and ``'aim'``; where the width can't be divided by so many, the next smaller
            number by which it can.
        lrs, weight_decays: Of AdamW, with a warm-up over a tenth of the steps and a cosine; each is tried with each.
        held_out, widen: As of :class:`ldae.evaluation.LinearOptions`.
    """

    kind: Kind = 'aim'
    queries: PositiveInt = 32
    heads: PositiveInt = 12
    lrs: Sequence[Rate] = (0.003, 0.01, 0.03, 0.1)
    weight_decays: Sequence[Decay] = (0.1,)
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 256
    held_out: HeldOut = 0.2
    widen: NaturalInt = 2
    solver = 'sgd'  # of those that a grid knows: it has learning rates

    def __post_init__(self) -> None:
        check_grid('attentive_probe', self)

    def __str__(self) -> str:
        changed = [f.name for f in fields(AttentiveOptions) if f.name != 'kind' and getattr(self, f.name) != f.default]
        words = ', '.join(f'{name}={getattr(self, name)}' for name in changed)
        return f'{self.kind} ({words})' if words else self.kind

    def parts_of(self, width: int) -> int:
        """Heads or queries, for features of a width."""
        most = self.heads if self.kind == 'aim' else self.queries
        return next(count for count in range(min(most, width), 0, -1) if width % count == 0)

    def shape_words(self) -> str:
        """The number of queries, and of heads, in words."""
        return f'one query of {self.heads} heads' if self.kind == 'aim' else f'{self.queries} queries'

    def as_dict(self) -> dict[str, Any]:
        """For a file of results."""
        return {f.name: getattr(self, f.name) for f in fields(AttentiveOptions)}


def attentive_probes(
    train: Features,
    train_y: Tensor,
    test: Features,
    test_y: Tensor,
    options: Sequence[AttentiveOptions] = (AttentiveOptions(),),
    **where: Any,
) -> dict[str, ProbeResult]:
    """Score patch tokens (n, N, C) by attentive probes, by kind; tokens may be in memory, or rows that are read from files.

    As in :func:`ldae.evaluation.linear_probe`, heads of all settings are trained together on the same batches, the setting
    that does best on a held-out part of the training set counts, and the head that is trained by it on the whole training
    set meets the test set once. Tokens have zero mean and unit variance over the training images, which changes nothing
    that a probe can learn: attention and batch normalisation undo shifts, learned maps scales. Raises ConfigError for
    tokens that aren't finite, shapes that don't fit, a test class that training lacks.

    Args:
        options: One for each kind.
        where: ``seed``, ``device`` and ``memory`` (GiB), as of :func:`ldae.evaluation.linear_probes`.
    """
    with failing_together():
        check_features('train_x', train, train_y, dims=3)
        check_features('test_x', test, test_y, dims=3)
        results = {}
        for one in options if is_main_process() else ():
            probe = AttentiveProbe(train_y=train_y.cpu(), test_y=test_y.cpu(), **where, **one.as_dict())
            [results[one.kind]] = probe.score([train], [test])
    return from_main_process(results)


class ValuesOfPooled(torch.autograd.Function):
    """Values (H, c, C) of pooled tokens (B, H, C), images last: (H, c, B).

    The products are torch's own; their order in the backward pass, which is 3 times as fast on a CPU, is not."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, pooled: Tensor) -> Tensor:
        ctx.save_for_backward(value, pooled)
        return torch.bmm(value, pooled.permute(1, 2, 0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        value, pooled = ctx.saved_tensors
        return torch.bmm(grad, pooled.transpose(0, 1)), torch.bmm(grad.transpose(1, 2), value).transpose(0, 1)


class Heads(NamedTuple):
    """Weights of S heads: of queries (S, M, C), keys (S, M, C / M, C), of which one that has none has an empty tensor,
    values (S, M, C / M, C), linear layers (S, K, C) and (S, K), and running mean and variance (S, C)."""

    query: Tensor
    key: Tensor
    value: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def start(
        cls, kind: str, parts: int, width: int, num_classes: int, heads: int, generator: torch.Generator
    ) -> 'Heads':
        """All alike: queries and linear layers near 0, keys and values as :class:`torch.nn.Linear` draws them."""
        size, bound = width // parts, width**-0.5

        def draw(*shape: int, std: float = 0.0) -> Tensor:
            rows = torch.empty(shape)
            rows = (
                rows.normal_(0, std, generator=generator) if std else rows.uniform_(-bound, bound, generator=generator)
            )
            return rows.expand(heads, *shape).clone()

        return cls(
            query=draw(parts, width if kind == 'efficient' else size, std=0.02),
            key=draw(parts, size, width) if kind == 'aim' else torch.empty(heads, 0),
            value=draw(parts, size, width),
            weight=draw(num_classes, width, std=0.01),
            bias=torch.zeros(heads, num_classes),
            mean=torch.zeros(heads, width),
            variance=torch.ones(heads, width),
        )

    def logits(self, x: Tensor, training: bool = False) -> Tensor:
        """Tokens (B, N, C) -> (S, K, B); ``training`` normalises by the batch's own statistics, which are noted.

        Images come last, in which order products of few rows are ten times as fast on a CPU."""
        has_keys = self.key.numel() > 0
        # q (K x) = (q K) x: one row for each head instead of a key for each token.
        query = torch.einsum('smd,smdc->smc', self.query, self.key) if has_keys else self.query
        scale = self.value.shape[2] if has_keys else x.shape[2]
        # Tokens are multiplied by the queries of all heads at once.
        scores = F.linear(x.flatten(0, 1), query.flatten(0, 1) / math.sqrt(scale)).view(*x.shape[:2], -1)
        pooled = torch.bmm(scores.softmax(dim=1).transpose(1, 2), x)  # (B, S M, C)
        # V sum_i a_i x_i is sum_i a_i V x_i, at the cost of one token.
        y = ValuesOfPooled.apply(self.value.flatten(0, 1), pooled)  # (S M, C / M, B)
        if not has_keys:
            y = y.view(1, -1, len(x))
            # A batch of one image has no variance.
            moments = self.mean.view(-1), self.variance.view(-1)
            y = F.batch_norm(y, *moments, training=training and len(x) > 1, eps=EPS)
        return torch.baddbmm(self.bias.unsqueeze(2), self.weight, y.reshape(len(self.value), -1, len(x)))


@checked
@dataclass(frozen=True, kw_only=True)
class AttentiveProbe(Chooser, AttentiveOptions):
    """The labels and options, checked; :meth:`score` takes patch tokens."""

    def _fit(
        self, stack: FeatureStack, numbers: Tensor, settings: list[list[Setting]], generator: torch.Generator
    ) -> Heads:
        [settings] = settings
        shape = self.kind, self.parts_of(stack.width), stack.width, self.num_classes, len(settings)
        heads = Heads.start(*shape, torch.Generator().manual_seed(self.seed))
        heads = Heads(*(part.to(self.device, stack.moments[0][0].dtype) for part in heads))
        tokens = math.prod(stack.sets[0].shape[1:])
        pooled = heads.value.shape[:2].numel() * (tokens // stack.width + 2 * stack.width)
        # Heads with gradient and moments; a batch, its attention and pooled tokens, and their gradients.
        taken = 4 * (4 * sum(map(torch.numel, heads)) + 2 * self.batch_size * (tokens + pooled))
        capacity = max(1, int((self.memory * 2**30 - taken) / (4 * tokens)))
        batches = (
            (rows[0], self.train_y[part].to(rows.device), progress)
            for part, rows, progress in stack.batches(numbers, self.epochs, self.batch_size, generator, capacity)
        )
        return fit_adamw(heads, batches, settings)

    @torch.no_grad()
    def _accuracies(self, heads: Heads, stack: FeatureStack, numbers: Tensor, labels: Tensor) -> list[list[float]]:
        """Percent, by set, of which there is one, and setting."""
        correct = 0
        for part, rows in stack.blocks(numbers, self.batch_size):
            predicted = heads.logits(rows[0]).argmax(dim=1)  # (S, R)
            correct += (predicted == labels[part].to(rows.device)).sum(dim=1)
        return [(100 * correct.double() / len(numbers)).tolist()]


@torch.enable_grad()
def fit_adamw(heads: Heads, batches: Iterable[tuple[Tensor, Tensor, float]], settings: Sequence[Setting]) -> Heads:
    """Train S heads, by ``settings``, on the same batches; linear maps have weight decay, queries and biases none.

    ``batches`` are as of :func:`ldae.evaluation.linear_probe.fit_sgd`, of one set."""
    trained = [part.requires_grad_() for part in heads[:5] if part.numel()]
    for part in trained:
        part.grad = torch.zeros_like(part)
    groups = []
    for i, setting in enumerate(settings):
        for decay, names in ((setting.weight_decay, ('key', 'value', 'weight')), (0.0, ('query', 'bias'))):
            parts = [part for name in names if (part := getattr(heads, name)).numel()]
            groups.append(dict(params=[_of_head(part, i) for part in parts], lr=setting.lr, weight_decay=decay))
    optimizer = torch.optim.AdamW(groups, fused=True)
    rates = [group['lr'] for group in groups]
    for x, y, progress in batches:
        for group, rate in zip(groups, rates, strict=True):
            group['lr'] = rate * factor(progress)
        for part in trained:
            part.grad.zero_()
        labels = y.expand(len(settings), -1)
        F.cross_entropy(heads.logits(x, training=True), labels, reduction='sum').div(len(y)).backward()
        optimizer.step()
    return Heads(*(part.detach() for part in heads))


def _of_head(weights: Tensor, number: int) -> Tensor:
    """The weights of one head as a parameter of its own, in the same memory, as its gradient is."""
    one = weights.detach()[number].requires_grad_()
    one.grad = weights.grad[number]
    return one


def factor(progress: float) -> float:
    """Of the learning rate, when this share of the training is over: a warm-up, then a cosine."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))
