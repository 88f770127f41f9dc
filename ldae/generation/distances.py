# SPDX-License-Identifier: Apache-2.0
"""How far a set of images is from another: Fréchet and kernel distance, precision and recall, Inception score.

torch-fidelity computes the figures. A distance is called FID, KID only if the true weights of Inception made all features.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import nn
from tqdm import tqdm

from ldae.utils import ConfigError, PositiveInt, Seed, checked, provenance
from ldae.utils.errors import short
from ldae.utils.optional import import_extra
from ldae.utils.tables import text_table
from ldae.version import __version__

from . import extractors
from .extractors import INCEPTION, Extractor, build_extractor
from .image_sets import ImageSet, open_images
from .statistics import RunningStatistics, Statistics

#: Of the kernel distance: the average over so many random subsets of such a size.
SUBSETS, SUBSET_SIZE = 100, 1000
NEIGHBOURS = 3
SPLITS = 10
#: Below so many images a dimension, the Fréchet distance is much too large.
PER_DIMENSION = 10
CACHE = 'work_dirs/statistics'


@dataclass(frozen=True)
class Distances:
    """Figures of samples against a reference, and what they were made from.

    Attributes:
        extractor: The network whose features were compared.
        is_fid: Whether that was Inception with its true weights, for both sides.
        frechet, kernel, kernel_std, precision, recall: Of the features; None where the images are too few, or a file of
            statistics holds no features.
        inception_score, inception_score_std: Of the samples, by Inception only.
        rows: How many samples and reference images the figures but the Fréchet distance were computed from.
        samples, reference: What was read.
        notes: What to keep in mind.
    """

    extractor: str
    weights: str
    dims: int
    is_fid: bool
    frechet: float
    rows: tuple[int, int]
    samples: Mapping[str, Any]
    reference: Mapping[str, Any]
    notes: Sequence[str] = ()
    kernel: float | None = None
    kernel_std: float | None = None
    precision: float | None = None
    recall: float | None = None
    inception_score: float | None = None
    inception_score_std: float | None = None

    @property
    def name(self) -> str:
        """The name that the Fréchet distance may have."""
        return 'FID' if self.is_fid else f'Fréchet distance ({self.extractor})'

    @property
    def metric_names(self) -> tuple[str, str]:
        """Of the Fréchet and the kernel distance, among a run's metrics."""
        return ('fid', 'kid') if self.is_fid else ('distance', 'kernel_distance')

    def as_dict(self) -> dict[str, Any]:
        """All of it, and with what it was computed, for a file."""
        return dict(asdict(self), name=self.name, versions=provenance.versions(), commit=provenance.commit())

    def text(self) -> str:
        """A table, above it what was compared, below it what to keep in mind."""
        kernel = 'KID' if self.is_fid else f'kernel distance ({self.extractor})'
        of_all, of_rows = ([_count(side.get('images')) for side in (self.samples, self.reference)], self.rows)
        figures = [
            (self.name, self.frechet, None, of_all),
            (kernel, self.kernel, self.kernel_std, of_rows),
            ('precision', self.precision, None, of_rows),
            ('recall', self.recall, None, of_rows),
            ('Inception score', self.inception_score, self.inception_score_std, (of_rows[0], '')),
        ]
        table = [('figure', 'value', 'samples', 'reference')]
        for name, value, std, counts in figures:
            if value is not None:
                shown = f'{value:.4g}' if std is None else f'{value:.4g} ± {std:.2g}'
                table.append((name, shown, *map(_count, counts)))
        sides = [
            f'{name:<10} {_in_words(side)}' for name, side in (('samples', self.samples), ('reference', self.reference))
        ]
        network = (
            f'{"features":<10} {self.extractor}, {self.dims:,} dimensions, weights {self.weights[:12] or "unknown"}'
        )
        return '\n'.join([*sides, network, '', text_table(table), *(f'note: {note}' for note in self.notes)])


@checked
def frechet_distance(
    samples: Any,
    reference: Any,
    num: PositiveInt | None = None,
    reference_num: PositiveInt | None = None,
    size: PositiveInt | None = None,
    features: str | os.PathLike | nn.Module | Extractor | None = None,
    weights: str | os.PathLike | None = None,
    inception: str | os.PathLike | None = None,
    scale: str | None = None,
    cfg_options: dict | None = None,
    data_root: str | None = None,
    subset: PositiveInt = 10_000,
    batch_size: PositiveInt = 64,
    workers: PositiveInt = 2,
    seed: Seed = 0,
    cache: str | os.PathLike | None = CACHE,
    refresh: bool = False,
    device: str | torch.device | None = None,
) -> Distances:
    """Fréchet distance of images to others, and beside it kernel distance, precision, recall and Inception score.

    Images are read and features computed a batch at a time; memory does not depend on their number.

    Args:
        samples, reference: What :func:`ldae.generation.open_images` takes each: a folder, an .npz of images or of statistics,
            a config (``CONFIG:train``, ``CONFIG:val``), images in memory.
        num, reference_num: So many of the images, chosen at random; None: all.
        size: Resize the short edge of each image, bicubic, and crop the centre; None: images of one size, as they are.
        features, weights, inception: The network: see :func:`ldae.generation.build_extractor`.
        scale, cfg_options, data_root: Of a config that names images.
        subset: Images, chosen at random, whose features are kept for what needs more than mean and covariance.
        batch_size: Images a pass of the network.
        workers: Threads that decode files.
        seed: Of what is chosen.
        cache: Folder of the reference's statistics, which are used again for the same images and network; None: no file.
        refresh: Compute them anew: images of a config have changed in place.
        device: Where to compute.

    Raises:
        ConfigError: No images, images of several sizes, the wrong file of Inception, statistics of another network.
    """
    import_extra('torch_fidelity', 'generation', 'the Fréchet distance')
    of_config = dict(scale=scale, cfg_options=cfg_options, data_root=data_root)
    sides = [open_images(source, workers, **of_config) for source in (samples, reference)]
    for side, count, option in zip(sides, (num, reference_num), ('--num', '--reference-num'), strict=True):
        if isinstance(side, ImageSet):
            side.choose(count, seed, option)
            side.crop = size
        elif count is not None:
            raise ConfigError(f'{option} {count:,}: statistics cannot be made of fewer images: name the images')
    extractor = None
    if any(isinstance(side, ImageSet) for side in sides):
        extractor = build_extractor(features, weights, inception, device)
    else:
        given = dict(features=features, inception=inception, weights=weights, size=size)
        if unused := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f'--{unused[0]} is of images, and both sides are statistics, compared as they are: leave it out'
            )
    compute = dict(subset=subset, batch_size=batch_size, seed=seed)
    if isinstance(sides[1], ImageSet):
        sides[1] = _cached(sides[1], extractor, cache and Path(cache), refresh, compute)
    if isinstance(sides[0], ImageSet):
        sides[0] = compute_statistics(sides[0], extractor, **compute)
    sources = dict(samples=samples, reference=reference)
    names = [str(source) if isinstance(source, str | os.PathLike) else name for name, source in sources.items()]
    return compare(*sides, seed, names)


def compute_statistics(
    images: ImageSet, extractor: Extractor, subset: int = 10_000, batch_size: int = 64, seed: int = 0
) -> Statistics:
    """Statistics of the features of a set of images, in one pass."""
    running = RunningStatistics(extractor.dims, subset, seed)
    show = None if is_main_process() else True
    with tqdm(total=len(images), desc=images.name[-40:], unit='image', leave=False, disable=show) as bar:
        for batch in images.batches(batch_size):
            running.add(extractor.run(batch))
            bar.update(len(batch))
    return running.statistics(extractor.network, protocol=images.protocol(), ldae=__version__)


def _cached(
    images: ImageSet, extractor: Extractor, folder: Path | None, refresh: bool, options: Mapping[str, int]
) -> Statistics:
    if folder is None or images.made_from is None:
        return compute_statistics(images, extractor, **options)
    name = Path(images.name.partition(',')[0].rpartition(':')[2]).stem
    path = folder / f'{name}-{images.key()}-{extractor.weights[:12]}-{options["subset"]}-{options["seed"]}.npz'
    if path.is_file() and not refresh:
        with suppress(ConfigError):  # what is damaged is made anew
            found = Statistics.load(path)
            if found.network == extractor.network:
                found.meta['protocol']['cached'] = str(path)
                return found
    try:  # before the pass, which may take hours
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        print_log(f'Statistics are not kept: {folder} cannot be written ({short(error)})', 'current', logging.WARNING)
        return compute_statistics(images, extractor, **options)
    found = compute_statistics(images, extractor, **options)
    try:
        found.save(path)
        found.meta['protocol']['kept'] = str(path)
    except OSError as error:
        print_log(f'Statistics are not kept: {path} cannot be written ({short(error)})', 'current', logging.WARNING)
    return found


def compare(
    samples: Statistics, reference: Statistics, seed: int = 0, names: Sequence[str] = ('samples', 'reference')
) -> Distances:
    """Figures of two statistics, by torch-fidelity.

    Raises:
        ConfigError: They are of different networks.
    """
    library, sides = import_extra('torch_fidelity', 'generation', 'the Fréchet distance'), (samples, reference)
    known = [side.network for side in sides if side.network]
    if samples.dims != reference.dims or len(set(known)) > 1:
        network, other = (
            f'{side.network[0]} (weights {side.network[1][:12]}, ' if side.network else 'an unknown network ('
            for side in sides
        )
        raise ConfigError(
            f'{names[0]} has features of {network}{samples.dims:,} dimensions), {names[1]} of {other}{reference.dims:,} '
            'dimensions): compare what one network has made, at one time step, by one version of ldae'
        )
    moments = [dict(mu=side.mean, sigma=side.covariance) for side in sides]
    extractor, weights = known[0] if known else ('unknown features', '')
    found = [
        dict(side.meta.get('protocol') or dict(source=name), images=side.count)
        for name, side in zip(names, sides, strict=True)
    ]
    return Distances(
        extractor=extractor,
        weights=weights,
        dims=samples.dims,
        is_fid=all(side.network == (INCEPTION, extractors.INCEPTION_SHA256) for side in sides),
        frechet=library.metric_fid.fid_statistics_to_metric(*moments, verbose=False)[library.KEY_METRIC_FID],
        rows=tuple(0 if side.rows is None else len(side.rows) for side in sides),
        samples=found[0],
        reference=found[1],
        notes=tuple(_notes(sides, found)),
        **_figures_of_rows(library, samples, reference, seed),
    )


def _figures_of_rows(library: ModuleType, samples: Statistics, reference: Statistics, seed: int) -> dict[str, float]:
    """The figures that need more than mean and covariance, as far as there are rows."""
    figures: dict[str, float] = {}
    rows = [side.rows if side.rows is not None else torch.empty(0, side.dims) for side in (samples, reference)]
    options, least = dict(rng_seed=seed, verbose=False), min(map(len, rows))
    if rows[0].shape[1] > samples.dims:
        logits = rows[0][:, samples.dims :]
        found = library.metric_isc.isc_features_to_metric(logits, splits=min(SPLITS, len(logits)), rng_seed=seed)
        figures.update(
            inception_score=found[library.KEY_METRIC_ISC_MEAN], inception_score_std=found[library.KEY_METRIC_ISC_STD]
        )
    if least > NEIGHBOURS:
        features, size = [part[:, : samples.dims] for part in rows], min(SUBSET_SIZE, least)
        subsets = SUBSETS if max(map(len, rows)) > size else 1
        found = library.metric_kid.kid_features_to_metric(
            *features, kid_subset_size=size, kid_subsets=subsets, **options
        )
        figures['kernel'] = found[library.KEY_METRIC_KID_MEAN]
        if subsets > 1:
            figures['kernel_std'] = found[library.KEY_METRIC_KID_STD]
        found = library.metric_prc.prc_features_to_metric(
            *features, prc_neighborhood=NEIGHBOURS, prc_batch_size=1000, save_cpu_ram=True, **options
        )
        figures.update(precision=found[library.KEY_METRIC_PRECISION], recall=found[library.KEY_METRIC_RECALL])
    return figures


def _notes(sides: Sequence[Statistics], found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for side, protocol in zip(sides, found, strict=True):
        if not side.network:
            yield (
                f'{protocol["source"]} does not say which network and images it was made from: the distance is not called FID'
            )
        elif side.count < PER_DIMENSION * side.dims:
            yield (
                f'{side.count:,} images of {protocol["source"]} are fewer than {PER_DIMENSION} times the {side.dims:,} '
                'dimensions: their Fréchet distance is too large; compare figures of the same number only'
            )
    sizes = {tuple(protocol['size']) for protocol in found if protocol.get('size')}
    if len(sizes) > 1:
        shown = ' and '.join(f'{height} x {width}' for height, width in sizes)
        yield f'the images compared are of {shown} pixels: --size N brings all to one size'


def _count(number: int | str | None) -> str:
    return 'unknown' if number is None else number if isinstance(number, str) else f'{number:,}'


def _in_words(side: Mapping[str, Any]) -> str:
    """One line of what was read, and how."""
    if 'kind' not in side:
        return f'{side["source"]}: statistics of {_count(side["images"])} images'
    of, seed = ('', '') if side['seed'] is None else (f' of {_count(side["of"])}', f' (seed {side["seed"]})')
    size = ' x '.join(map(str, side['size']))
    told = [f'{side["source"]}: {_count(side["images"])}{of} images{seed}, {size}, {side["kind"]}', side['resized']]
    told += [f'statistics {what} {side[key]}' for key, what in (('cached', 'of'), ('kept', 'kept in')) if key in side]
    return '; '.join(filter(None, told))
