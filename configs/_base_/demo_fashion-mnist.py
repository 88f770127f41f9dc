# SPDX-License-Identifier: Apache-2.0
"""The part that both sides of the demo share: data, schedule, progress bar, and k-NN accuracy while training."""

_base_ = ['./datasets/fashion_mnist_subset.py', './schedules/fashion_mnist_20e.py', './default_runtime.py']

# 5 000 of the training images vote on 1 000 of the test images: a second each time.
knn_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='ldae.batch_collate'),
    dataset=dict(type='ldae.IDXDataset', data_root=None, split='train'),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=9, by_epoch=True, begin=1, end=10, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10, val_interval=10)

default_hooks = dict(
    logger=dict(interval=150),  # an epoch has 156 steps
    checkpoint=dict(interval=-1),  # the last epoch only
    progress_bar=dict(type='ldae.ProgressBarHook', interval=25),
    health=dict(type='ldae.HealthHook', interval=312, num_images=1024),
    online_knn=dict(
        type='ldae.OnlineKNNHook',
        train_dataloader=knn_dataloader,
        test_dataloader=dict(knn_dataloader, dataset=dict(knn_dataloader['dataset'], split='test')),
        interval=2,
        max_train_images=5000,
        max_test_images=1000,
    ),
)
