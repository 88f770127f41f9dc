# SPDX-License-Identifier: Apache-2.0
"""A cache of latents that two processes write is that of one, and runs that use it can be resumed."""

import pytest
import torch
from launching import checkpoint
from mmengine.registry import init_default_scope
from torch.multiprocessing import spawn

from ldae.datasets import IDXDataset
from ldae.datasets import latents as module
from ldae.engine.tokenizer.latent_cache import write_latents
from ldae.models import PatchPCATokenizer
from ldae.registry import MODELS
from ldae.utils import ConfigError

LATENTS = """
_base_ = 'tiny.py'
model = dict(backbone=dict(input_type='latent'), head=dict(_delete_=True, type='ldae.CleanLatentHead'))
train_dataloader = dict(batch_size={batch_size})
default_hooks = dict(latent_cache=dict(type='ldae.LatentCacheHook', dtype='float32'))
"""


def write(path, tokenizer, broken=False):
    """45 images in shards of 8."""
    module.SHARD_SIZE = 8
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ldae.LDAE',
            data_preprocessor=dict(mean=[73.0], std=[90.0]),
            tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=28, patch_size=7, in_channels=1, latent_dim=4),
            noiser=dict(type='ldae.GaussianNoiser'),
            backbone=dict(
                type='ldae.LDAEViT', arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
            ),
            head=dict(type='ldae.NoiseHead'),
            num_classes=10,
        )
    )
    model.tokenizer.load_state_dict(tokenizer)
    if broken:
        model.tokenizer.patch_map.encoder.fill_(float('nan'))
    write_latents(path, model, IDXDataset(indices=45), dict(tokenizer='a', data='b'), batch_size=8)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def work(rank, folder, tokenizer):
    """One of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    write(folder / 'two', tokenizer)
    # Only one process fails: the other hears of it.
    with pytest.raises(ConfigError, match='not finite'):
        write(folder / 'broken', tokenizer, broken=rank == 1)
    torch.distributed.destroy_process_group()


def test_two_processes_write_what_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'SHARD_SIZE', 8)
    tokenizer = PatchPCATokenizer(28, 7, 1, 4)
    tokenizer.fit([IDXDataset(indices=45).images.float() / 90])
    write(tmp_path / 'one', tokenizer.state_dict())
    spawn(work, (tmp_path, tokenizer.state_dict()), nprocs=2)
    one, two = (content(tmp_path / name) for name in ('one', 'two'))
    assert len(one) == 1 + 6 * 3
    assert two == one
    module.LatentDataset(tmp_path / 'two', with_label=True).verify(range(6))
    assert {path.name for path in tmp_path.iterdir()} <= {'one', 'two', 'meet'}


def test_a_resumed_run_and_one_of_two_processes_go_on_as_a_whole_one(workspace, run):
    for batch_size in (16, 8):
        (workspace / f'latents{batch_size}.py').write_text(LATENTS.format(batch_size=batch_size))
    run('train.py', 'latents16.py', '--work-dir', 'one')
    whole = checkpoint(workspace / 'one' / 'epoch_2.pth')['state_dict']
    (workspace / 'one' / 'epoch_2.pth').unlink()
    out = run('train.py', 'latents16.py', '--work-dir', 'one', '--resume').stdout
    assert 'latents, verified in' in out
    resumed = checkpoint(workspace / 'one' / 'epoch_2.pth')['state_dict']
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())

    run('dist_train.sh', 'latents8.py', '2', '--work-dir', 'two')
    both = checkpoint(workspace / 'two' / 'epoch_2.pth')['state_dict']
    for name, value in whole.items():
        torch.testing.assert_close(both[name], value, rtol=1e-3, atol=1e-4)
