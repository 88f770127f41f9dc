# SPDX-License-Identifier: Apache-2.0
"""Each mistake of a user ends in one line on stderr, exit status 2 and no traceback."""

import pytest


def error_of(result) -> str:
    assert 'Traceback' not in result.stderr + result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['model.tokenizer.latent_dim=0'], 'latent_dim=0 is out of range'),
        (['model.tokenizer.latent_dim=50'], 'latent_dim=50 is out of range'),
        (['model.tokenizer.img_size=30'], 'img_size=30 is not divisible by patch_size=7'),
        (['model.tokenizer.img_size=56'], 'change img_size'),
        (['model.neck.type=ldae.LDAEDecodr'], "did you mean 'ldae.LDAEDecoder'"),
        (['train_dataloader.dataset.data_root=nowhere'], 'nowhere'),
    ],
)
def test_wrong_options(run, options, message):
    assert message in error_of(run('train.py', 'tiny.py', '--cfg-options', *options, status=2))


def test_a_non_image_among_the_images(run, tiny_image_folder):
    bad = tiny_image_folder / 'train' / 'a' / 'broken.jpg'
    bad.write_text('no image')
    assert str(bad) in error_of(run('train.py', 'small.py', '--data-root', tiny_image_folder, status=2))


def test_an_empty_folder(run, tmp_path):
    (tmp_path / 'empty' / 'train').mkdir(parents=True)
    assert 'empty' in error_of(run('train.py', 'small.py', '--data-root', tmp_path / 'empty', status=2))


def test_a_checkpoint_of_another_tokenizer(run):
    run('train.py', 'tiny.py', '--work-dir', 'w', '--cfg-options', 'train_cfg.max_epochs=1')
    command = ['train.py', 'tiny.py', '--work-dir', 'w', '--resume', '--cfg-options', 'model.tokenizer.latent_dim=4']
    assert 'use the config that it was made with' in error_of(run(*command, status=2))
    command[-1] = 'model.tokenizer.latent_norm=whiten'
    assert "latent_norm='global'" in error_of(run(*command, status=2))


def test_more_processes_than_images(run):
    options = ['--cfg-options', 'train_dataloader.dataset.indices=1', 'train_dataloader.batch_size=1']
    result = run('dist_train.sh', 'tiny.py', 2, *options, status=2)
    assert '1 training images for 2 processes: start fewer processes' in result.stderr
