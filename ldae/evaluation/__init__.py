# SPDX-License-Identifier: Apache-2.0
from .denoising_metric import DenoisingMetric
from .feature_statistics import FeatureStatistics, effective_rank
from .features import extract_features, pooled_features
from .knn import knn_accuracy, knn_classify
from .linear_probe import ProbeResult, linear_probe
from .reconstruction_metric import ReconstructionMetric

__all__ = [
    'DenoisingMetric',
    'FeatureStatistics',
    'ProbeResult',
    'ReconstructionMetric',
    'effective_rank',
    'extract_features',
    'knn_accuracy',
    'knn_classify',
    'linear_probe',
    'pooled_features',
]
