# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from launching import checkpoint, scalars


def test_two_processes_equal_one_with_the_same_global_batch(run, workspace):
    run('train.py', 'tiny.py', '--work-dir', 'one')
    run('dist_train.sh', 'tiny.py', 2, '--work-dir', 'two', '--cfg-options', 'train_dataloader.batch_size=8')
    one, two = (scalars(workspace / name) for name in ('one', 'two'))
    assert len(one) == len(two) == 21  # 2 epochs of 10 steps and a validation
    for a, b in zip(one, two, strict=True):
        for key in a.keys() - {'time', 'data_time', 'memory'}:
            assert a[key] == pytest.approx(b[key], rel=1e-4), key
    assert one[19]['loss'] < one[0]['loss']
    ranks = [checkpoint(workspace / 'two' / f'rank_{rank}.pth') for rank in range(2)]
    single = checkpoint(workspace / 'one' / 'rank_0.pth')
    for name, value in single.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_a_resumed_run_equals_an_uninterrupted_one(run, workspace):
    run('train.py', 'tiny.py', '--work-dir', 'w', '--cfg-options', 'train_cfg.max_epochs=1')
    saved = checkpoint(workspace / 'w' / 'epoch_1.pth')  # weights_only=True
    result = run('train.py', 'tiny.py', '--work-dir', 'w', '--resume')
    assert 'resumed epoch: 1, iter: 10' in result.stdout + result.stderr
    assert 'Fitting' not in result.stdout + result.stderr
    log = scalars(workspace / 'w')
    assert [line['step'] for line in log[:10]] == list(range(11, 21))
    final = checkpoint(workspace / 'w' / 'epoch_2.pth')
    assert torch.equal(final['state_dict']['tokenizer.components'], saved['state_dict']['tokenizer.components'])
    assert not torch.equal(final['state_dict']['neck.predict.weight'], saved['state_dict']['neck.predict.weight'])
    history = final['message_hub']['log_scalars']['train/loss']['log']
    assert len(history) == 20
    # Bit for bit what an uninterrupted run ends with: weights, optimizer, schedule and the log of the loss.
    run('train.py', 'tiny.py', '--work-dir', 'whole')
    whole = checkpoint(workspace / 'whole' / 'epoch_2.pth')
    assert torch.equal(history, whole['message_hub']['log_scalars']['train/loss']['log'])
    torch.testing.assert_close(final['state_dict'], whole['state_dict'], rtol=0, atol=0)
    torch.testing.assert_close(final['optimizer']['state'], whole['optimizer']['state'], rtol=0, atol=0)
    assert final['param_schedulers'] == whole['param_schedulers']


@pytest.mark.parametrize('layout', ['tiny_image_folder', 'tiny_annotated_folder'])
def test_a_folder_of_ones_own_needs_nothing_but_its_name(run, request, workspace, layout):
    root = request.getfixturevalue(layout)
    result = run('train.py', 'small.py', '--work-dir', 'w', '--cfg-options', f'data_root={root}')
    output = result.stdout + result.stderr
    assert 'batch 1 x 4 x 1 = 4 of 2048: lr 0.0008 -> 1.56e-06' in output
    assert '16 images' in output
    assert checkpoint(workspace / 'w' / 'epoch_1.pth')['state_dict']['tokenizer.fitted'] == 1


def test_a_pretrained_encoder_is_probed_and_fine_tuned_by_the_benchmarks(run, workspace, tiny_image_folder):
    run('train.py', 'small.py', '--work-dir', 'pre', '--data-root', tiny_image_folder)
    init = 'model.backbone.init_cfg.checkpoint=pre/epoch_1.pth'
    for name in ('small_linear', 'small_finetune'):
        result = run('train.py', f'{name}.py', '--data-root', tiny_image_folder, '--cfg-options', init)
        assert 'accuracy/top1' in result.stdout + result.stderr
        saved = workspace / 'work_dirs' / name / 'epoch_1.pth'
        result = run('test.py', f'{name}.py', saved, '--data-root', tiny_image_folder)
        assert 'accuracy/top1' in result.stdout + result.stderr


def test_two_processes_train_a_tokenizer_against_a_discriminator(run, workspace, tiny_image_folder):
    run('dist_train.sh', 'small_gan.py', 2, '--data-root', tiny_image_folder, '--work-dir', 'gan')
    steps = [line for line in scalars(workspace / 'gan') if 'discriminator_loss' in line]
    assert [line['discriminator_loss'] > 0 for line in steps] == [False, True]
    ranks = [checkpoint(workspace / 'gan' / f'rank_{rank}.pth') for rank in range(2)]
    for name, value in ranks[0].items():
        # Each process has its own batch's statistics, as each has its own weight of the adversarial loss.
        if 'running_' not in name:
            assert torch.equal(value, ranks[1][name]), name
    assert checkpoint(workspace / 'gan' / 'tokenizer.pth')['tokenizer'] == 'ConvVAETokenizer'
