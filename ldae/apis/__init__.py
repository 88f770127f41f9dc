# SPDX-License-Identifier: Apache-2.0
"""Calls from Python that a newcomer begins with."""

from .bounding import bound
from .encoders import encoder_images, get_encoder
from .feature_extractor import FeatureExtractor
from .models import get_model, list_models, load_config_of
from .probing import probe
from .segmenting import segment
