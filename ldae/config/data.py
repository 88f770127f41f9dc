# SPDX-License-Identifier: Apache-2.0
"""A config's images at another size, or those of another config: pipelines, views, labels."""

import copy
from collections.abc import Mapping, Sequence

from mmengine.config import Config

from ldae.utils.errors import ConfigError
from ldae.utils.sizes import height_width, set_size

from .reading import LOADERS, output_size, walk_dicts

# A scale gives its own values for these.
DATA = ('data_root', 'data_preprocessor', *LOADERS)
#: Options of a :class:`ldae.datasets.views.View` by the step of a pipeline that they stand for: option -> that of the step.
STEPS = {
    'RandomResizedCrop': {'crop_scale': 'crop_ratio_range'},
    'RandomFlip': {'flip': 'prob'},
    'RandomApply': {'jitter': 'prob'},
    'ColorJitter': {key: key for key in ('brightness', 'contrast', 'saturation', 'hue')},
    'RandomGrayscale': {'grey': 'prob'},
    'GaussianBlur': {'blur': 'prob', 'blur_sigma': 'magnitude_range'},
    'Solarize': {'solarize': 'prob'},
}


def replace_data(cfg: Config, file: Config, img_size: int) -> None:
    """The data of another config, with the config's labels and augmentation."""
    old = {name: cfg[name].dataset for name in LOADERS if cfg.get(name)}
    for key in DATA:
        if key in file:
            cfg[key] = copy.deepcopy(file[key])
    train, dataset = old['train_dataloader'], cfg.train_dataloader.dataset
    dataset.with_label = train.get('with_label', True)
    for name, other in old.items():
        if other.get('with_label', True):
            cfg[name].dataset.with_label = True
    for option in ('fraction', 'fraction_seed'):
        if option in train:
            dataset[option] = train[option]
    if 'pipeline' in dataset:
        dataset.pipeline = train.pipeline
        scale_pipelines(cfg, img_size)
    else:
        augment_in_memory(dataset, train.pipeline, img_size, (cfg.model.get('backbone') or {}).get('patch_size', 1))
        if flips := [
            step.prob for step in train.pipeline if step.type == 'RandomFlip' and cfg.model.type == 'ldae.LDAE'
        ]:
            dataset.flip = flips[0]  # of a row; other methods' flips have never come along
    for variable in ('train_pipeline', 'test_pipeline'):  # a pipeline's second copy, which nothing reads
        cfg.pop(variable, None)


def augment_in_memory(dataset: dict, pipeline: Sequence[Mapping], img_size: int, patch: int = 1) -> None:
    """Give a data set in memory the crops, or the views, of a pipeline that reads files, as of images of another size."""
    pipeline = copy.deepcopy(list(pipeline))
    scale_steps(pipeline, img_size, patch)
    crops = [step for step in pipeline if step['type'] == 'RandomResizedCrop']
    dataset['crop_scale'] = crops[0].get('crop_ratio_range', (0.08, 1.0)) if crops else None
    dataset.pop('views', None)
    if views := views_of(pipeline):
        dataset['views'] = views


def views_of(pipeline: Sequence[Mapping]) -> list[dict]:
    """The views of a pipeline's ``MultiView`` as those of a data set in memory; none without such a step. Raises ConfigError for
    a step that data in memory have no counterpart of."""
    found = []
    for multi in (step for step in pipeline if step['type'] == 'MultiView'):
        counts = [multi['num_views']] if isinstance(multi['num_views'], int) else multi['num_views']
        for count, steps in zip(counts, multi['transforms'], strict=True):
            found += [_view(steps, output_size([multi])) for _ in range(count)]
    return found


def _view(steps: Sequence[Mapping], whole: int) -> dict:
    view = dict(flip=0.0)
    for step in steps:
        if (kind := step['type']) not in STEPS or step.get('thr', 128) != 128:
            raise ConfigError(f'views of data in memory have no {kind}: they have {", ".join(STEPS)}')
        view |= {option: step[key] for option, key in STEPS[kind].items() if key in step}
        if kind == 'RandomApply':
            view |= {key: value for key, value in step['transforms'][0].items() if key != 'type'}
        if step.get('scale', whole) != whole:
            view['size'] = step['scale']
    return view


def as_read(pipeline: Sequence[dict], steps: Sequence[dict], channels: int) -> list[dict]:
    """A pipeline that reads images as another one does, ``steps``; what is drawn in colours needs three channels."""
    grey = dict(type='LoadImageFromFile', color_type='grayscale')
    first = [copy.deepcopy(step) for step in steps[:1]] or ([grey] if channels == 1 else list(pipeline[:1]))
    first += [copy.deepcopy(step) for step in steps[1:] if 'gray' in str(step['type']).lower()]
    rest = pipeline[1:]
    if channels != 3:
        rest = [step for step in rest if step['type'] not in ('RandAugment', 'RandomErasing')]
    return [*first, *copy.deepcopy(list(rest))]


def scale_pipelines(cfg: Config, img_size: int) -> None:
    """Let the pipelines of a config give images of another size; views that are smaller than others stay so in proportion, in
    whole patches, and blurs in proportion to the image."""
    patch = ((cfg.get('model') or {}).get('backbone') or {}).get('patch_size', 1)
    for pipeline in [cfg[name].dataset.get('pipeline', []) for name in LOADERS if cfg.get(name)]:
        scale_steps(pipeline, img_size, patch)


def scale_steps(pipeline: Sequence[dict], img_size: int, patch: int = 1) -> None:
    """As :func:`scale_pipelines` for the steps of one pipeline."""
    edges = height_width(img_size)
    for top in pipeline:
        whole = height_width(output_size([top]) or 0)[0]
        for step in walk_dicts(top) if whole else ():
            if own := step.get('type') != 'MultiView' and output_size([step]):
                ratio = height_width(own)[0] / whole if top['type'] == 'MultiView' else 1
                part = (max(1, round(ratio * edge / patch)) * patch for edge in edges)
                set_size(step, edges if ratio == 1 else part)
            if step.get('type') == 'GaussianBlur' and 'magnitude_range' in step:
                step['magnitude_range'] = tuple(radius * edges[0] / whole for radius in step['magnitude_range'])
