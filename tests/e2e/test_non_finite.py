# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from launching import checkpoint

BROKEN = """
_base_ = './{base}.py'
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_epochs=1)
custom_imports = dict(imports=['rank_weights', 'breaking'])
custom_hooks = [dict(type='RankWeightsHook'), dict(type='BreakHook', steps={steps})]
default_hooks = dict(checkpoint=dict(interval=4, by_epoch=False))
"""
#: By which a tool knows the components of one's own that a checkpoint names.
OWN = ['--import', 'rank_weights', '--import', 'breaking']
# The last process alone meets an image that isn't finite.
BREAKING = """
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class BreakHook(Hook):
    def __init__(self, steps):
        self.steps = steps

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter in self.steps and get_rank() == get_world_size() - 1:
            data_batch['inputs'] = data_batch['inputs'].float()
            data_batch['inputs'][3, 0, 5, 5] = float('nan')
"""


@pytest.fixture
def broken(workspace):
    """Config of a run in which some steps meet a pixel that isn't a number."""
    (workspace / 'breaking.py').write_text(BREAKING)

    def write(steps, base='tiny'):
        (workspace / 'broken.py').write_text(BROKEN.format(steps=steps, base=base))
        return 'broken.py'

    return write


def test_all_processes_skip_what_one_of_them_met(run, workspace, broken):
    result = run('dist_train.sh', broken([5]), 2, '--work-dir', 'w')
    output = result.stdout + result.stderr
    assert output.count('step skipped (1 in a row, 1 in all)') == 1
    ranks = [checkpoint(workspace / 'w' / f'rank_{rank}.pth') for rank in range(2)]
    for name, value in ranks[0].items():
        assert value.isfinite().all(), name
        assert torch.equal(value, ranks[1][name]), name
    (hint,) = {line.partition('tools/')[2] for line in output.splitlines() if 'tools/reproduce.py' in line}
    assert hint.split()[2:] == OWN
    result = run(*hint.split())
    first, second = result.stdout.split('process ')[1:]
    assert 'images: all finite' in first
    assert 'images: 1 not finite: 3\n' in second
    assert 'another device' not in result.stdout  # the time steps are those that each process drew


def test_a_run_that_goes_wrong_stops_with_its_own_status_and_resumes_from_before(run, workspace, broken):
    result = run('train.py', broken(list(range(4, 20))), '--work-dir', 'w', status=3)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert 'not finite in 3 steps in a row, the last being step 7' in line
    assert 'Traceback' not in result.stderr
    assert [path.name for path in (workspace / 'w').glob('iter_*.pth')] == ['iter_4.pth']
    assert all(value.isfinite().all() for value in checkpoint(workspace / 'w' / 'iter_4.pth')['state_dict'].values())
    command = line.partition('tools/')[2].split()
    assert command[2:] == OWN
    run(*command)
    run('train.py', broken([]), '--work-dir', 'w', '--resume')
    log = sorted((workspace / 'w').glob('*/vis_data/scalars.json'))[-1].read_text().splitlines()
    assert all('NaN' not in text and json.loads(text) for text in log)
