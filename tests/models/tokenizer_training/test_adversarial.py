# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from ldae.models.tokenizer_training import AdversarialLoss, PatchDiscriminator, adaptive_weight
from ldae.models.tokenizer_training.losses import hinge_loss


def test_hinge_loss_is_the_closed_form():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    # real: 0, 0.5, 2; fake: 0, 1, 2
    assert hinge_loss(real, fake) == pytest.approx(0.5 * (2.5 / 3 + 3 / 3))
    assert hinge_loss(torch.full((4,), 1.5), torch.full((4,), -1.5)) == 0


def test_adaptive_weight_is_the_ratio_of_written_out_gradient_norms():
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.randn(6, n, generator=generator) for n in (5, 3))
    a = torch.randn(3, generator=generator)
    weight = nn.Parameter(torch.randn(3, 5, generator=generator))
    y = x @ weight.T
    other, adversarial = (y - target).square().sum(), -(y @ a).mean()
    # d other / dW = 2 (y - target)^T x; d adversarial / dW = -a (mean x)^T
    norms = (2 * (y - target).T @ x).norm(), (torch.outer(a, x.mean(0))).norm()
    found = adaptive_weight(other, adversarial, weight)
    assert found.item() == pytest.approx((norms[0] / (norms[1] + 1e-4)).item(), rel=1e-5)
    assert not found.requires_grad
    assert adaptive_weight(1e9 * other, adversarial, weight) == 1e4


def test_the_generators_gradient_leaves_the_discriminator_alone():
    torch.manual_seed(0)
    loss = AdversarialLoss(1, base_channels=4, num_layers=2)
    layer = nn.Parameter(torch.ones(1, 1, 1))
    fake = torch.randn(2, 1, 16, 16) * layer
    value, weight = loss.for_generator(fake, fake.abs().sum(), layer)
    value.backward()
    assert layer.grad.abs().sum() > 0
    assert all(param.grad is None and param.requires_grad for param in loss.parameters())
    torch.testing.assert_close(value, -weight * loss.discriminator(fake).mean())


def test_the_discriminators_gradient_leaves_the_generator_alone():
    loss, fake = (AdversarialLoss(1, base_channels=4, num_layers=2), torch.randn(2, 1, 16, 16, requires_grad=True))
    loss(torch.randn(2, 1, 16, 16), fake).backward()
    assert fake.grad is None


def test_the_patch_discriminator_is_pix2pixs():
    net = PatchDiscriminator(3)
    # pix2pix's 70 x 70 discriminator: 2.77 M parameters for an RGB image, 30 x 30 logits of 256 pixels.
    assert sum(param.numel() for param in net.parameters()) == 2_765_633
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    # One logit sees 70 pixels.
    x = torch.zeros(1, 3, 256, 256, requires_grad=True)
    net.eval()(x)[0, 0, 15, 15].backward()
    seen = x.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.any(dim=0).sum() == seen.any(dim=1).sum() == 70
