# SPDX-License-Identifier: Apache-2.0
"""Convolutional VAE, the tokenizer of latent diffusion."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from ldae.models.layers import patchify, unpatchify
from ldae.registry import MODELS
from ldae.utils import ConfigError, PositiveInt, Range, checked
from ldae.utils.checkpoints import report_keys
from ldae.utils.device import full_precision
from ldae.utils.optional import import_extra
from ldae.utils.ranges import check_value
from ldae.utils.sizes import Size

from .learned import Gaussian, LearnedTokenizer, Reconstruction, TrainableNet

#: Mean and deviation of 8-bit pixels, as the image-folder configs normalise.
IMAGENET_PIXELS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
GROUPS = 32
Width, Factor = Annotated[int, Range(1, 4096)], Annotated[float, Range(1e-6, 1e6)]
#: What a folder in diffusers' format may say of its network, before that is built; the rest may be left out.
FOLDER = dict.fromkeys(('in_channels', 'out_channels', 'latent_channels', 'norm_num_groups', 'sample_size'), Width)
FOLDER |= dict(layers_per_block=Annotated[int, Range(1, 16)], block_out_channels=list[Width], act_fn=str)
FOLDER |= dict(scaling_factor=Factor, shift_factor=Annotated[float, Range(-1e6, 1e6)] | None)
FOLDER |= dict(down_block_types=list[str], up_block_types=list[str], quantization_config=type(None))


class ConvVAE(TrainableNet):
    """diffusers' ``AutoencoderKL`` in training, on pixels in [-1, 1]."""

    signed = True

    def __init__(self, vae: nn.Module) -> None:
        super().__init__(vae.config.in_channels)
        self.vae = vae.requires_grad_(True)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.vae.decoder.conv_out.weight

    def forward(self, images: Tensor) -> Reconstruction:
        target = self.to_range(images)
        moments = self.vae.encode(target).latent_dist
        posterior = Gaussian(moments.mean, moments.logvar)  # (B, channels, h, w)
        latents = posterior.sample() if self.training else posterior.mean
        return Reconstruction(target, self.vae.decode(latents).sample, posterior)


@MODELS.register_module()
class ConvVAETokenizer(LearnedTokenizer):
    """LDM's KL autoencoder (paper, section 3): a map of ``img_size / downsample`` cells a side, encoded to its mean.

    One token is a square of ``(patch_size / downsample) ** 2`` cells, so that ``latent_dim`` is the number of channels
    times that: 2 x 2 cells of 4 channels make 16. Latents are scaled as in LDM, by one number, to unit variance. Raises
    ConfigError for an option out of range, a missing library, or a file that is missing, of another geometry or not
    trained.

    Args:
        img_size, patch_size, in_channels, latent_dim: See :class:`BaseTokenizer`.
        downsample: Stride of the encoder, a power of 2 that divides ``patch_size``.
        base_channels: Width of the first level; the next have 2, 4, 4, ... times as many.
        layers_per_block: Residual blocks a level.
        pixel_mean, pixel_std: What the data preprocessor normalises with; the network sees pixels in [-1, 1]. By default
            ImageNet's for three channels. A trained file brings its own.
        checkpoint: ``tokenizer.pth`` of the run that trained it, or a folder in diffusers' format, whose scaling factor
            is used.
    """

    family = 'conv-vae_'
    recipes = {16: 'conv-vae_f8_kl', **{d: f'conv-vae_f8_kl_d{d}' for d in (8, 32, 64, 128)}}

    @checked
    def __init__(
        self,
        img_size: Size = 256,
        patch_size: int = 16,
        in_channels: int = 3,
        latent_dim: int = 16,
        downsample: PositiveInt = 8,
        base_channels: PositiveInt = 128,
        layers_per_block: PositiveInt = 2,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(img_size, patch_size, in_channels, latent_dim)
        self._check_shape(patch_size, latent_dim, downsample)
        self.cells, self.downsample = patch_size // downsample, downsample
        self.register_buffer('gain', torch.ones(in_channels, 1, 1))
        self.register_buffer('offset', torch.zeros(in_channels, 1, 1))
        self.register_buffer('shift', torch.zeros(()))
        self.register_buffer('scale', torch.ones(()))
        self.register_buffer('fitted', torch.tensor(0))
        self._set_pixels(pixel_mean, pixel_std)
        if checkpoint is not None and Path(checkpoint).is_dir():
            self.vae = self._load_folder(checkpoint)
        else:
            self.vae = build_autoencoder(in_channels, self.channels, downsample, base_channels, layers_per_block)
        if checkpoint is not None and not Path(checkpoint).is_dir():
            self._load_trained(checkpoint)
        self.requires_grad_(False)

    @staticmethod
    def _check_shape(patch_size: int, latent_dim: int, downsample: int) -> None:
        where = 'ConvVAETokenizer.'
        if downsample & (downsample - 1) or patch_size % downsample:
            raise ConfigError(
                f'{where}downsample={downsample} must be a power of 2 that divides patch_size={patch_size}'
            )
        cells = (patch_size // downsample) ** 2
        if latent_dim % cells:
            raise ConfigError(
                f'{where}latent_dim={latent_dim} must be a multiple of {cells}, the cells of the map in a patch: '
                f'patch_size={patch_size}, downsample={downsample}'
            )

    def _set_pixels(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        channels = self.geometry.in_channels
        if mean is None and std is None:
            if channels != 3:
                return
            mean, std = IMAGENET_PIXELS
        if mean is None or std is None or not len(mean) == len(std) == channels:
            raise ConfigError(
                f'tokenizer ConvVAETokenizer: pixel_mean={mean} and pixel_std={std} must have in_channels={channels} '
                'values each, those of data_preprocessor'
            )
        self.gain.copy_(torch.tensor(std, device='cpu').view(-1, 1, 1) / 127.5)
        self.offset.copy_(torch.tensor(mean, device='cpu').view(-1, 1, 1) / 127.5 - 1)

    @property
    def channels(self) -> int:
        """Channels of the latent map."""
        return self.latent_dim // self.cells**2

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        self._check_images(images)
        self._check_fitted()
        return patchify((self._map(images) - self.shift) / self.scale, self.cells)

    def _map(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> mean of the posterior (B, channels, h, w)."""
        with full_precision(images.device):
            return self.vae.encode(images.float() * self.gain + self.offset).latent_dist.mean

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self._check_fitted()
        with full_precision(latents.device):
            cells = unpatchify(latents.float() * self.scale + self.shift, self.cells, self.geometry.grid)
            return (self.vae.decode(cells).sample - self.offset) / self.gain

    def training_net(self) -> ConvVAE:
        net = ConvVAE(self.vae)
        net.gain.copy_(self.gain)
        net.offset.copy_(self.offset)
        return net

    @torch.no_grad()
    def take(self, net: ConvVAE) -> None:
        self._reset()
        self.shift.zero_()
        self.vae.load_state_dict(net.vae.state_dict())
        self.gain.copy_(net.gain)
        self.offset.copy_(net.offset)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Measure the latents' standard deviation over this rank's batches (B, C, H, W); the same on all ranks."""
        _, variance = self._scalar_statistics(self._map, batches)
        self.scale.copy_(variance.sqrt().clamp(min=1e-8))
        self.fitted.fill_(1)

    def _load_folder(self, path: str) -> nn.Module:
        """diffusers' network from a local folder, that of a pipeline or of the VAE itself."""
        folder = Path(path, 'vae') if Path(path, 'vae', 'config.json').is_file() else Path(path)
        if not (folder / 'config.json').is_file():
            raise ConfigError(f"{path} is not a folder in diffusers' format: it has no config.json of an AutoencoderKL")
        network = autoencoder_class()
        try:
            values = json.loads((folder / 'config.json').read_text())
            for name in FOLDER.keys() & values.keys():
                check_value(name, values[name], FOLDER[name])
            options = dict(local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True)
            vae, loaded = network.from_pretrained(str(folder), **options)
        except Exception as error:  # whatever the libraries make of a file that may be anybody's
            why = ' '.join(f'{type(error).__name__}: {error}'.removeprefix('ConfigError: ').split())[:200]
            raise ConfigError(f'{path} cannot be read as an AutoencoderKL: {why}') from error
        report_keys(path, loaded['missing_keys'], [], len(vae.state_dict()), loaded['unexpected_keys'])
        config = vae.config
        found = (config.in_channels, config.latent_channels, 2 ** (len(config.block_out_channels) - 1))
        expected = (self.geometry.in_channels, self.channels, self.downsample)
        if found != expected:
            raise ConfigError(
                f'{path} holds a network of (in_channels, latent channels, downsample) {found}, the config asks for '
                f'{expected}: set in_channels, latent_dim, patch_size or downsample to match'
            )
        self.scale.fill_(1 / config.scaling_factor)
        self.shift.fill_(config.shift_factor or 0.0)
        self.fitted.fill_(1)
        return vae


def autoencoder_class() -> type[nn.Module]:
    """diffusers' AutoencoderKL, which the extra ``vae`` installs."""
    return import_extra('diffusers', 'vae', 'ConvVAETokenizer').AutoencoderKL


def build_autoencoder(
    in_channels: int, latent_channels: int, downsample: int, base_channels: int, layers_per_block: int
) -> nn.Module:
    """LDM's network: levels of 1, 2, 4, 4, ... times ``base_channels``, attention in the middle only."""
    levels = downsample.bit_length()
    widths = [base_channels * min(2**i, 4) for i in range(levels)]
    blocks = dict(down_block_types=('DownEncoderBlock2D',) * levels, up_block_types=('UpDecoderBlock2D',) * levels)
    blocks |= dict(block_out_channels=widths, layers_per_block=layers_per_block, latent_channels=latent_channels)
    groups = math.gcd(GROUPS, base_channels)
    return autoencoder_class()(in_channels=in_channels, out_channels=in_channels, norm_num_groups=groups, **blocks)
