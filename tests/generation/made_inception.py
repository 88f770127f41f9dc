# SPDX-License-Identifier: Apache-2.0
"""A file like that of Inception's weights, with random ones, and a network that looks at few pixels, to be fast."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch_fidelity import FeatureExtractorInceptionV3
from torch_fidelity import feature_extractor_inceptionv3 as module

PIXELS = 75  # the least that all layers leave something of


def write_inception(path: Path) -> str:
    """Write the file; its sha256."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'load_state_dict_from_url', lambda *args, **options: {})
        patch.setattr(FeatureExtractorInceptionV3, 'load_state_dict', lambda self, state: None)
        network = FeatureExtractorInceptionV3('inception-v3-compat', ['2048', 'logits_unbiased'])
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity='relu')
    torch.save(network.state_dict(), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
