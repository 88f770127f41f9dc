# SPDX-License-Identifier: Apache-2.0
import copy
import warnings

import lpips
import pytest
import torch

from ldae.models.tokenizer_training import PerceptualLoss
from ldae.utils import ConfigError


@pytest.fixture(scope='module')
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))


@pytest.fixture(scope='module')
def reference() -> lpips.LPIPS:
    """The library's own, with its linear weights; VGG-16 is random."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torchvision, for how the library calls it
        return lpips.LPIPS(net='vgg', pnet_rand=True, verbose=False)


@pytest.fixture(scope='module')
def vgg_file(reference, tmp_path_factory):
    """What torchvision's file of VGG-16 holds, with the reference's weights."""
    state = {'features.' + key.split('.', 1)[1]: value for key, value in reference.net.state_dict().items()}
    path = tmp_path_factory.mktemp('vgg') / 'vgg16.pth'
    torch.save(dict(state, **{'classifier.0.weight': torch.zeros(1)}), path)
    return path


@pytest.fixture(scope='module')
def loss(vgg_file) -> PerceptualLoss:
    loss = PerceptualLoss(backbone=str(vgg_file))
    loss.init_weights()
    return loss


def test_it_is_lpips_with_weights_of_a_file(loss, reference, images):
    torch.testing.assert_close(loss(*images), reference(*images).flatten())
    assert loss(images[0], images[0]).abs().max() == 0
    assert loss(*images).shape == (2,)


def test_grey_images_are_seen_in_three_channels(loss, images):
    grey = [x[:, :1] for x in images]
    torch.testing.assert_close(loss(*grey), loss(*(x.expand(-1, 3, -1, -1) for x in grey)))


def test_it_is_frozen_and_passes_gradients(loss, images):
    x = images[0].clone().requires_grad_()
    loss.train()(x, images[1]).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(param.requires_grad for param in loss.parameters())
    assert not any(module.training for module in loss.modules())


def test_weights_travel_in_a_checkpoint(loss, images):
    other = PerceptualLoss()
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    torch.testing.assert_close(other(*images), loss(*images))


def test_missing_weights_are_one_line_with_the_place_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    for options in ({}, dict(backbone='nowhere.pth')):
        with pytest.raises(
            ConfigError, match=r'does not exist: download https://.*vgg16.*model.perceptual.backbone'
        ) as e:
            PerceptualLoss(**options).init_weights()
        assert '\n' not in str(e.value)
    torch.save({'features.0.weight': torch.zeros(1)}, tmp_path / 'vgg.pth')
    with pytest.raises(ConfigError, match="is not torchvision's VGG-16"):
        PerceptualLoss(backbone=str(tmp_path / 'vgg.pth')).init_weights()
