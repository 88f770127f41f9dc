# SPDX-License-Identifier: Apache-2.0
"""Build what a run will need, and push one made-up image through it, before any data are read: each failure is a line."""

import copy
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import METRICS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.models.selfsup import MAE
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image
from torch import Tensor, nn

from ldae.compat import as_list
from ldae.config import walk_dicts
from ldae.config.benchmarks import FOLDERS
from ldae.config.components import typed_nodes
from ldae.config.methods import FACTS, method_of
from ldae.config.reading import LOADERS
from ldae.datasets.load_image import BadImageError, reads_files
from ldae.datasets.resize import is_picture, with_faster_steps
from ldae.engine.speed.sharding import FullyShardedModel, check_optimizer
from ldae.utils import ConfigError
from ldae.utils.models import evaluating, unwrapped
from ldae.utils.rng import preserved_rng

BUILDER, RUNNER = 'mmengine/registry/build_functions.py', 'mmengine/runner/runner.py'
MACHINE_ERRORS = (MemoryError, torch.OutOfMemoryError, OSError)
#: Steps of pipelines that know nothing but pictures.
COLOURS = ('ColorJitter', 'RandomGrayscale', 'GaussianBlur', 'Solarize', 'RandAugment', 'AutoAugment', 'RandomErasing')


@contextmanager
def explain_errors(where: str, only_builders: bool = False) -> Iterator[None]:
    """Turn what goes wrong inside, which is ``where`` in the config's words, into one line that names the component;
    with ``only_builders``, leave errors alone that don't come from a component's constructor."""
    try:
        yield
    except (ConfigError, *MACHINE_ERRORS):
        raise
    except Exception as error:
        component = _component(error)
        if only_builders and component is None:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ['no reason given']
        what = f'{where}: {component}' if component else where
        raise ConfigError(
            f'{what} cannot be used with these options: {type(error).__name__}: {lines[0]} (LDAE_TRACEBACK=1 shows where)'
        ) from error


def _component(error: Exception) -> str | None:
    """The type that mmengine was building when an error came, the innermost; None if it built nothing."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.endswith(BUILDER):
            continue
        kind = frame.f_locals.get('obj_type', '')
        found = kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
    if found is None and traceback.extract_tb(error.__traceback__)[-1].filename.endswith(RUNNER):
        return ''  # what the Runner itself looks at
    return found


def dry_run(runner: Runner) -> None:
    """Build everything that a built Runner will build later, apart from its data sets."""
    model = unwrapped(runner.model)
    mixed, known = (getattr(getattr(model, name, None), 'num_classes', None) for name in ('data_preprocessor', 'head'))
    if getattr(getattr(model, 'data_preprocessor', None), 'batch_augments', None) is not None and mixed != known:
        raise ConfigError(
            f'data_preprocessor.num_classes={mixed} and model.head.num_classes={known} must be the same to mix labels'
        )
    shapes: set[tuple[int, ...]] = set()
    with preserved_rng():
        for loader in LOADERS:
            for image in _try_pipelines(loader, runner.cfg):
                if image.shape not in shapes:  # training, validation and test mostly give the same
                    _try_model(loader, image, model)
                shapes.add(image.shape)
        if isinstance(runner.optim_wrapper, Mapping):
            _try_optimizer(runner)
        for name in (loader.replace('dataloader', 'evaluator') for loader in LOADERS):
            for where, metric, _ in typed_nodes(runner.cfg.get(name), name, name):
                with explain_errors(where):
                    METRICS.build(copy.deepcopy(metric))


def _try_optimizer(runner: Runner) -> None:
    with explain_errors('optim_wrapper'):
        wrapper = build_optim_wrapper(unwrapped(runner.model), copy.deepcopy(runner.cfg.optim_wrapper))
    if isinstance(runner.model, FullyShardedModel):
        check_optimizer(wrapper)
    if isinstance(wrapper, OptimWrapperDict):
        wrapper = next(iter(wrapper.values()))
    schedulers = runner.cfg.get('param_scheduler')
    for where, scheduler, _ in typed_nodes(schedulers, 'param_scheduler', 'param_scheduler'):
        given = dict(optimizer=wrapper, epoch_length=1)
        with explain_errors(where):
            # What convert_to_iter_based does needs the number of steps, which the data know.
            PARAM_SCHEDULERS.build(dict(copy.deepcopy(scheduler)), default_args=given)


def _try_pipelines(loader: str, cfg: Config) -> Iterator[Tensor]:
    """Build each pipeline of a data loader; what it makes of an image, (C, H, W), each of its views."""
    if not isinstance(cfg.get(loader), Mapping):
        return
    for node in walk_dicts(cfg[loader].get('dataset')):
        steps = node.get('pipeline')
        if not isinstance(steps, list | tuple) or not all(isinstance(step, Mapping) for step in steps):
            continue
        where = f'{loader}.dataset.pipeline'
        transforms = []
        for i, step in enumerate(steps):
            with explain_errors(f'{where}[{i}]'):
                transforms.append(TRANSFORMS.build(copy.deepcopy(step)))
        if str(node.get('type')).rpartition('.')[2] in FOLDERS:
            transforms = [TRANSFORMS.build(copy.deepcopy(step)) for step in with_faster_steps(steps)]
        if not transforms or not reads_files(steps[0]):
            continue
        with explain_errors(f'{where}[0] ({steps[0].type})'):
            sample = _made_up_sample(transforms[0], steps[0])
        check_colours(where, steps, sample['img'])
        for i, transform in enumerate(transforms[1:], 1):
            with explain_errors(f'{where}[{i}] ({steps[i].type})'):
                sample = transform(sample)
        images = as_list(sample.get('inputs')) if isinstance(sample, Mapping) else []
        if loader == 'train_dataloader' and images:
            check_views(cfg, len(images))
        for image in images:
            if isinstance(image, Tensor):
                yield image


def check_colours(where: str, steps: Sequence[Mapping], image: np.ndarray) -> None:
    """Raise ConfigError for a step that changes colours of 8 bits, where images have other bands."""
    bands = image.shape[2] if image.ndim == 3 else 1
    if is_picture(image) and bands == 3:
        return
    for step in walk_dicts(list(steps)):
        if (kind := str(step.get('type')).rpartition('.')[2]) in COLOURS and (bands > 1 or not is_picture(image)):
            raise ConfigError(
                f'{where}: {kind} changes pictures of three colours and 8 bits, and these images have {bands} band'
                f'{"s" * (bands > 1)} of {image.dtype}: remove it, or pre-train by l-DAE, MAE or SimMIM, which need none'
            )


def check_views(cfg: Config, count: int) -> None:
    """Raise ConfigError where a method compares views of an image and the data give one image, or the other way round."""
    facts = FACTS.get(method_of(cfg))
    if facts is None or count == facts.views or facts.more_views and count > facts.views:
        return
    more = ' or more' if facts.more_views else ''
    raise ConfigError(
        f'train_dataloader: views of an image must be {facts.views}{more} for {facts.title}, not {count}: see MultiView in its '
        'pipeline, or views of data in memory'
    )


def _made_up_sample(reader: Callable[[dict], dict], options: Mapping) -> dict:
    """The result of a reader for a file, for the steps after it."""
    bands = reader.num_bands if getattr(reader, 'channels', None) else 3
    image = np.random.default_rng(0).integers(0, 256, (300, 400) if bands == 1 else (300, 400, bands), dtype=np.uint8)
    image = image.astype(np.float32) if getattr(reader, 'value_range', None) else image
    sample = dict(img_path='made-up.png', sample_idx=0, gt_label=0)
    read = dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
    if options.get('backend_args') or options.get('file_client_args') or options.get('channels'):
        return sample | read  # images lie where this file can't be, or are none that it could be
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, sample['img_path'])
        Image.fromarray(image).save(path)
        try:
            return reader(dict(sample, img_path=path))
        except BadImageError:  # which may be the limit of pixels
            return sample | read


def _try_model(loader: str, image: Tensor, model: nn.Module) -> None:
    """Normalise one image (C, H, W) as the model does, and let what reads images have it."""
    sample = DataSample().set_gt_label(0)
    try:
        with torch.no_grad(), evaluating(model), explain_errors(f'images of {tuple(image.shape)} in this model'):
            batch = model.data_preprocessor(dict(inputs=image[None], data_samples=[sample]), False)
            if len(image) != (channels := batch['inputs'].shape[1]):
                raise ConfigError(f'data_preprocessor.to_rgb takes {channels} of {len(image)} bands: set it to False')
            for owner in (model, getattr(model, 'backbone', None)):  # a tokenizer knows the images that it is for
                if hasattr(tokenizer := getattr(owner, 'tokenizer', None), '_check_images'):
                    tokenizer._check_images(batch['inputs'])
            if isinstance(model, ImageClassifier | MAE):
                model(batch['inputs'], batch['data_samples'], mode='loss')
    except ConfigError as error:
        raise ConfigError(f'{loader}: {error}') from error
