# SPDX-License-Identifier: Apache-2.0
"""Linear segmentation of frozen patch features: one linear layer for each patch, its logits upsampled to the mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ldae.utils import NaturalInt, PositiveInt, checked

from .attentive_probe import factor
from .feature_stack import Features, mean_and_scale
from .linear_probe import Decay, HeldOut, LinearHead, Rate, Setting, check_grid, settings_beyond, values_beyond

#: The mask (H, W) of an image by its number, with classes from 0 and -1 for pixels that don't count.
Masks = Callable[[int], Tensor]


@checked
@dataclass(frozen=True, kw_only=True)
class DenseOptions:
    """How linear layers for segmentation are trained and chosen.

    Args:
        lrs, weight_decays: Of AdamW, with a warm-up over a tenth of the steps and a cosine; each is tried with each.
        epochs, batch_size: Over training images, in batches of so many.
        held_out, widen: As of :class:`ldae.evaluation.LinearOptions`.
    """

    lrs: Sequence[Rate] = (0.001, 0.003, 0.01, 0.03)
    weight_decays: Sequence[Decay] = (1e-3,)
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 16
    held_out: HeldOut = 0.2
    widen: NaturalInt = 2
    solver = 'sgd'

    def __post_init__(self) -> None:
        check_grid('dense_probe', self)

    def as_dict(self) -> dict[str, Any]:
        """For a file of results."""
        return {f.name: getattr(self, f.name) for f in fields(DenseOptions)}


DENSE = DenseOptions()


class DenseScore(NamedTuple):
    """Pixels by true class (rows) and predicted class (columns), and the figures that follow."""

    confusion: Tensor

    @property
    def iou(self) -> Tensor:
        """Intersection over union of each class in percent; NaN for one that is neither there nor predicted."""
        hits = self.confusion.diagonal().double()
        return 100 * hits / (self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @property
    def miou(self) -> float:
        """Mean over classes."""
        return float(self.iou.nanmean())

    @property
    def accuracy(self) -> float:
        """Percent of the pixels that are right."""
        return float(100 * self.confusion.diagonal().sum() / self.confusion.sum())

    @property
    def constant_miou(self) -> float:
        """That of a prediction of the most frequent class everywhere."""
        counts = self.confusion.sum(1)
        same = torch.zeros_like(self.confusion)
        same[:, counts.argmax()] = counts
        return DenseScore(same).miou


class DenseResult(NamedTuple):
    """The score on test images of the setting that did best on held-out training images; the mIoU there of each setting."""

    score: DenseScore
    setting: Setting
    held_out: dict[Setting, float]
    at_edge: tuple[str, ...]
    head: LinearHead
    grid: tuple[int, int]


def dense_probe(
    train: Features,
    train_masks: Masks,
    test: Features,
    test_masks: Masks,
    num_classes: int,
    grid: Sequence[int],
    options: DenseOptions = DENSE,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> DenseResult:
    """Train linear layers on patch features (n, N, C), standardised over training patches, choose one by held-out training
    images, train it on all, and score it once on test images.

    Memory is that of a batch, beside features that are in memory. The result depends on the seed alone.

    Args:
        train_masks, test_masks: By the images' numbers; those of training all of one size.
        grid: Rows and columns of the N patches.
    """
    moments, generator = mean_and_scale(train), torch.Generator().manual_seed(seed)
    fit = _Fitting(train, train_masks, moments, num_classes, tuple(grid), options, device)
    settings = [Setting(decay, lr) for lr, decay in product(options.lrs, options.weight_decays)]
    tried: dict[Setting, float] = {}
    count = train.shape[0]
    if len(settings) > 1 and count > 1:
        part = min(count - 1, max(1, round(options.held_out * count)))
        val, rest = torch.randperm(count, generator=generator).tensor_split([part])
        start = generator.get_state()
        for _ in range(1 + options.widen):
            generator.set_state(start)  # all see the same batches
            heads = fit(rest, settings, generator)
            scores = [_score(head, train, train_masks, val, num_classes, grid, device).miou for head in heads]
            tried |= dict(zip(settings, scores, strict=True))
            settings = settings_beyond(tried)
            if not settings:
                break
    best = max(tried, key=tried.get) if tried else settings[0]
    [head] = fit(torch.arange(count), [best], generator)
    score = _score(head, test, test_masks, torch.arange(test.shape[0]), num_classes, grid, device)
    return DenseResult(score, best, tried, tuple(values_beyond(tried)), head, tuple(grid))


class _Fitting(NamedTuple):
    tokens: Features
    masks: Masks
    moments: tuple[Tensor, Tensor]
    num_classes: int
    grid: tuple[int, int]
    options: DenseOptions
    device: str | torch.device | None

    @torch.enable_grad()
    def __call__(self, numbers: Tensor, settings: Sequence[Setting], generator: torch.Generator) -> list[LinearHead]:
        """Heads by setting, from zero, on the same batches."""
        width, options = self.tokens.shape[-1], self.options
        moments = [part.float().to(self.device) for part in self.moments]
        heads, groups = [], []
        for setting in settings:
            weight, bias = (
                torch.zeros(*shape, device=self.device, requires_grad=True)
                for shape in ((self.num_classes, width), (self.num_classes,))
            )
            heads.append(LinearHead(weight, bias, *moments))
            groups.append(dict(params=[weight], lr=setting.lr, weight_decay=setting.weight_decay))
            groups.append(dict(params=[bias], lr=setting.lr, weight_decay=0.0))
        optimizer = torch.optim.AdamW(groups)
        rates = [group['lr'] for group in groups]
        steps, step = options.epochs * -(-len(numbers) // options.batch_size), 0
        for _ in range(options.epochs):
            order = numbers[torch.randperm(len(numbers), generator=generator)]
            for part in order.split(options.batch_size):
                rows = self.tokens[part].to(self.device)
                masks = torch.stack([self.masks(number) for number in part.tolist()]).to(self.device)
                for group, rate in zip(groups, rates, strict=True):
                    group['lr'] = rate * factor(step / steps)
                optimizer.zero_grad()
                if (masks >= 0).any():  # the mean over no pixel is NaN
                    for head in heads:  # one after the other: their logits are what fills the memory
                        logits = upsampled_logits(head, rows, self.grid, masks.shape[1:])
                        F.cross_entropy(logits, masks, ignore_index=-1).backward()
                    optimizer.step()
                step += 1
        return [LinearHead(*(part.detach() for part in head)) for head in heads]


def upsampled_logits(head: LinearHead, tokens: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Patch tokens (B, N, C) -> logits (B, K, H, W) of pixels, bilinear between patches."""
    x = F.linear((tokens.float() - head.mean) * head.scale, head.weight, head.bias)
    x = x.transpose(1, 2).unflatten(2, tuple(grid))
    return F.interpolate(x, tuple(size), mode='bilinear', align_corners=False)


@torch.no_grad()
def predict_mask(head: LinearHead, tokens: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Classes (H, W) of an image's patch tokens (N, C)."""
    return upsampled_logits(head, tokens[None].to(head.weight.device), grid, size)[0].argmax(dim=0).cpu()


def _score(
    head: LinearHead,
    tokens: Features,
    masks: Masks,
    numbers: Tensor,
    num_classes: int,
    grid: Sequence[int],
    device: str | torch.device | None,
) -> DenseScore:
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for number in numbers.tolist():
        mask = masks(number)
        predicted = predict_mask(head, tokens[torch.tensor([number])][0], grid, mask.shape)
        confusion += confusion_matrix(mask, predicted, num_classes)
    return DenseScore(confusion)


def confusion_matrix(mask: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Pixels (K, K) by true and predicted class; those of class -1 don't count."""
    counts = mask >= 0
    pairs = mask[counts] * num_classes + predicted[counts]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
