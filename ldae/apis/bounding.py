# SPDX-License-Identifier: Apache-2.0
"""An l-DAE's loss by noise level beside that of the best linear denoiser, as ``ldae bound`` does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import DataLoader

from ldae.evaluation.gaussian_bound import BoundRow, denoising_bound
from ldae.evaluation.probe_data import image_dataloader, preprocessor_of
from ldae.models import LDAE
from ldae.utils import ConfigError, PositiveInt, Range, checked, provenance
from ldae.utils.files import atomic_write_text, write_json
from ldae.utils.tables import markdown_table
from ldae.visualization import bound_curves, save_figure

from .models import get_model
from .probing import check_output, images_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ('bound.json', 'bound.md', 'bound.png')


@dataclass(frozen=True)
class Bound:
    """Losses by time step; the head whose they are; whether the linear denoiser sees whole images or one token each; numbers of
    images; the files that were written."""

    rows: list[BoundRow]
    head: str
    whole: bool
    images: dict[str, int]
    files: Sequence[Path] = ()

    @property
    def scope(self) -> str:
        """For tables and titles."""
        return 'of whole images' if self.whole else 'of one token at a time'

    def table(self) -> list[list[str]]:
        """Cells, the header's first."""
        head = [
            't',
            'sigma',
            'model',
            '+-',
            'best linear: training images',
            'held-out images',
            'mean',
            'model / linear',
        ]
        numbers = ([*row[2:], row.ratio] for row in self.rows)
        cells = ([f'{value:.3g}' for value in line] for line in numbers)
        return [
            head,
            *([str(row.timestep), f'{row.sigma:.3f}', *line] for row, line in zip(self.rows, cells, strict=True)),
        ]

    def figure(self) -> 'Figure':
        """The curves."""
        names = {'model': 'model', f'best linear denoiser {self.scope}': 'linear', 'the mean': 'mean'}
        curves = {label: [getattr(row, name) for row in self.rows] for label, name in names.items()}
        return bound_curves([row.timestep for row in self.rows], curves)


@checked
def bound(
    checkpoint: str | Path | LDAE,
    config: str | Path | Config | None = None,
    data: str | Path | None = None,
    data_root: str | Path | None = None,
    timesteps: Sequence[int] | None = None,
    levels: Annotated[int, Range(2, 1000)] = 20,
    max_train_images: PositiveInt | None = None,
    max_test_images: PositiveInt | None = 2000,
    work_dir: str | Path | None = None,
    force: bool = False,
    device: str | None = 'auto',
    ema: bool = False,
) -> Bound:
    """Loss of an l-DAE by time step on held-out images, beside that of the best linear denoiser for the training images'
    covariance, in closed form.

    Args:
        checkpoint, config, ema, device: As of :func:`ldae.get_model`; or a model.
        data, data_root: Config whose images are used, and their folder, instead of the model's own.
        timesteps: None takes ``levels`` of them, as far apart as can be.
        max_train_images, max_test_images: For the covariance, and for the loss; None takes all.
        work_dir: Folder for ``bound.json``, ``bound.md`` and ``bound.png``; None writes nothing.
        force: Replace those that exist.
    """
    if work_dir is not None:
        check_output(Path(work_dir), force, FILES)
    model = checkpoint if isinstance(checkpoint, torch.nn.Module) else get_model(config, checkpoint, device, ema=ema)
    if not isinstance(model, LDAE):
        raise ConfigError(f'{type(model).__name__} takes no noise out: name the pre-training of an l-DAE')
    last = model.noiser.num_timesteps - 1
    steps = sorted(set(timesteps or torch.linspace(0, last, levels).round().int().tolist()))
    if not 0 <= steps[0] <= steps[-1] <= last:
        raise ConfigError(f'--t {steps[0]} ... {steps[-1]}: time steps are 0 to {last}')
    cfg = images_config(model, data, data_root, None)
    limits = max_train_images, max_test_images
    loaders = [image_dataloader(cfg, of_test, limit) for of_test, limit in zip((False, True), limits, strict=True)]
    train, test = (partial(_normalised, loader, preprocessor_of(model, cfg)) for loader in loaders)
    images = dict(zip(('train_images', 'test_images'), (len(loader.dataset) for loader in loaders), strict=True))
    rows, whole = denoising_bound(model, train, test, steps, images['train_images'])
    found = Bound(rows, type(model.head).__name__, whole, images)
    if work_dir is None:
        return found
    return replace(found, files=_write(found, Path(work_dir), checkpoint))


def _normalised(loader: DataLoader, preprocess: Any) -> Iterator[Tensor]:
    for batch in loader:
        yield preprocess(dict(inputs=batch['inputs'], data_samples=None))['inputs']


def _write(found: Bound, folder: Path, checkpoint: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    made_with = dict(checkpoint=str(checkpoint), head=found.head, whole_images=found.whole, **found.images)
    made_with |= dict(commit=provenance.commit(), versions=provenance.versions(), device=provenance.device())
    write_json(paths[0], dict(made_with, rows=[row._asdict() for row in found.rows]))
    about = (
        f'# Loss by noise level\n\n{checkpoint}, {found.head}; covariance of {found.images["train_images"]} training images, loss '
        f'on {found.images["test_images"]} held-out images; the linear denoiser is {found.scope}. Losses are weighted as in training.\n\n'
        'No linear denoiser is below `best linear`; where the data are Gaussian, nothing is. Of other data, a model above it is trained '
        'too little or faulty, and one below has learned more than second moments.\n\n'
    )
    atomic_write_text(paths[1], about + markdown_table(found.table(), left=0) + '\n')
    save_figure(found.figure(), paths[2])
    return paths
