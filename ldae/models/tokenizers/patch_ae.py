# SPDX-License-Identifier: Apache-2.0
"""Patch-wise autoencoders: linear, with an encoder and a decoder of their own."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldae.models.layers import patchify, unpatchify
from ldae.registry import MODELS

from .base import Geometry
from .learned import Gaussian, LearnedTokenizer, Reconstruction, TrainableNet
from .patch_linear import PatchLinearTokenizer

LATENT_DIMS = (8, 16, 32, 64, 128)


class PatchAutoencoder(TrainableNet):
    """``x' = U^T V (x - m) + m`` for each patch x, V and U (d, D) and m (D,) learned.

    The ``variational`` one draws its latents from ``N(V (x - m), exp(A (x - m) + b))``.

    Matrices are kept times ``sqrt(D)``: their entries are of unit size, and Adam's lr means the same for any patch."""

    def __init__(self, geometry: Geometry, variational: bool) -> None:
        super().__init__(geometry.in_channels)
        self.geometry = geometry
        d, dim = geometry.latent_dim, geometry.patch_dim
        self.size = dim**-0.5
        self.encoder = nn.Parameter(torch.randn(d, dim))
        self.decoder = nn.Parameter(self.encoder.detach().clone())
        self.mean = nn.Parameter(torch.zeros(dim))
        self.variational = variational
        if variational:
            self.logvar = nn.Parameter(torch.zeros(d, dim))
            # Little noise at first, or nothing gets through.
            self.logvar_bias = nn.Parameter(torch.full((d,), -6.0))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder

    def forward(self, images: Tensor) -> Reconstruction:
        patches = patchify(images, self.geometry.patch_size) - self.mean  # (B, N, D)
        latents, posterior = F.linear(patches, self.encoder * self.size), None
        if self.variational:
            logvar = F.linear(patches, self.logvar * self.size, self.logvar_bias)
            posterior = Gaussian(latents, logvar.clamp(-30, 20))  # LDM's bounds: exp() stays finite
            latents = posterior.sample() if self.training else latents
        output = F.linear(latents, self.decoder.t() * self.size, self.mean)
        return Reconstruction(images, unpatchify(output, self.geometry.patch_size, self.geometry.grid), posterior)


class LearnedPatchTokenizer(LearnedTokenizer, PatchLinearTokenizer):
    """A patch-wise AE or VAE: ``z = V (x - mean) / scale``, ``x' = U^T (z * scale) + mean``.

    ``basis`` holds orthonormal rows that span what ``decode`` can give, from a QR decomposition of U. Raises
    ConfigError for an option out of range, or a file that is missing, of another geometry or not trained.

    Args:
        img_size, patch_size, in_channels, latent_dim: See :class:`BaseTokenizer`.
        latent_norm: How latents are scaled, see :class:`PatchLinearTokenizer`.
        checkpoint: ``tokenizer.pth`` of the run that trained it.
    """

    variational = False

    def __init__(self, *args, checkpoint: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer('variances', torch.zeros(self.latent_dim))
        if checkpoint is not None:
            self._load_trained(checkpoint)

    @property
    def kept_variance(self) -> None:
        return None

    def training_net(self) -> PatchAutoencoder:
        net = PatchAutoencoder(self.geometry, self.variational)
        if self.is_fitted:
            encoder, decoder = self._raw_maps()
            net.encoder.data.copy_(encoder / net.size)
            net.decoder.data.copy_(decoder / net.size)
            net.mean.data.copy_(self.mean)
        return net

    @torch.no_grad()
    def take(self, net: PatchAutoencoder) -> None:
        self._reset()
        self.patch_map.encoder.copy_(net.encoder * net.size)
        self.patch_map.decoder.copy_(net.decoder * net.size)
        self.patch_map.mean.copy_(net.mean)

    def _raw_maps(self) -> tuple[Tensor, Tensor]:
        """V and U before the latents were scaled, float64."""
        scale = self.scale.double()[:, None]
        return self.patch_map.encoder.double() * scale, self.patch_map.decoder.double() / scale

    def _take_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        # For any U and V the data's mean is the best m: the error is that of x - m off the subspace, and the KL grows
        # with the latents' mean.
        encoder, decoder = self._raw_maps()
        variances = ((encoder @ covariance) * encoder).sum(dim=1)
        self._check_rank(variances)
        self.variances.copy_(variances)
        self.components.copy_(torch.linalg.qr(decoder.t()).Q.t())
        self._set_maps(mean, encoder, decoder, variances)

    @property
    def _remedy(self) -> str:
        return 'train a new one'


@MODELS.register_module()
class PatchAETokenizer(LearnedPatchTokenizer):
    """Patch-wise autoencoder (paper, section 4.2): trained on ``||x - U^T V x||^2``, it spans what PCA spans.
    Options are those of :class:`LearnedPatchTokenizer`."""

    family = 'patch-ae_'
    recipes = {d: f'patch-ae_d{d}' for d in LATENT_DIMS}


@MODELS.register_module()
class PatchVAETokenizer(LearnedPatchTokenizer):
    """Patch-wise variational autoencoder (paper, section 4.2): ``||x - U^T V x||^2 + KL``; encodes to the mean.
    Options are those of :class:`LearnedPatchTokenizer`."""

    family = 'patch-vae_'
    recipes = {d: f'patch-vae_d{d}' for d in LATENT_DIMS}
    variational = True
