# SPDX-License-Identifier: Apache-2.0
from .adversarial import AdversarialLoss, PatchDiscriminator, adaptive_weight
from .perceptual import PerceptualLoss
from .trainer import TokenizerTrainer
