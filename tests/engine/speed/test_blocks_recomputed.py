# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from ldae.engine import ActivationCheckpointHook, CompileBlocksHook
from ldae.engine.speed.blocks import draws_numbers
from ldae.utils import ConfigError


def trained(make_runner, hooks):
    runner = make_runner(hooks)
    runner.train()
    return runner.model.state_dict()


def test_training_is_the_same_bit_for_bit_under_the_same_names(make_runner):
    plain, recomputed = trained(make_runner, []), trained(make_runner, [ActivationCheckpointHook()])
    torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


def test_it_can_be_compiled_in_one_graph(make_runner):
    torch.compiler.reset()
    plain = trained(make_runner, [])
    both = trained(make_runner, [CompileBlocksHook(backend='aot_eager'), ActivationCheckpointHook()])
    torch.testing.assert_close(both, plain, rtol=1e-5, atol=1e-7)


def kept(runner) -> int:
    """Bytes that the loss keeps for its gradient."""
    sizes = []
    with saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
        runner.model.loss(torch.zeros(16, 1, 28, 28))
    return sum(sizes)


def test_less_is_kept_for_the_gradient_and_nothing_stays_behind(make_runner):
    hook = ActivationCheckpointHook()
    runner = make_runner([hook])
    runner.train()
    plain = kept(runner)
    hook.before_train(runner)
    assert kept(runner) < plain / 2
    hook.after_train(runner)
    assert kept(runner) == plain


def test_random_layers_draw_the_same_numbers_twice():
    assert not draws_numbers(nn.Dropout(0.0))
    assert draws_numbers(nn.Dropout(0.1))


def test_a_wrong_number_and_a_model_without_blocks_are_one_line(make_runner):
    with pytest.raises(ConfigError, match='ActivationCheckpointHook.every'):
        ActivationCheckpointHook(every=0)
    runner = make_runner([])
    runner.model = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match='Linear has no Transformer blocks: remove the hook'):
        ActivationCheckpointHook().before_train(runner)
