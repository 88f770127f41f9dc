# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a DINO ViT-B at 224 px, with l-DAE's settings: class token.

Run:       tools/dist_train.sh configs/benchmarks/dino_vit-b_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = './mocov3_vit-b_finetune.py'
