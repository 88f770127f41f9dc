# SPDX-License-Identifier: Apache-2.0
"""Where configs are, how one is read, and how to find one's way in it."""

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.config import Config

from ldae.compat import PREFIX
from ldae.utils.errors import ConfigError, nearest
from ldae.utils.files import PACKAGE
from ldae.utils.sizes import as_size, height_width, set_size

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def read_config(filename: str | Path) -> Config:
    """The config of a path or ``ldae::`` name, as it stands in its file; pipelines that it inherits follow its image
    size. Raises ConfigError if there is no such file, or it can't be read."""
    path = find_config(filename)
    try:
        cfg = Config.fromfile(path)
        _follow_size(cfg, path)
        return cfg
    except ConfigError:
        raise
    except Exception as error:  # a config is a program: it may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ['']
        raise ConfigError(f'config {path} cannot be read: {type(error).__name__}: {lines[-1]}') from error


def image_size(cfg: Config) -> int | tuple[int, int] | None:
    """Size of the images that a config's model says it takes, one number for squares; None where it says none."""
    model = cfg.get('model') or {}
    part = model.get('tokenizer') or model.get('backbone') or {}
    size = part.get('img_size', 224 if model.get('type') == 'MAE' else None)  # mmpretrain's default
    return as_size(size) if isinstance(size, int | list | tuple) else None


def output_size(pipeline: Iterable[dict]) -> int | tuple[int, int] | None:
    """Size of the images that a pipeline gives, by its last step that says any; of several views, of the largest."""
    sizes = [[size for node in walk_dicts(step) if (size := _size_of(node))] for step in pipeline]
    return next((as_size(max(found)) for found in reversed(sizes) if found), None)


def _size_of(step: dict) -> tuple[int, int] | None:
    """Height and width that a step of a pipeline says; crops and padding have the width first."""
    for key, turned in (('scale', 1), ('crop_size', -1), *([('size', -1)] if step.get('type') == 'Pad' else ())):
        if isinstance(step.get(key), int) or isinstance(step.get(key), list | tuple) and len(step[key]) == 2:
            return height_width(step[key])[::turned]
    return None


def _follow_size(cfg: Config, path: Path) -> None:
    """Bring pipelines that a config inherits, and that fitted the model it inherits, to the image size of its own."""
    size = image_size(cfg)
    stale = [node for node in _with_pipeline(cfg) if output_size(node['pipeline']) not in (None, size)]
    if size is None or not stale:
        return
    for base in _inherited(path):
        fitted = [n['pipeline'] for n in _with_pipeline(base) if output_size(n['pipeline']) == image_size(base)]
        for node in stale:
            if node['pipeline'] in fitted:
                node['pipeline'] = resized_pipeline(node['pipeline'], size)


def resized_pipeline(pipeline: list[dict], size: int | tuple[int, int]) -> list[dict]:
    """A pipeline that gives images of ``size`` pixels, all its sizes in proportion; as it is, where it has none."""
    pipeline, old = copy.deepcopy(pipeline), output_size(pipeline)
    for step in walk_dicts(pipeline) if old else ():
        (height, width), edges = height_width(old), height_width(size)
        if found := _size_of(step):
            set_size(step, (round(found[0] * edges[0] / height), round(found[1] * edges[1] / width)))
        if isinstance(step.get('min_edge'), int):
            step['min_edge'] = round(step['min_edge'] * min(edges) / min(height, width))
    return pipeline


def _with_pipeline(cfg: Config) -> list[dict]:
    nodes = walk_dicts([cfg.get(name) for name in LOADERS])
    return [node for node in nodes if isinstance(node.get('pipeline'), list) and node['pipeline']]


def _inherited(path: Path) -> Iterator[Config]:
    """The configs that one inherits, those of theirs too."""
    for name in Config._get_base_files(str(path)):
        base, _ = Config._get_cfg_path(name, str(path))
        yield Config.fromfile(base)
        yield from _inherited(Path(base))


def walk_dicts(node: object) -> Iterator[dict]:
    """Every dict in a nest of dicts and lists, outermost first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from walk_dicts(child)


def set_data_root(cfg: Config, data_root: str) -> None:
    """Point the config at another folder: the variable ``data_root`` and all that was given its value.

    A config without that variable has every ``data_root`` in it replaced."""
    has_variable, data_root = 'data_root' in cfg, str(data_root)
    old = cfg.get('data_root')
    for node in walk_dicts(cfg._cfg_dict):
        if 'data_root' in node and (not has_variable or node['data_root'] == old):
            node['data_root'] = data_root
    cfg.data_root = data_root


def pipeline_of(cfg: Config, loaders: Iterable[str]) -> list[dict] | None:
    """Steps of the first of ``loaders`` whose data set, or the one inside it, has any, and gives images of the model's size
    if one does; None where none has."""
    found = []
    for name in loaders:
        node = (cfg.get(name) or {}).get('dataset') or {}
        while 'pipeline' not in node and isinstance(node.get('dataset'), dict):
            node = node['dataset']
        if node.get('pipeline'):
            found.append(list(node['pipeline']))
    fitting = [steps for steps in found if output_size(steps) == image_size(cfg)]
    return next(iter([*fitting, *found]), None)


def gives_bgr(cfg: Config) -> bool:
    """Whether the images that a config's data sets hand over have their channels in the order blue, green, red: those that
    a pipeline reads from files, packed ones, and those that the data preprocessor is told to turn."""
    preprocessor = cfg.get('data_preprocessor') or (cfg.get('model') or {}).get('data_preprocessor') or {}
    turned = any(preprocessor.get(name) for name in ('to_rgb', 'bgr_to_rgb'))
    kinds = [str(node.get('type')) for node in walk_dicts([cfg.get(name) for name in LOADERS])]
    return bool(turned or any('Load' in kind or kind.endswith('PackedImages') for kind in kinds))


PARTS_OF_CONFIGS = ('_base_', 'scales')


def configs_root() -> Path:
    """The clone's ``configs/`` (also in an editable install), else those inside the installed package."""
    clone = PACKAGE.parent
    if (clone / 'configs' / 'ldae').is_dir() and (clone / 'setup.cfg').is_file():
        return clone / 'configs'
    return PACKAGE / '.mim' / 'configs'


def list_configs() -> list[str]:
    """Names of the configs that describe runs, such as ``'ldae/vit-b_pca'``."""
    files = (path.relative_to(configs_root()) for path in sorted(configs_root().rglob('*.py')))
    return [path.with_suffix('').as_posix() for path in files if path.parts[0] not in PARTS_OF_CONFIGS]


def find_config(filename: str | Path) -> Path:
    """The file of a path; of a path below :func:`configs_root`, be it ``'ldae::ldae/vit-b_pca.py'`` or
    ``'configs/ldae/vit-b_pca.py'``; or of a name, or its last part, as :func:`list_configs` gives it. Raises
    ConfigError if there is none, or there are several."""
    name, root = str(filename), configs_root()
    path = Path(name).expanduser()
    for place in (
        (root / name.removeprefix(PREFIX),) if name.startswith(PREFIX) else (path, root.parent / name, root / name)
    ):
        if place.is_file():
            return place
    known, short = list_configs(), name.removeprefix(PREFIX)
    found = [full for full in known if short in (full, full.rpartition('/')[2])]
    if len(found) > 1:
        raise ConfigError(f'config {name} may be any of {", ".join(found)}: give the whole name')
    if found:
        return root / f'{found[0]}.py'
    if name.startswith(PREFIX):
        raise ConfigError(
            f'config {name} does not exist in {root}{nearest(name, [f"{PREFIX}{full}.py" for full in known])}'
        )
    siblings = [str(file) for file in path.parent.glob('*.py')] if path.parent.is_dir() else []
    last_parts = [full.rpartition('/')[2] for full in known]
    raise ConfigError(f'config {name} does not exist{nearest(name, [*siblings, *known, *last_parts])}')
