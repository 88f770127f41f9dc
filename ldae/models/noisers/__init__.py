# SPDX-License-Identifier: Apache-2.0
from ldae.models.noisers import schedules

from .gaussian import GaussianNoiser, NoisySample, noise_of_images
from .tokens import TokenNoiser
