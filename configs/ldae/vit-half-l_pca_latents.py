# SPDX-License-Identifier: Apache-2.0
"""Table 2's patch-wise PCA at d = 32, ViT-1/2L, from cached latents: the images are read and encoded once, not in each epoch.

Run:       tools/dist_train.sh configs/ldae/vit-half-l_pca_latents.py 8
Batch:     8 processes x 2 x 128 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Memory:    1.28 M images x 256 tokens x 32 numbers of 2 bytes = 21 GB, shared by the processes of a machine
Paper:     linear 65.1 (the same row from images: deconstruction/t2_pca_d32.py)
Ours:      not yet measured
"""

_base_ = '../deconstruction/t2_pca_d32.py'

# Its input and its target are latents. l-DAE's own target is the image, which latents don't hold: vit-b_pca.py can't do this.
default_hooks = dict(latent_cache=dict(type='ldae.LatentCacheHook'))
