# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch._dynamo.utils import counters

from ldae.engine import CompileBlocksHook
from ldae.engine.speed.blocks import check_cpp_compiler
from ldae.utils import ConfigError


def trained(make_runner, hooks, **kwargs):
    runner = make_runner(hooks, epochs=10, **kwargs)
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    return torch.tensor(losses), runner.model.state_dict()


def test_compiled_blocks_give_the_same_training_in_one_graph_under_the_same_names(make_runner):
    plain, weights = trained(make_runner, [])
    torch.compiler.reset()
    counters.clear()
    compiled, others = trained(make_runner, [CompileBlocksHook(backend='aot_eager')])
    assert len(plain) == 20
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=0)
    assert others.keys() == weights.keys()
    # Encoder and decoder blocks have one shape: one graph, whatever the time steps; none is broken or compiled anew.
    assert counters['stats']['unique_graphs'] == 1
    assert not counters['graph_break']
    assert not counters['recompiles']


def test_a_wrong_backend_and_a_missing_compiler_are_one_line(monkeypatch):
    with pytest.raises(ConfigError, match="backend='inductr'"):
        CompileBlocksHook(backend='inductr')
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(ConfigError, match=r'needs a C\+\+ compiler, and no-such-compiler'):
        check_cpp_compiler()


def test_a_model_without_transformer_blocks_is_one_line(make_runner):
    runner = make_runner([CompileBlocksHook(backend='aot_eager')])
    runner.model = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match='Linear has no Transformer blocks'):
        runner.call_hook('before_train')
