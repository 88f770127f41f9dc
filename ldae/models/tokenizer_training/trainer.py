# SPDX-License-Identifier: Apache-2.0
"""Training of a learned tokenizer."""

import copy
from typing import Annotated

import torch
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ldae.models.tokenizers import LearnedTokenizer, Reconstruction
from ldae.registry import MODELS
from ldae.utils import Choice, ConfigError, Range, checked
from ldae.utils.models import to_pixels, unwrapped
from ldae.utils.signatures import check_arguments

from .losses import AdversarialLoss, PerceptualLoss

RECONSTRUCTION = {'l1': torch.abs, 'l2': torch.square}


@MODELS.register_module()
class TokenizerTrainer(BaseModel):
    """Train a tokenizer to reconstruct images, with LDM's losses (its ``LPIPSWithDiscriminator``).

    Reconstruction and KL are summed over an image and averaged over the batch, as LDM's weights suppose, so that LPIPS
    counts once per value of the image. The result leaves through :meth:`export`. Raises ConfigError for an option out
    of range, or a tokenizer that isn't trained by gradients.

    Args:
        tokenizer: What is trained; with a ``checkpoint``, from there on.
        reconstruction: ``'l2'`` (the paper's patch-wise tokenizers) or ``'l1'`` (LDM).
        kl_weight: Of the KL divergence, for variational tokenizers.
        perceptual: Options of :class:`PerceptualLoss`; None leaves it out.
        adversarial: Options of :class:`AdversarialLoss`; None leaves it out. Two optimizers are needed then:
            ``optim_wrapper.constructor='ldae.AdversarialOptimWrapperConstructor'``.
        data_preprocessor: Normalisation; mmpretrain's ``SelfSupDataPreprocessor`` unless it has a type.
        init_cfg: As in mmengine.
    """

    @checked
    def __init__(
        self,
        tokenizer: dict,
        reconstruction: Annotated[str, Choice(RECONSTRUCTION)] = 'l2',
        kl_weight: Annotated[float, Range(0)] = 1e-6,
        perceptual: dict | None = None,
        adversarial: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            cfg = dict(dict(type='SelfSupDataPreprocessor'), **(data_preprocessor or {}))
            data_preprocessor = MODELS.build(cfg)
        super().__init__(data_preprocessor, init_cfg)
        self.reconstruction, self.kl_weight = reconstruction, kl_weight
        template = self._build_tokenizer(tokenizer)
        # In a tuple, so that what is saved and trained is the network's alone.
        self._template = (template,)
        self.geometry = template.geometry
        self.net = template.training_net()
        if getattr(self.data_preprocessor, '_enable_normalize', False):
            self.net.set_pixels(self.data_preprocessor.mean, self.data_preprocessor.std)
        self.perceptual = self.adversarial = None
        if (perceptual or adversarial) and not self.net.signed:
            raise ConfigError(
                f'model: the perceptual and adversarial losses want pixels in [-1, 1], which {type(template).__name__} '
                'does not work in: leave them out'
            )
        if perceptual is not None:
            check_arguments('model.perceptual', PerceptualLoss, perceptual)
            if self.geometry.in_channels not in (1, 3):
                raise ConfigError(
                    f'model.perceptual: LPIPS compares grey or RGB images, and these have {self.geometry.in_channels} channels: leave it out '
                    '(model.perceptual=None)'
                )
            self.perceptual = PerceptualLoss(**perceptual)
        if adversarial is not None:
            check_arguments('model.adversarial', AdversarialLoss, adversarial)
            self.adversarial = AdversarialLoss(self.geometry.in_channels, **adversarial)
        # The buffer travels in the checkpoint; the number beside it spares a step the wait for the device.
        self.register_buffer('steps', torch.tensor(0))
        self._known_steps: int | None = None
        self.register_state_dict_post_hook(drop_wrappers)

    @staticmethod
    def _build_tokenizer(cfg: dict) -> LearnedTokenizer:
        tokenizer = MODELS.build(cfg)
        if not isinstance(tokenizer, LearnedTokenizer):
            raise ConfigError(
                f'model.tokenizer: {type(tokenizer).__name__} is not trained by gradients: pre-training fits it by itself'
            )
        return tokenizer

    def export(self) -> LearnedTokenizer:
        """The tokenizer as trained so far, on the network's device; its latents are yet to be measured (``fit``)."""
        tokenizer = copy.deepcopy(self._template[0]).requires_grad_(False).to(self.steps.device)
        tokenizer.take(unwrapped(self.net))
        return tokenizer

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[DataSample]:
        """Images (B, C, H, W) -> losses, :meth:`predict`'s samples, or with ``'tensor'`` their reconstruction."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        result = self.net(inputs)
        return self.losses(result) if mode == 'loss' else unwrapped(self.net).from_range(result.output)

    def losses(self, result: Reconstruction) -> dict[str, Tensor]:
        """The terms that need no discriminator, each summed over an image and averaged over the batch."""
        error = RECONSTRUCTION[self.reconstruction](result.target - result.output)
        losses = dict(reconstruction_loss=error.flatten(1).sum(dim=1).mean())
        if self.perceptual is not None:
            distance = self.perceptual(result.target, result.output).mean()
            losses['perceptual_loss'] = self.perceptual.weight * distance * error[0].numel()
        if result.posterior is not None:
            losses['kl_loss'] = self.kl_weight * result.posterior.kl().mean()
        return losses

    def train_step(self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """One step; with an adversarial loss one of the tokenizer and one of the discriminator."""
        if self.adversarial is None:
            return super().train_step(data, optim_wrapper)
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise ConfigError(
                'the adversarial loss needs two optimizers: set '
                "optim_wrapper.constructor='ldae.AdversarialOptimWrapperConstructor'"
            )
        images = self.data_preprocessor(data, True)['inputs']
        is_on = self._steps_before() >= unwrapped(self.adversarial).start_step
        result, log = self._step_net(images, optim_wrapper['net'], is_on)
        self._count(optim_wrapper['net'])
        is_update = optim_wrapper['net'].should_update()
        log['discriminator_loss'] = self._step_discriminator(result, optim_wrapper['adversarial'], is_on, is_update)
        return log

    def _steps_before(self) -> int:
        """Updates of the weights before this batch; the buffer is read from the device once."""
        if self._known_steps is None:
            self._known_steps = int(self.steps)
        return self._known_steps

    def _count(self, wrapper: OptimWrapper) -> None:
        """Count an update, which several accumulated batches share."""
        if wrapper.should_update():
            self._known_steps += 1
            self.steps += 1

    def _load_from_state_dict(self, *args) -> None:
        self._known_steps = None
        super()._load_from_state_dict(*args)

    def _step_discriminator(
        self, result: Reconstruction, wrapper: OptimWrapper, is_on: bool, is_update: bool
    ) -> Tensor:
        if not is_on:
            if is_update and not isinstance(wrapper, AmpOptimWrapper):  # whose scaler insists on gradients
                # Without them nothing happens, but schedulers warn of an optimizer that never steps.
                wrapper.step()
            return result.output.new_zeros(())
        with wrapper.optim_context(self.adversarial):
            loss = self.adversarial(result.target, result.output)
        wrapper.update_params(loss)
        return loss.detach()

    def _step_net(self, images: Tensor, wrapper: OptimWrapper, is_on: bool) -> tuple[Reconstruction, dict[str, Tensor]]:
        with wrapper.optim_context(self.net):
            result = self.net(images)
            losses = self.losses(result)
            zero = losses['reconstruction_loss'].new_zeros(())
            losses['adversarial_loss'], weight = zero, zero
            if is_on:
                # Past the wrapper of distributed training, which would wait for the discriminator's gradients.
                losses['adversarial_loss'], weight = unwrapped(self.adversarial).for_generator(
                    result.output,
                    losses['reconstruction_loss'] + losses.get('perceptual_loss', 0),
                    unwrapped(self.net).last_layer,
                )
        total, log = self.parse_losses(losses)
        wrapper.update_params(total)
        return result, dict(log, adversarial_weight=weight)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Samples with ``clean`` and ``reconstructed``, pixels in [0, 255] (C, H, W)."""
        outputs = self(inputs)
        results = data_samples or [DataSample() for _ in inputs]
        for sample, clean, output in zip(results, self.to_pixels(inputs), self.to_pixels(outputs), strict=True):
            sample.set_data(dict(clean=clean, reconstructed=output))
        return results

    def to_pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 255], same shape."""
        return to_pixels(images, self.data_preprocessor)


def drop_wrappers(model: nn.Module, state: dict[str, Tensor], prefix: str, _: dict) -> None:
    """Name what is saved as if no part were wrapped: mmengine's loading looks inside wrappers, its saving doesn't."""
    for key in [key for key in state if '.module.' in key]:
        state[key.replace('.module.', '.', 1)] = state.pop(key)
