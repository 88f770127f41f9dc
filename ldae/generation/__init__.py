# SPDX-License-Identifier: Apache-2.0
"""Images out of noise."""

from .denoising import Denoised, denoise, interpolate
from .samplers import SAMPLERS, DiffusionSampler
from .sampling import ImageSampler, Samples, sample
from .start import Moments, measure_moments
