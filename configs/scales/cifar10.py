# SPDX-License-Identifier: Apache-2.0
"""Scale: CIFAR-10, from a folder with its binary or Python batches. 32 px, 16 tokens of 8 x 8 x 3 pixels, for one GPU.

Run:       tools/train.py configs/deconstruction/t3_5_original-image.py --scale cifar10 --data-root DIR
Batch:     1 process x 128 images = 128; lr = 1e-3
"""

data_root = 'data/cifar10'
data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[125.31, 122.95, 113.87], std=[62.99, 62.09, 66.70])

scale = dict(
    img_size=32,
    patch_size=8,
    in_channels=3,
    num_classes=10,
    # A patch has 192 values; the paper's have 768.
    latent_dims={8: 2, 16: 4, 32: 8, 64: 16, 128: 32},
    tokenizers={
        # A token is 2 x 2 cells of the map, as in the paper: multiples of 4.
        'ldae.ConvVAETokenizer': dict(downsample=4, base_channels=32, latent_dims={8: 4, 16: 4, 32: 8, 64: 16, 128: 32})
    },
    archs={
        'base': dict(embed_dims=144, num_layers=4, num_heads=3, feedforward_channels=576),
        'half-large': dict(embed_dims=192, num_layers=4, num_heads=3, feedforward_channels=768),
        'large': dict(embed_dims=192, num_layers=8, num_heads=3, feedforward_channels=768),
    },
    epochs=40,
    # Of the probe's 90 epochs and fine-tuning's 100. LARS is for batches of thousands: its rate is too low for few steps.
    benchmarks=dict(
        linear=dict(batch_size=1024, epochs=30, optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=0.0)),
        finetune=dict(batch_size=128, epochs=30, lr=1e-3, ema_momentum=1e-3),
    ),
    tokenizer_epochs={'ldae.ConvVAETokenizer': 20, 'ldae.PatchAETokenizer': 20, 'ldae.PatchVAETokenizer': 20},
    adversarial_start_step=1500,
)

train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    # The dataset hands over whole batches.
    collate_fn=dict(type='ldae.batch_collate'),
    dataset=dict(type='ldae.CIFAR10', data_root=data_root, split='train', with_label=False),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='ldae.batch_collate'),
    dataset=dict(type='ldae.CIFAR10', data_root=data_root, split='test'),
)
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
)
auto_scale_lr = dict(enable=True, base_batch_size=128)
default_hooks = dict(
    checkpoint=dict(interval=10),
    fit_tokenizer=dict(type='ldae.FitTokenizerHook', num_images=None),
    ema=dict(momentum=1.6e-3),
)
