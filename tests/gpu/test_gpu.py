# SPDX-License-Identifier: Apache-2.0
"""What only a GPU can show; skipped where there is none. ``benchmarks/gpu_acceptance.sh`` runs it first."""

import copy
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.dist import all_reduce
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import nn

from ldae.config import load_config
from ldae.engine.non_finite.skip_non_finite import OptimizerGuard
from ldae.engine.speed.blocks import compile_blocks
from ldae.engine.speed.precision import AutocastOptimWrapper
from ldae.engine.speed.sharding import FullyShardedModel
from ldae.models.layers import patchify
from ldae.models.tokenizers.streaming_covariance import PixelCovariance
from ldae.registry import MODELS
from ldae.utils.collective import from_main_process
from ldae.utils.device import full_precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
ARCH = dict(embed_dims=768, num_layers=2, num_heads=12, feedforward_channels=3072)


def build(**options: object) -> nn.Module:
    """The paper's l-DAE with two blocks a side, its PCA fitted, on the GPU."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    cfg = load_config('ldae::ldae/vit-b_pca.py')
    model = dict(cfg.model, data_preprocessor=cfg.data_preprocessor, **options)
    model = MODELS.build(dict(model, backbone=dict(cfg.model.backbone, arch=ARCH)))
    model.init_weights()
    model.tokenizer.fit([torch.randn(32, 3, 256, 256)])
    return model.cuda()


def stepper(model: nn.Module, batch: int = 16) -> Callable[[], object]:
    """A training step on a batch that lies as the loader leaves it: pinned, on the host, with its samples."""
    wrapper = AutocastOptimWrapper(
        optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4, fused=True)
    )
    wrapper.initialize_count_status(model, 0, 10**6)
    samples = [DataSample().set_gt_label(n % 10) for n in range(batch)]
    images = torch.randint(0, 256, (batch, 3, 256, 256), dtype=torch.uint8).pin_memory()
    return lambda: model.train_step(dict(inputs=images, data_samples=samples), wrapper)


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of one."""
    for name, value in dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_ADDR='127.0.0.1', MASTER_PORT=29600).items():
        monkeypatch.setitem(os.environ, name, str(value))
    torch.cuda.set_device(0)
    dist.init_process_group('nccl', device_id=torch.device('cuda', 0))
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures('nccl')
def test_collectives_of_nccl_with_a_group_of_gloo_beside_it():
    assert from_main_process([2]) == [2]
    for values in (torch.ones(3), torch.ones(3, device='cuda'), torch.ones(2, dtype=torch.float64, device='cuda')):
        before = values.clone()
        all_reduce(values)
        assert torch.equal(values, before)
    dist.new_group(backend='gloo')
    dist.barrier()


def test_features_are_those_of_the_cpu():
    model = build().eval()
    images, patch_map = torch.randn(2, 3, 256, 256), model.tokenizer.patch_map

    def error(found: torch.Tensor, expected: torch.Tensor) -> float:
        return float((found.double().cpu() - expected).norm() / expected.norm())

    with torch.no_grad():
        single = model.extract_feat(images.cuda())[-1]
        with torch.autocast('cuda', torch.bfloat16):
            half = model.extract_feat(images.cuda())[-1]
        latents = model.tokenizer.encode(images.cuda())
        expected = copy.deepcopy(model).cpu().extract_feat(images)[-1].double()
    exact = (patchify(images, 16).double() - patch_map.mean.double().cpu()) @ patch_map.encoder.double().cpu().t()
    assert error(single, expected) < 1e-5
    assert error(half, expected) < 2e-2
    assert error(latents, exact) < 1e-6


@pytest.mark.parametrize('precision', ['highest', 'high'])
def test_sums_over_pixels_are_exact_with_tf32_too(precision):
    patches, before = torch.randint(0, 256, (5000, 768), dtype=torch.uint8), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = []
        for device in ('cpu', 'cuda'):
            statistics = PixelCovariance(768, device)
            statistics.update(patches.to(device))
            found.append(statistics.finalize()[1].cpu())
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(*found)


def test_full_precision_is_that_of_convolutions_too():
    conv, images = nn.Conv2d(64, 64, 3).cuda(), torch.randn(2, 64, 32, 32, device='cuda')
    expected = copy.deepcopy(conv).double()(images.double())
    with torch.no_grad(), full_precision(images.device):
        found = conv(images).double()
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize('num_classes', [0, 10])
def test_a_step_never_waits_for_the_device(num_classes):
    step = stepper(build(num_classes=num_classes).train())
    step()
    step()
    torch.cuda.set_sync_debug_mode('error')
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_steps_that_are_not_finite_are_masked_on_the_device():
    weight = nn.Parameter(torch.ones(4, device='cuda'))
    optimizer, reported = torch.optim.AdamW([weight], 0.1, fused=True), []
    hook = SimpleNamespace(
        _snapshots=[],
        _running=SimpleNamespace(restore_where=lambda bad: None),
        report=lambda runner, snapshots, in_a_row: reported.append(in_a_row),
    )
    guard = OptimizerGuard(optimizer, hook, None)
    optimizer.register_step_pre_hook(guard.before_step)
    for value in (1.0, float('nan'), float('inf'), 1.0):
        before = weight.detach().clone()
        weight.grad = torch.full_like(weight, value)
        optimizer.step()
        assert bool((before != weight).all()) == (value == 1.0)
    guard.resolve()
    assert reported == [1, 2]


def test_compiled_blocks_take_any_number_of_batch_sizes():
    model = build()
    compile_blocks(model, backend='eager')
    step = stepper(model.train())
    step()
    for size in range(1, 12):
        with torch.no_grad():
            model.eval().extract_feat(torch.randn(size, 3, 256, 256, device='cuda'))
    model.train()
    step()


@pytest.mark.usefixtures('nccl')
def test_a_sharded_model_steps_with_a_fused_optimizer():
    model = FullyShardedModel(build()).train()
    step = stepper(model)
    step()
    step()
    assert model.is_sharded
