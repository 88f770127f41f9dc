# SPDX-License-Identifier: Apache-2.0
"""diffusers' samplers on the noise levels of this project."""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ldae.utils import Choice, ConfigError, PositiveInt, Share, check_range, checked
from ldae.utils.optional import import_extra

#: ``predict(z_t, t) -> (B, N, d)``: what a network says of noisy latents (B, N, d) at time step t.
Predict = Callable[[Tensor, int], Tensor]


class SingleLevelError(ConfigError):
    """A model that has learned to take out one level of noise only."""


class SamplerKind(NamedTuple):
    """One of diffusers' schedulers, and how it counts."""

    scheduler: str
    options: dict
    #: Its samples are z_0 plus noise (variance exploding), not of the scale of z_0 and noise together.
    adds_noise: bool = False
    #: It draws noise at each step.
    draws: bool = False
    #: It can be told clean latents; else they are turned into noise.
    takes_clean: bool = True


SAMPLERS = {
    'ddpm': SamplerKind('DDPMScheduler', dict(clip_sample=False, variance_type='fixed_small'), draws=True),
    'ddim': SamplerKind('DDIMScheduler', dict(clip_sample=False, set_alpha_to_one=True), draws=True),
    'euler': SamplerKind('EulerDiscreteScheduler', dict(timestep_spacing='trailing'), adds_noise=True),
    'euler-ancestral': SamplerKind(
        'EulerAncestralDiscreteScheduler', dict(timestep_spacing='trailing'), True, draws=True, takes_clean=False
    ),
    'heun': SamplerKind('HeunDiscreteScheduler', dict(timestep_spacing='trailing'), adds_noise=True),
    'dpm++': SamplerKind('DPMSolverMultistepScheduler', dict(timestep_spacing='trailing', final_sigmas_type='zero')),
}
SamplerName = Annotated[str, Choice(SAMPLERS)]


class DiffusionSampler:
    """From noisy latents back to clean ones, in ``steps`` steps over the levels ``z_t = gamma_t z_0 + sigma_t eps``.

    The steps are spread evenly from the noisiest level down ("trailing"). diffusers' scheduler is given a table of just
    these levels, so that each step goes exactly to the next one, whatever their number. A level without noise, or without
    any signal, can't be stepped through and is left out: t = 0 of ``linear_sigma``, the last of ``linear_gamma_sq``.

    Args:
        gamma, sigma: The noiser's tables (T,).
        name: Key of :data:`SAMPLERS`.
        steps: 1 to T.
        predicts_noise: Whether the network predicts the noise, not the clean latents.
        eta: Share of DDPM's noise that ``'ddim'`` adds at each step, 0 to 1.
        start: Highest time step, where it isn't the noisiest.

    Raises:
        ConfigError: An option out of range, a single level of noise, or no diffusers.
    """

    @checked
    def __init__(
        self,
        gamma: Tensor,
        sigma: Tensor,
        name: SamplerName = 'ddim',
        steps: PositiveInt = 50,
        predicts_noise: bool = False,
        eta: Share = 0.0,
        start: int | None = None,
    ) -> None:
        if eta and name != 'ddim':
            raise ConfigError(f"eta={eta} is an option of sampler 'ddim': {name!r} has none")
        kind = self._kind = SAMPLERS[name]
        gamma, sigma = gamma.double().cpu(), sigma.double().cpu()
        #: Time steps of the network (steps,), from the least noisy one up.
        self.timesteps = choose_timesteps(gamma, sigma, steps, start)
        gamma, sigma = gamma[self.timesteps], sigma[self.timesteps]
        self._norm = (gamma.square() + sigma.square()).sqrt()
        self._gamma, self._sigma = (gamma / self._norm).float(), (sigma / self._norm).float()
        self._converts = not kind.takes_clean and not predicts_noise
        prediction = 'epsilon' if predicts_noise or self._converts else 'sample'
        alpha_bar = (gamma / self._norm).square()
        betas = 1 - alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]])
        diffusers = import_extra('diffusers', 'generation', 'sampling')
        self._scheduler = getattr(diffusers, kind.scheduler)(
            num_train_timesteps=len(gamma), trained_betas=betas.numpy(), prediction_type=prediction, **kind.options
        )
        # The product of betas that were rounded to float32 would be off where hardly any signal is left.
        self._scheduler.alphas_cumprod = alpha_bar.float()
        self._drawing = {'ddim': dict(eta=eta)}.get(name, {}) if kind.draws else {}

    @property
    def start(self) -> int:
        """The time step of the latents that :meth:`run` begins with."""
        return int(self.timesteps[-1])

    def run(self, z: Tensor, predict: Predict, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Latents (B, N, d) at level :attr:`start` -> clean ones, float32.

        Args:
            predict: The network, called once a step (twice by ``'heun'``, but for the last).
            generators: One for each sample, for samplers that draw noise; they must be the CPU's.
        """
        scheduler, kind = self._scheduler, self._kind
        scheduler.set_timesteps(len(self.timesteps))
        x = z.float() / float(self._norm[-1])
        if kind.adds_noise:
            x = x / float(self._gamma[-1])
        drawing = dict(self._drawing, generator=list(generators or ())) if kind.draws else {}
        for position in scheduler.timesteps:
            level = int(position)  # on the CPU
            scaled = scheduler.scale_model_input(x, position)
            prediction = predict(scaled * float(self._norm[level]), int(self.timesteps[level])).float()
            if self._converts:
                prediction = (scaled - self._gamma[level] * prediction) / self._sigma[level]
            x = scheduler.step(prediction, position, x, **drawing).prev_sample
        return x


def choose_timesteps(gamma: Tensor, sigma: Tensor, steps: int, start: int | None = None) -> Tensor:
    """Time steps, ascending and evenly spread over the levels that can be stepped through, up to ``start``: ``steps`` of them,
    or all if there are fewer."""
    usable = torch.nonzero((gamma > 0) & (sigma > 0)).flatten()
    if len(usable) > 1 and torch.equal(gamma[usable] / sigma[usable], (gamma / sigma)[usable[:1]].expand(len(usable))):
        raise SingleLevelError(
            'a single level of noise has no way from noise to images: sample from a model of several levels'
        )
    check_range('steps', steps, 1, len(gamma), kind=int)
    if start is not None:
        check_range('t', start, int(usable[0]), int(usable[-1]), kind=int)
        usable = usable[usable <= start]
    steps = min(steps, len(usable))
    spread = torch.arange(1, steps + 1, dtype=torch.float64) * len(usable) / steps
    return usable[spread.round().long() - 1]
