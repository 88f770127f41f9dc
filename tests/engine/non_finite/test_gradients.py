# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from ldae.engine.non_finite.gradients import is_not_finite


def optimizer_with(*gradients):
    params = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient
    return torch.optim.SGD([*params, torch.nn.Parameter(torch.zeros(2))])  # the last has no gradient


@pytest.mark.parametrize('value', [float('inf'), float('-inf'), float('nan')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_one_value_that_is_not_finite_is_found(value, dtype):
    gradient = torch.ones(3, 5, dtype=dtype)
    assert not is_not_finite(optimizer_with(torch.ones(4), gradient))
    gradient[2, 4] = value
    assert is_not_finite(optimizer_with(torch.ones(4), gradient))


def test_finite_gradients_stay_bit_for_bit():
    gradient = torch.randn(1000) * torch.logspace(-44, 18, 1000)  # denormal ones too
    gradient[0] = -0.0
    before = gradient.clone()
    assert not is_not_finite(optimizer_with(gradient))
    assert torch.equal(gradient.view(torch.int32), before.view(torch.int32))


def test_no_gradients_are_finite():
    assert not is_not_finite(optimizer_with())
