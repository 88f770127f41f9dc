# SPDX-License-Identifier: Apache-2.0
"""Linear classification of frozen features: standardised as by a parameter-free BatchNorm, then one linear layer."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, NamedTuple

import torch
from mmengine.dist import all_gather_object, get_dist_info
from torch import Tensor
from torch.nn import functional as F

from ldae.utils import Choice, ConfigError, NaturalInt, PositiveInt, Range, Seed, checked
from ldae.utils.collective import failing_together

from .feature_stack import Features, FeatureStack, Sets, mean_and_scale
from .knn import check_classes, check_features

Rate = Annotated[float, Range(1e-12)]
Decay = Annotated[float, Range(0)]
HeldOut = Annotated[float, Range(0.01, 0.9)]
#: Logits that may exist at a time where accuracies are counted.
MAX_LOGITS = 2**24


@dataclass(frozen=True)
class Setting:
    """One head's hyper-parameters: ``lr`` is None for the solver that has none."""

    weight_decay: float
    lr: float | None = None


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy in percent of the setting that did best on the held-out part of the training set.

    ``at_edge`` names the options of that setting beyond whose value nothing was tried, though it is the best so far;
    ``head`` is the linear layer, of kinds that keep it."""

    accuracy: float
    setting: Setting
    held_out_accuracy: dict[Setting, float]
    at_edge: tuple[str, ...] = ()
    head: 'LinearHead | None' = field(default=None, compare=False, repr=False)

    @property
    def held_out(self) -> float | None:
        """Accuracy in percent on held-out training images, by which choices are made; None where nothing was held out."""
        return self.held_out_accuracy.get(self.setting)

    def as_dict(self, name: str = 'accuracy') -> dict[str, Any]:
        """For a file of results: accuracies in percent, that of test images by a name, and what was chosen."""
        return {
            name: round(self.accuracy, 2),
            'held_out': None if self.held_out is None else round(self.held_out, 2),
            'lr': self.setting.lr,
            'weight_decay': self.setting.weight_decay,
            'at_edge': list(self.at_edge),
        }


class LinearHead(NamedTuple):
    """A linear layer (K, C) and (K,) on standardised features, with their mean and scale (C,)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def predict(self, features: Features) -> Tensor:
        """Labels (n,) of features (n, C)."""
        step = max(1, min(4096, MAX_LOGITS // len(self.bias)))
        parts = (features[start : start + step] for start in range(0, features.shape[0], step))
        return torch.cat(
            [F.linear((x.cpu() - self.mean) * self.scale, self.weight, self.bias).argmax(dim=1) for x in parts]
        )


@checked
@dataclass(frozen=True, kw_only=True)
class LinearOptions:
    """How linear layers are trained and chosen.

    Args:
        solver: ``'sgd'`` (momentum, cosine schedule) trains all heads together as one batched product;
            ``'lbfgs'`` minimises mean cross-entropy + ``weight_decay / 2 |W|^2`` over the full batch, which is
            scikit-learn's LogisticRegression at C = 1 / (n weight_decay), and ignores ``lrs``, ``epochs``, ``batch_size``.
        lrs, weight_decays: Each is tried with each.
        held_out: Part of the training set that selects the setting; unused for a single setting.
        widen: How many times at most the grid is continued beyond a value at its end that is the best so far.
    """

    solver: Annotated[str, Choice('sgd', 'lbfgs')] = 'sgd'
    lrs: Sequence[Rate] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    weight_decays: Sequence[Decay] = (0.0, 1e-3, 1e-2)
    epochs: PositiveInt = 40
    batch_size: PositiveInt = 256
    held_out: HeldOut = 0.2
    widen: NaturalInt = 3

    def __post_init__(self) -> None:
        check_grid('linear_probe', self)

    @property
    def has_choice(self) -> bool:
        """Whether there are several settings, and so images held out, by which features can be chosen too."""
        return len(self.weight_decays) * (len(self.lrs) if self.solver == 'sgd' else 1) > 1


def check_grid(place: str, options: Any) -> None:
    """Make tuples of ``lrs`` and ``weight_decays``. Raises ConfigError if there is none to try."""
    for name in ('lrs', 'weight_decays'):
        object.__setattr__(options, name, tuple(getattr(options, name)))
    if not options.weight_decays or (options.solver == 'sgd' and not options.lrs):
        raise ConfigError(f'{place}: lrs and weight_decays need at least one value each')


def linear_probe(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, **options: Any) -> ProbeResult:
    """Score features (n, C) by linear classification; options are those of :class:`LinearOptions`, and ``seed``,
    ``device``, ``memory`` as of :func:`linear_probes`.

    The setting (learning rate x weight decay) is chosen on a held-out part of the training set; the chosen head is
    then trained on the whole training set, and meets the test set once. The result depends on the seed alone. Raises
    ConfigError for features that aren't finite, shapes that don't fit, a test class that training lacks."""
    check_features('train_x', train_x, train_y)
    check_features('test_x', test_x, test_y)
    return LinearProbe(train_y=train_y.cpu(), test_y=test_y.cpu(), **options).score([train_x], [test_x])[0]


def linear_probes(
    train: Sets, train_y: Tensor, test: Sets, test_y: Tensor, **options: Any
) -> dict[Hashable, ProbeResult]:
    """:func:`linear_probe` of many sets of features of the same images, such as two :class:`FeatureCache` hold.

    Heads of all sets and settings are trained together, as one batched product over the sets: the images' order is
    drawn once for all. A set's result is the one it has alone. In a distributed run the ranks share the sets, and all
    get all results. Raises ConfigError as :func:`linear_probe`, and for keys that differ.

    Args:
        train, test: Features (n, C) by key, the same keys in both: tensors, or rows that are read from files.
        options: Those of :class:`LinearOptions`, and those of :class:`LinearProbe`: ``seed``; ``device`` on which heads are
            trained, None for the features'; ``memory`` in GiB for training features and heads. Sets that don't fit
            together follow each other; one that doesn't fit alone is streamed from its file, shuffled piece by piece.
    """
    if not train or list(train) != list(test):
        raise ConfigError('linear_probes: training and test need the same sets of features, and at least one')
    rank, world = get_dist_info()
    results = {}
    with failing_together():
        for features, labels in ((train, train_y), (test, test_y)):
            for key in features:
                check_features(str(key), features[key], labels)
        probe = LinearProbe(train_y=train_y.cpu(), test_y=test_y.cpu(), **options)
        for keys in probe.groups({key: train[key].shape for key in list(train)[rank::world]}):
            scores = probe.score([train[key] for key in keys], [test[key] for key in keys])
            results |= zip(keys, scores, strict=True)
    results = {key: value for part in all_gather_object(results) for key, value in part.items()}
    return {key: results[key] for key in train}


@checked
@dataclass(frozen=True, kw_only=True)
class Chooser:
    """The labels, and how one of several heads is chosen; a subclass says how heads are trained."""

    train_y: Tensor
    test_y: Tensor
    seed: Seed = 0
    device: str | torch.device | None = None
    memory: Annotated[float, Range(1e-6)] = 4.0
    solver = 'sgd'

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classes(self.train_y, self.test_y)

    @property
    def num_classes(self) -> int:
        return int(self.train_y.max()) + 1

    @property
    def settings(self) -> list[Setting]:
        if self.solver == 'lbfgs':
            return [Setting(decay) for decay in sorted(self.weight_decays, reverse=True)]
        return [Setting(decay, lr) for lr, decay in product(self.lrs, self.weight_decays)]

    def score(self, train: Sequence[Features], test: Sequence[Features]) -> list[ProbeResult]:
        """Results of sets of one width."""
        stack = FeatureStack(train, device=self.device)
        for features in test:
            if features.shape[1:] != train[0].shape[1:]:
                found, expected = ('x'.join(map(str, one.shape[1:])) for one in (features, train[0]))
                raise ConfigError(f'{type(self).__name__}: {found} test features a row, {expected} in training')
        generator = torch.Generator().manual_seed(self.seed)
        tried, best = self._choose(stack, generator)
        numbers = torch.arange(len(self.train_y))
        heads = self._fit(stack, numbers, [[setting] for setting in best], generator)
        test_stack = FeatureStack(test, stack.moments, self.device)
        rows = self._accuracies(heads, test_stack, torch.arange(len(self.test_y)), self.test_y)
        return [
            ProbeResult(row[0], setting, scores, tuple(values_beyond(scores)), self._kept(heads, stack, i))
            for i, (row, setting, scores) in enumerate(zip(rows, best, tried, strict=True))
        ]

    def _kept(self, heads: Any, stack: FeatureStack, number: int) -> LinearHead | None:
        """The chosen head of a set, where it is of use."""
        return None

    def _choose(
        self, stack: FeatureStack, generator: torch.Generator
    ) -> tuple[list[dict[Setting, float]], list[Setting]]:
        """Of each set: accuracies on held-out training images by setting, and the best setting."""
        settings = self.settings
        if len(settings) == 1:
            return [{} for _ in range(len(stack))], settings * len(stack)
        count = len(self.train_y)
        if count < 2:
            raise ConfigError(
                f'{type(self).__name__}: {count} labelled image leaves none to choose by: give more, or one setting'
            )
        part = min(count - 1, max(1, round(self.held_out * count)))
        val, rest = torch.randperm(count, generator=generator).tensor_split([part])
        start = generator.get_state()

        def accuracies(part: FeatureStack, settings: list[list[Setting]], generator: torch.Generator) -> list:
            heads = self._fit(part, rest, settings, generator)
            rows = self._accuracies(heads, part, val, self.train_y)
            return [dict(zip(*one, strict=True)) for one in zip(settings, rows, strict=True)]

        tried = accuracies(stack, [settings] * len(stack), generator)
        for _ in range(self.widen):
            more = {i: new for i, scores in enumerate(tried) if (new := settings_beyond(scores))}
            for size in {len(new) for new in more.values()}:  # one product has as many heads of each set
                sets = [i for i, new in more.items() if len(new) == size]
                again = torch.Generator()
                again.set_state(start)  # they see the batches that the others saw
                found = accuracies(stack.only(*sets), [more[i] for i in sets], again)
                for i, scores in zip(sets, found, strict=True):
                    tried[i] |= scores
        return tried, [max(scores, key=scores.get) for scores in tried]


@checked
@dataclass(frozen=True, kw_only=True)
class LinearProbe(Chooser, LinearOptions):
    """The labels and options, checked; :meth:`score` takes features."""

    def _kept(self, heads: tuple[Tensor, Tensor], stack: FeatureStack, number: int) -> LinearHead:
        parts = (heads[0][number, :, 0], heads[1][number, :, 0], *stack.moments[number])
        return LinearHead(*(part.cpu() for part in parts))

    def groups(self, shapes: Mapping[Hashable, Sequence[int]]) -> Iterator[list[Hashable]]:
        """Keys of sets of one width that fit into memory together, or one alone."""
        group = []
        for key in sorted(shapes, key=lambda key: shapes[key][1]):
            width = shapes[key][1]
            full = group and (len(group) + 1) * self._bytes(width) > self.memory * 2**30
            if group and (full or shapes[group[0]][1] != width):
                yield group
                group = []
            group.append(key)
        if group:
            yield group

    def _bytes(self, width: int, rows: int | None = None) -> int:
        """Of one set: features, heads with their momentum and gradient, logits."""
        rows = len(self.train_y) if rows is None else rows
        return 4 * (rows * width + len(self.settings) * self.num_classes * 3 * (width + self.batch_size))

    def _fit(
        self, stack: FeatureStack, numbers: Tensor, settings: list[list[Setting]], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Heads of each set at its settings: weights (G, K, S, C), biases (G, K, S)."""
        left = self.memory * 2**30 / len(stack) - self._bytes(stack.width, rows=0)
        capacity = max(1, int(left / (4 * stack.width)))
        if self.solver == 'lbfgs':
            heads = [
                self._fit_lbfgs(stack.only(i), numbers, row, capacity * len(stack)) for i, row in enumerate(settings)
            ]
            return tuple(torch.stack(parts) for parts in zip(*heads, strict=True))
        batches = (
            (rows, self.train_y[part].to(rows.device), progress)
            for part, rows, progress in stack.batches(numbers, self.epochs, self.batch_size, generator, capacity)
        )
        return fit_sgd(batches, self.num_classes, settings)

    def _fit_lbfgs(
        self, stack: FeatureStack, numbers: Tensor, settings: list[Setting], capacity: int
    ) -> tuple[Tensor, Tensor]:
        def blocks() -> Iterator[tuple[Tensor, Tensor]]:
            for part, rows in stack.blocks(numbers):
                yield rows[0], self.train_y[part].to(rows.device)

        held = list(blocks()) if len(numbers) <= capacity else None
        return fit_lbfgs(lambda: held or blocks(), self.num_classes, [s.weight_decay for s in settings])

    def _accuracies(
        self, heads: tuple[Tensor, Tensor], stack: FeatureStack, numbers: Tensor, labels: Tensor
    ) -> list[list[float]]:
        """Percent, by set and setting."""
        correct = 0
        for part, rows in stack.blocks(numbers, max(1, min(4096, MAX_LOGITS // heads[1].numel()))):
            predicted = logits(*heads, rows).argmax(dim=1)  # (G, S, R)
            correct += (predicted == labels[part].to(rows.device)).sum(dim=2)
        return (100 * correct.double() / len(numbers)).tolist()


def values_beyond(tried: Mapping[Setting, float]) -> dict[str, float]:
    """By option that is best at the largest or smallest value that was tried, and nowhere else: the next value there.

    The grid goes on in the ratio of its last two values, or by 10 from 0, below which there is nothing. An option of which
    a single value was tried is not searched."""
    found, top = {}, max(tried.values(), default=None)
    for name in ('lr', 'weight_decay'):
        values = sorted({getattr(setting, name) for setting in tried} - {None})
        best = {getattr(setting, name) for setting, accuracy in tried.items() if accuracy == top}
        if len(values) > 1 and best <= {values[0], values[-1]} and 0 not in best:
            end, near = (values[-1], values[-2]) if values[-1] in best else (values[0], values[1])
            found[name] = float(f'{end * end / near:.2g}') if near else 10 * end
    return found


def settings_beyond(tried: Mapping[Setting, float]) -> list[Setting]:
    """The settings that :func:`values_beyond` adds to the product of learning rates and weight decays."""
    beyond = values_beyond(tried)
    lrs, decays = (
        [*dict.fromkeys(getattr(setting, name) for setting in tried), *([beyond[name]] if name in beyond else [])]
        for name in ('lr', 'weight_decay')
    )
    return [s for s in (Setting(decay, lr) for lr, decay in product(lrs, decays)) if s not in tried]


def standardise(train_x: Tensor, test_x: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit variance by the statistics of ``train_x``; a constant feature becomes 0."""
    mean, scale = mean_and_scale(train_x)
    return (train_x - mean) * scale, (test_x - mean) * scale


def fit_sgd(
    batches: Iterable[tuple[Tensor, Tensor, float]], num_classes: int, settings: Sequence[Sequence[Setting]]
) -> tuple[Tensor, Tensor]:
    """Train S heads, by ``settings``, on each of G sets of features, on the same batches: weights (G, K, S, C) and
    biases (G, K, S).

    All heads share one batched product forward and one backward; the gradient of the softmax is written out.
    ``batches`` are features (G, B, C), labels (B,), and the share of training that is over, for the cosine schedule."""
    weight = None
    for x, y, progress in batches:
        if weight is None:
            shape = len(settings), num_classes, len(settings[0])
            weight = x.new_zeros(shape[0], shape[1] * shape[2], x.shape[2])
            bias = weight[..., :1].clone()
            weight_step, bias_step = torch.zeros_like(weight), torch.zeros_like(bias)
            lrs, decay = (_per_logit(name, settings, num_classes, x) for name in ('lr', 'weight_decay'))
        lr = lrs * (0.5 + 0.5 * math.cos(math.pi * progress))
        residual = _softmax_residual(weight, bias, x, y, num_classes)
        weight_step.baddbmm_(residual, x, beta=0.9, alpha=1 / len(y)).addcmul_(decay, weight)
        bias_step.mul_(0.9).add_(residual.sum(dim=2, keepdim=True), alpha=1 / len(y))
        weight.addcmul_(lr, weight_step, value=-1)
        bias.addcmul_(lr, bias_step, value=-1)
    return weight.view(*shape, -1), bias.view(shape)


def _per_logit(name: str, settings: Sequence[Sequence[Setting]], num_classes: int, like: Tensor) -> Tensor:
    """An option (G, K * S, 1) of each logit's head."""
    values = like.new_tensor([[getattr(setting, name) for setting in row] for row in settings])
    return values.repeat(1, num_classes).unsqueeze(2)


def _softmax_residual(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Gradient (G, K * S, B) of each head's summed cross-entropy with respect to its logits."""
    # Images come last: on a CPU the softmax over a few classes is 20 times slower where classes do.
    by_class = torch.baddbmm(bias, weight, x.transpose(1, 2)).view(len(x), num_classes, -1, len(y))
    # Probabilities that round to denormal numbers would make the products that follow 20 times slower on a CPU.
    residual = F.threshold_(torch.softmax(by_class, dim=1), 1e-12, 0.0)
    residual[:, y, :, torch.arange(len(y), device=y.device)] -= 1
    return residual.flatten(1, 2)


def fit_lbfgs(
    blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]], num_classes: int, weight_decays: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Minimise over the full batch for each weight decay, each starting from the last one's minimum.

    ``blocks()`` gives all features (B, C) and labels (B,), in pieces. Returns weights (K, S, C) and biases (K, S)."""
    first = next(iter(blocks()))[0]
    weight = first.new_zeros(num_classes, first.shape[1], requires_grad=True)
    bias = first.new_zeros(num_classes, requires_grad=True)
    weights, biases = [], []
    for decay in weight_decays:
        _minimise(weight, bias, blocks, decay)
        weights.append(weight.detach().clone())
        biases.append(bias.detach().clone())
    return torch.stack(weights, dim=1), torch.stack(biases, dim=1)


@torch.enable_grad()
def _minimise(
    weight: Tensor, bias: Tensor, blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]], decay: float
) -> None:
    options = dict(max_iter=300, history_size=10, tolerance_grad=1e-5, tolerance_change=1e-7)
    optimizer = torch.optim.LBFGS([weight, bias], line_search_fn='strong_wolfe', **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        count, total = 0, 0.0
        for x, y in blocks():
            loss = F.cross_entropy(F.linear(x, weight, bias), y, reduction='sum')
            loss.backward()
            count, total = count + len(y), total + loss.detach()
        weight.grad.div_(count).add_(weight.detach(), alpha=decay)
        bias.grad.div_(count)
        return total / count + decay / 2 * weight.detach().square().sum()

    optimizer.step(closure)


def logits(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """(G, B, C) -> (G, K, S, B) for weights (G, K, S, C) and biases (G, K, S)."""
    scores = torch.baddbmm(bias.flatten(1).unsqueeze(2), weight.flatten(1, 2), x.transpose(1, 2))
    return scores.view(*bias.shape, -1)
