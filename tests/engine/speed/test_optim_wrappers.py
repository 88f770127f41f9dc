# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from ldae.registry import OPTIM_WRAPPERS
from ldae.utils import ConfigError


def make(**options: object):
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, OPTIM_WRAPPERS.build(dict(type='ldae.AutocastOptimWrapper', optimizer=optimizer, **options))


def test_forward_is_bfloat16_and_weights_stay_float32():
    model, wrapper = make()
    before = model.weight.clone()
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().square().sum())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


def test_outside_of_the_context_nothing_is_cast():
    model, wrapper = make()
    with wrapper.optim_context(model):
        pass
    assert model(torch.ones(2, 4)).dtype == torch.float32


def test_gradients_accumulate():
    model, wrapper = make(accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    before = model.weight.clone()
    for changed in (False, True):
        with wrapper.optim_context(model):
            loss = model(torch.ones(2, 4)).float().square().sum()
        wrapper.update_params(loss)
        assert torch.equal(model.weight, before) is not changed


def test_unknown_dtype():
    with pytest.raises(ConfigError, match='bfloat16'):
        make(dtype='int8')
