# SPDX-License-Identifier: Apache-2.0
"""Scale: any folder of images (train/ and val/ with a folder a class) at 64 px, 64 tokens of 8 x 8 x 3 pixels, one GPU.

The row's augmentation is kept, at this size. Up to 1000 classes, for the one row that reads labels.

Run:       tools/train.py configs/deconstruction/t3_5_original-image.py --scale image-folder --data-root DIR
Batch:     1 process x 256 images = 256; lr = 1e-3
"""

_base_ = '../_base_/datasets/imagenet_256_center.py'

scale = dict(
    img_size=64,
    patch_size=8,
    in_channels=3,
    num_classes=1000,
    # A patch has 192 values; the paper's have 768.
    latent_dims={8: 2, 16: 4, 32: 8, 64: 16, 128: 32},
    tokenizers={
        # A token is 2 x 2 cells of the map, as in the paper: multiples of 4.
        'ldae.ConvVAETokenizer': dict(downsample=4, base_channels=32, latent_dims={8: 4, 16: 4, 32: 8, 64: 16, 128: 32})
    },
    archs={
        'base': dict(embed_dims=192, num_layers=6, num_heads=4, feedforward_channels=768),
        'half-large': dict(embed_dims=256, num_layers=6, num_heads=4, feedforward_channels=1024),
        'large': dict(embed_dims=256, num_layers=12, num_heads=4, feedforward_channels=1024),
    },
    epochs=100,
    # Of the probe's 90 epochs and fine-tuning's 100. LARS is for batches of thousands: its rate is too low for few steps.
    benchmarks=dict(
        linear=dict(batch_size=1024, epochs=30, optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=0.0)),
        finetune=dict(batch_size=256, epochs=50, lr=1e-3, ema_momentum=1e-3),
    ),
    tokenizer_epochs={'ldae.ConvVAETokenizer': 20, 'ldae.PatchAETokenizer': 20, 'ldae.PatchVAETokenizer': 20},
    adversarial_start_step=10000,
)

optim_wrapper = dict(
    # bf16 autocast, as at the paper's scale.
    type='ldae.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
)
auto_scale_lr = dict(enable=True, base_batch_size=256)
default_hooks = dict(checkpoint=dict(interval=10), ema=dict(momentum=1e-3))
