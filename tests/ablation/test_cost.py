# SPDX-License-Identifier: Apache-2.0
import gc
from collections import Counter

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch.multiprocessing.reductions import StorageWeakRef

from ldae.ablation.cost import _ShapesAlone


def test_a_momentum_encoder_without_values_frees_no_memory_twice(monkeypatch: pytest.MonkeyPatch):
    """torch frees a storage's weak reference in ``__del__``, also in that of a copy, which has taken none."""
    taken = Counter()
    take, free = StorageWeakRef.__init__, StorageWeakRef.__del__

    def count(self: StorageWeakRef, storage: torch.UntypedStorage) -> None:
        take(self, storage)
        taken[self.cdata] += 1

    def give_back(self: StorageWeakRef) -> None:
        taken[self.cdata] -= 1
        if taken[self.cdata] >= 0:  # of a second time the process might die
            free(self)

    monkeypatch.setattr(StorageWeakRef, '__init__', count)
    monkeypatch.setattr(StorageWeakRef, '__del__', give_back)
    with _ShapesAlone(allow_non_fake_inputs=True):
        layer = torch.nn.Linear(3, 4)
        layer.register_buffer('steps', torch.tensor(0.0))
        with pytest.raises(RuntimeError, match='storage'):  # which _count takes as a word to count with values
            ExponentialMovingAverage(layer)
    assert sum(taken.values()) > 0
    del layer
    gc.collect()
    assert min(taken.values()) >= 0
