# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a SimMIM ViT-B at 224 px, with l-DAE's settings: mean of the patch tokens.

Run:       tools/dist_train.sh configs/benchmarks/simmim_vit-b_finetune.py 8 \\
               --cfg-options model.backbone.init_cfg.checkpoint=CKPT
Batch:     8 processes x 128 images = 1024; lr = 1e-3 x 1024 / 256 = 4e-3, 100 epochs
Paper:     no figure for this row
Ours:      not yet measured
"""

_base_ = ['../_base_/models/finetune_mae.py', '../_base_/recipes/finetune_224.py']
