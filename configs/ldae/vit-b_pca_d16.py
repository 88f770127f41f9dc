# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-B, at latent dimension d = 16: an ablation, and how to change one thing.

Run:       tools/dist_train.sh configs/ldae/vit-b_pca_d16.py 8
Batch:     8 processes x 256 images = 2048
Cost:      as vit-b_pca.py, 131 G tokens
Paper:     no figure for this row (ViT-1/2L, latents in and out: 63.4 at d = 16, 65.1 at d = 32)
Ours:      not yet measured
"""

_base_ = './vit-b_pca.py'

model = dict(tokenizer=dict(latent_dim=16))
