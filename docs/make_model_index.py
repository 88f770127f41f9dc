# SPDX-License-Identifier: Apache-2.0
"""Write model-index.yml and configs/*/metafile.yml from the configs; ``make pages`` calls this.

That is OpenMMLab's format, which `mim search` and mmpretrain's ``ModelHub`` read. There are no ``Weights``, since none
are published, and no ``Results``: published figures are others' and stand in the configs and the model zoo.
"""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from make_model_zoo import SECTIONS, batch, describe  # noqa: E402

from ldae.apis.models import forget_files  # noqa: E402
from ldae.apis.preprocess import image_shape_of  # noqa: E402
from ldae.config import load_config, walk_dicts  # noqa: E402
from ldae.evaluation.features import block_tokens  # noqa: E402
from ldae.registry import MODELS  # noqa: E402
from ldae.utils import ConfigError  # noqa: E402

INDEX = ROOT / 'model-index.yml'
NOTE = """\
# Written by docs/make_model_index.py. Parameters are those of the whole model; FLOPs are multiplications with an addition
# of one encoder pass over one unmasked image. No weights are published.
"""
SIZES: dict[str, tuple[int, int]] = {}
FLOPS: dict[str, int] = {}
COLLECTIONS = {
    'ldae': (
        'l-DAE',
        'Deconstructing Denoising Diffusion Models for Self-Supervised Learning',
        'https://arxiv.org/abs/2401.14404',
    ),
    'mae': ('MAE', 'Masked Autoencoders Are Scalable Vision Learners', 'https://arxiv.org/abs/2111.06377'),
    'mocov3': (
        'MoCo v3',
        'An Empirical Study of Training Self-Supervised Vision Transformers',
        'https://arxiv.org/abs/2104.02057',
    ),
    'simclr': (
        'SimCLR',
        'A Simple Framework for Contrastive Learning of Visual Representations',
        'https://arxiv.org/abs/2002.05709',
    ),
    'byol': (
        'BYOL',
        'Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning',
        'https://arxiv.org/abs/2006.07733',
    ),
    'simmim': ('SimMIM', 'SimMIM: A Simple Framework for Masked Image Modeling', 'https://arxiv.org/abs/2111.09886'),
    'dino': ('DINO', 'Emerging Properties in Self-Supervised Vision Transformers', 'https://arxiv.org/abs/2104.14294'),
}


def collection(folder: str) -> dict[str, Any]:
    """A method: its paper, and what all its models share."""
    name, title, url = COLLECTIONS[folder]
    shared = {'Architecture': ['ViT'], 'Training Data': 'ImageNet-1k', 'Training Techniques': ['AdamW']}
    return {'Name': name, 'Metadata': shared, 'Paper': {'Title': title, 'URL': url}}


def model_entry(path: Path) -> dict[str, Any]:
    """A config, by its docstring, its settings, and the model that it describes."""
    folder = path.parent.name
    cfg = load_config(path)
    parameters, flops = size_of(cfg)
    name = path.stem if folder == 'benchmarks' else f'{folder}_{path.stem}'
    return {
        'Name': name,
        'In Collection': COLLECTIONS[name.partition('_')[0]][0],
        'Metadata': {
            'Epochs': cfg.train_cfg.max_epochs,
            'Batch Size': batch_size(path),
            'FLOPs': flops,
            'Parameters': parameters,
            'Training Data': training_data(cfg),
            'Training Techniques': [cfg.optim_wrapper.optimizer.type],
        },
        'Config': path.relative_to(ROOT).as_posix(),
    }


def batch_size(path: Path) -> int:
    """Images a step, by the ``Batch`` field of a config; raise ConfigError if it has none."""
    images = re.search(r'= ([\d ]+)$', batch(describe(path)).strip())
    if images is None:
        raise ConfigError(
            f'{path.relative_to(ROOT)}: its docstring needs a line "Batch:     8 processes x 256 images = 2048", with its '
            'own numbers'
        )
    return int(images[1].replace(' ', ''))


def training_data(cfg: Config) -> str:
    """Name of the data set that a config trains on."""
    is_idx = any(node.get('type') == 'ldae.IDXDataset' for node in walk_dicts(cfg.train_dataloader.to_dict()))
    return 'Fashion-MNIST' if is_idx else 'ImageNet-1k'


def size_of(cfg: Config) -> tuple[int, int]:
    """Parameters of a config's model, and FLOPs of its encoder; the same model is measured once."""
    known = str(cfg.model.to_dict())
    if known not in SIZES:
        SIZES[known] = _measure(cfg.model.to_dict(), cfg.get('default_scope', 'mmpretrain'))
    return SIZES[known]


def _measure(model_cfg: dict, scope: str) -> tuple[int, int]:
    for node in walk_dicts(model_cfg):
        forget_files(node, has_weights=True)
    init_default_scope(scope)
    with torch.device('meta'):  # tensors with shapes and no memory
        model = MODELS.build(model_cfg).eval()
    return sum(parameter.numel() for parameter in model.parameters()), flops_of(model)


def flops_of(model: nn.Module) -> int:
    """FLOPs of a model's encoder; encoders of the same tensors have the same."""
    size, channels = image_shape_of(model)
    shapes = {name: tuple(value.shape) for name, value in model.backbone.state_dict().items()}
    known = str((type(model.backbone), size, channels, shapes))
    if known not in FLOPS:
        with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as counter:
            block_tokens(model.backbone, torch.empty(1, channels, size, size))
        FLOPS[known] = counter.get_total_flops() // 2
    return FLOPS[known]


def metafile(folder: str) -> str:
    """``configs/<folder>/metafile.yml``."""
    content = {'Collections': [collection(folder)]} if folder in COLLECTIONS else {}
    content['Models'] = [model_entry(path) for path in sorted((ROOT / 'configs' / folder).glob('*.py'))]
    return NOTE + yaml.safe_dump(content, sort_keys=False, width=120)


def files() -> dict[Path, str]:
    """All of them, with what they hold."""
    logging.disable(logging.WARNING)  # what models say while they are built
    try:
        found = {ROOT / 'configs' / folder / 'metafile.yml': metafile(folder) for folder in SECTIONS}
    finally:
        logging.disable(logging.NOTSET)
    index = {'Import': [path.relative_to(ROOT).as_posix() for path in found]}
    return {INDEX: '# Written by docs/make_model_index.py.\n' + yaml.safe_dump(index), **found}


if __name__ == '__main__':
    for file, text in files().items():
        file.write_text(text)
        print(f'wrote {file}')
