# SPDX-License-Identifier: Apache-2.0
"""Images out of noise, and how far images are from others."""

from .denoising import Denoised, denoise, interpolate
from .distances import Distances, compare, compute_statistics, frechet_distance
from .extractors import Extractor, build_extractor
from .image_sets import ImageSet, open_images
from .metric import FrechetMetric
from .samplers import SAMPLERS, DiffusionSampler
from .sampling import ImageSampler, Samples, sample
from .start import Moments, measure_moments
from .statistics import RunningStatistics, Statistics
