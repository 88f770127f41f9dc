# SPDX-License-Identifier: Apache-2.0
"""l-DAE, ViT-B, whose encoder sees a random quarter of the noisy tokens: not in the paper, l-DAE at about MAE's price.

Run:       tools/dist_train.sh configs/ldae/vit-b_pca_masked.py 8
Batch:     8 processes x 256 images = 2048; lr = 1e-4 x 2048 / 256 = 8e-4
Cost:      400 epochs x 1.28 M images x (64 tokens through the encoder, 256 through a decoder of 8 blocks of width 512);
           a step takes 103% of MAE's at 256 px and 30% of vit-b_pca's (CPU, forward and backward pass)
Paper:     no figure, not in the paper
Ours:      not yet measured; the demo's has 83.5 linear with such a decoder and 40 epochs (docs/small_data.md)
"""

_base_ = './vit-b_pca.py'

model = dict(
    # 'mask' beats 'noisy' in the demo.
    masking=dict(type='ldae.RandomMasking', ratio=0.75, fill='mask'),
    # MAE's decoder for this encoder: 8 blocks of width 512.
    neck=dict(arch=dict(embed_dims=512, num_layers=8, num_heads=16, feedforward_channels=2048)),
)
