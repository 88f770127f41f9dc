# SPDX-License-Identifier: Apache-2.0
"""The files and pictures that figures are drawn from."""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldae.ablation.report import METRICS, Summary, summarise
from ldae.ablation.results import PERCENT, SCALARS, WRONG
from ldae.apis.encoders import CHECKPOINTS, TRANSFORMERS, get_encoder
from ldae.apis.images import PICTURES, read_images, some_of
from ldae.apis.models import MMPRETRAIN, TIMM
from ldae.apis.preprocess import Preprocess
from ldae.apis.probing import images_config
from ldae.config.reading import gives_bgr
from ldae.config.rows import list_rows
from ldae.datasets.low_shot import spread_over_classes
from ldae.evaluation.further import describe_image, shown_image
from ldae.evaluation.probe import JSON_FILE, ProbeRow
from ldae.evaluation.probe_data import image_dataloader, labels_of_dataset
from ldae.generation.denoising import check_denoiser, prepared_images
from ldae.models import LDAE
from ldae.models.tokenizers import BaseTokenizer, Geometry, PatchPCATokenizer, open_tokenizer
from ldae.models.tokenizers.base import read_tokenizer
from ldae.utils import ConfigError, PositiveInt, checked
from ldae.utils.errors import short
from ldae.utils.models import to_pixels
from ldae.utils.ranges import NaturalInt, check_value
from ldae.utils.sizes import height_width
from ldae.visualization.accuracies import Spread

from .runs import KINDS, RunFiles

LIBRARIES = (TIMM, TRANSFORMERS, MMPRETRAIN)
RESULTS, COMPARISON = KINDS['study'], KINDS['comparison']
KNOWN = (JSON_FILE, RESULTS, COMPARISON, SCALARS, 'config.json', '*.pth', '*/seed*/*.pth')
#: Mean and deviation of pixels in the configs, by channels: a tokenizer's file doesn't say by which its images were normalised.
PIXELS = {1: ((72.94,), (90.02,)), 3: ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))}
#: Of which run of an ablation or comparison an encoder is taken: the first that is there.
PREFERRED = ('t3_5_original-image', 'ldae', 't2_pca_d32', '*')
#: Of images for a tokenizer that doesn't say: height and width, at most.
EDGE = 256


class Tokens(NamedTuple):
    """A tokenizer, images (B, C, H, W) as it takes them, and the data preprocessor that normalised them."""

    tokenizer: BaseTokenizer
    images: Tensor
    preprocessor: nn.Module

    def to_pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 255]."""
        return to_pixels(images, self.preprocessor)


class Source:
    """Files and pictures to draw from. Each part is read when it is first asked for, and raises ConfigError where there is none.

    Args:
        runs: Work dirs of trainings, ablations, comparisons, probes or the demo; checkpoints, files of tokenizers, exported
            folders, names of other libraries' encoders, models.
        images: The user's pictures, as :class:`ldae.FeatureExtractor` takes them; None takes test images of the run.
        count: Most pictures in a figure, but for those that show many.
        device, pretrained: As of :func:`ldae.get_encoder`.
        data_root: Of the test images, instead of the run's.
    """

    @checked
    def __init__(
        self,
        runs: Sequence[Any] = (),
        images: Any = None,
        count: PositiveInt = 4,
        device: Any = None,
        pretrained: bool = False,
        data_root: str | None = None,
    ) -> None:
        self.runs = [run if isinstance(run, nn.Module) else _place(str(run)) for run in runs]
        self.folders = [run for run in self.runs if isinstance(run, Path) and run.is_dir()]
        self.files = [run for run in self.runs if isinstance(run, Path) and run.is_file()]
        is_generator = isinstance(images, Iterable) and not hasattr(images, '__len__')
        self.given = list(images) if is_generator else images
        self.count, self.device, self.pretrained, self.data_root = count, device, pretrained, data_root

    def lacks(self, what: str) -> ConfigError:
        """The error of a part that isn't there."""
        return ConfigError(f'{what} in {", ".join(map(_name, self.runs))}' if self.runs else f'{what}: name a run')

    @cached_property
    def model(self) -> nn.Module:
        """The encoder, within what it was pre-trained by if a checkpoint holds that."""
        for run in self.runs:
            found = run if not isinstance(run, Path) else _checkpoint(run)
            if found is not None:
                return found if isinstance(found, nn.Module) else get_encoder(found, None, self.device, self.pretrained)
        raise self.lacks('no checkpoint')

    @property
    def _has_model(self) -> bool:
        return any(not isinstance(run, Path) or _checkpoint(run) for run in self.runs)

    @cached_property
    def denoiser(self) -> LDAE:
        """The model, which must be an l-DAE."""
        return check_denoiser(self.model, [])

    def pictures(self, count: int | None = None) -> tuple[list[np.ndarray], list[str]]:
        """At most ``count`` pictures, uint8 BGR (H, W, 3), of different classes as far as there are; and the names of those:
        of the folders of files, or what the run's data set says."""
        count = count or self.count
        if self.given is not None:
            reader = Preprocess(self.model).reader if self._has_model else PICTURES
            some = some_of(self.given, count, reader)
            found = list(islice(read_images(some, reader), count))
            is_files = isinstance(some, list) and all(isinstance(one, Path) for one in some)
            folders = [one.parent.name for one in some] if is_files else []
            return found, folders if len(set(folders)) > 1 else [''] * len(found)
        data, is_bgr = self._own_images
        labels = labels_of_dataset(data.dataset)
        labels = torch.zeros(len(data.dataset)) if labels is None else labels
        numbers = spread_over_classes(labels, count)
        about = [describe_image(data.dataset, number, labels) for number in numbers]
        shown = [shown_image(data, number, is_bgr) for number in numbers]
        shown = [one.expand(3, -1, -1) if len(one) == 1 else one for one in shown]
        names = [str(one.get('class', one['label'])) for one in about]
        return [
            np.ascontiguousarray(one.permute(1, 2, 0).numpy()[..., :: -1 if len(one) == 3 else 1]) for one in shown
        ], names

    @cached_property
    def _own_images(self) -> tuple[DataLoader, bool]:
        """Test images of the run, and whether they are BGR."""
        try:
            cfg = images_config(self.model, None, self.data_root, None)
            return image_dataloader(cfg, of_test=True), gives_bgr(cfg)
        except (ConfigError, OSError, KeyError) as error:
            why = str(error).partition(': ')[0]
            raise ConfigError(f'no pictures of the run ({why}): name some with --image') from error

    @cached_property
    def images(self) -> Tensor:
        """Pictures as the model takes them (B, C, H, W)."""
        return prepared_images(self.model, self.pictures()[0])

    @cached_property
    def tokenizers(self) -> list[BaseTokenizer]:
        """That of the model, those in files that are named, and of an ablation those that were trained at the same d; where
        nothing but pictures is named, a PCA of them."""
        if not self.runs:
            if self.given is None:
                raise ConfigError('no tokenizer: name a run, or pictures to fit a PCA to')
            own = PatchPCATokenizer(EDGE, 16, 3, 32)
            own.fit([self._as_taken(own).images])
            return [own]
        found, size = [], EDGE
        if self._own_tokenizer is not None:
            found, size = [self._own_tokenizer], self._own_tokenizer.geometry.img_size
        files = [file for file in self.files if is_tokenizer(file)]
        if not found:  # of a training without a checkpoint yet, or of a tokenizer
            files += [file for folder in self.folders for file in sorted(folder.glob('tokenizer*.pth'))]
        found += [open_tokenizer(file, size) for file in files]
        trained = [file for folder in self.folders for file in sorted(folder.glob('tokenizers/patch-*/tokenizer.pth'))]
        others = [open_tokenizer(file, size) for file in trained]
        found += [other for other in others if not found or other.geometry[1:] == found[0].geometry[1:]]
        if not found:
            raise self.lacks('no tokenizer')
        return found

    @cached_property
    def _own_tokenizer(self) -> BaseTokenizer | None:
        own = getattr(self.model, 'tokenizer', None) if self._has_model else None
        return own if isinstance(own, BaseTokenizer) else None

    @cached_property
    def tokens(self) -> list[Tokens]:
        """The tokenizers with pictures as each takes them."""
        return [self._as_taken(one) for one in self.tokenizers]

    def _as_taken(self, tokenizer: BaseTokenizer) -> Tokens:
        """Those of the model, where it has the same shapes; else, since a file says nothing of pictures, resized, cropped, and
        normalised as in the configs."""
        own, (size, _, channels, _) = self._own_tokenizer, tokenizer.geometry
        if own is not None and own.geometry[::2] == (size, channels):
            return Tokens(tokenizer.to(self.images.device), self.images, self.model.data_preprocessor)
        return Tokens(tokenizer, *normalised(self.pictures()[0], tokenizer.geometry))

    @property
    def log(self) -> dict[str, list[tuple[int, float]]]:
        """The curves of a training."""
        return self.training.curves()

    @cached_property
    def training(self) -> RunFiles:
        """The first run that has logged something."""
        beside = [found.parent for run in self.runs if isinstance(run, Path) and (found := _checkpoint(run))]
        for folder in (*self.folders, *beside):
            if (run := RunFiles(folder, 'training')).log:
                return run
        raise self.lacks('no log of a training')

    @cached_property
    def probe(self) -> list[ProbeRow]:
        """The rows of ``probe.json``."""
        file = self._file(JSON_FILE)
        try:
            rows = json.loads(file.read_text())['results']
            rows = [
                ProbeRow(**dict(row, knn={int(k): float(value) for k, value in row['knn'].items()})) for row in rows
            ]
            for row in rows:
                for name, hint in dict(block=int, timestep=NaturalInt | None, input=str, linear=PERCENT).items():
                    check_value(name, getattr(row, name), hint)
            return rows
        except WRONG as error:
            raise ConfigError(f'{file} is not a result of ldae probe ({short(error)})') from error

    @cached_property
    def summaries(self) -> list[Summary]:
        """The rows of the paper's tables that an ablation has run."""
        found = summarise(list_rows(), self._entries)
        if not found:
            raise self.lacks("no row of the paper's tables")
        return found

    @cached_property
    def scale(self) -> str:
        """That of an ablation."""
        return str(self._entries[-1].get('scale'))

    @cached_property
    def _entries(self) -> list[dict]:
        return [entry for entry in RunFiles(self._file(RESULTS).parent, 'study').entries if 'protocol' in entry]

    @cached_property
    def comparison(self) -> dict[str, tuple[Spread, Spread]]:
        """k-NN and linear accuracy of the encoders of a comparison, by label."""
        file = self._file(COMPARISON)
        try:
            rows = json.loads(file.read_text())['encoders'].values()
            found = {row['label']: tuple((row[m]['mean'], row[m]['std']) for m in METRICS) for row in rows}
            for place, value in ((label, v) for label, scores in found.items() for score in scores for v in score):
                check_value(place, value, PERCENT | None)
            return found
        except WRONG as error:
            raise ConfigError(f'{file} is not a result of ldae compare ({short(error)})') from error

    def _file(self, name: str) -> Path:
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        raise self.lacks(f'no {name}')


def normalised(pictures: Sequence[np.ndarray], geometry: Geometry) -> tuple[Tensor, ImgDataPreprocessor]:
    """BGR pictures resized, cropped and normalised as in the configs (B, C, H, W), and what normalises so."""
    channels, (height, width) = geometry.in_channels, height_width(geometry.img_size)
    if channels not in PIXELS:
        raise ConfigError(
            f'a file of a tokenizer of {channels} bands does not say how they are normalised: name the checkpoint'
        )
    preprocessor = ImgDataPreprocessor(*PIXELS[channels])
    mode = 'L' if channels == 1 else 'RGB'
    rgb = (ImageOps.fit(Image.fromarray(picture[..., ::-1]).convert(mode), (width, height)) for picture in pictures)
    pixels = np.array([np.asarray(one) for one in rgb], np.float32).reshape(-1, height, width, channels)
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) - preprocessor.mean) / preprocessor.std, preprocessor


def kind_of(tokenizer: BaseTokenizer) -> str:
    """``PCA``, ``VAE``, ``DCT``."""
    return type(tokenizer).__name__.removesuffix('Tokenizer').removeprefix('Patch')


def _place(run: str) -> Path | str:
    """A file or folder that is there, and holds something; or the name of another library's encoder."""
    if run.startswith(LIBRARIES):
        return run
    path = Path(run).expanduser()
    if path.is_file() and path.suffix in CHECKPOINTS:  # a config would be a program
        return path
    if path.is_file():
        raise ConfigError(f'{run} is neither a work dir nor a checkpoint ({", ".join(CHECKPOINTS)})')
    if not path.is_dir():
        raise ConfigError(f'{run} does not exist: name a work dir, a checkpoint, or a file of a tokenizer')
    below = [folder for folder in sorted(path.iterdir()) if (folder / RESULTS).is_file()]  # an ablation's, by its scale
    for folder in (path, *below):
        if any(True for pattern in KNOWN for _ in folder.glob(pattern)):
            return folder
    raise ConfigError(
        f'{run} holds nothing that figures are drawn from: neither a checkpoint nor results of a training, a probe, an '
        'ablation or a comparison'
    )


def is_tokenizer(file: Path) -> bool:
    """Whether a file is a tokenizer's."""
    try:
        return bool(read_tokenizer(file))
    except ConfigError:
        return False


def _checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a training; of an ablation or comparison, that of one of its runs."""
    if run.is_file():
        return None if is_tokenizer(run) else run
    if (run / 'config.json').is_file():
        return run
    for pattern in ('*.pth', *(f'{name}/seed*/*.pth' for name in PREFERRED)):
        files = [
            file
            for file in run.glob(pattern)
            if not file.name.startswith('tokenizer') and file.parent.parent.name != 'tokenizers'
        ]
        if files:
            return max(files, key=lambda file: (file.stat().st_mtime, file.name))
    return None


def _name(run: Any) -> str:
    return type(run).__name__ if isinstance(run, nn.Module) else str(run)
