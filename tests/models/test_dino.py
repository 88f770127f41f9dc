# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from mmengine.logging import MessageHub

from ldae.engine.non_finite.skip_non_finite import RunningStatistics
from ldae.models import DINO, DINOProjection
from ldae.utils import ConfigError

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)


@pytest.fixture
def model() -> DINO:
    pytest.importorskip('lightly')
    torch.manual_seed(0)
    model = DINO(
        backbone=dict(type='VisionTransformer', arch=ARCH, img_size=16, patch_size=4, in_channels=1),
        neck=dict(type='ldae.DINOProjection', in_channels=16, hid_channels=16, out_channels=8, num_prototypes=12),
        head=dict(center_momentum=0.5),
        teacher_temp=(0.1, 0.2),
        warm_up=0.5,
        freeze_last_layer=0.1,
    )
    model.init_weights()
    return model


def at(step: int, steps: int = 20) -> None:
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', step)
    hub.update_info('max_iters', steps)


def views() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(3, 1, side, side) for side in (16, 16, 8, 8)]


@pytest.mark.parametrize(('step', 'temperature'), [(0, 0.1), (5, 0.15), (10, 0.2), (19, 0.2)])
def test_the_loss_is_the_papers(model, step, temperature):
    at(step)
    inputs = views()
    loss = model.loss(inputs)['loss']
    with torch.no_grad():
        students = [model.neck(model.backbone(view))[0] for view in inputs]
        teachers = [model.teacher(view)[0] for view in inputs[:2]]
    # Algorithm 1 of the paper, over all pairs of a teacher's and another view; the center is zero at first.
    terms = [
        -(torch.softmax(t / temperature, 1) * torch.log_softmax(s / 0.1, 1)).sum(1).mean()
        for i, t in enumerate(teachers)
        for j, s in enumerate(students)
        if i != j
    ]
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    torch.testing.assert_close(model.head.center.flatten(), 0.5 * torch.cat(teachers).mean(0))


def test_the_teacher_is_an_average_and_the_last_layer_waits(model):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    last = model.neck.head.last_layer.weight_v
    for step, waits in ((0, True), (5, False)):
        at(step)
        before = last.detach().clone()
        optimizer.zero_grad()
        model.loss(views())['loss'].backward()
        optimizer.step()
        assert torch.equal(last, before) is waits
    taught, own = (part.backbone if part is model else part.module[0] for part in (model.teacher, model))
    assert not torch.equal(taught.layers[0].attn.qkv.weight, own.layers[0].attn.qkv.weight)
    assert all(not param.requires_grad for param in model.teacher.parameters())


def test_without_lightly_one_line_says_what_to_install(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name.partition('.')[0])

    monkeypatch.setattr('ldae.utils.optional.import_module', missing)
    with pytest.raises(ConfigError, match=r'ldae\.DINO needs the library lightly, which is not installed: pip install'):
        DINOProjection()


def test_a_last_layer_whose_norms_are_trained_waits_whole():
    projection = DINOProjection(24, 16, 8, 12, norm_last_layer=False)
    last = [param for param in projection.head.last_layer.parameters() if param.requires_grad]
    assert len(last) == 2
    for waits in (True, False):
        projection.zero_grad()
        projection.is_frozen = waits
        projection((torch.randn(4, 24),))[0].square().sum().backward()
        assert all((param.grad == 0).all() for param in last) is waits


def test_a_step_that_is_skipped_leaves_the_center(model):
    statistics = RunningStatistics(model)
    at(5)
    model.loss(views())
    before = model.head.center.clone()
    statistics.remember()
    model.loss([view * float('nan') for view in views()])
    assert model.head.center.isnan().all()
    statistics.restore_where(torch.tensor(True))
    assert torch.equal(model.head.center, before)


def test_the_teacher_drops_no_path_and_the_model_can_be_copied_after_a_step(model):
    arch = dict(ARCH, num_layers=3)  # the first block drops none
    cfg = dict(type='VisionTransformer', arch=arch, img_size=16, patch_size=4, in_channels=1, drop_path_rate=0.5)
    neck = dict(type='ldae.DINOProjection', in_channels=16, hid_channels=16, out_channels=8, num_prototypes=12)
    model = DINO(backbone=cfg, neck=neck)
    model.init_weights()
    model.train()
    at(0)
    model.loss(views())['loss'].backward()
    whole = torch.randn(64, 1, 16, 16)
    assert torch.equal(*(model.teacher(whole)[0] for _ in range(2)))
    assert not torch.equal(*(model.neck(model.backbone(whole))[0] for _ in range(2)))  # its authors' student does
    copied = copy.deepcopy(model).eval()
    assert torch.equal(copied.neck.head.last_layer.weight_v, model.neck.head.last_layer.weight_v)
