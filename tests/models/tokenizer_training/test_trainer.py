# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import load_state_dict
from torch import nn
from torch.distributions import Normal, kl_divergence

from ldae.models import ConvVAETokenizer, TokenizerTrainer
from ldae.models.tokenizers import Gaussian
from ldae.utils import ConfigError

PATCH = dict(type='ldae.PatchVAETokenizer', img_size=16, patch_size=4, in_channels=1, latent_dim=3)
CONV = dict(
    type='ldae.ConvVAETokenizer',
    img_size=16,
    patch_size=4,
    in_channels=3,
    latent_dim=8,
    downsample=2,
    base_channels=8,
    layers_per_block=1,
)
PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
DISCRIMINATOR = dict(base_channels=4, num_layers=1, start_step=0)


def conv_trainer(**options) -> TokenizerTrainer:
    torch.manual_seed(0)
    return TokenizerTrainer(CONV, 'l1', data_preprocessor=dict(PIXELS), **options)


def batch(channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(0, 256, (4, channels, 16, 16), generator=generator, dtype=torch.uint8)
    return dict(inputs=inputs, data_samples=None)


def adversarial_wrapper(model: TokenizerTrainer):
    cfg = dict(constructor='ldae.AdversarialOptimWrapperConstructor', optimizer=dict(type='SGD', lr=1e-6, momentum=0.5))
    return build_optim_wrapper(model, cfg)


def test_kl_is_the_closed_form():
    mean, logvar = torch.randn(5, 7, 3), torch.randn(5, 7, 3)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0, 1)).sum(dim=(1, 2))
    torch.testing.assert_close(Gaussian(mean, logvar).kl(), expected)


def test_losses_are_summed_over_an_image_and_averaged_over_the_batch():
    torch.manual_seed(0)
    trainer, x = TokenizerTrainer(PATCH, 'l2', kl_weight=0.3).eval(), torch.randn(4, 1, 16, 16)
    torch.nn.init.normal_(trainer.net.logvar)
    losses, result = trainer(x, mode='loss'), trainer.net(x)
    posterior = result.posterior
    kl = kl_divergence(Normal(posterior.mean, (0.5 * posterior.logvar).exp()), Normal(0, 1))
    assert set(losses) == {'reconstruction_loss', 'kl_loss'}
    torch.testing.assert_close(losses['reconstruction_loss'], (x - result.output).square().sum() / 4)
    torch.testing.assert_close(losses['kl_loss'], 0.3 * kl.sum() / 4)


def test_training_draws_latents_from_the_posterior_and_validation_takes_the_mean():
    torch.manual_seed(0)
    trainer, x = TokenizerTrainer(PATCH), torch.randn(4, 1, 16, 16)
    assert not torch.equal(trainer.train()(x), trainer(x))
    assert torch.equal(trainer.eval()(x), trainer(x))
    mean, std = torch.zeros(20_000, 1), torch.full((20_000, 1), 2.0)
    draws = Gaussian(mean + 3, 2 * std.log()).sample()
    assert draws.mean() == pytest.approx(3, abs=0.1)
    assert draws.std() == pytest.approx(2, abs=0.1)


def test_the_autoencoder_has_no_kl():
    trainer = TokenizerTrainer(dict(PATCH, type='ldae.PatchAETokenizer'))
    assert set(trainer(torch.randn(1, 1, 16, 16), mode='loss')) == {'reconstruction_loss'}


def test_the_conv_vae_works_on_pixels_from_minus_one_to_one():
    trainer = conv_trainer().eval()
    images = trainer.data_preprocessor(batch())['inputs']
    target = trainer.net(images).target
    torch.testing.assert_close((target + 1) * 127.5, trainer.to_pixels(images), atol=1e-3, rtol=0)
    assert -1 <= target.min() < -0.9 < 0.9 < target.max() <= 1


def test_predict_gives_pixels():
    trainer = conv_trainer().eval()
    images = trainer.data_preprocessor(batch())['inputs']
    samples = trainer(images, mode='predict')
    clean = torch.stack([sample.clean for sample in samples])
    torch.testing.assert_close(clean, trainer.to_pixels(images))
    assert samples[0].reconstructed.shape == (3, 16, 16)


def test_the_perceptual_loss_counts_once_per_value_of_an_image():
    trainer = conv_trainer(perceptual=dict(weight=0.7, backbone='random')).eval()
    images = trainer.data_preprocessor(batch())['inputs']
    with pytest.raises(ConfigError, match='no weights yet'):
        trainer(images, mode='loss')
    trainer.init_weights()
    result = trainer.net(images)
    expected = 0.7 * 3 * 16 * 16 * trainer.perceptual.net(result.target, result.output).mean()
    torch.testing.assert_close(trainer(images, mode='loss')['perceptual_loss'], expected)


def test_a_step_without_an_adversarial_loss_is_mmengines():
    trainer = conv_trainer().eval()
    optimizer = torch.optim.SGD(trainer.parameters(), lr=1e-3)
    log = trainer.train_step(batch(), OptimWrapper(optimizer))
    assert set(log) == {'loss', 'reconstruction_loss', 'kl_loss'}


def test_an_adversarial_step_is_the_written_out_one():
    trainer = conv_trainer(adversarial=dict(DISCRIMINATOR)).eval()  # eval: no noise to agree on
    trainer.adversarial.train()
    net, discriminator = copy.deepcopy(trainer.net), copy.deepcopy(trainer.adversarial.discriminator)
    log = trainer.train_step(batch(), adversarial_wrapper(trainer))

    x = trainer.data_preprocessor(batch())['inputs'] * net.gain + net.offset
    moments = net.vae.encode(x).latent_dist
    y = net.vae.decode(moments.mean).sample
    nll, kl = (x - y).abs().sum() / 4, moments.kl().mean()
    g = -discriminator(y).mean()
    last = net.vae.decoder.conv_out.weight
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].square().sum().sqrt() for loss in (nll, g)]
    weight = 0.5 * norms[0] / (norms[1] + 1e-4)
    gradients = torch.autograd.grad(nll + 1e-6 * kl + weight * g, list(net.vae.parameters()))
    expected = [p - 1e-6 * grad for p, grad in zip(net.vae.parameters(), gradients, strict=True)]
    torch.testing.assert_close(list(trainer.net.vae.parameters()), expected, atol=1e-6, rtol=1e-4)

    real, fake = discriminator(x), discriminator(y.detach())
    d_loss = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
    gradients = torch.autograd.grad(d_loss, list(discriminator.parameters()))
    expected = [p - 1e-6 * grad for p, grad in zip(discriminator.parameters(), gradients, strict=True)]
    torch.testing.assert_close(list(trainer.adversarial.parameters()), expected, atol=1e-9, rtol=1e-5)
    torch.testing.assert_close(log['adversarial_weight'].item(), weight.item())
    torch.testing.assert_close(log['discriminator_loss'], d_loss.detach())
    torch.testing.assert_close(log['loss'], (nll + 1e-6 * kl + weight * g).detach())


def test_the_discriminator_sleeps_until_its_step_also_after_a_resume():
    trainer = conv_trainer(adversarial=dict(DISCRIMINATOR, start_step=2))
    wrapper = adversarial_wrapper(trainer)
    before = copy.deepcopy(trainer.adversarial.state_dict())
    first = [trainer.train_step(batch(), wrapper) for _ in range(2)]
    assert all(log['adversarial_loss'] == log['discriminator_loss'] == 0 for log in first)
    for name, value in trainer.adversarial.state_dict().items():
        assert torch.equal(value, before[name]), name
    resumed = conv_trainer(adversarial=dict(DISCRIMINATOR, start_step=2))
    resumed.load_state_dict(trainer.state_dict())
    log = resumed.train_step(batch(), adversarial_wrapper(resumed))
    assert set(log) == set(first[0])
    assert log['discriminator_loss'] > 0
    assert log['adversarial_weight'] > 0


def test_the_discriminator_waits_for_updates_not_for_batches():
    trainer = conv_trainer(adversarial=dict(DISCRIMINATOR, start_step=2))
    wrapper = adversarial_wrapper(trainer)
    wrapper['net']._accumulative_counts = 3
    heard = [float(trainer.train_step(batch(), wrapper)['discriminator_loss']) > 0 for _ in range(7)]
    assert heard == [False] * 6 + [True]


class Wrapper(MMDistributedDataParallel):
    """What mmengine takes for a wrapper, without processes."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module


def test_a_checkpoint_is_the_same_whether_parts_are_wrapped_or_not():
    trainer, other = (conv_trainer(adversarial=dict(DISCRIMINATOR)) for _ in range(2))
    for param in trainer.parameters():
        param.data.uniform_()
    plain = copy.deepcopy(trainer.state_dict())
    trainer.net, trainer.adversarial = Wrapper(trainer.net), Wrapper(trainer.adversarial)
    wrapped = trainer.state_dict()
    assert wrapped.keys() == plain.keys()
    assert all(torch.equal(wrapped[key], plain[key]) for key in plain)
    other.net, other.adversarial = Wrapper(other.net), Wrapper(other.adversarial)
    load_state_dict(other, wrapped)
    assert all(torch.equal(value, plain[key]) for key, value in other.state_dict().items())


def test_one_optimizer_for_two_networks_is_one_line():
    trainer = conv_trainer(adversarial=dict(DISCRIMINATOR))
    with pytest.raises(ConfigError, match='AdversarialOptimWrapperConstructor'):
        trainer.train_step(batch(), OptimWrapper(torch.optim.SGD(trainer.parameters(), lr=1e-3)))
    with pytest.raises(ConfigError, match='set model.adversarial, or remove the constructor'):
        adversarial_wrapper(conv_trainer())


def test_export_encodes_as_the_network_and_with_unit_variance():
    trainer = conv_trainer().eval()
    images = trainer.data_preprocessor(batch())['inputs']
    tokenizer = trainer.export()
    assert isinstance(tokenizer, ConvVAETokenizer)
    assert not tokenizer.is_fitted
    tokenizer.fit(images.split(2))
    assert tokenizer.encode(images).std() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images)), trainer(images), atol=1e-4, rtol=1e-4)
    assert not any(param.requires_grad for param in tokenizer.parameters())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(tokenizer=dict(type='ldae.PatchPCATokenizer')), 'PatchPCATokenizer is not trained by gradients'),
        (dict(reconstruction='l3'), "reconstruction='l3' is unknown"),
        (dict(kl_weight=-1), 'kl_weight=-1 is out of range'),
        (dict(perceptual=dict(backbone='random')), r'want pixels in \[-1, 1\]'),
        (dict(tokenizer=CONV, adversarial=dict(start_step=-1)), 'start_step=-1 is out of range'),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message) as info:
        TokenizerTrainer(**dict(dict(tokenizer=PATCH), **options))
    assert '\n' not in str(info.value)


def test_steps_are_counted_without_reading_the_device_and_anew_after_loading():
    trainer = nn.Module.__new__(TokenizerTrainer)
    nn.Module.__init__(trainer)
    trainer.register_buffer('steps', torch.tensor(3))
    trainer._known_steps = None
    wrapper = OptimWrapper(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1))

    def count_step() -> int:
        before = trainer._steps_before()
        trainer._count(wrapper)
        return before

    assert [count_step() for _ in range(2)] == [3, 4]
    assert int(trainer.steps) == 5
    trainer.load_state_dict(dict(steps=torch.tensor(9)))
    assert count_step() == 9
