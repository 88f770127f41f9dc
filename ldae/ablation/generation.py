# SPDX-License-Identifier: Apache-2.0
"""A row's second figure: how far samples from its model are from the images that it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from ldae.generation import build_extractor, frechet_distance, sample
from ldae.generation.samplers import SamplerName, SingleLevelError
from ldae.models import LDAE
from ldae.utils import PositiveInt, Range, checked
from ldae.utils.optional import import_extra

SAMPLES, STATISTICS = 'samples', 'statistics'


@checked
@dataclass(frozen=True)
class Sampling:
    """How all rows of a study are sampled from, and which network compares the images.

    Args:
        num: Samples a row; the distance depends on it.
        steps, sampler: See :func:`ldae.sample`.
        features, weights, inception: See :func:`ldae.frechet_distance`.
    """

    num: Annotated[int, Range(2)]
    steps: PositiveInt = 50
    sampler: SamplerName = 'dpm++'
    features: str | None = None
    weights: str | None = None
    inception: str | None = None

    def check(self) -> None:
        """Raise ConfigError for a network or library that isn't there: before hours of training."""
        for library in ('diffusers', 'torch_fidelity'):
            import_extra(library, 'generation', 'scoring samples')
        build_extractor(self.features, self.weights, self.inception, 'cpu')


def score_samples(model: nn.Module, config: Path, sampling: dict[str, Any], seed: int) -> dict[str, Any]:
    """Distances of a row's samples to its training images, as its test images are prepared; or why it has none.

    The samples stay beside its config, in ``samples/``.
    """
    network = {name: sampling.pop(name) for name in ('features', 'weights', 'inception')}
    if not isinstance(model, LDAE):
        return dict(reason='it adds no noise')
    out = config.parent / SAMPLES
    try:
        sample(model, **sampling, seed=seed, out=out, force=True, progress=False)
    except SingleLevelError:
        return dict(reason='a single level of noise')
    cache = config.parents[2] / STATISTICS
    # Not the folder of images: it may hold more, of a call before.
    found = frechet_distance(out / 'samples.npz', f'{config}:train', **network, cache=cache)
    return dict(
        name=found.name,
        frechet=found.frechet,
        kernel=found.kernel,
        samples=found.samples['images'],
        reference=found.reference['images'],
        weights=found.weights,
        **{name: value for name, value in sampling.items() if name != 'num'},
    )
