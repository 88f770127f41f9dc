# SPDX-License-Identifier: Apache-2.0
import math

import pytest
from launching import scalars

# What watches a run while it trains: features scored by labels, and signs of health.
WATCHED = """
_base_ = './tiny.py'
train_dataloader = {loader}
loader = dict(
    batch_size=20,
    num_workers=0,
    collate_fn=dict(type='ldae.batch_collate'),
    dataset=dict(type='ldae.IDXDataset', split='train', indices=100),
)
default_hooks = dict(
    health=dict(interval=5, num_images=32),
    online_evaluation=dict(
        type='ldae.OnlineEvaluationHook',
        train_dataloader=loader,
        test_dataloader=dict(loader, dataset=dict(loader['dataset'], split='test', indices=45)),
        k=5,
        linear_epochs=3,
    ),
)
"""


@pytest.fixture
def watched(workspace):
    for name, batch in dict(one=16, two=8).items():
        text = WATCHED.format(loader=f'dict(batch_size={batch})')
        (workspace / f'watched_{name}.py').write_text(text)


@pytest.mark.usefixtures('watched')
def test_what_is_watched_is_the_same_with_two_processes_as_with_one(run, workspace):
    run('train.py', 'watched_one.py', '--work-dir', 'one')
    run('dist_train.sh', 'watched_two.py', 2, '--work-dir', 'two')
    one, two = (
        [line for line in scalars(workspace / name) if 'knn/top1' in line or 'health/grad_norm' in line]
        for name in ('one', 'two')
    )
    assert [line['step'] for line in one] == [5, 10, 1, 15, 20, 2]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {'online/seconds', 'online/share'}:
            if key.endswith('top1'):
                assert abs(a[key] - b[key]) <= 100 / 45, key  # one image, for rounding in the gradients' sum
            else:
                assert math.isclose(a[key], b[key], rel_tol=1e-3), key
