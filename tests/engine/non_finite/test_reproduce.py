# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from ldae.cli.reproduce import main
from ldae.engine import SkipNonFiniteHook
from ldae.engine.non_finite.reproduce import (
    as_rank,
    bad_rows,
    load_model,
    precision,
    read_snapshots,
    reproduce,
    watched,
)
from ldae.models.noisers import GaussianNoiser
from ldae.utils import ConfigError
from ldae.utils.files import atomic_save


class Break(Hook):
    """An infinite pixel in one image of the second step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            data_batch['inputs'] = data_batch['inputs'].float()
            data_batch['inputs'][3, 0, 5, 5] = float('inf')


@pytest.fixture
def incident(make_runner, tmp_path):
    """What a run with one bad step left, its hook, and its runner."""
    hook = SkipNonFiniteHook()
    runner = make_runner([Break(), hook], epochs=1)
    runner.train()
    return tmp_path / 'non_finite' / 'iter_2'


def test_a_step_is_repeated_with_its_weights_batch_time_steps_and_noise(incident):
    model, cfg = load_model(incident, 'cpu')
    content = read_snapshots(incident / 'rank_0.pth')
    (found,) = reproduce(model, cfg, content)
    assert found.iter == 1
    assert found.images == ['3']
    assert found.samples == [(3, int(content['attempts'][0]['t'][3]))]
    assert found.same_timesteps
    assert found.bad_losses == ['loss']
    assert len(found.gradients) == found.num_gradients > 0
    losses = model.head.recent[1]
    others = [i for i in range(16) if i != 3]
    assert torch.equal(losses[others], content['attempts'][0]['losses'][others])


def test_the_command_names_image_module_loss_and_gradients(incident, capsys):
    assert main([str(incident)]) == 0
    out = capsys.readouterr().out
    assert 'weights: all finite' in out
    assert 'images: 1 not finite: 3\n' in out
    assert 'loss = nan' in out
    assert out.endswith('reproduced\n')


def test_a_step_in_which_nothing_is_wrong_has_another_status(incident, capsys):
    path = incident / 'rank_0.pth'
    content = torch.load(path, weights_only=True)
    content['attempts'][0]['batch']['inputs'].zero_()
    atomic_save(content, path)
    assert main([str(incident)]) == 1
    assert 'everything is finite this time' in capsys.readouterr().out


def test_weights_that_are_not_finite_are_named(incident, capsys):
    content = torch.load(incident / 'state.pth', weights_only=True)
    content['state_dict']['neck.predict.bias'][0] = float('nan')
    atomic_save(content, incident / 'state.pth')
    main([str(incident)])
    assert 'weights: 1 not finite: neck.predict.bias' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'), [(['missing'], 'holds no skipped step'), (['{folder}', '--rank', '7'], '--rank 7')]
)
def test_what_is_no_skipped_step_is_one_clear_line(incident, arguments, message):
    with pytest.raises(ConfigError, match=message):
        main([argument.format(folder=incident) for argument in arguments])


@pytest.mark.parametrize('content', [b'', b'not a file of torch', None])
def test_a_damaged_file_is_one_clear_line(incident, content):
    path = incident / 'rank_0.pth'
    if content is None:
        atomic_save(dict(other=1), path)
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match='rank_0.pth'):
        main([str(incident)])


def test_modules_are_named_in_the_order_of_their_calls():
    class Divide(nn.Module):
        def forward(self, x):
            return x / 0

    model = nn.Sequential(nn.Identity(), Divide(), nn.ReLU())
    names = []
    with watched(model, names):
        model(torch.ones(2))
    assert names == ['1 (Divide)', '2 (ReLU)']
    model(torch.ones(2))
    assert len(names) == 2


def test_a_rank_draws_its_own_share_of_the_noise():
    noiser, z0 = GaussianNoiser().train(), torch.zeros(2, 3, 4)
    torch.manual_seed(0)
    whole = noiser(torch.zeros(4, 3, 4))
    for rank in range(2):
        torch.manual_seed(0)
        with as_rank(rank, 2):
            sample = noiser(z0)
        assert torch.equal(sample.t, whole.t[rank::2])
        assert torch.equal(sample.noise, whole.noise[rank::2])


def test_bad_rows_are_those_of_any_view():
    view = torch.zeros(4, 2, 2)
    other = view.clone()
    view[1, 0, 0], other[3, 1, 1] = float('nan'), float('inf')
    assert bad_rows([view, other]) == [1, 3]
    assert bad_rows(torch.tensor([0.0, float('nan')])) == [1]


@pytest.mark.parametrize(
    ('wrapper', 'dtype'),
    [(dict(type='ldae.AutocastOptimWrapper'), torch.bfloat16), (dict(type='OptimWrapper'), torch.float32)],
)
def test_precision_is_that_of_the_run(wrapper, dtype):
    with precision(Config(dict(optim_wrapper=wrapper)), torch.device('cpu')):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
