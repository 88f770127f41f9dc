# SPDX-License-Identifier: Apache-2.0
"""An encoder's blocks, time steps and inputs, scored by one protocol from one pass over the images: figures, table, page
and pictures."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldae.config.reading import gives_bgr
from ldae.utils import ConfigError
from ldae.utils.device import autocast
from ldae.utils.files import atomic_write_text, write_json
from ldae.utils.tables import markdown_table, text_table
from ldae.visualization import accuracy_curves, save_figure

from .cache import FeatureCache, FeatureSetting, cache_features
from .features import check_pooling, num_blocks, num_decoder_blocks, resolve_blocks, resolve_inputs
from .further import Chosen, Found, Further, look_further, mean_by_severity
from .knn import check_classes
from .probe_data import data_description, labelled_dataloaders, labels_of_dataset, preprocessor_of
from .protocol import PROTOCOL, Protocol, Score, choose, score_sets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING_FURTHER = Further()
RANGE = re.compile(r'(\d+)-(\d+)')
#: Of k-NN, where none are asked for.
NEIGHBOURS = (10, 20, 100, 200)
POOLINGS = dict(mean='average-pooled features', cls='class tokens', own="the encoder's own pooled output")


@dataclass(frozen=True)
class ProbeRow:
    """Accuracies in percent of the features after one block, at one time step, of one kind of input.

    ``held_out`` is the linear layer's on held-out training images; None where nothing was held out."""

    block: int
    timestep: int | None
    input: str
    knn: dict[int, float]
    linear: float
    lr: float | None
    weight_decay: float
    held_out: float | None = None
    at_edge: Sequence[str] = ()

    @classmethod
    def of(cls, setting: FeatureSetting, score: Score) -> 'ProbeRow':
        """Of what was measured of one set of features."""
        kind = 'noisy' if setting.noisy else 'clean'
        knn = {k: round(value, 2) for k, value in score.knn.items()}
        found = score.as_dict()
        names = ('linear', 'lr', 'weight_decay', 'held_out', 'at_edge')
        return cls(setting.block, setting.timestep, kind, knn, **{name: found[name] for name in names})

    @property
    def place(self) -> str:
        """``block 12, t = 10, noisy``."""
        return str(FeatureSetting(self.block, self.timestep, self.input == 'noisy'))


@dataclass(frozen=True)
class ProbeScores:
    """The result of a probe: ``rows``, one a set of features; the one ``chosen``, which is best on held-out training
    images, None where nothing was held out; the protocol; numbers of images and classes; seconds of the steps; the
    files that were written; and what else was asked of the chosen one (:class:`ldae.evaluation.further.Found`)."""

    rows: list[ProbeRow]
    chosen: ProbeRow | None
    protocol: Protocol
    data: dict[str, int]
    seconds: dict[str, float]
    files: Sequence[Path] = ()
    further: Found = Found()


def probe_encoder(
    model: nn.Module,
    data: Config,
    cache: Path,
    blocks: Sequence[str | int] = (-1,),
    timesteps: Sequence[int] | None = None,
    noisy: Sequence[bool] = (False,),
    k: Sequence[int] | None = (PROTOCOL.k,),
    protocol: Protocol = PROTOCOL,
    limits: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
    memory: float = 4.0,
    refresh: bool = False,
    verify: bool = False,
    precision: str | None = None,
    further: Further = NOTHING_FURTHER,
) -> ProbeScores:
    """Score the features after each block, at each time step, of each kind of input.

    In a distributed run all processes call this; they share the work, and all get the scores. Raises ConfigError for
    blocks, time steps or inputs that the model doesn't have, data that can't be scored.

    Args:
        model: As :func:`ldae.evaluation.block_features` takes it, in evaluation mode.
        data, cache: Config that names training and test images; folder of the features, which are used again.
        blocks, timesteps, noisy: As :func:`parse_blocks` and :func:`ldae.evaluation.cache_features` take them.
        k: Numbers of neighbours; None takes those of :data:`NEIGHBOURS` for which there are images. Where the protocol's own
            is not among them, the first overrides it.
        limits: Most training and test images, chosen by class; None for all.
        seed, memory: Of the linear layers, as of :func:`ldae.evaluation.score_sets`.
        refresh, verify: Compute features anew, or compare those that are there with their checksums.
        precision: Of the encoder's products, as of :func:`ldae.utils.device.autocast`.
        further: What else is asked of the chosen features.
    """
    numbers = parse_blocks(blocks, num_blocks(model), num_decoder_blocks(model))
    timesteps = None if timesteps is None else sorted(set(timesteps))
    noisy = list(dict.fromkeys(noisy))
    resolve_inputs(model, timesteps, noisy)
    check_pooling(model, protocol.pooling, numbers)
    loaders = labelled_dataloaders(data, limits, max(k or [1]))
    _check_classes(*(labels_of_dataset(loader.dataset) for loader in loaders), limits[1])
    images = len(loaders[0].dataset)
    k = k or [number for number in NEIGHBOURS if number <= images] or [images]
    protocol = protocol if protocol.k in k else protocol.replace(k=k[0])
    settings = dict(blocks=numbers, timesteps=timesteps, noisy=noisy)
    device, start = next((param.device for param in model.parameters()), torch.device('cpu')), time.perf_counter()
    # Tokens of the one set of features that can be chosen come from the same pass.
    steps, kinds = resolve_inputs(model, timesteps, noisy)
    is_one = len(numbers) * len(steps) * len(kinds) == 1
    if further and not is_one and not protocol.has_choice:
        raise ConfigError(
            'nothing is held out to choose features by, of which more is asked: give several learning rates, or weight decays'
        )
    options = dict(refresh=refresh, verify=verify, pooling=protocol.pooling)
    cached = partial(_cached, model, preprocessor_of(model, data), cache, autocast(precision, device), **options)
    with_tokens = bool(further.attentive) and is_one
    train, test = (
        cached(loader, desc=f'{split} features', tokens=with_tokens, **settings)
        for split, loader in zip(('train', 'test'), loaders, strict=True)
    )
    _check_classes(train.labels, test.labels, limits[1])
    seconds = dict(features=time.perf_counter() - start)
    options = dict(ks=sorted(set(k)), seed=seed, device=device, memory=memory, seconds=seconds)
    scores = score_sets(protocol, train, train.labels, test, test.labels, **options)
    rows = {setting: ProbeRow.of(setting, score) for setting, score in scores.items()}
    chosen = rows[choose(scores)] if all(score.held_out is not None for score in scores.values()) else None
    best, found = choose(scores) if further else None, Found()
    if further:
        where = dict(seed=seed, device=device, memory=memory)
        taken = best, scores[best], loaders, train, test, cached, gives_bgr(data), where
        found = look_further(further, Chosen(protocol, *taken), seconds)
    counts = dict(train_images=train.num_images, test_images=test.num_images, classes=len(train.labels.unique()))
    seconds['pass_over_images'] = train.seconds + test.seconds
    seconds = {key: round(value, 1) for key, value in seconds.items()}
    return ProbeScores(list(rows.values()), chosen, protocol, counts, seconds, further=found)


def parse_blocks(words: Sequence[str | int], depth: int, further: int = 0) -> list[int]:
    """``['1', '6-12']`` -> numbers, each once, in order; ``['all']`` -> 1 to ``depth``, ``['decoder']`` the ``further`` ones of an
    l-DAE's decoder, which count on, ``['d2']`` the second of them; negative ones count from the encoder's end. Raises ConfigError for a word that is not a number or a range, or a block that the encoder doesn't have."""
    numbers: list[int] = []
    for word in map(str, words):
        match = RANGE.fullmatch(word)
        if word == 'all':
            numbers += range(1, depth + 1)
        elif word == 'decoder' and further:
            numbers += range(depth + 1, depth + further + 1)
        elif (block := re.fullmatch(r'd(\d+)', word)) and 1 <= int(block[1]) <= further:
            numbers.append(depth + int(block[1]))
        elif match and int(match[1]) <= int(match[2]):
            numbers += resolve_blocks(depth, range(int(match[1]), int(match[2]) + 1))
        elif re.fullmatch(r'-?\d+', word):
            numbers += resolve_blocks(depth, [int(word)])
        else:
            raise ConfigError(
                f"blocks {word}: give numbers, ranges from small to large as in 6-12, 'all', or of an l-DAE 'decoder' or d1"
            )
    return sorted(set(numbers))


def _check_classes(train_y: Tensor | None, test_y: Tensor | None, limit: int | None) -> None:
    """Both sets must have the same classes, as far as they are known; a choice of test images may lack some."""
    if train_y is None or test_y is None:
        return
    check_classes(train_y, test_y)
    missing = sorted(set(train_y.unique().tolist()) - set(test_y.unique().tolist()))
    if missing and limit is None:
        raise ConfigError(
            f'the test set has no image of class {missing[:10]}, which the training set has: its accuracy would be '
            'that of another task; add some, or name other data with --data'
        )


def _cached(
    model: nn.Module,
    preprocess: partial,
    cache: Path,
    precision: AbstractContextManager,
    loader: DataLoader,
    described: Any = None,
    **settings: Any,
) -> FeatureCache:
    """Features of some images, ``described`` where they aren't as the data set has them; what the model says of images that
    it can't take becomes one line."""
    data = data_description(loader)
    try:
        with precision:
            return cache_features(
                model, loader, preprocess, cache, data=[*data, described] if described else data, **settings
            )
    except (RuntimeError, AssertionError) as error:
        if 'out of memory' in str(error):
            raise ConfigError('out of memory: lower the batch_size of the data loaders') from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"the model can't take these images ({reason}): name others with --data") from error


FILES = ('probe.json', 'probe.md', 'accuracy_over_timestep.png', 'accuracy_over_block.png')
JSON_FILE, PAGE_FILE, TIMESTEP_FILE, BLOCK_FILE = FILES
NEIGHBOURS_FILE, PICTURES = 'neighbours.json', ('neighbours.png', 'robustness.png')
FILES = (*FILES, NEIGHBOURS_FILE, *PICTURES)


def table_rows(scores: ProbeScores) -> list[list[str]]:
    """Cells, the header's first: what a row is of, what it scores, how its linear layer was trained."""
    attentive = scores.further.attentive
    header = ['block', 't', 'input', *(f'{k}-NN' for k in scores.rows[0].knn), 'linear', 'held out']
    rows = [[*header, *(f'attentive ({kind})' for kind in attentive), 'setting', '']]
    for row in scores.rows:
        step = '-' if row.timestep is None else str(row.timestep)
        held_out = '-' if row.held_out is None else f'{row.held_out:.1f}'
        figures = [*(f'{value:.1f}' for value in (*row.knn.values(), row.linear)), held_out]
        setting = f'{"" if row.lr is None else f"lr {row.lr:g}, "}wd {row.weight_decay:g}'
        mark = 'chosen' if row is scores.chosen else ''
        is_asked = row is scores.chosen or len(scores.rows) == 1
        figures += [f'{result.accuracy:.1f}' if is_asked else '-' for result in attentive.values()]
        rows.append([str(row.block), step, row.input, *figures, setting, mark])
    return rows


def choice_line(scores: ProbeScores) -> str:
    """Which row counts, and why."""
    row = scores.chosen
    if row is None:
        return 'nothing was held out to choose a row by: give several learning rates'
    return (
        f'chosen: {row.place} by held-out training images: {row.held_out:.1f} -> test {row.linear:.1f} '
        f'(protocol {scores.protocol})'
    )


def report(scores: ProbeScores) -> str:
    """For the terminal."""
    parts = [text_table(table_rows(scores), left=0), choice_line(scores)]
    if scores.further.robustness:
        parts.append(text_table(robustness_rows(scores.further.robustness)))
    return '\n\n'.join(parts)


def page(scores: ProbeScores, made_with: dict) -> str:
    """The table as Markdown, with what made it."""
    data, versions, protocol = scores.data, made_with['versions'], scores.protocol
    weights = made_with['checkpoint'] or 'no checkpoint'
    knn = f'{"standardised, " if protocol.standardised_knn else ""}{protocol.metric}'
    parts = [
        f'# Probe of {made_with["model"]}',
        f'{weights}; {data["train_images"]} training and {data["test_images"]} test images of {data["classes"]} classes, '
        f'as test images are prepared; {made_with["device"]}, torch {versions["torch"]}, ldae {versions["ldae"]}.',
        f'Top-1 accuracy in percent of {POOLINGS[protocol.pooling]}, by protocol {protocol}: k-NN ({knn}), and a linear layer '
        'whose learning rate and weight decay were chosen on held-out training images (its accuracy there: held out).',
        markdown_table(table_rows(scores), left=0),
        f'{choice_line(scores)}.',
        *further_parts(scores.further),
    ]
    return '\n\n'.join(parts) + '\n'


def further_parts(found: Found) -> list[str]:
    """Parts of the page on what else was asked."""
    parts = []
    for kind, result in found.attentive.items():
        options, setting = found.options[kind], result.setting
        held_out = '' if result.held_out is None else f' by held-out training images ({result.held_out:.1f})'
        parts.append(
            f'Attentive probe {options}: {result.accuracy:.1f} by {options.shape_words()}; lr {setting.lr:g} and wd '
            f'{setting.weight_decay:g} were chosen{held_out}.'
        )
    if found.neighbours:
        parts.append('![Test images, and their nearest training images](neighbours.png)')
    if found.robustness:
        about = 'Top-1 accuracy in percent on corrupted test images, of k-NN and linear layer on clean training images:'
        parts += [about, markdown_table(robustness_rows(found.robustness)), '![over severity](robustness.png)']
    return parts


def robustness_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Cells: linear and k-NN accuracy of each corruption by severity, and their means."""
    means, severities = mean_by_severity(rows), sorted({row['severity'] for row in rows})
    lines = {row['corruption']: {} for row in rows} | dict(mean=means)
    for row in rows:
        lines[row['corruption']][row['severity']] = row
    header = [f'{name} {severity}' for name in ('linear', 'knn') for severity in severities]
    cells = [
        [title, *(f'{line[severity][name]:.1f}' for name in ('linear', 'knn') for severity in severities)]
        for title, line in lines.items()
    ]
    return [['severity', *header], *cells]


def write_probe(folder: Path, scores: ProbeScores, made_with: dict[str, Any]) -> list[Path]:
    """``probe.json``, ``probe.md``, and a picture over time steps and over blocks where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)  # pictures of another probe
    written = []
    if len({row.timestep for row in scores.rows}) > 1:
        written.append(save_figure(accuracy_over_timestep(scores.rows), folder / TIMESTEP_FILE))
    if len({row.block for row in scores.rows}) > 1:
        written.append(save_figure(accuracy_over_block(scores.rows), folder / BLOCK_FILE))
    atomic_write_text(folder / PAGE_FILE, page(scores, made_with))
    written += [save_figure(figure, folder / f'{name}.png') for name, figure in scores.further.pictures.items()]
    content = dict(made_with, results=[asdict(row) for row in scores.rows], **scores.further.as_dict())
    if scores.further.neighbours:
        about = dict(metric='cosine', of=(scores.chosen or scores.rows[0]).place, images=scores.further.described)
        write_json(folder / NEIGHBOURS_FILE, about)
        written.append(folder / NEIGHBOURS_FILE)
    content['chosen'] = None if scores.chosen is None else asdict(scores.chosen)
    write_json(folder / JSON_FILE, content)
    return [folder / JSON_FILE, folder / PAGE_FILE, *written]


def accuracy_over_timestep(rows: Sequence[ProbeRow]) -> 'Figure':
    """Over the fixed t that features are taken at; a curve for clean and noisy input, at the deepest block."""
    deepest = max(row.block for row in rows)
    rows = [row for row in rows if row.block == deepest]
    panels = _panels(rows, lambda row: row.timestep, lambda row: row.input)
    return accuracy_curves(panels, 'time step t of the features', f'block {deepest}', dashed=('noisy',))


def accuracy_over_block(rows: Sequence[ProbeRow]) -> 'Figure':
    """Over the block that features are taken after; a curve for each time step and kind of input."""

    def curve(row: ProbeRow) -> str:
        return row.input if row.timestep is None else f't = {row.timestep}, {row.input}'

    dashed = {curve(row) for row in rows if row.input == 'noisy'}
    return accuracy_curves(_panels(rows, lambda row: row.block, curve), 'block', dashed=dashed)


def _panels(
    rows: Sequence[ProbeRow], x: Callable[[ProbeRow], int], curve: Callable[[ProbeRow], str]
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Points by curve of linear accuracy, and of k-NN with the smallest k."""
    k = next(iter(rows[0].knn))
    panels = {'linear probe': {}, f'{k}-NN': {}}
    for row in sorted(rows, key=x):
        for points, value in zip(panels.values(), (row.linear, row.knn[k]), strict=True):
            points.setdefault(curve(row), []).append((x(row), value))
    return panels
