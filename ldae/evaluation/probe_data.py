# SPDX-License-Identifier: Apache-2.0
"""Which labelled images a frozen encoder is scored on."""

from mmengine.config import Config

from ldae.utils import ConfigError

# What makes a training set smaller or its images random.
NOT_PROBED = ('indices', 'crop_scale')


def probe_dataloaders(cfg: Config) -> tuple[dict, dict]:
    """Configs of labelled training and test images, both as the test images are prepared: no augmentation.

    Raises:
        ConfigError: The config names no training images, or no others to test on.
    """
    held_out = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    for split, loader in (('training', cfg.get('train_dataloader')), ('test', held_out)):
        if not loader:
            raise ConfigError(
                f'{cfg.filename or "the config"} names no {split} images: name data that do (--data)'
            )
    test = dict(held_out)
    test['dataset'] = dict(test['dataset'], with_label=True)
    dataset = dict(cfg.train_dataloader['dataset'], with_label=True)
    for name in NOT_PROBED:
        dataset.pop(name, None)
    if 'pipeline' in test['dataset']:
        dataset['pipeline'] = test['dataset']['pipeline']
    return dict(test, dataset=dataset), test
