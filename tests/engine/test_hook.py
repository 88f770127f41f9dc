# SPDX-License-Identifier: Apache-2.0
"""The stages that ldae adds to mmengine's hooks, and the order of the engine's rooms."""

import ast
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from ldae import engine
from ldae.engine import LDAEHook

ORDER = ('watch', 'non_finite', 'speed', 'resume', 'hook'), ('tokenizer', 'hook')
WHOLE = dict(type='ldae.SafeCheckpointHook', interval=1)
LOOP = dict(type='ldae.ResumableEpochLoop', max_epochs=2)


class Foreign(LDAEHook):
    """Notes which stages are called, and has something to be saved."""

    priority = 'LOWEST'
    after_checkpoint = True

    def __init__(self, fail_at: int | None = None):
        self.calls, self.fail_at = [], fail_at

    def before_state_is_saved(self, runner):
        self.calls.append(('before_state_is_saved', runner.iter))
        runner.message_hub.update_info('of_a_foreign_hook', len(self.calls))

    def after_failure(self, runner):
        self.calls.append(('after_failure', runner.iter))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.is_due(runner, 3, by_epoch=False):
            self.calls.append(('due by step', runner.iter + 1))
        if runner.iter + 1 == self.fail_at:
            raise RuntimeError('broken off')

    def after_train_epoch(self, runner):
        if self.is_due(runner, 3):
            self.calls.append(('due by epoch', runner.epoch + 1))
        self.calls.append(('after_train_epoch', runner.epoch + 1))


class OfMMEngine(Hook):
    """Has none of these stages."""


def runner_with(make_runner, hook, **options):
    plain, fit = dict(type='ldae.PlainCheckpointHook'), dict(type='ldae.FitTokenizerHook')
    hooks = dict(checkpoint=WHOLE, plain=plain, fit=fit)
    return make_runner([hook, OfMMEngine()], train_cfg=LOOP, default_hooks=hooks, **options)


def test_a_foreign_hook_is_called_before_the_state_is_saved_and_what_it_notes_is_in_the_checkpoint(
    make_runner, tmp_path
):
    hook = Foreign()
    runner_with(make_runner, hook).train()
    assert hook.calls == [
        ('before_state_is_saved', 2),
        ('after_train_epoch', 1),
        ('due by step', 3),
        ('due by step', 4),
        ('before_state_is_saved', 4),
        ('due by epoch', 2),
        ('after_train_epoch', 2),
    ]
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert saved['message_hub']['runtime_info']['of_a_foreign_hook'] == 1


def test_a_foreign_hook_is_called_after_a_failure_and_the_error_goes_on(make_runner):
    hook = Foreign(fail_at=1)
    with pytest.raises(RuntimeError, match='broken off'):
        runner_with(make_runner, hook).train()
    assert hook.calls == [('after_failure', 0)]


def test_what_comes_after_a_checkpoint_is_done_once_more_by_a_run_that_is_resumed_from_it(make_runner, tmp_path):
    with pytest.raises(RuntimeError):
        runner_with(make_runner, Foreign(fail_at=3)).train()
    hook = Foreign()
    checkpoint = str(tmp_path / 'epoch_1.pth')
    runner_with(make_runner, hook, load_from=checkpoint, resume=True).train()
    assert hook.calls[0] == ('after_train_epoch', 1)
    assert hook.calls[-1] == ('after_train_epoch', 2)


def test_all_hooks_of_ldae_have_the_stages():
    hooks = {hook for hook in vars(engine).values() if isinstance(hook, type) and issubclass(hook, Hook)}
    assert len(hooks) > 20
    assert [hook for hook in hooks if not issubclass(hook, LDAEHook)] == []


def test_rooms_of_the_engine_import_what_its_docstring_says():
    root = Path(engine.__file__).parent
    wrong = []
    for path in root.glob('*/*.py'):
        room = path.parent.name
        (order,) = [names for names in ORDER if room in names]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('ldae.engine.'):
                other = node.module.split('.')[2]
                if other not in order[order.index(room) :]:
                    wrong.append(f'{path.relative_to(root)} imports {node.module}')
    assert not wrong
    assert ' > '.join(ORDER[0][:-1]) in engine.__doc__
