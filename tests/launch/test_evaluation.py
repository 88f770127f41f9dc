# SPDX-License-Identifier: Apache-2.0
import torch
from torch import nn

from ldae.launch.evaluation import _compute_in


class Model(nn.Linear):
    """A layer whose test step is its forward pass."""

    def test_step(self, data: torch.Tensor) -> torch.Tensor:
        return self(data)


def test_test_steps_are_computed_in_the_precision():
    model = Model(2, 2)
    assert model.test_step(torch.ones(1, 2)).dtype == torch.float32
    _compute_in(model, 'bf16')
    with torch.autocast('cpu', enabled=False):  # as mmengine's loop does
        assert model.test_step(torch.ones(1, 2)).dtype == torch.bfloat16
