# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmengine.hooks import Hook

from ldae.engine import MatmulPrecisionHook
from ldae.utils import ConfigError
from ldae.utils.precision import full_precision


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
