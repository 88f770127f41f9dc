# SPDX-License-Identifier: Apache-2.0
"""Noise schedules, as tables: ``schedule(num_timesteps) -> (gamma, sigma)``, two float64 tensors (T,), for
``z_t = gamma_t z_0 + sigma_t eps``; and the loss weights lambda_t that go with them."""

import math
from typing import Annotated

import torch
from torch import Tensor

from ldae.registry import NOISE_SCHEDULES
from ldae.utils import Choice, checked

Schedule = tuple[Tensor, Tensor]


@NOISE_SCHEDULES.register_module()
def ddpm_linear(num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """DDPM's linear beta: ``gamma_t^2 = prod_{s<=t} (1 - beta_s)``, ``gamma^2 + sigma^2 = 1`` (the baseline)."""
    betas = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
    gamma_sq = torch.cumprod(1 - betas, dim=0)
    return gamma_sq.sqrt(), (1 - gamma_sq).sqrt()


@NOISE_SCHEDULES.register_module()
def linear_gamma_sq(num_timesteps: int = 1000) -> Schedule:
    """gamma_t^2 falls linearly, ``1 > gamma_t^2 >= 0``, ``gamma^2 + sigma^2 = 1`` (Table 1, last row, on)."""
    sigma_sq = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
    return (1 - sigma_sq).sqrt(), sigma_sq.sqrt()


@NOISE_SCHEDULES.register_module()
def linear_sigma(num_timesteps: int = 1000, max_sigma: float = math.sqrt(2)) -> Schedule:
    """No input scaling: ``gamma_t = 1``, sigma_t linear from 0 to sqrt(2) (Table 3, "remove input scaling", on)."""
    sigma = torch.linspace(0, max_sigma, num_timesteps, dtype=torch.float64)
    return torch.ones_like(sigma), sigma


@NOISE_SCHEDULES.register_module()
def flow(num_timesteps: int = 1000) -> Schedule:
    """The straight line from image to noise of flow matching: ``gamma + sigma = 1``, sigma_t linear, to 1. Papers on it often
    count the other way, with t = 1 clean: their t is our gamma."""
    sigma = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
    return 1 - sigma, sigma


@NOISE_SCHEDULES.register_module()
def single_level(num_timesteps: int = 1000, sigma: float = math.sqrt(1 / 3)) -> Schedule:
    """One noise level, that of a classical DAE: ``gamma = 1``, constant sigma (ablation after Table 3)."""
    return torch.ones(num_timesteps, dtype=torch.float64), torch.full((num_timesteps,), sigma, dtype=torch.float64)


#: lambda_t as a function of (gamma, sigma), method section "Noisers".
WEIGHTINGS = {
    'uniform': lambda gamma, sigma: torch.ones_like(gamma),
    # gamma^2 where gamma^2 + sigma^2 = 1, and 1 / (1 + sigma^2) where gamma = 1: the paper's two weights are one.
    'signal_share': lambda gamma, sigma: gamma**2 / (gamma**2 + sigma**2),
    # sigma_0 may be 0: the weight of an image without noise is that of the step after it.
    'snr': lambda gamma, sigma: gamma**2 / sigma.clamp(min=sigma[sigma > 0].min()) ** 2,
}
#: Name of one of them, as an option.
Weighting = Annotated[str, Choice(WEIGHTINGS)]


@checked
def loss_weight(name: Weighting, gamma: Tensor, sigma: Tensor) -> Tensor:
    """lambda_t (T,): ``'uniform'`` 1, ``'signal_share'`` gamma^2 / (gamma^2 + sigma^2), ``'snr'`` gamma^2 / sigma^2."""
    return WEIGHTINGS[name](gamma, sigma)
