# SPDX-License-Identifier: Apache-2.0
"""Probe and comparison, from their command lines to their tables."""

import json
import shutil


def scores(folder) -> list:
    return json.loads((folder / 'probe.json').read_text())['results']


def test_a_checkpoint_scores_the_same_on_two_processes_as_on_one(run, workspace):
    run('train.py', 'tiny.py', '--work-dir', 'w')
    options = ['--blocks', 'all', '--timesteps', '10', '300', '--input', 'clean', 'noisy', '--epochs', '5']
    options += ['--import', 'rank_weights', '--k', '5', '50', '--max-train-images', '333', '--max-test-images', '101']
    run('probe.py', 'w/epoch_2.pth', *options, '--work-dir', 'one')
    run('dist_probe.sh', 'w/epoch_2.pth', '2', *options, '--work-dir', 'two')
    one, two = scores(workspace / 'one'), scores(workspace / 'two')
    assert len(one) == 8
    for alone, shared in zip(one, two, strict=True):
        assert (alone['block'], alone['timestep'], alone['input']) == tuple(
            shared[key] for key in ('block', 'timestep', 'input')
        )
        # Batches of other images round differently: an image or two of 101 may fall to the other side.
        assert abs(alone['linear'] - shared['linear']) < 3
        assert all(abs(alone['knn'][k] - shared['knn'][k]) < 3 for k in alone['knn'])
    assert json.loads((workspace / 'two' / 'probe.json').read_text())['processes'] == 2


def test_a_wrong_option_on_two_processes_is_said_once(run, workspace):
    result = run('dist_probe.sh', 'nothing.pth', '2', status=2)
    assert result.stderr.count('error: ') == 1
    assert 'nothing.pth' in result.stderr


def test_a_comparison_is_one_table_and_goes_on_where_it_was_stopped(run, workspace):
    command = ['compare.py', '--quick', '--seeds', '0', '--work-dir', 'c']
    first = run(*command)
    found = json.loads((workspace / 'c' / 'comparison.json').read_text())['encoders']
    assert list(found) == ['pixels', 'latents', 'ldae_untrained', 'ldae', 'mae_untrained', 'mae']
    for row in found.values():
        assert 10 < row['linear']['mean'] <= 100
    assert 'MAE encoder, pre-trained' in first.stdout
    results = workspace / 'c' / 'results.jsonl'
    kept = [line for line in results.read_text().splitlines() if '"row": "mae"' not in line]
    results.write_text('\n'.join(kept) + '\n')
    trained = (workspace / 'c' / 'mae' / 'seed0' / 'epoch_2.pth').stat().st_mtime_ns
    assert '5 done before, 1 to do' in run(*command).stdout
    assert (workspace / 'c' / 'mae' / 'seed0' / 'epoch_2.pth').stat().st_mtime_ns == trained
    again = json.loads((workspace / 'c' / 'comparison.json').read_text())['encoders']
    assert again['mae']['linear'] == found['mae']['linear']
    files = ['--ldae-checkpoints', 'c/ldae/seed0/epoch_2.pth', '--mae-checkpoints', 'c/mae/seed0/epoch_2.pth']
    run('compare.py', '--quick', '--seeds', '0', '--work-dir', 'd', *files)
    taken = json.loads((workspace / 'd' / 'comparison.json').read_text())['encoders']
    assert taken['ldae']['linear'] == found['ldae']['linear']
    shutil.rmtree(workspace / 'd')
