# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST, 60 000 + 10 000 grey images of 28 x 28, from a folder with its four IDX files.

Nothing is downloaded by itself. Name the folder (`--data-root DIR`; Debian's package `dataset-fashion-mnist`
puts them into `/usr/share/datasets/fashion-mnist`), or ask for the download:
`--cfg-options {train,val,test}_dataloader.dataset.download=True`.
"""

data_root = 'data/fashion-mnist'
data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[72.94], std=[90.02])

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    # The dataset hands over whole batches.
    collate_fn=dict(type='ldae.batch_collate'),
    dataset=dict(type='ldae.IDXDataset', data_root=data_root, split='train', with_label=False),
)

val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='ldae.batch_collate'),
    dataset=dict(type='ldae.IDXDataset', data_root=data_root, split='test'),
)
val_cfg = dict()
val_evaluator = dict(type='ldae.DenoisingMetric')

test_dataloader = val_dataloader
test_cfg = val_cfg
test_evaluator = val_evaluator
