# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch._dynamo.utils import counters

from ldae.engine import CompileBlocksHook
from ldae.engine.speed.blocks import check_cpp_compiler, compile_blocks
from ldae.models import LDAEViT
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


@pytest.mark.parametrize('most', [64, 2])
def test_any_number_of_shapes_is_computed_and_the_last_ones_as_they_are(monkeypatch, most):
    """More than the eight variants that torch keeps of a function by itself."""
    monkeypatch.setattr('ldae.engine.speed.blocks.MOST_VARIANTS', most)
    torch.compiler.reset()
    counters.clear()
    model = LDAEViT(dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), 16, 4, 1)
    images = torch.randn(10, 1, 16, 16)
    expected = model(images)[0]
    compile_blocks(model, backend='eager')
    for size in range(1, 11):
        torch.testing.assert_close(model(images[:size], torch.full((size,), 10))[0], expected[:size])
    assert counters['stats']['unique_graphs'] == min(most, 10)


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
