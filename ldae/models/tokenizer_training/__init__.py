# SPDX-License-Identifier: Apache-2.0
from .losses import AdversarialLoss, PatchDiscriminator, PerceptualLoss, adaptive_weight
from .trainer import TokenizerTrainer
