# SPDX-License-Identifier: Apache-2.0
"""Mean and covariance of features (n, D), however many they are, and some of the rows."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ldae.utils import ConfigError, Range
from ldae.utils.errors import short
from ldae.utils.files import flush, whole_file
from ldae.utils.ranges import check_value

#: Bytes that statistics may take: 20 000 dimensions, or 100 000 rows of 2048 and more.
LARGEST = 4 << 30
#: What a damaged or forged file can raise.
UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError)
#: What a file of ours says of itself.
MADE_BY = dict(features=str, weights=str, count=Annotated[int, Range(2)])
PROTOCOL = dict(source=str, kind=str, images=int, of=int, seed=int | None, size=tuple[int, int], resized=str | None)


@dataclass(frozen=True)
class Statistics:
    """Mean (D,) and covariance (D, D) of features in float64, of how many images, and a random choice of the rows.

    ``rows`` (k, D) serve figures that need features themselves; after the features, rows of Inception have its logits. A
    file that another program wrote has ``mu`` and ``sigma`` alone, and says neither ``count`` nor what made it (``meta``).
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None
    rows: Tensor | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        return len(self.mean)

    @property
    def network(self) -> tuple[str, str] | None:
        """Name and weights of what made the features; None if the file doesn't say."""
        return (self.meta['features'], self.meta['weights']) if 'features' in self.meta else None

    def save(self, path: Path) -> Path:
        """Write the file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = dict(mu=self.mean, sigma=self.covariance, count=self.count, meta=json.dumps(self.meta))
        with whole_file(path) as unfinished:
            with unfinished.open('wb') as file:
                np.savez(file, rows=self.rows[:, : self.dims].numpy(), **arrays)
            flush(unfinished)
        return path

    @classmethod
    def load(cls, path: str | Path) -> 'Statistics':
        """Read a file of ours, or ``mu`` and ``sigma`` of another program's; no pickle in it is opened."""
        try:
            with np.load(path, allow_pickle=False) as file:
                if (size := sum(part.file_size for part in file.zip.infolist())) > LARGEST:
                    raise ValueError(f'it would take {size / 2**30:.3g} GiB of memory')
                arrays = {name: file[name] for name in ('mu', 'sigma', 'count', 'rows', 'meta') if name in file}
            mean, covariance = (np.asarray(arrays[name], dtype=np.float64) for name in ('mu', 'sigma'))
            count = int(arrays['count']) if 'count' in arrays else None
            rows = torch.from_numpy(arrays['rows']).float() if 'rows' in arrays else None
            meta = json.loads(str(arrays.get('meta', '{}')))
        except (*UNREADABLE, TypeError, RecursionError) as error:
            raise ConfigError(
                f'{path} cannot be read as statistics of features ({short(error)}): make it anew'
            ) from error
        dims = len(mean) if mean.ndim == 1 else 0
        fits = covariance.shape == (dims, dims) and (rows is None or rows.shape[1:] == (dims,))
        finite = all(np.isfinite(part).all() for part in (mean, covariance, [] if rows is None else rows))
        if not dims or not fits or not finite or not isinstance(meta, dict) or not _is_covariance(covariance):
            raise ConfigError(
                f'{path} holds no statistics: mu must be finite numbers (D,), sigma a covariance (D, D): make it anew'
            )
        parts = dict(meta=(MADE_BY, dict(meta, count=count)), protocol=(PROTOCOL, meta.get('protocol')))
        for part, (hints, told) in parts.items() if meta else ():
            check_value(f'{path}: {part}', told, dict)
            for name, hint in hints.items():
                check_value(f'{path}: {part}.{name}', told.get(name), hint)
        return cls(mean, covariance, count, rows, meta)


def _is_covariance(matrix: np.ndarray) -> bool:
    return bool((matrix.diagonal() >= 0).all() and np.allclose(matrix, matrix.T, rtol=1e-3, atol=1e-6))


class RunningStatistics:
    """The statistics of features that come in batches; memory does not depend on their number.

    Which rows are kept follows from ``seed`` and a row's place among those of all processes, not from batches; rank r of W
    is given every W-th.

    Args:
        dims: The first so many columns are features; None: all. What comes after goes with the rows that are kept.
        max_rows: How many are kept.
    """

    def __init__(self, dims: int | None, max_rows: int, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.dims, self.max_rows, self.rank, self.world = dims, max_rows, rank, world
        self.count, self.shift, self.sums, self.gram = 0, 0.0, 0.0, 0.0
        self.kept: list[tuple[np.ndarray, np.ndarray, Tensor]] = []  # keys, places, rows
        self._largest, self._random = 1.0, np.random.default_rng(seed)

    def add(self, rows: Tensor) -> None:
        """rows (b, D or more), on any device."""
        if not torch.isfinite(rows).all():
            raise ConfigError('features hold NaN or infinity: check the weights of the extractor')
        features = rows[:, : self.dims].double()
        if not self.count:
            self.shift = features.mean(dim=0)  # near the mean: squares of what is left lose no digits
        features = features - self.shift
        self.sums = self.sums + features.sum(dim=0)
        self.gram = self.gram + features.t() @ features
        places = (self.count + np.arange(len(rows))) * self.world + self.rank
        keys = self._random.random((len(rows), self.world))[:, self.rank]
        found = np.flatnonzero(keys < self._largest)
        self.kept.append((keys[found], places[found], rows[torch.from_numpy(found).to(rows.device)].float().cpu()))
        self.count += len(rows)
        if sum(len(part[0]) for part in self.kept) > 2 * self.max_rows:
            self.kept = [least(self.kept, self.max_rows)]
            self._largest = self.kept[0][0].max()

    def state(self) -> tuple[int, np.ndarray, np.ndarray, tuple]:
        """The part of this process, for the others: count, mean (D,), sum of squared deviations (D, D), and rows."""
        if not self.count:
            return 0, np.zeros(0), np.zeros(0), ()
        mean = self.sums / self.count
        squares = (self.gram - self.count * torch.outer(mean, mean)).cpu().numpy()
        return self.count, (mean + self.shift).cpu().numpy(), squares, least(self.kept, self.max_rows)

    def statistics(
        self, network: tuple[str, str] | None = None, states: Sequence[tuple] | None = None, **meta: Any
    ) -> Statistics:
        """Of all rows that ``network`` made, or of those of all processes (their :meth:`state`)."""
        states = [state for state in states or [self.state()] if state[0]]
        count = sum(state[0] for state in states)
        if count < 2:
            raise ConfigError(f'{count} image{"s" * (count != 1)}: a distance needs 2 at least')
        mean = sum(n * part for n, part, *_ in states) / count
        squares = sum(s + n * np.outer(part - mean, part - mean) for n, part, s, _ in states)
        _, _, rows = least([state[3] for state in states], self.max_rows)
        if network is not None:
            meta.update(features=network[0], weights=network[1])
        return Statistics(mean, squares / (count - 1), count, rows, meta)


def least(parts: Sequence[tuple[np.ndarray, np.ndarray, Tensor]], count: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """The ``count`` rows of the least keys, in the order of their places."""
    keys, places = (np.concatenate([part[i] for part in parts]) for i in range(2))
    chosen = np.argsort(keys, kind='stable')[:count]
    chosen = chosen[np.argsort(places[chosen])]
    return keys[chosen], places[chosen], torch.cat([part[2] for part in parts])[torch.from_numpy(chosen)]
