# SPDX-License-Identifier: Apache-2.0
import copy
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from ldae.engine import PlainCheckpointHook, SkipAwareEMAHook, SkipNonFiniteHook
from ldae.engine.non_finite.skip_non_finite import OptimizerGuard, RunningStatistics, is_not_finite, nan_unless_finite
from ldae.engine.non_finite.step_snapshots import StepSnapshot
from ldae.utils import ConfigError, TrainingStopped
from ldae.utils.checkpoints import averaged_weights

FUSED = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, fused=True))
PLAIN = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3, momentum=0.9))
AUTOCAST = dict(FUSED, type='ldae.AutocastOptimWrapper')
each_wrapper = pytest.mark.parametrize('wrapper', [FUSED, PLAIN, AUTOCAST], ids=['fused', 'plain', 'autocast'])


class Break(Hook):
    """Spoil some steps: a pixel that isn't a number, or a gradient alone."""

    def __init__(self, steps, what='pixel'):
        self.steps, self.what = steps, what

    def before_train(self, runner):
        weight = runner.model.neck.predict.weight
        if self.what == 'gradient':
            weight.register_hook(lambda grad: grad * float('inf') if runner.iter in self.steps else None)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.what == 'pixel' and runner.iter in self.steps:
            data_batch['inputs'] = data_batch['inputs'].float()
            data_batch['inputs'][3, 0, 5, 5] = float('nan')


class Keep(Hook):
    """Weights, optimizer and average after each step."""

    priority = 'LOWEST'

    def __init__(self):
        self.after, self.ema, self.lrs = [], [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        guard = next(hook for hook in runner.hooks if isinstance(hook, SkipNonFiniteHook))
        self.after.append(state_of(runner))
        self.lrs.append(runner.optim_wrapper.get_lr()['lr'][0])
        self.ema += [
            copy.deepcopy(hook.ema_model.state_dict()) for hook in runner.hooks if isinstance(hook, SkipAwareEMAHook)
        ]
        assert guard._handles


def state_of(runner):
    return copy.deepcopy([runner.model.state_dict(), runner.optim_wrapper.optimizer.state_dict()['state']])


def same(a, b):
    try:
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    except AssertionError:
        return False
    return True


@each_wrapper
@pytest.mark.parametrize('what', ['pixel', 'gradient'])
def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_counts(make_runner, wrapper, what, capsys):
    keep = Keep()
    runner = make_runner([Break([1], what), SkipNonFiniteHook(), keep], optim_wrapper=copy.deepcopy(wrapper))
    runner.train()
    changes = [not same(a, b) for a, b in zip(keep.after, keep.after[1:], strict=False)]
    assert changes == [False, True, True]
    assert all(value.isfinite().all() for value in keep.after[-1][0].values())
    assert runner.message_hub.get_info('skipped_steps') == 1
    assert 'Iter [2/4]  loss or gradient is not finite: step skipped (1 in a row, 1 in all)' in (
        capsys.readouterr().out
    )


@each_wrapper
def test_a_healthy_run_is_the_same_bit_for_bit(make_runner, wrapper):
    def run(hooks):
        runner = make_runner(hooks, optim_wrapper=copy.deepcopy(wrapper))
        runner.train()
        return state_of(runner), {
            key: buffer.data[0].tolist() for key, buffer in runner.message_hub.log_scalars.items() if 'time' not in key
        }

    guarded, bare = run([SkipNonFiniteHook()]), run([])
    assert same(guarded[0], bare[0])
    assert guarded[1] == bare[1]


@each_wrapper
def test_three_in_a_row_stop_the_run_and_leave_the_weights_from_before(make_runner, wrapper, tmp_path):
    runner = make_runner(
        [Break([1, 2, 3, 4, 5]), SkipNonFiniteHook(), keep := Keep()], epochs=4, optim_wrapper=copy.deepcopy(wrapper)
    )
    with pytest.raises(TrainingStopped, match='in 3 steps in a row, the last being step 4: stopped'):
        runner.train()
    assert same(state_of(runner), keep.after[0])
    assert (tmp_path / 'non_finite' / 'iter_4' / 'rank_0.pth').is_file()


def test_steps_that_are_skipped_now_and_then_stop_nothing(make_runner):
    runner = make_runner([Break([0, 1, 3, 4, 6, 7]), SkipNonFiniteHook()], epochs=4)
    runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 6


@pytest.mark.parametrize('broken', [0, 1])
def test_one_bad_batch_spoils_the_whole_of_an_accumulated_step(make_runner, broken):
    wrapper = dict(copy.deepcopy(FUSED), accumulative_counts=2)
    keep = Keep()
    runner = make_runner([Break([2 + broken]), SkipNonFiniteHook(), keep], epochs=3, optim_wrapper=wrapper)
    runner.train()
    assert same(keep.after[3], keep.after[1])
    assert not same(keep.after[5], keep.after[3])
    assert runner.message_hub.get_info('skipped_steps') == 1


def test_the_average_of_the_weights_leaves_a_skipped_step_out(make_runner):
    keep = Keep()
    hooks = [Break([2]), SkipNonFiniteHook(), SkipAwareEMAHook(momentum=0.1), keep]
    make_runner(hooks).train()
    assert [same(a, b) for a, b in zip(keep.ema, keep.ema[1:], strict=False)] == [False, True, False]


@pytest.mark.parametrize('accumulated', [1, 2, 3])
def test_the_average_of_the_weights_is_that_of_a_loop_over_updates(make_runner, accumulated):
    keep = Keep()
    wrapper = dict(copy.deepcopy(PLAIN), accumulative_counts=accumulated)
    runner = make_runner([SkipNonFiniteHook(), SkipAwareEMAHook(momentum=0.1), keep], epochs=4, optim_wrapper=wrapper)
    runner.train()
    updated = [state for step, (state, _) in enumerate(keep.after, 1) if step % accumulated == 0 or step == 8]
    assert keep.ema[-1]['steps'] == len(updated) == -(-8 // accumulated)
    for name in dict(runner.model.named_parameters()):
        average = updated[0][name].double()  # of one update, the weights themselves
        for state in updated[1:]:
            average = 0.9 * average + 0.1 * state[name].double()
        torch.testing.assert_close(keep.ema[-1][f'module.{name}'].double(), average, rtol=0, atol=1e-6, msg=name)


def test_the_average_waits_for_all_optimizers():
    def wrapper() -> OptimWrapper:
        return OptimWrapper(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), accumulative_counts=4)

    parts, updates = (
        dict(net=wrapper(), idle=wrapper()),
        [],
    )  # one of which hasn't begun, as that of an adversarial loss
    hook = SkipAwareEMAHook()
    hook.src_model, hook.ema_model = None, SimpleNamespace(update_parameters=updates.append)
    runner = SimpleNamespace(optim_wrapper=OptimWrapperDict(**parts), hooks=[], iter=0, epoch=0)
    for _ in range(8):
        parts['net']._inner_count += 1
        hook.after_train_iter(runner, 0)
    assert len(updates) == 2


@pytest.mark.parametrize('in_place', [True, False])
def test_the_average_is_in_the_place_of_the_weights_or_beside_them(make_runner, tmp_path, in_place):
    ema = SkipAwareEMAHook(momentum=0.1, in_place=in_place)
    runner = make_runner([SkipNonFiniteHook(), PlainCheckpointHook(), ema], epochs=2)
    runner.train()
    runner.save_checkpoint(str(tmp_path), 'a.pth')
    saved = torch.load(tmp_path / 'a.pth')
    beside = {key.removeprefix('module.'): value for key, value in saved['ema_state_dict'].items() if key != 'steps'}
    assert same((saved['state_dict'], beside)[in_place], runner.model.state_dict())
    assert same(averaged_weights('a.pth', saved), ema.ema_model.module.state_dict())
    assert not same(saved['state_dict'], beside)


def test_the_learning_rate_goes_on_by_steps(make_runner):
    scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4)]

    def lrs(steps):
        keep = Keep()
        options = dict(param_scheduler=scheduler)
        runner = make_runner([Break(steps), SkipNonFiniteHook(), keep], **options)
        runner.train()
        return keep.lrs

    assert lrs([1]) == lrs([])


def test_skipped_steps_are_counted_on_after_a_resume(make_runner):
    runner = make_runner([SkipNonFiniteHook(), Break([1])])
    runner.message_hub.update_info('skipped_steps', 5)
    runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 6


def test_files_are_bounded_but_for_the_last_before_the_stop(make_runner, tmp_path):
    hooks = [Break([1, 3, 5, 6, 7]), SkipNonFiniteHook(max_saved=1)]
    with pytest.raises(TrainingStopped):
        make_runner(hooks, epochs=5).train()
    assert sorted(path.name for path in (tmp_path / 'non_finite').iterdir()) == ['iter_2', 'iter_8']


def test_a_folder_that_cannot_be_written_ends_no_run(make_runner, monkeypatch, capsys):
    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('ldae.engine.non_finite.skip_non_finite.save_state', fail)
    make_runner([Break([1]), SkipNonFiniteHook()]).train()
    assert 'could not be written' in capsys.readouterr().out


def test_a_step_that_two_optimizers_skip_counts_once(make_runner):
    hook, other = SkipNonFiniteHook(max_saved=1), torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    runner = make_runner([Break([1]), hook])

    class Second(Hook):
        """Another optimizer of the same model, as that of an adversarial loss."""

        priority = 'LOWEST'

        def before_train(self, runner):
            self.guard = OptimizerGuard(other, hook, runner)
            hook._guards.append(self.guard)

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.guard._pending = outputs['loss'].isnan(), None, [StepSnapshot(runner.iter, data_batch)]

    runner.register_hook(Second())
    runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 1


def test_the_count_is_logged(make_runner, tmp_path):
    make_runner([Break([1]), SkipNonFiniteHook()]).train()
    lines = [json.loads(line) for line in next(tmp_path.rglob('scalars.json')).read_text().splitlines()]
    assert [line for line in lines if 'skipped_steps' in line] == [dict(skipped_steps=1, step=2)]


def test_a_first_step_that_is_skipped_leaves_no_momentum(make_runner):
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, fused=True))
    keep = Keep()
    make_runner([Break([0]), SkipNonFiniteHook(), keep], optim_wrapper=wrapper, epochs=1).train()
    assert not keep.after[0][1]
    assert all(state['momentum_buffer'].isfinite().all() for state in keep.after[1][1].values())


def test_a_masked_step_reads_nothing_from_the_device():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).to('meta')  # where nothing can be read
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer._step_supports_amp_scaling = True
    for param in model.parameters():
        param.grad = torch.empty_like(param)
    hook = SkipNonFiniteHook()
    hook._running = RunningStatistics(model)
    hook._running.remember()
    OptimizerGuard(optimizer, hook, None).before_step()
    assert optimizer.found_inf.is_meta


def test_nothing_of_it_is_left_on_model_or_optimizer(make_runner):
    runner = make_runner([SkipNonFiniteHook()], optim_wrapper=copy.deepcopy(FUSED))
    model = runner.train()
    optimizer = runner.optim_wrapper.optimizer
    assert not model._forward_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not hasattr(optimizer, 'found_inf')


def test_running_statistics_are_put_back_only_where_a_step_was_bad():
    norm = nn.BatchNorm1d(3)
    statistics = RunningStatistics(norm)
    statistics.remember()
    before = copy.deepcopy(norm.state_dict())
    norm(torch.full((4, 3), float('nan')))
    assert norm.running_mean.isnan().all()
    statistics.restore_where(torch.tensor(True))
    assert same(norm.state_dict(), before)
    norm(torch.randn(4, 3))
    after = copy.deepcopy(norm.state_dict())
    statistics.restore_where(torch.tensor(False))
    assert same(norm.state_dict(), after)
    assert not same(after, before)


@pytest.mark.parametrize('value', [1.5, 0.0, 1e38, float('inf'), float('nan')])
def test_a_loss_that_is_not_finite_has_no_finite_gradient(value):
    x = torch.tensor(2.0, requires_grad=True)
    loss = x * 0 + value  # a gradient of 0 whatever the loss
    checked = nan_unless_finite(loss)
    checked.backward()
    finite = torch.tensor(value).isfinite()
    assert x.grad.isnan() != finite
    assert (checked == value) == finite


@pytest.mark.parametrize('option', [dict(max_in_a_row=0), dict(max_saved=-1)])
def test_bad_options_are_one_clear_line(option):
    with pytest.raises(ConfigError, match='SkipNonFiniteHook'):
        SkipNonFiniteHook(**option)


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
