# SPDX-License-Identifier: Apache-2.0
"""Linear segmentation on an encoder's patch features, of a folder of images and masks."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.dist import is_main_process
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldae.datasets.mask_folder import MaskFolder
from ldae.evaluation.cache import CachedFeatures, FeatureSetting, cache_features
from ldae.evaluation.dense_probe import DENSE, DenseOptions, DenseResult, dense_probe, predict_mask
from ldae.evaluation.features import num_blocks, resolve_blocks, resolve_inputs
from ldae.evaluation.probe_data import preprocessor_of
from ldae.models.tokenizers.fit import fit_tokenizer
from ldae.utils import ConfigError, NaturalInt, PositiveInt, Seed, checked, provenance
from ldae.utils.device import autocast, use_device
from ldae.utils.files import atomic_write_text, write_json
from ldae.utils.ranges import Precision
from ldae.utils.sizes import height_width
from ldae.utils.tables import markdown_table, text_table
from ldae.visualization import save_figure, segmentation_grid
from ldae.visualization.tiles import check_shown, shown

from .encoders import get_encoder
from .feature_extractor import patch_grid
from .preprocess import Preprocess, image_shape_of
from .probing import check_output, default_work_dir

FILES = ('segmentation.json', 'segmentation.md', 'segmentation.png')
SHOWN = 6  # test images in the picture
FITTED = 1000  # training images, for the tokenizer of an untrained l-DAE
KEPT_MASKS = 2**28  # bytes of training masks that stay in memory


@dataclass(frozen=True)
class Segmentation:
    """The result of a dense probe: mIoU and the rest, the class numbers, and what made it."""

    result: DenseResult
    classes: list[int]
    made_with: dict[str, Any]
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """For ``segmentation.json``."""
        result, score = self.result, self.result.score
        tried = [
            dict(lr=s.lr, weight_decay=s.weight_decay, held_out_miou=round(v, 2)) for s, v in result.held_out.items()
        ]
        shares = score.confusion.sum(1) / score.confusion.sum()
        each = zip(self.classes, score.iou.tolist(), shares.tolist(), strict=True)
        return dict(
            miou=round(score.miou, 2),
            pixel_accuracy=round(score.accuracy, 2),
            constant_miou=round(score.constant_miou, 2),
            held_out_miou=round(result.held_out[result.setting], 2) if result.held_out else None,
            lr=result.setting.lr,
            weight_decay=result.setting.weight_decay,
            at_edge=list(result.at_edge),
            tried=tried,
            classes=[
                dict(value=value, iou=None if iou != iou else round(iou, 2), share=round(share, 4))
                for value, iou, share in each
            ],
            **self.made_with,
        )

    def table(self) -> list[list[str]]:
        """Cells: each class, its share of the test pixels and its IoU, and the mean."""
        found = self.as_dict()
        rows = [
            [str(one['value']), f'{100 * one["share"]:.1f}', '-' if one['iou'] is None else f'{one["iou"]:.1f}']
            for one in found['classes']
        ]
        return [['class', 'pixels (%)', 'IoU (%)'], *rows, ['mean', '', f'{found["miou"]:.1f}']]

    def line(self) -> str:
        """The figures in a line."""
        found = self.as_dict()
        held_out = (
            '' if found['held_out_miou'] is None else f', by held-out training images ({found["held_out_miou"]:.1f})'
        )
        return (
            f'mIoU {found["miou"]:.1f}, {found["pixel_accuracy"]:.1f}% of the pixels right; of the most frequent class '
            f'everywhere: mIoU {found["constant_miou"]:.1f} (lr {found["lr"]:g}, wd {found["weight_decay"]:g}{held_out})'
        )

    def report(self) -> str:
        """For the terminal."""
        return f'{text_table(self.table())}\n\n{self.line()}'

    def page(self) -> str:
        """For ``segmentation.md``."""
        about = self.made_with
        parts = [
            f'# Linear segmentation on patches of {about["model"]}',
            f'{about["checkpoint"] or "no checkpoint"}; {about["train_images"]} training and {about["test_images"]} test '
            f'images, whole, at {about["size"][0]} x {about["size"][1]} pixels, {about["grid"][0]} x {about["grid"][1]} '
            f'patches; features after {about["of"]}.',
            f'{self.line()}.',
            markdown_table(self.table()),
            '![Test images, masks and predictions](segmentation.png)',
        ]
        return '\n\n'.join(parts) + '\n'


@checked
def segment(
    checkpoint: str | Path | None = None,
    data_root: str | Path | None = None,
    config: str | Path | Config | None = None,
    pretrained: bool = False,
    cfg_options: dict | None = None,
    ignore: NaturalInt | None = 255,
    classes: PositiveInt | None = None,
    max_train_images: PositiveInt | None = None,
    max_test_images: PositiveInt | None = None,
    block: int = -1,
    timestep: NaturalInt | None = None,
    options: DenseOptions = DENSE,
    batch_size: PositiveInt = 64,
    num_workers: NaturalInt = 0,
    seed: Seed = 0,
    work_dir: str | Path | None = None,
    force: bool = False,
    device: str | torch.device = 'auto',
    precision: Precision | None = None,
    ema: bool = False,
    shown_bands: Sequence[NaturalInt] | None = None,
) -> Segmentation:
    """Score an encoder by a linear layer on each patch that predicts the class of each pixel: mIoU on test images.

    Images are resized, whole, to the size that the encoder takes; training masks too, by the nearest pixel, and test
    images are scored at the size of their masks. Raises ConfigError for options and data that can't be used.

    Args:
        checkpoint, config, pretrained, cfg_options, ema: As of :func:`ldae.get_encoder`.
        data_root: Folder of ``images/train``, ``images/val``, ``masks/train`` and ``masks/val``.
        ignore, classes: The value of pixels that don't count; values lie below ``classes``, if that is given.
        max_train_images, max_test_images: At most so many, chosen at random; None for all.
        block, timestep: Where features are taken; None is the encoder's own time step.
        options, shown_bands: How the layer is trained and chosen; the bands of the picture, where there are not three.
        batch_size, num_workers: Images encoded at a time, processes that read them.
        work_dir, force: Folder of results (None: ``work_dirs/segment/<run>_<checkpoint>``), which are replaced if asked.
    """
    if data_root is None or (checkpoint is None and config is None):
        raise ConfigError('name a checkpoint (or a model with --config), and images and masks with --data-root')
    default = default_work_dir(checkpoint, config).replace('/probe/', '/segment/')
    folder = Path(work_dir or default + ('_ema' if ema else ''))
    check_output(folder, force, FILES)
    torch.manual_seed(seed)
    start = time.perf_counter()
    model = get_encoder(config, checkpoint, use_device(device), cfg_options=cfg_options, pretrained=pretrained, ema=ema)
    setting, (size, channels) = _setting(model, block, timestep), _input_of(model)
    check_shown(shown_bands := shown_bands or getattr(model, 'shown_bands', None), channels)
    images = partial(MaskFolder, data_root, reader=Preprocess(model).reader)
    limits = (('train', max_train_images), ('val', max_test_images))
    sets = [images(split, size, channels, ignore, classes, limit) for split, limit in limits]
    sets[1].check_values(values := tuple(sets[0].values))
    tokenizer = getattr(model, 'tokenizer', None)
    if getattr(tokenizer, 'needs_fit', False) and not tokenizer.is_fitted:  # of an untrained l-DAE
        fit_tokenizer(tokenizer, sets[0], model.data_preprocessor, num_images=FITTED, seed=seed)
    place = next((param.device for param in model.parameters()), torch.device('cpu'))
    with autocast(precision, place):
        train, test = (_tokens(one, model, setting, folder / 'features', batch_size, num_workers) for one in sets)
    train_masks, test_masks = partial(sets[0].mask, values=values, size=size), partial(sets[1].mask, values=values)
    if len(sets[0]) * size[0] * size[1] * 8 <= KEPT_MASKS:
        train_masks = lru_cache(maxsize=None)(train_masks)
    masked = train, train_masks, test, test_masks, len(values), (grid := patch_grid(train.shape[1], size))
    result = dense_probe(*masked, options, seed, place)
    made_with = dict(
        model=getattr(model, 'about', type(model).__name__),
        **_named(checkpoint=checkpoint, config=getattr(config, 'filename', config), data=data_root),
        **dict(train_images=len(sets[0]), test_images=len(sets[1]), size=list(size), grid=list(grid)),
        **dict(of=str(setting), ignore=ignore, options=options.as_dict(), seed=seed, ema=ema),
        seconds=round(time.perf_counter() - start, 1),
        **dict(versions=provenance.versions(), commit=provenance.commit(), device=provenance.device()),
    )
    found = Segmentation(result, list(values), made_with, folder)
    if is_main_process():
        write_segmentation(found, _picture(found, sets[1], test, test_masks, shown_bands))
    return found


def write_segmentation(found: Segmentation, figure: Any) -> None:
    """``segmentation.json``, ``segmentation.md`` and ``segmentation.png``."""
    found.folder.mkdir(parents=True, exist_ok=True)
    save_figure(figure, found.folder / FILES[2])
    atomic_write_text(found.folder / FILES[1], found.page())
    write_json(found.folder / FILES[0], found.as_dict())


def _named(**paths: Any) -> dict[str, str | None]:
    return {name: None if path is None else str(path) for name, path in paths.items()}


def _setting(model: nn.Module, block: int, timestep: int | None) -> FeatureSetting:
    [block] = resolve_blocks(num_blocks(model), [block])
    [timestep], _ = resolve_inputs(model, None if timestep is None else [timestep], [False])
    return FeatureSetting(block, timestep)


def _input_of(model: nn.Module) -> tuple[tuple[int, int], int]:
    """Height and width, and channels, of the images that a model takes."""
    if (size := getattr(model, 'input_size', None)) is not None:
        return tuple(size[-2:]), len(model.data_preprocessor.mean)
    size, channels = image_shape_of(model)
    return height_width(size), channels


def _tokens(
    images: MaskFolder, model: nn.Module, setting: FeatureSetting, folder: Path, batch_size: int, num_workers: int
) -> CachedFeatures:
    """Patch tokens of all images, on disk; used again while neither the files nor the encoder have changed."""
    paths = [images.folders[0] / file for file, _ in images.files]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    data = ['segment', hashlib.sha256(json.dumps(stats).encode()).hexdigest(), images.size, images.channels]
    data += [repr(images.reader)] if images.reader.channels else []  # of pictures, what was kept before stays
    sampler = DefaultSampler(images, shuffle=False)
    loader = DataLoader(images, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=default_collate)
    timesteps = None if setting.timestep is None else [setting.timestep]
    where = dict(blocks=[setting.block], timesteps=timesteps, data=data, tokens=True, desc=images.folders[0].name)
    # Images are RGB, which is turned for a model that was trained on BGR.
    return cache_features(model, loader, preprocessor_of(model, Config()), folder, **where).tokens(setting)


def _picture(
    found: Segmentation,
    images: MaskFolder,
    tokens: CachedFeatures,
    masks: Callable[[int], Tensor],
    bands: Sequence[int] | None,
) -> Any:
    """Some test images, evenly spread, their masks, and what is predicted, at the size that the encoder takes."""
    count = min(SHOWN, len(images))
    columns, (head, grid) = [], (found.result.head, found.result.grid)
    for number in torch.linspace(0, len(images) - 1, count).round().long().tolist():
        mask = masks(number)
        predicted = predict_mask(head, tokens[torch.tensor([number])][0], grid, mask.shape)
        columns.append((shown(images[number]['inputs'][None], bands)[0], mask, predicted))
    return segmentation_grid(columns, [str(value) for value in found.classes])
