# SPDX-License-Identifier: Apache-2.0
"""Run a config of the paper's scale on small data: the scale is a file of its own, named by the command."""

import copy
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ldae.utils.errors import ConfigError, nearest
from ldae.utils.sizes import height_width

from .data import replace_data
from .images import set_reading
from .methods import METHODS, method_of, size_method, tune_method
from .reading import LOADERS, configs_root, find_config, read_config, walk_dicts

#: The scale that leaves configs as they are written.
PAPER = 'paper'
#: What the configs that are scaled have.
PAPER_SIZE, PAPER_EPOCHS, PAPER_BETAS = 256, 400, (0.9, 0.95)
#: Of a patch of the paper's: latents of as many keep all of an image.
PAPER_VALUES = 768
#: Named sizes by width, for encoders and decoders that a row cuts elsewhere.
NAME_OF_WIDTH = {768: ('base', 12), 1024: ('half-large', 12)}
#: mmpretrain's short names of sizes.
SHORT_NAMES = {'b': 'base', 'l': 'large'}
# What a scale's file and its dict `scale` must hold.
REQUIRED = ('scale', *LOADERS, 'optim_wrapper', 'auto_scale_lr')
RULES = ('img_size', 'patch_size', 'in_channels', 'num_classes', 'latent_dims', 'archs', 'epochs', 'tokenizer_epochs')


def shipped_scales() -> dict[str, Path]:
    """The scales in ``configs/scales`` by name."""
    return {path.stem: path for path in (configs_root() / 'scales').glob('*.py')}


def find_scale(scale: str | Path) -> Path:
    """The file of a scale given as a path or as a name in ``configs/scales``."""
    known = shipped_scales()
    if str(scale) in known:
        return known[str(scale)]
    if Path(scale).suffix == '.py':
        return find_config(scale)
    raise ConfigError(
        f'there is no scale {str(scale)!r} in {configs_root() / "scales"}{nearest(str(scale), [*known, PAPER])}'
    )


def tokenizer_checkpoint(config_name: str, scale_name: str | None = None) -> str:
    """Where the training of a learned tokenizer leaves its file, at the paper's scale or another."""
    return str(Path('work_dirs', scale_name or '', config_name, 'tokenizer.pth'))


def apply_scale(cfg: Config, scale: str | Path, epochs: int | None = None) -> Config:
    """Bring a config from the paper's scale to another.

    The scale's file holds data loaders, optimizer and hooks, as any config, and ``scale``, a dict with

    * ``img_size``, ``patch_size``, ``in_channels``, ``num_classes`` of its data;
    * ``latent_dims``: what becomes of the paper's latent dimensions;
    * ``archs``: what becomes of the named sizes 'base', 'half-large' and 'large';
    * ``decoder_share``: the blocks of an l-DAE's decoder for one of the encoder's, where the row says nothing of its decoder
      (optional; the paper's halves are of equal size);
    * ``epochs``: what becomes of 400; other numbers, and warm-up, in proportion;
    * ``timestep``: at which features are taken, for rows that name none (optional); of several, ``ldae ablate`` takes the
      best on held-out training images, row by row, and what chooses nothing takes the first;
    * ``benchmarks``: learning rate, batch, epochs (of the paper's 90 or 100) and optimizer for ``linear`` probes and for
      ``finetune``, which has an ``ema_momentum`` too (for configs of benchmarks only);
    * ``default_hooks``, beside it: options of hooks that the config has, such as the ``momentum`` of ``ema``;
    * ``tokenizers``: further options by tokenizer type, ``latent_dims`` among them where a type has other ones;
    * ``reading``: options of :class:`ldae.LoadImage` for images of bands (optional);
    * ``tokenizer_epochs`` by tokenizer type and ``adversarial_start_step``, for configs that train a tokenizer; these keep
      their own optimizer.

    Args:
        cfg: A pre-training (of any method), tokenizer or benchmark config, changed in place. What its row is about stays: targets, noise, labels,
            augmentation, tokenizer, sizes relative to each other.
        scale: A name in ``configs/scales``, or a path.
        epochs: Of a pre-training, what becomes of 400 instead of the scale's.

    Raises:
        ConfigError: If there is no such scale, it was applied already, or it lacks something that the config needs.
    """
    path = find_scale(scale)
    _check_scalable(cfg, path)
    if is_benchmark(cfg):
        return _scale_benchmark(cfg, path)
    file = read_scale(path)
    rules = file.scale
    is_other = method_of(cfg) not in (None, 'ldae')
    if is_other:
        arch = ConfigDict(scaled_arch(cfg.model.backbone.arch, rules.archs, path))
        size_method(cfg, arch, rules.img_size, rules.patch_size, rules.in_channels)
    else:
        _scale_model(cfg.model, rules, path)
        _scale_decoder(cfg.model, rules, path)
        backbone = cfg.model.get('backbone')
        if 'blocks' in cfg:  # of 12 and 12
            half = backbone.arch['num_layers']
            cfg.blocks = [max(1, round(half * block / 12)) for block in cfg.blocks]
        if backbone is not None and 'timestep' not in backbone:  # the row names none: here are the candidates
            cfg.timesteps = _candidates(rules)
            if cfg.timesteps:
                backbone.timestep = cfg.timesteps[0]
    replace_data(cfg, file, file.scale.img_size)
    _read_bands(cfg, rules)
    cfg.auto_scale_lr = copy.deepcopy(file.auto_scale_lr)
    if cfg.model.type.endswith('TokenizerTrainer'):
        kind = cfg.model.tokenizer.type
        scale_schedule(cfg, _lookup(rules.tokenizer_epochs, kind, f'{path}: scale.tokenizer_epochs'))
    else:
        if is_other:
            tune_method(cfg, file.optim_wrapper)
        else:
            betas = tuple(cfg.optim_wrapper.optimizer.get('betas', PAPER_BETAS))
            cfg.optim_wrapper = copy.deepcopy(file.optim_wrapper)
            if betas != PAPER_BETAS:  # a row's own
                cfg.optim_wrapper.optimizer.betas = betas
        scale_schedule(cfg, round(cfg.train_cfg.max_epochs * (epochs or rules.epochs) / PAPER_EPOCHS))
    hooks = {name: hook for name, hook in file.get('default_hooks', {}).items() if name in cfg.default_hooks}
    cfg.merge_from_dict(dict(default_hooks=hooks))
    return _name_scale(cfg, path)


def _read_bands(cfg: Config, rules: ConfigDict) -> None:
    for name in LOADERS if 'reading' in rules else ():
        if cfg.get(name):
            set_reading(cfg[name].dataset.get('pipeline', []), rules.reading.to_dict())


def _name_scale(cfg: Config, path: Path) -> Config:
    cfg.scale = path.stem
    cfg.setdefault('work_dir', f'./work_dirs/{path.stem}/{Path(cfg.filename or "run").stem}')
    return cfg


def is_benchmark(cfg: Config) -> bool:
    """Whether a config scores a pre-trained encoder, named by ``model.backbone.init_cfg``, as a classifier."""
    model = cfg.get('model', {})
    init = model.get('backbone', {}).get('init_cfg') or {}
    return model.get('type') == 'ImageClassifier' and 'head' in model and 'checkpoint' in init


def is_linear(cfg: Config) -> bool:
    """Whether a benchmark leaves the encoder as it is."""
    return cfg.model.backbone.get('frozen_stages', -1) > 0


def _scale_benchmark(cfg: Config, path: Path) -> Config:
    """The encoder of the scale's size, on its labelled data, by the scale's optimizer and epochs."""
    file = read_scale(path)
    kind, full_epochs = ('linear', 90) if is_linear(cfg) else ('finetune', 100)
    rule = _lookup(file.scale.get('benchmarks', {}), kind, f'{path}: scale.benchmarks')
    model, backbone, rules = cfg.model, cfg.model.backbone, file.scale
    backbone.arch = ConfigDict(scaled_arch(backbone.arch, rules.archs, path))
    backbone.update(img_size=rules.img_size, patch_size=rules.patch_size, in_channels=rules.in_channels)
    if is_linear(cfg):
        backbone.frozen_stages = backbone.arch.num_layers
    if 'timestep' in rules and 'timestep' in backbone:
        backbone.timestep = _candidates(rules)[0]
    if model.get('neck'):
        model.neck.input_features = backbone.arch.embed_dims
    model.head.update(num_classes=rules.num_classes, in_channels=backbone.arch.embed_dims)
    # These don't know what pre-training's know: a classifier's needs the classes, to mix labels.
    preprocessor = {key: value for key, value in file.data_preprocessor.items() if key != 'type'}
    replace_data(cfg, file, file.scale.img_size)
    _read_bands(cfg, rules)
    cfg.data_preprocessor = ConfigDict(num_classes=file.scale.num_classes, **preprocessor)
    cfg.train_dataloader.update(batch_size=rule.batch_size, drop_last=False)
    cfg.optim_wrapper.type = file.optim_wrapper.type
    cfg.optim_wrapper.pop('loss_scale', None)
    if 'optimizer' in rule:
        cfg.optim_wrapper.optimizer = copy.deepcopy(rule.optimizer)
        cfg.optim_wrapper.pop('paramwise_cfg', None)
    else:
        cfg.optim_wrapper.optimizer.lr = rule.lr
    if 'ema' in cfg.default_hooks:
        cfg.default_hooks.ema.momentum = _lookup(rule, 'ema_momentum', f'{path}: scale.benchmarks.{kind}')
    cfg.auto_scale_lr = ConfigDict(enable=True, base_batch_size=rule.batch_size)
    set_epochs(cfg, max(2, round(cfg.train_cfg.max_epochs * rule.epochs / full_epochs)))
    return _name_scale(cfg, path)


def read_scale(path: Path) -> Config:
    """The config of a scale; raise ConfigError, naming what it lacks, if it is none."""
    file = read_config(path)
    missing = [key for key in REQUIRED if key not in file]
    missing += [f'scale.{key}' for key in RULES if key not in file.get('scale', RULES)]
    if missing:
        raise ConfigError(f'{path} is not a scale: it lacks {", ".join(missing)}')
    return file


def _check_scalable(cfg: Config, path: Path) -> None:
    if 'scale' in cfg:
        raise ConfigError(f'{cfg.filename} is of scale {cfg.scale} already: it cannot be brought to {path.stem} too')
    known = cfg.get('model', {}).get('tokenizer') is not None or method_of(cfg) or is_benchmark(cfg)
    if not known or 'pipeline' not in cfg.train_dataloader.dataset:
        raise ConfigError(
            f'{cfg.filename} cannot be brought to scale {path.stem}: it is not a pre-training ({", ".join(METHODS)}), '
            "tokenizer or benchmark config of the paper's scale"
        )


def _scale_model(model: ConfigDict, rules: ConfigDict, path: Path) -> None:
    if model.get('num_classes'):
        model.num_classes = rules.num_classes
    if model.get('adversarial'):
        model.adversarial.start_step = rules.adversarial_start_step
    for node in walk_dicts(model):
        if 'arch' in node:
            is_decoder = str(node.get('type', '')).endswith('LDAEDecoder')
            node['arch'] = scaled_arch(node['arch'], rules.archs, path, is_decoder)
        if str(node.get('type', '')).endswith('Tokenizer'):
            _scale_tokenizer(node, rules, path)
        if node.get('rank'):  # of AsymFlow, in dimensions of a latent
            node['rank'] = _lookup(_dims(rules.latent_dims, rules), node['rank'], f'{path}: latent_dims')


def _scale_decoder(model: ConfigDict, rules: ConfigDict, path: Path) -> None:
    neck, share = model.get('neck') or {}, rules.get('decoder_share')
    if share is None or not str(neck.get('type', '')).endswith('LDAEDecoder') or 'arch' in neck:
        return
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigError(f'{path}: scale.decoder_share is {share!r}: give a number above 0, up to 1')
    neck.arch = ConfigDict(num_layers=max(1, round(model.backbone.arch['num_layers'] * share)))


def _candidates(rules: ConfigDict) -> list[int]:
    value = rules.get('timestep', [])
    return list(value) if isinstance(value, list | tuple) else [value]


def scaled_arch(arch: str | Mapping, archs: Mapping, path: Path, is_decoder: bool = False) -> dict:
    """The small network of a named size; of a dict with the width of a named size, as many of its blocks in proportion. A decoder may
    have another width, and then has the encoder's heads and ratio of widths."""
    where = f'{path}: scale.archs'
    if isinstance(arch, str):
        return dict(_lookup(archs, SHORT_NAMES.get(arch, arch), where))
    if is_decoder and arch.get('embed_dims') not in NAME_OF_WIDTH:
        arch = {key: arch[key] for key in ('embed_dims', 'num_layers') if key in arch}
    if 'embed_dims' not in arch or 'num_heads' not in arch:
        return light_arch(arch, _lookup(archs, 'half-large', where))
    name, blocks = NAME_OF_WIDTH.get(arch['embed_dims'], (f'a width of {arch["embed_dims"]}', 1))
    small = _lookup(archs, name, where)
    return dict(small, num_layers=max(1, round(small['num_layers'] * arch['num_layers'] / blocks)))


def light_arch(arch: Mapping, small: Mapping) -> dict:
    """The small decoder of one that is given by some numbers: what has a width in proportion to ViT-1/2L; blocks alone as many
    as they are, up to the small network's, of which a proportion would make 1, 2 and 4 the same."""
    if 'embed_dims' not in arch:
        return dict(arch, **{key: min(arch[key], small[key]) for key in arch if key == 'num_layers'})
    ratios = dict(embed_dims=small['embed_dims'] / 1024, num_layers=small['num_layers'] / 12)
    return dict(arch, **{key: max(1, round(arch[key] * ratio)) for key, ratio in ratios.items() if key in arch})


def _scale_tokenizer(node: dict, rules: ConfigDict, path: Path) -> None:
    options = dict(rules.get('tokenizers', {}).get(node['type'], {}))
    dims = _dims(options.pop('latent_dims', rules.latent_dims), rules)
    if 'latent_dim' in node:
        node['latent_dim'] = _lookup(dims, node['latent_dim'], f'{path}: latent_dims')
    if 'resized' in node:
        height = height_width(rules.img_size)[0]
        grid = height // rules.patch_size  # tokens a side, which share the pixels
        node['resized'] = max(1, node['resized'] * height // (PAPER_SIZE * grid)) * grid
    if node.get('checkpoint'):
        node['checkpoint'] = tokenizer_checkpoint(Path(node['checkpoint']).parent.name, path.stem)
    node.update(img_size=rules.img_size, patch_size=rules.patch_size, in_channels=rules.in_channels, **options)


def _dims(latent_dims: Mapping, rules: ConfigDict) -> dict:
    """Latent dimensions at a scale by those of the paper, which may be all of a patch."""
    return {PAPER_VALUES: rules.in_channels * rules.patch_size**2, **latent_dims}


def _lookup(table: Mapping, key: str | int, where: str) -> object:
    if key not in table:
        raise ConfigError(f'{where} has no entry for {key!r}: add one')
    return table[key]


def scale_schedule(cfg: Config, epochs: int) -> None:
    """A config of so many epochs, and as many between validations; what its schedulers count in epochs or steps, in proportion."""
    found, before = cfg.get('param_scheduler'), cfg.train_cfg.max_epochs
    if isinstance(found, Mapping) and 'type' not in found:  # of several optimizers
        cfg.param_scheduler = {name: _scaled(part, before, epochs) for name, part in found.items()}
    elif found:
        cfg.param_scheduler = _scaled(found, before, epochs)
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = epochs


def _scaled(schedulers: ConfigDict | list[ConfigDict], before: int, epochs: int) -> list[ConfigDict]:
    """Schedulers of another length; one without an end goes on to the run's."""
    found = schedulers if isinstance(schedulers, list) else [schedulers]
    if epochs == 1:  # too short for a warm-up by epochs
        found = [one for one in found if one.get('type') != 'LinearLR' or not one.get('by_epoch', True)]
    total = max((one.get('end') or before for one in found if one.get('by_epoch', True)), default=before)

    def length(value: int) -> int:
        return max(1, round(value * epochs / total))

    for one in found:
        is_by_epoch = one.get('by_epoch', True)
        is_whole = one.get('T_max') == (one.get('end') or total) - one.get('begin', 0)
        for key, last in (('begin', epochs - 1), ('end', max(1, epochs - 1))):  # what comes next has an epoch left
            if value := one.get(key):
                one[key] = min(length(value), last) if is_by_epoch and value < total else length(value)
        for key in ('T_max', 'step_size', 'total_steps'):
            if value := one.get(key):
                one[key] = length(value)
        for key in ('milestones', 'periods'):
            if value := one.get(key):
                one[key] = [length(part) for part in value]
        if is_whole:
            one.T_max = (one.get('end') or epochs) - one.get('begin', 0)
    return found


def set_epochs(cfg: Config, epochs: int) -> None:
    """A config of so many epochs, with warm-up in proportion and a validation no later than at the end."""
    interval = cfg.train_cfg.get('val_interval', 1)
    scale_schedule(cfg, epochs)
    cfg.train_cfg.val_interval = min(interval, epochs)
