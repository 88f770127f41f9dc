# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmengine.hooks import Hook
from torch import nn

from ldae.engine import MatmulPrecisionHook
from ldae.registry import OPTIM_WRAPPERS
from ldae.utils import ConfigError
from ldae.utils.device import full_precision


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


class Look(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen = torch.get_float32_matmul_precision()
        with full_precision(torch.device('cpu')):
            self.inside = torch.get_float32_matmul_precision()


def test_precision_holds_for_the_run_but_not_where_full_precision_is_asked_for(make_runner):
    look = Look()
    make_runner([MatmulPrecisionHook('high'), look]).train()
    assert (look.seen, look.inside) == ('high', 'highest')
    assert torch.get_float32_matmul_precision() == 'highest'


def test_an_unknown_precision_is_one_line():
    with pytest.raises(ConfigError, match='MatmulPrecisionHook.precision'):
        MatmulPrecisionHook('tf32')
