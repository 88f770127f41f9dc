# SPDX-License-Identifier: Apache-2.0
from .attentive_probe import AttentiveOptions, attentive_probes
from .cache import FeatureCache, FeatureSetting, cache_features
from .dense_probe import DenseOptions, DenseResult, dense_probe
from .features import block_features, block_tokens, extract_features, pooled_features, poolings_of
from .knn import knn_accuracies, knn_accuracy, knn_classify
from .linear_probe import LinearOptions, ProbeResult, linear_probe, linear_probes
from .metrics import DenoisingMetric, FeatureStatistics, ReconstructionMetric, effective_rank
from .protocol import PROTOCOL, Protocol, Score, choose, score, score_sets
