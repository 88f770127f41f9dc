# SPDX-License-Identifier: Apache-2.0
"""The latent denoising autoencoder: tokenize, noise, encode, decode, score."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ldae.compat import copy_images_without_waiting
from ldae.registry import MODELS
from ldae.utils import ConfigError, NaturalInt, PositiveInt, Share, check_range, checked
from ldae.utils.models import psnr, to_pixels
from ldae.visualization.tiles import check_shown, shown

from .noisers import NoisySample


@MODELS.register_module()
class LDAE(BaseSelfSupervisor):
    """Latent DAE (paper, section 4): noise is added to the image's latent tokens and a ViT learns to take it out.

    The tokenizer's config states the geometry once (img_size, patch_size, in_channels, latent_dim); the encoder,
    decoder and head are given it, and a value of theirs that contradicts it is an error. Raises ConfigError if the
    components don't fit together.

    Args:
        tokenizer: Image to latents and back, frozen.
        noiser: What noise is added.
        backbone: The encoder, what is kept after pre-training.
        neck: The decoder, by default as deep and wide as the encoder.
        head: What is predicted.
        masking: Show the encoder a part of the noisy tokens only, :class:`RandomMasking`; not in the paper.
        data_preprocessor: Normalisation; mmpretrain's ``SelfSupDataPreprocessor`` unless it has a type.
        num_classes: Condition on class labels as DiT does, for the baseline row only: samples must carry ``gt_label``.
        label_drop_prob: Share of labels replaced by "no label" in training.
        transfer_noise: Take features of the noisy latent at the encoder's transfer time step (appendix A), not of the
            clean one.
        val_timesteps: Noise levels at which validation images are denoised, dealt out in turn.
        shown_bands: One or three channels that pictures show; None: the first three, or of two the first.
        init_cfg: As in mmpretrain.
    """

    @checked
    def __init__(
        self,
        tokenizer: dict,
        noiser: dict,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        masking: dict | None = None,
        data_preprocessor: dict | None = None,
        num_classes: PositiveInt | None = None,
        label_drop_prob: Share = 0.1,
        transfer_noise: bool = False,
        val_timesteps: Sequence[int] = (100, 300, 500, 700, 900),
        shown_bands: Sequence[NaturalInt] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        tokenizer = MODELS.build(tokenizer)
        head = MODELS.build(head or dict(type='ldae.OriginalImageHead'))
        head.check(tokenizer)
        noiser = MODELS.build(noiser, default_args=dict(weighting=head.weighting))
        head.check_noiser(noiser)
        given = dict(tokenizer.geometry._asdict(), num_classes=num_classes)
        backbone = MODELS.build(complete('backbone', backbone, given))
        if backbone.attend_by_level and not noiser.by_token:
            raise ConfigError(
                f'LDAE: backbone.attend_by_level needs noise that differs from token to token, and {type(noiser).__name__} gives '
                'all of an image one level: use ldae.TokenNoiser, or leave attend_by_level out'
            )
        check_range('LDAE: backbone.timestep', backbone.timestep, 0, noiser.num_timesteps - 1, kind=int)
        neck = MODELS.build(self._complete_neck(neck or dict(type='ldae.LDAEDecoder'), tokenizer, backbone, head))
        super().__init__(backbone, neck, head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.data_preprocessor = LatentsPass(self.data_preprocessor)
        self.tokenizer, self.noiser = tokenizer, noiser
        grid, latent_dim = tokenizer.geometry.grid, tokenizer.geometry.latent_dim
        given = dict(embed_dims=backbone.embed_dims, grid=grid, latent_dim=latent_dim)
        self.masking = None if masking is None else MODELS.build(complete('masking', masking, given))
        if self.masking is not None:
            self.masking.check_noiser(noiser)
        # One map, two users: what fits the tokenizer reaches the encoder, and its checkpoint holds the subspace it saw.
        self.backbone.patch_embed.patch_map = tokenizer.patch_map
        check_range('LDAE: number of val_timesteps', len(val_timesteps), 1)
        for t in val_timesteps:
            check_range('LDAE.val_timesteps', t, 0, noiser.num_timesteps - 1, kind=int)
        self.val_timesteps = tuple(val_timesteps)
        self.num_classes, self.label_drop_prob, self.transfer_noise = (num_classes, label_drop_prob, transfer_noise)
        self.show_bands(shown_bands)

    @staticmethod
    def _complete_neck(neck: dict, tokenizer, backbone, head) -> dict:
        geometry = tokenizer.geometry
        out_dims = geometry.latent_dim if head.space == 'latent' else geometry.patch_dim
        neck = complete('neck', neck, dict(in_dims=backbone.embed_dims, out_dims=out_dims))
        names = ('conditioned', 'cond_ratio', 'num_classes', 'gate_init', 'attend_by_level')
        shared = {name: getattr(backbone, name) for name in names}
        return dict(shared, **dict(neck, arch=decoder_arch(backbone.arch_settings, neck.get('arch', {}))))

    def loss(self, inputs: Tensor, data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """Images (B, C, H, W), or their latents (B, N, d) where the head needs no images -> ``{'loss': scalar}``.

        Labels are looked at only where ``num_classes`` is set."""
        self.head.check_inputs(inputs)
        z0 = self._latents(inputs)  # (B, N, d)
        sample = self.noiser(z0)  # z_t = gamma_t z0 + sigma_t eps
        labels = self._labels(data_samples) if self.num_classes else None  # (B,)
        pred = self._predict_target(sample.z_t, sample.t, labels)  # (B, N, d or C*p*p)
        return self.head.loss(pred, sample, inputs, self.tokenizer)

    def _latents(self, inputs: Tensor) -> Tensor:
        """Latents (B, N, d) of images (B, C, H, W); those of a cache are what they are."""
        if not are_latents(inputs):
            return self.tokenizer.encode(inputs)
        expected = (self.tokenizer.num_tokens, self.tokenizer.latent_dim)
        if tuple(inputs.shape[1:]) != expected:
            raise ConfigError(
                f'the data are latents of (tokens, dimensions) {tuple(inputs.shape[1:])}, the tokenizer makes {expected}: '
                'encode the images anew'
            )
        return inputs.float()

    def _predict_target(self, z_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        noisy = self._encoder_input(z_t)  # (B, N, d), or images
        if self.masking is None:
            tokens = self.backbone(noisy, t, labels)[-1]  # (B, N, C)
            return self.neck(tokens, t, labels)
        visible = self.masking.draw(z_t, self.noiser, t)  # (B, M)
        tokens = self.backbone(noisy, t, labels, visible)[-1]  # (B, M, C)
        return self.neck(self.masking.restore(tokens, visible, z_t), t, labels)

    @torch.no_grad()
    def predict_latents(self, z_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's prediction from noisy latents z_t (B, N, d) at time steps t (B,), given labels (B,) or none: the noise
        where ``head.predicts_noise``, else the clean latents; float32 (B, N, d). For evaluation mode."""
        sample = NoisySample(None, z_t, None, t, *self.noiser.levels(t))
        return self.head.to_latents(self._predict_target(z_t, t, labels).float(), sample, self.tokenizer)

    def _encoder_input(self, latents: Tensor) -> Tensor:
        # An encoder with image input goes back to pixels inside its embedding where the tokenizer is linear.
        return latents if self.backbone.patch_embed.takes_latents else self.tokenizer.decode(latents)

    def _labels(self, data_samples: list[DataSample] | None) -> Tensor:
        """Class labels (B,), some of them dropped."""
        if not data_samples or any('gt_label' not in sample for sample in data_samples):
            raise ConfigError(
                f'model: num_classes={self.num_classes} conditions on labels, but the samples carry none: set '
                'with_label=True in the training data set'
            )
        labels = torch.cat([sample.gt_label for sample in data_samples]).to(self.noiser.gamma.device, non_blocking=True)
        chance = self.noiser.uniform(len(labels), 1, labels.device)[:, 0]
        return torch.where(chance < self.label_drop_prob, self.num_classes, labels)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of images (B, C, H, W), or of latents, at the encoder's transfer time step; the last is (B, N, C)."""
        latents = self._latents(inputs)
        if self.transfer_noise:
            latents = self.noiser.at_level(latents, self.backbone.timestep, inputs)
        return self.backbone(self._encoder_input(latents))

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor] | list[DataSample]:
        """mmpretrain's ``'tensor'`` (features) and ``'loss'``, and ``'predict'`` (:meth:`predict`)."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    @torch.no_grad()
    def denoise(
        self, inputs: Tensor, t: int | Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise images (B, C, H, W) to level t (an int or (B,)) and denoise them: (clean, noisy, denoised) images."""
        t = torch.as_tensor(t, device=inputs.device).expand(len(inputs))
        sample = self.noiser(self.tokenizer.encode(inputs), t, generator)
        denoised = self.head.denoise(self._predict_target(sample.z_t, sample.t), sample, self.tokenizer)
        return inputs, self.tokenizer.decode(sample.z_t), denoised

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Denoise each image at one of ``val_timesteps``.

        Level and noise follow from the sample's index in its data set: the figures of a validation don't depend on batch
        size or number of processes, and all of them see the same noise.

        Returns samples with ``clean``, ``noisy``, ``denoised`` (C, H, W), ``clean_pixels`` and ``denoised_pixels``
        in [0, 255], ``timestep``, ``denoising_loss`` and ``psnr`` (dB, of these)."""
        sample = self._validation_noise(inputs, data_samples)
        pred = self._predict_target(sample.z_t, sample.t)
        fields = dict(
            clean=inputs,
            noisy=self.tokenizer.decode(sample.z_t),
            denoised=self.head.denoise(pred, sample, self.tokenizer),
            timestep=sample.t,
            denoising_loss=self.head.sample_loss(pred, sample, inputs, self.tokenizer),
        )
        fields |= {f'{name}_pixels': self.to_pixels(fields[name]) for name in ('clean', 'denoised')}
        fields['psnr'] = psnr(fields['denoised_pixels'], fields['clean_pixels'])
        results = data_samples or [DataSample() for _ in inputs]
        for i, result in enumerate(results):
            result.set_data({name: value[i] for name, value in fields.items()})
        return results

    def _validation_noise(self, inputs: Tensor, data_samples: list[DataSample] | None) -> NoisySample:
        """One noise (N, d) per level; a sample's index, else its place in the batch, picks the level."""
        index = [sample.get('sample_idx', i) for i, sample in enumerate(data_samples or [{}] * len(inputs))]
        level = torch.tensor(index, device=inputs.device) % len(self.val_timesteps)
        z0 = self.tokenizer.encode(inputs)
        generator = torch.Generator(inputs.device).manual_seed(0)
        noise = torch.randn(len(self.val_timesteps), *z0.shape[1:], generator=generator, device=inputs.device)
        t = torch.tensor(self.val_timesteps, device=inputs.device)[level]
        return self.noiser(z0, t, noise=noise[level])

    def to_pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 255], same shape."""
        return to_pixels(images, self.data_preprocessor)

    def show_bands(self, bands: Sequence[int] | None) -> None:
        """Let pictures show these bands. Raises ConfigError for bands that aren't there, or other than one or three."""
        check_shown(bands, self.tokenizer.geometry.in_channels)
        self.shown_bands = bands

    def pictures(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 255] of the bands that are shown, to be drawn."""
        return shown(self.to_pixels(images), self.shown_bands)


def decoder_arch(encoder: dict, given: dict) -> dict:
    """Size of a decoder of which some numbers are given: the others are the encoder's, hidden layers in proportion."""
    arch = dict(encoder, **given) if isinstance(given, Mapping) else given  # which the decoder refuses
    if 'embed_dims' in given and 'feedforward_channels' not in given:
        arch['feedforward_channels'] = arch['embed_dims'] * encoder['feedforward_channels'] // encoder['embed_dims']
    return arch


def complete(where: str, cfg: dict, values: dict) -> dict:
    """A copy of ``cfg`` with ``values`` filled in; a value there already must be the same."""
    for key, value in values.items():
        given = tuple(cfg[key]) if isinstance(cfg.get(key), list) else cfg.get(key, value)
        if given != value:
            raise ConfigError(
                f'{where} {cfg.get("type")}: {key}={cfg[key]!r} contradicts {value!r}, which follows from the tokenizer '
                f'and the other components: remove {key} from the {where}'
            )
    return dict(cfg, **values)


copy_images_without_waiting()


def are_latents(inputs: object) -> bool:
    """Whether a batch's inputs are latents (B, N, d), not images (B, C, H, W)."""
    return isinstance(inputs, Tensor) and inputs.dim() == 3 and inputs.is_floating_point()


class LatentsPass(BaseDataPreprocessor):
    """A model's data preprocessor, which latents go past: they are only moved to the device.

    Whatever else it is asked for, such as ``mean``, is that of ``images``, which prepares images."""

    def __init__(self, images: nn.Module) -> None:
        super().__init__(non_blocking=True)
        self.images = images

    def forward(self, data: dict, training: bool = False) -> dict:
        """A batch ``dict(inputs, data_samples)`` as the model takes it; samples stay where they are, and whoever needs their
        labels brings them to the device in one piece."""
        inputs = data['inputs']
        if are_latents(inputs):
            inputs = self.cast_data(inputs)
        else:
            inputs = self.images(dict(inputs=inputs, data_samples=None), training)['inputs']
        return dict(inputs=inputs, data_samples=data.get('data_samples'))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'images':
                raise
            return getattr(self.images, name)
