# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to another library's file: convert, read back as its user would, compare, and only then keep."""

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional as F

from ldae.apis import get_model
from ldae.evaluation.features import num_registers
from ldae.registry import DATASETS
from ldae.utils import ConfigError, check_choice
from ldae.utils.files import whole_file
from ldae.utils.optional import import_extra
from ldae.utils.sizes import Size, height_width
from ldae.version import __version__

from .plain_vit import Features, PlainViT, plain_vit, source_features
from .preprocessing import preprocessing_of, read_pictures

#: Format -> the module that writes and reads it: its SUFFIX ('' for a folder), that of a file BESIDE, and the EXTRA
#: and library that it needs.
FORMATS = {name: f'ldae.export.{name}_format' for name in ('mmpretrain', 'timm', 'hf', 'onnx')}
#: Largest error that a converted model may have, relative to the largest feature.
TOLERANCE = 1e-4
NUM_RANDOM, NUM_PICTURES = 2, 4


class Exported(NamedTuple):
    """An export, and how far from the source it is: largest error over largest feature, by kind of images."""

    path: Path
    vit: PlainViT
    errors: dict[str, float]
    hint: str


def export_encoder(
    checkpoint: str | os.PathLike,
    to: str,
    out: str | os.PathLike,
    config: str | None = None,
    timestep: int | None = None,
    img_size: Size | None = None,
    force: bool = False,
    check: list[str] | None = None,
    example: str | os.PathLike | None = None,
    ema: bool = False,
) -> Exported:
    """Write the encoder of a checkpoint as a plain ViT for another library. Raises ConfigError if the encoder can't be
    a plain ViT, or the result doesn't agree with the source; nothing is written.

    Args:
        checkpoint: Of l-DAE's or MAE's pre-training, or of a classifier on one of their encoders.
        to: ``'mmpretrain'``, ``'timm'``, ``'hf'`` or ``'onnx'``.
        out: File (``.pth``, ``.onnx``) or new folder (timm, hf).
        config: The checkpoint's config; None takes the one that it holds.
        timestep, img_size: t and the height and width in pixels; None keeps the model's.
        force: Replace ``out``.
        check: Pictures, or folders of them, to compare on as well.
        example: ``.npz`` file to write with images and the features that they must give.
        ema: The average of the weights instead of the weights.
    """
    check_choice('--to', to, FORMATS)
    library, out = import_module(FORMATS[to]), Path(out)
    _check_out(library, out, to, force, example)
    model = get_model(config, checkpoint, device='cpu', ema=ema)
    vit = plain_vit(model, img_size, timestep, str(checkpoint))
    preprocessing = preprocessing_of(model, vit.img_size, vit.in_channels)
    shape = NUM_RANDOM, vit.in_channels, *height_width(vit.img_size)
    images = {'random images': torch.randn(shape, generator=torch.Generator().manual_seed(0))}
    if (pictures := validation_images(model, vit.img_size)) is not None:
        images['validation images'] = pictures
    if check:
        images['given pictures'] = read_pictures(check, preprocessing, NUM_PICTURES, model)
    weights = ' (average of its weights)' if ema else ''
    about = dict(ldae_version=__version__, source=f'{Path(checkpoint).name}{weights}', timestep=str(vit.timestep))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.ldae-export-', dir=out.parent) as folder:
        unfinished = Path(folder) / out.name
        library.write(vit, preprocessing, about, unfinished)
        features = library.read(unfinished)
        errors = {kind: compare(model, features, batch) for kind, batch in images.items()}
        kind, worst = max(errors.items(), key=lambda item: item[1])
        if worst > TOLERANCE:
            raise ConfigError(
                f'the {to} model differs from the source by {worst:.1e} of the largest feature on {kind}, more than '
                f'{TOLERANCE}: nothing was written'
            )
        if example is not None:
            _write_example(features, images, Path(example))
        _publish(Path(folder), _names(library, out), out.parent)
    return Exported(out, vit, errors, library.hint(out))


def _check_out(library: ModuleType, out: Path, to: str, force: bool, example: str | os.PathLike | None) -> None:
    if library.EXTRA is not None:
        extra, needed = library.EXTRA
        import_extra(needed, extra, f'--to {to}')
    if out.suffix != library.SUFFIX and library.SUFFIX:
        raise ConfigError(f'--out {out} must end in {library.SUFFIX} for --to {to}')
    if example is not None and Path(example).suffix != '.npz':
        raise ConfigError(f'--save-example {example} must end in .npz')
    if example is not None and Path(example).resolve().is_relative_to(out.resolve()):
        raise ConfigError(f'--save-example {example} lies in {out}, which is written whole: name a file beside it')
    files = [out.parent / name for name in _names(library, out)] + ([] if example is None else [Path(example)])
    for path in files:
        if path.exists() and not force:
            raise ConfigError(f'{path} exists: give --force to replace it, or another name')
        if path == out and path.exists() and not _may_replace(path, is_folder=not library.SUFFIX):
            raise ConfigError(f'{path} is not what --to {to} writes, and is not replaced: give another name')


def _names(library: ModuleType, out: Path) -> list[str]:
    """The file or folder that is asked for, and the file that a format writes beside it."""
    return [out.name, *([f'{out.stem}{library.BESIDE}'] if library.BESIDE else [])]


def _may_replace(path: Path, is_folder: bool) -> bool:
    """Whether what is there is of the kind that will be written: a file, or a folder of nothing but an export's files."""
    if path.is_dir() != is_folder:
        return False
    known = {'config.json', 'model.safetensors', 'preprocessor_config.json'}
    return not is_folder or {file.name for file in path.iterdir()} <= known


def validation_images(model: nn.Module, img_size: Size, count: int = NUM_PICTURES) -> Tensor | None:
    """Some images (n, C, H, W) of the config's validation set, as the model takes them; None where it isn't at hand, or
    a folder that only the checkpoint names."""
    cfg = getattr(model, '_config', None) or Config()
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    if not loader or cfg.filename is None and loader['dataset'].get('data_root'):
        return None
    try:
        dataset = DATASETS.build(loader['dataset'])
        step = max(1, len(dataset) // count)
        inputs = [dataset[i * step]['inputs'] for i in range(min(count, len(dataset)))]
    except Exception:  # whatever keeps a data set from being read here is not the encoder's
        return None
    inputs = torch.cat([image.reshape(-1, *image.shape[-3:]) for image in inputs])  # ours in memory come as batches
    images = model.data_preprocessor(dict(inputs=inputs, data_samples=None))['inputs']
    if images.shape[-2:] == height_width(img_size):
        return images
    return F.interpolate(images, height_width(img_size), mode='bicubic', antialias=True)


def compare(model: nn.Module, features: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor) -> float:
    """Largest error of tokens, without registers, and features, each relative to the source's largest. Raises ConfigError if
    the source's own features aren't finite."""
    expected = source_features(model, images)
    if not all(values.isfinite().all() for values in expected):
        raise ConfigError("the checkpoint's own features are NaN or infinite: use one from before training went wrong")
    tokens, pooled = features(images)
    found = tokens[:, num_registers(model.backbone) :], pooled
    return max(_relative_error(*pair) for pair in zip(found, expected, strict=True))


def _relative_error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float('inf')
    error = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    return float(error.nan_to_num(nan=float('inf')))


def _write_example(features: Features, images: dict[str, Tensor], path: Path) -> None:
    batch = list(images.values())[-1]
    tokens, pooled = features(batch)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, '.unfinished.npz') as unfinished:
        np.savez(unfinished, images=batch.numpy(), features=pooled.numpy(), tokens=tokens.numpy())


def _publish(folder: Path, names: list[str], target: Path) -> None:
    """Move finished files and folders into place, the one asked for last."""
    for name in reversed(names):
        if (target / name).is_dir():
            (target / name).rename(folder / f'{name}.old')
        (folder / name).replace(target / name)
        shutil.rmtree(folder / f'{name}.old', ignore_errors=True)
