# SPDX-License-Identifier: Apache-2.0
"""Are features collapsing? Two figures that need no labels."""

import torch
from mmengine.dist import all_reduce
from torch import Tensor

EPSILON = 1e-7


def effective_rank(singular_values: Tensor) -> float:
    """RankMe (Garrido et al., 2023): exp(-sum_k p_k log p_k), p_k = s_k / sum(s) + 1e-7; between 1 and their number."""
    s = singular_values.double()
    p = s / s.sum() + EPSILON
    return float((-(p * p.log()).sum()).exp())


class FeatureStatistics:
    """Effective rank and norms of a feature matrix Z (n, C) that comes in parts, on every rank its own.

    Singular values are roots of the eigenvalues of Z^T Z in float64, which resolves them to 1e-8 of the largest; all
    that is kept, and exchanged between ranks, is of size C x C.
    """

    def __init__(self) -> None:
        self.gram: Tensor | None = None
        self.sums: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """rows (b, C), on any device."""
        rows = rows.double()
        sums = torch.stack([rows.new_tensor(len(rows)), rows.norm(dim=1).sum()])
        gram = rows.t() @ rows
        self.gram = gram if self.gram is None else self.gram + gram
        self.sums = sums if self.sums is None else self.sums + sums

    def summary(self) -> dict[str, float]:
        """``effective_rank``, ``feature_norm`` (mean over samples), ``feature_norm_std``, and ``images``; all NaN where
        a feature isn't finite."""
        all_reduce(self.gram)
        all_reduce(self.sums)
        count, total = self.sums.tolist()
        mean = total / count
        figures = dict(effective_rank=float('nan'), feature_norm=mean, feature_norm_std=float('nan'))
        if torch.isfinite(self.gram).all():
            singular = torch.linalg.eigvalsh(self.gram).clamp(min=0).sqrt()
            variance = float(self.gram.trace()) / count - mean**2
            figures.update(effective_rank=effective_rank(singular), feature_norm_std=max(variance, 0) ** 0.5)
        return figures | dict(images=count)
