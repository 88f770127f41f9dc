# SPDX-License-Identifier: Apache-2.0
"""``--scale auto``: sizes of image, patch and network, batch and epochs that fit a folder of images, this machine and a budget
of time, written as a scale of the user's own."""

import io
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.device import get_device
from mmengine.logging import MessageHub, print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from PIL import Image

from ldae.compat import as_list
from ldae.config import load_config
from ldae.datasets import ImageFolder
from ldae.datasets.load_image import ARRAYS, LoadImage, read_array, read_bands, read_file
from ldae.datasets.roots import absolute_root, is_source, name_of_root, parse_root, plain_name
from ldae.datasets.sources import open_source
from ldae.registry import DATASETS, MODELS
from ldae.utils import ConfigError
from ldae.utils.device import use_device
from ldae.utils.files import atomic_write_text
from ldae.utils.locks import claimed
from ldae.utils.rng import preserved_rng

from .batch import check_memory
from .prepare import WRAPPERS, LaunchOptions, prepare

FILENAME = 'auto_scale.py'
SIDES = (32, 48, 64, 96, 128, 192, 256)
#: The paper's latent dimensions, of patches of 768 values: other patches get the same share.
LATENT_DIMS, PATCH_DIM = (8, 16, 32, 64, 128), 768
#: Passes over the data, and steps, that a larger network must be able to make.
LEAST_EPOCHS, LEAST_STEPS, MOST_EPOCHS = 30, 2000, 1600
#: Share of the budget that is planned for; the rest is for start, checkpoints, and whatever else the machine does.
PLANNED = 0.85
LEAST_IMAGES = 16
#: Images that the PCA is fitted to, at most: 32 000 patches or more.
FITTED = 2000
#: Steps that are timed, and seconds that these take together unless there are more of them.
STEPS, TIMED = (5, 40), 1.5
#: Seconds of a step that the runner and its hooks take: 3 to 7 ms of a CPU.
OVERHEAD = 0.004
#: Pillow's modes of grey images.
GREY = ('1', 'L', 'LA', 'I;16')
#: Beyond this ratio of their edges, it is said that squares are cut out of images.
OBLONG = 1.5
#: A decoder's blocks for one of the encoder's, as MAE has 8 for 24: no worse than as many on small data (docs/small_data.md).
DECODER_SHARE = 1 / 3
#: Share of a folder's images that are kept for validation where it has no val/.
HELD_OUT = 0.2


class Rung(NamedTuple):
    """A network: tokens along a side of an image; width, blocks and heads of the encoder. The decoder is as wide."""

    grid: int
    width: int
    depth: int
    heads: int

    def __str__(self) -> str:
        return f'{self.depth} blocks of width {self.width}'


#: Networks from small to large.
LADDER = (
    *(Rung(4, 96, 3, 3), Rung(8, 96, 3, 3), Rung(8, 144, 4, 3), Rung(8, 192, 6, 3), Rung(8, 384, 8, 6)),
    *(Rung(16, 384, 12, 6), Rung(16, 768, 12, 12)),
)


class Bands(NamedTuple):
    """Images that aren't pictures: options of :class:`ldae.LoadImage`, sizes of some, and their values' mean and deviation."""

    reading: dict
    sizes: list[tuple[int, int]]
    mean: list[float]
    std: list[float]


@dataclass
class Survey:
    """Contents of a folder of images; ``side`` is the median of the images' shorter sides, in pixels; ``notes`` say what of the
    layout may not be as it was meant; ``bands`` are of images other than pictures."""

    data_root: str
    images: int
    side: int
    classes: int
    has_val: bool
    is_grey: bool = False
    notes: tuple[str, ...] = ()
    bands: 'Bands | None' = None

    @property
    def trained(self) -> int:
        """Images that aren't held out."""
        return self.images if self.has_val else round(self.images * (1 - HELD_OUT))

    def __str__(self) -> str:
        classes = f'{self.classes:,} classes' if self.classes else 'no classes'
        kind = 'grey training images' if self.is_grey else 'training images'
        if self.bands:
            kind = f'training images of {self.bands.reading["channels"]} bands'
        return f'{self.images:,} {kind} in {classes}, the shorter side {self.side} px in the middle'


@dataclass
class Choice:
    """A network, its data and its length, with the seconds that training is expected to take."""

    rung: Rung
    img_size: int
    batch_size: int
    epochs: int = 1
    seconds: float = 0.0

    @property
    def patch_size(self) -> int:
        return self.img_size // self.rung.grid

    @property
    def lr(self) -> float:
        """2e-3 for a width of 96 and 64 images; less by the square root for wider networks and smaller batches."""
        return float(f'{2e-3 * (96 / self.rung.width) ** 0.5 * min(1, self.batch_size / 64) ** 0.5:.2g}')

    def __str__(self) -> str:
        rung, size = self.rung, self.img_size
        return (
            f'{size} x {size} px, {rung.grid**2} patches of {self.patch_size} px; {rung}; {self.epochs} epochs, '
            f'batch {self.batch_size}, lr {self.lr:g}'
        )


def auto_scale(
    config: str | Path,
    budget: float,
    data_root: str | None = None,
    work_dir: str | Path = '.',
    labelled: bool = False,
    **options: object,
) -> Path:
    """Choose a scale for a folder of images and write it to ``<work_dir>/auto_scale.py``, a file that ``--scale``
    takes. Raises ConfigError if there is no folder, it holds too few images, or the budget is too small for one pass
    over them.

    Args:
        config: What is going to be trained.
        budget: Seconds that the training may take on this machine.
        data_root: The folder, or what :class:`ldae.ImageFolder` takes in its place: ``train/`` and ``val/``, or images or classes of them without these.
        labelled: Raise ConfigError if the images have no classes, by which encoders are to be scored.
        options: Others of :class:`LaunchOptions`; with ``resume``, a file that is there is taken.
    """
    path = Path(work_dir) / FILENAME
    if options.get('resume') and path.is_file():
        print_log(f'Scale: {path}, as chosen when the run was started')
        return path
    if options.get('launcher', 'none') != 'none':
        raise ConfigError(
            f'--scale auto measures one process: start ldae train once, then several processes with --scale {path}'
        )
    use_device(options.get('device'))
    with claimed(path.parent):  # a run that is going on there has its own
        survey = look_at(data_root)
        if labelled and not survey.classes:  # known before anything is timed
            raise ConfigError(
                f'{data_root} has no classes, by which encoders are scored: sort its images into train/<class>/'
            )
        print_log(f'Data:  {survey}')
        for note in survey.notes:
            print_log(f'Note:  {note}')
        choice = choose(
            survey, budget, lambda choice: seconds_per_image(config, survey, choice, **dict(options, resume=None))
        )
        atomic_write_text(path, scale_text(survey, choice))
    print_log(f'Scale: {choice}')
    print_log(
        f'Time:  about {shown(choice.seconds)} for training. Written to {path}: edit it and train with --scale {path}'
    )
    if choice.epochs < LEAST_EPOCHS:
        enough = shown(choice.seconds / PLANNED * LEAST_EPOCHS / choice.epochs)
        print_log(f'Few epochs: with --budget {enough} there would be {LEAST_EPOCHS}')
    return path


def look_at(data_root: str | None) -> Survey:
    """Survey a folder of images: its listing, and the headers of 200 of them. Raises ConfigError if the folder is
    missing or holds no images, too few, or none that can be read; or its classes lie deeper."""
    if data_root is None:
        raise ConfigError('--scale auto chooses for a folder of images: pass --data-root FOLDER')
    root = Path(data_root).expanduser()
    init_default_scope('mmpretrain')
    bands = None if is_source(data_root) or not root.is_dir() else look_at_bands(str(root))
    reader = dict(type='ldae.LoadImage', **(bands.reading if bands else {}))
    dataset = ImageFolder(str(data_root), 'train', with_label=False, pipeline=[reader])
    files = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    if len(files) < LEAST_IMAGES:
        raise ConfigError(f'{root} has {len(files)} training images: at least {LEAST_IMAGES} are needed')
    if is_source(data_root):
        classes, has_val, notes = *_of_source(data_root), []
    else:
        has_val = (root / 'val').is_dir() or (root / 'meta' / 'val.txt').is_file()
        classes, notes = _classes(root, dataset, list(map(Path, files)))
    sizes, modes = (bands.sizes, ['']) if bands else _headers(files)
    is_grey = all(mode in GREY for mode in modes)
    height, width = (round(median(edges)) for edges in zip(*sizes, strict=True))
    if max(height, width) > OBLONG * min(height, width):
        notes.append(
            f'images of {height} x {width} px in the middle: squares are cut out; ldae train --img-size takes oblongs'
        )
    side = round(median(map(min, sizes)))
    return Survey(str(data_root), len(files), side, classes, has_val, is_grey, tuple(notes), bands)


def _of_source(data_root: str) -> tuple[int, bool]:
    """How many classes there are, 0 for none, and whether there are images for validation."""
    try:
        has_val = bool(open_source(data_root, 'val', False).paths)
    except ConfigError:
        if 'val' in parse_root(data_root).options:
            raise
        has_val = False
    return len(set(open_source(data_root, 'train', None).labels or ())), has_val


def look_at_bands(data_root: str, most: int = 50) -> Bands | None:
    """How images are to be read that aren't pictures: numpy's files, and TIFFs of other than one or three bands of 8 or 16 bits;
    all as the first one. Their values' range is that of some of them. None for pictures."""
    dataset = ImageFolder(data_root, 'train', with_label=False, pipeline=[dict(type='ldae.LoadImage', channels=1)])
    files = [dataset.get_data_info(i)['img_path'] for i in range(0, len(dataset), -(-len(dataset) // most))]
    is_tiff = files[0].lower().endswith(('.tif', '.tiff'))
    if not files[0].endswith(ARRAYS) and not (is_tiff and find_spec('tifffile')):
        return None
    first = read_array(read_file(files[0]), files[0])
    if first is None or is_tiff and first.dtype.itemsize < 4 and (first.ndim == 2 or first.shape[2] == 3):
        return None
    channels = 1 if first.ndim == 2 else first.shape[0] if first.shape[0] < first.shape[-1] else first.shape[-1]
    images = [read_bands(read_file(file), file, channels) for file in files]
    low, high = (float(pick([pick(image[np.isfinite(image)]) for image in images])) for pick in (np.min, np.max))
    reading = dict(channels=channels) | (
        {} if first.dtype == np.uint8 else dict(value_range=(low, max(high, low + 1e-6)))
    )
    if not all(np.isfinite(image).all() for image in images):
        reading['nodata'] = float('nan')
    reader = LoadImage(**reading)
    rows = np.concatenate([np.atleast_3d(reader.finish(image, '')).reshape(-1, channels) for image in images])
    rows = rows[:, ::-1] if channels == 3 else rows
    mean, std = (values.round(4).tolist() for values in (rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)))
    return Bands(reading, [image.shape[:2] for image in images], mean, std)


def _classes(root: Path, dataset: ImageFolder, files: list[Path]) -> tuple[int, list[str]]:
    """How many classes there are, 0 for none, and what should be said about them."""
    if dataset.ann_file:
        try:
            labels = ImageFolder(str(root), 'train').get_gt_labels()
        except ConfigError:  # a list of images alone
            return 0, []
        return len(set(labels.tolist())), []
    folder = root / 'train' if (root / 'train').is_dir() else root
    counts = Counter('' if file.parent == folder else file.relative_to(folder).parts[0] for file in files)
    inner = Path(os.path.commonpath([file.parent for file in files]))
    if (
        folder == root != inner
        and len({file.relative_to(inner).parts[0] for file in files}) > 1
        and inner not in {file.parent for file in files}
    ):
        raise ConfigError(f'all images of {root} lie in folders of {inner}, its classes: pass --data-root {inner}')
    if len(counts) == 1 or '' in counts:
        tables = sorted(path for suffix in ('*.csv', '*.tsv') for path in root.glob(suffix))
        return 0, [f'{path} is not read: for its labels, pass --data-root csv::{path}' for path in tables[:1]]
    notes, single = [], sum(count == 1 for count in counts.values())
    if single:
        notes.append(f'{single} of {len(counts)} classes have one image: none is left of them to validate or score on')
    if any(len(file.relative_to(folder).parts) > 2 for file in files):
        names = ', '.join(sorted(counts)[:3])
        notes.append(f'the classes are the {len(counts)} folders at the top ({names}, ...), whatever lies in them')
    return len(counts), notes


def _headers(files: list[str], most: int = 200) -> tuple[list[tuple[int, int]], list[str]]:
    """Heights and widths, and modes, of some of the images."""
    sizes, modes = [], []
    for file in files[:: -(-len(files) // most)]:
        try:
            # Of a large file the head is enough.
            with Image.open(file if os.path.isfile(file) else io.BytesIO(read_file(file))) as image:
                sizes.append(image.size[::-1])
                modes.append(image.mode)
        except Exception:  # whatever is in the file: training counts bad images and names them
            continue
    if not sizes:
        raise ConfigError(f'none of {len(files)} images can be read, such as {files[0]}: see `ldae verify-dataset`')
    return sizes, modes


def choose(survey: Survey, budget: float, measure: Callable[[Choice], float], most: int | None = None) -> Choice:
    """The largest network of the ladder that makes 30 passes over the data and 2000 steps within the budget; else the
    smallest, with as many passes as there is time for. ``measure`` gives the seconds that a training image takes.

    Images have the largest size that most of them reach, of at most 16 pixels a token; a batch is the power of two
    that gives at least 16 steps an epoch, of ``most`` images (64, on a GPU 256). Raises ConfigError if the budget is
    too small for one pass."""
    most = most or (256 if get_device() == 'cuda' else 64)
    batch = min(most, max(8, 2 ** (survey.trained // 16).bit_length() // 2))
    images = survey.trained // batch * batch  # of an epoch
    needed = max(LEAST_EPOCHS * images, LEAST_STEPS * batch)
    chosen, cost = None, 0.0
    for rung in LADDER:
        size = max([side for side in SIDES if side <= min(survey.side, 16 * rung.grid)], default=SIDES[0])
        candidate = Choice(rung, size, batch)
        try:
            seconds = measure(candidate)
        except ConfigError:  # larger than the memory
            if chosen is None:
                raise
            break
        if chosen is not None and needed * seconds > PLANNED * budget:
            break
        chosen, cost = candidate, seconds
    epoch = images * cost
    chosen.epochs = min(int(PLANNED * budget / epoch), MOST_EPOCHS)
    chosen.seconds = chosen.epochs * epoch
    if not chosen.epochs:
        raise ConfigError(
            f'--budget {shown(budget)} is less than one pass of the smallest network over {images:,} images takes here, '
            f'{shown(epoch)}: give --budget {shown(LEAST_EPOCHS * epoch / PLANNED)}, or fewer images'
        )
    return chosen


def seconds_per_image(config: str | Path, survey: Survey, choice: Choice, **options: object) -> float:
    """Seconds that a training image takes on this machine, reading included: some steps and some images are timed."""
    with TemporaryDirectory() as folder, preserved_rng():
        path = Path(folder) / FILENAME
        path.write_text(scale_text(survey, choice))
        cfg = prepare(load_config(config, scale=path), LaunchOptions(**options))
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        count = min(len(dataset), 2 * choice.batch_size)
        reading, images = timed(lambda: [dataset[i * len(dataset) // count]['inputs'] for i in range(count)])
        batch = default_collate(images[: choice.batch_size])
        step = _step_of(cfg, batch)
        step()  # the first one sets up
        training = (typical_seconds(step) + OVERHEAD) / len(images[: choice.batch_size])
    reading /= count * max(1, cfg.train_dataloader.num_workers)
    return max(training, reading) if get_device() == 'cuda' else training + reading


def _step_of(cfg: Config, inputs: torch.Tensor | list[torch.Tensor]) -> Callable[[], object]:
    """A training step of a config's model, as a Runner makes it, on images or several views of each."""
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor'))
    )
    if getattr(getattr(model, 'tokenizer', None), 'needs_fit', False):
        model.tokenizer.fit([torch.randn(64, *inputs.shape[1:])])
    check_memory(model, len(as_list(inputs)[0]), get_device(), cfg.optim_wrapper.type != WRAPPERS['fp32'])
    model = model.to(get_device()).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    wrapper.initialize_count_status(model, 0, 10)
    MessageHub.get_current_instance().update_info('max_iters', 10)  # which averages of weights go by

    def step() -> None:
        model.train_step(dict(inputs=inputs, data_samples=None), wrapper)
        if get_device() == 'cuda':
            torch.cuda.synchronize()

    return step


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def typical_seconds(function: Callable[[], object]) -> float:
    """The median of some calls."""
    times: list[float] = []
    while len(times) < STEPS[0] or sum(times) < TIMED and len(times) < STEPS[1]:
        times.append(timed(function)[0])
    return median(times)


def shown(seconds: float) -> str:
    """A duration as ``--budget`` takes it: '90s', '5m', '2.5h'."""
    unit, length = next((pair for pair in (('h', 3600), ('m', 60)) if seconds >= 2 * pair[1]), ('s', 1))
    return f'{float(f"{seconds / length:.2g}"):g}{unit}' if unit != 's' else f'{seconds:.0f}s'


def parse_duration(text: str) -> float:
    """Seconds of '90s', '30m', '2h' or '1d'. Raises ConfigError if it is no duration, or not above 0."""
    units = dict(s=1, m=60, h=3600, d=86400)
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float('inf'):
        raise ConfigError(f'--budget {text}: give a time such as 90s, 30m or 2h')
    return seconds


SCALE = '''# SPDX-License-Identifier: Apache-2.0
"""Scale: {name}: {survey}.

{choice}; about {time} where it was chosen.
"""

_base_ = 'ldae::scales/image-folder.py'

data_root = {data_root!r}
{normalisation}
scale = dict(
    img_size={choice.img_size},
    patch_size={choice.patch_size},{bands}
    num_classes={classes},
    # Of {values} values of a patch, the share that these are of the paper's 768.
    latent_dims={{{dims}}},
    # A token of its map has {cells} cells, each of which takes as many numbers.
    tokenizers={{'ldae.ConvVAETokenizer': dict(downsample={downsample}, base_channels=32, latent_dims={{{map_dims}}})}},
    archs={{
        'base': dict({arch}),
        'half-large': dict({arch}),
        'large': dict({deep}),
    }},
    # Blocks of the decoder for one of the encoder's: a third has no less accuracy on small data, in two thirds to three quarters
    # of the time. 1 for the paper's, of the encoder's size.
    decoder_share={share:.3g},
    epochs={choice.epochs},
    # Of features: the paper's t = 10 suits large images, of which hardly noisy ones are not just copied.
    timestep=[600, 300, 100],
    benchmarks=dict(
        linear=dict(batch_size={linear}, epochs=90, optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0)),
        finetune=dict(batch_size={choice.batch_size}, epochs=30, lr=1e-3, ema_momentum=1e-3),
    ),
)

images = dict(data_root=data_root{options})
train_dataloader = dict(batch_size={choice.batch_size}, num_workers={workers}, dataset=images)
val_dataloader = dict(batch_size={linear}, num_workers={workers}, dataset=dict(images, with_label={labelled}))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr={choice.lr}))
auto_scale_lr = dict(base_batch_size={choice.batch_size})
default_hooks = dict(
    checkpoint=dict(interval={interval}), logger=dict(interval={log}), fit_tokenizer=dict(num_images={fitted}),
    ema=dict(momentum={average}),
)
'''


def scale_text(survey: Survey, choice: Choice) -> str:
    """A choice as the file of a scale."""
    bands = survey.bands and survey.bands.reading['channels']
    values = choice.patch_size**2 * (bands or (1 if survey.is_grey else 3))  # grey is read as three equal channels
    dims = {d: min(values, max(2, round(values * d / PATCH_DIM))) for d in LATENT_DIMS}
    patch, rung = choice.patch_size, choice.rung
    downsample = min(patch & -patch, patch // 2)  # a power of two
    cells = (patch // downsample) ** 2
    # A validation split where there is none, and large JPEGs decoded at a part of their size.
    options = {} if survey.has_val else dict(held_out=HELD_OUT)
    options |= dict(min_edge=2 * choice.img_size) if survey.side >= 4 * choice.img_size and not bands else {}
    arch = 'embed_dims={0}, num_layers={1}, num_heads={2}, feedforward_channels={3}'
    archs = (arch.format(rung.width, depth, rung.heads, 4 * rung.width) for depth in (rung.depth, 2 * rung.depth))
    root, steps = absolute_root(survey.data_root), choice.epochs * max(1, survey.trained // choice.batch_size)
    name = plain_name(name_of_root(root)) or 'images'
    facts = dict(name=name, data_root=root, survey=survey, choice=choice, share=DECODER_SHARE)
    facts['time'] = shown(choice.seconds)
    latents = dict(values=values, cells=cells, downsample=downsample)
    latents['dims'] = ', '.join(f'{paper}: {ours}' for paper, ours in dims.items())
    latents['map_dims'] = ', '.join(f'{paper}: {-(-ours // cells) * cells}' for paper, ours in dims.items())
    labels = dict(labelled=bool(survey.classes), classes=max(2, survey.classes), linear=4 * choice.batch_size)
    hooks = dict(interval=max(1, choice.epochs // 10), log=max(1, min(100, steps // 100)), fitted=FITTED)
    # As long a part of the training as at the paper's scale.
    hooks['average'] = min(0.1, max(1e-4, round(25 / steps, 4)))
    running = dict(zip(('arch', 'deep'), archs, strict=True), workers=min(4, len(os.sched_getaffinity(0))))
    running['options'] = ''.join(f', {name}={value}' for name, value in options.items())
    running['bands'] = running['normalisation'] = ''
    if bands:
        reading = ', '.join(f'{name}={value!r}' for name, value in survey.bands.reading.items())
        running['bands'] = f'\n    in_channels={bands},\n    reading=dict({reading}),'.replace('=nan', "=float('nan')")
        kind = "type='ldae.BandsPreprocessor', " if bands not in (1, 3) else ''
        numbers = f'mean={survey.bands.mean}, std={survey.bands.std}'
        running['normalisation'] = f'data_preprocessor = dict({kind}{numbers}, to_rgb={bands == 3})\n'
    return SCALE.format(**facts, **latents, **labels, **hooks, **running)
