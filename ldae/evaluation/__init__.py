# SPDX-License-Identifier: Apache-2.0
from .denoising_metric import DenoisingMetric

__all__ = ['DenoisingMetric']
