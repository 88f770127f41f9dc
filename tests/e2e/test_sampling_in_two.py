# SPDX-License-Identifier: Apache-2.0
"""Samples from the command line: the same images whatever the processes and the batch size."""

import json

import numpy as np


def images(folder) -> np.ndarray:
    with np.load(folder / 'samples.npz', allow_pickle=False) as arrays:
        return arrays['arr_0'].astype(int)


def test_two_processes_sample_the_images_of_one(run, workspace):
    run('train.py', 'tiny.py', '--work-dir', 'w')
    options = ['--num', '9', '--steps', '4', '--sampler', 'ddpm', '--seed', '3', '--import', 'rank_weights']
    for batch_size in (1, 7, 64):
        result = run('sample.py', 'w', *options, '--batch-size', batch_size, '--out', f'one_{batch_size}')
    assert 'moment-matched start: the schedule ends at gamma=1, sigma=1.41' in result.stdout + result.stderr
    run('dist_sample.sh', 'w', '2', *options, '--batch-size', '2', '--out', 'two')
    expected = images(workspace / 'one_64')
    assert expected.shape == (9, 28, 28, 1)
    for name in ('one_1', 'one_7', 'two'):
        # Products of other shapes round differently.
        assert np.abs(images(workspace / name) - expected).max() <= 1
    settings = [json.loads((workspace / name / 'sampling.json').read_text())['settings'] for name in ('one_1', 'two')]
    assert settings[0] == settings[1]
    assert settings[0]['start'].startswith('moment-matched, latents of mean 0.000 and deviation 0.')


def test_wrong_options_on_two_processes_are_said_once(run, workspace):
    result = run('dist_sample.sh', 'nothing.pth', '2', '--out', 'out', status=2)
    assert result.stderr.count('error: ') == 1
    assert 'nothing.pth' in result.stderr
    assert not (workspace / 'out').exists()
