# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef

from ldae.ablation.cost import _ShapesAlone


def test_a_momentum_encoder_without_values_copies_no_weak_reference(monkeypatch: pytest.MonkeyPatch):
    """torch gives a storage's weak reference back in ``__del__``, also in that of a copy, which has taken none. If its own mode
    copies none any more, ours can go."""
    copied = []
    # In place of a copy comes an integer, so that nothing is given back twice here.
    monkeypatch.setattr(StorageWeakRef, '__reduce_ex__', lambda ref, protocol: copied.append(ref) or (int, ()))
    numbers = {}
    for mode in (FakeTensorMode, _ShapesAlone):
        copied.clear()
        with mode(allow_non_fake_inputs=True):
            layer = torch.nn.Linear(3, 4)
            layer.register_buffer('steps', torch.tensor(0.0))
            with pytest.raises(RuntimeError, match='storage'):  # which _count takes as a word to count with values
                ExponentialMovingAverage(layer)
        numbers[mode] = len(copied)
    assert numbers[FakeTensorMode] > 0
    assert numbers[_ShapesAlone] == 0
