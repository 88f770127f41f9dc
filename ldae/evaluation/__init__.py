# SPDX-License-Identifier: Apache-2.0
from .denoising_metric import DenoisingMetric
from .features import extract_features, pooled_features
from .knn import knn_accuracy, knn_classify
from .linear_probe import ProbeResult, linear_probe

__all__ = [
    'DenoisingMetric',
    'ProbeResult',
    'extract_features',
    'knn_accuracy',
    'knn_classify',
    'linear_probe',
    'pooled_features',
]
