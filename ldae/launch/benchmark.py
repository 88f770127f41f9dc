# SPDX-License-Identifier: Apache-2.0
"""From a pre-trained checkpoint to its score, by a benchmark's config."""

from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ldae.apis.models import get_model, load_config_of
from ldae.apis.probing import tell_of_own_images
from ldae.config import load_config, set_data_root
from ldae.config.benchmarks import (
    crop_packed_images,
    fit_encoder,
    fit_features,
    fit_schedule,
    is_folder,
    named_after,
    set_classes,
)
from ldae.config.methods import METHODS, geometry_of, method_of
from ldae.config.packed import use_packed_data
from ldae.config.reading import LOADERS, pipeline_of
from ldae.config.scale import find_scale, is_benchmark, read_scale, set_epochs, shipped_scales
from ldae.config.sections import lookup
from ldae.config.stored import parse_config
from ldae.datasets.packed import reading_of
from ldae.engine.resume.safe_checkpoint import latest_checkpoint
from ldae.evaluation import PROTOCOL, block_features, extract_features
from ldae.evaluation.probe_data import labelled_dataloaders, num_classes, preprocessor_of
from ldae.evaluation.protocol import score_knn
from ldae.registry import DATASETS
from ldae.utils import ConfigError, check_range
from ldae.utils.checkpoints import averaged_weights, name_of_run, read_checkpoint
from ldae.utils.device import autocast
from ldae.utils.files import atomic_save, write_json
from ldae.utils.sizes import as_size

from .batch import world_size
from .dry_run import explain_errors
from .prepare import LaunchOptions, prepare
from .training import run_training

#: Stand for the config of that kind for the checkpoint's method and size.
KINDS = ('linear', 'finetune', 'linear_1pct', 'linear_10pct')
#: Scores without a classifier: the probe's k-NN.
KNN = 'knn'
RESULT_FILE, TOKENIZER_FILE = 'benchmark.json', 'tokenizer.pth'
TOP1 = 'accuracy/top1'
CHECKPOINT = 'model.backbone.init_cfg.checkpoint'
SIZES = {(768, 12): 'b', (1024, 12): 'half-l', (1024, 24): 'l'}
NAMES = {'b': 'b', 'base': 'b', 'half-large': 'half-l', 'half-l': 'half-l', 'l': 'l', 'large': 'l'}


def benchmark(
    config: str | Path,
    checkpoint: str | Path,
    scale: str | Path | None = None,
    cfg_options: dict | None = None,
    force: bool = False,
    epochs: int | None = None,
    ema: bool = False,
    **options: Any,
) -> dict:
    """Train the classifier of a benchmark on a pre-trained encoder: final and best top-1 accuracy in percent of the
    test images, and what they are of. The same is written to ``benchmark.json`` in the work directory. Raises
    ConfigError for a config that isn't a benchmark, a checkpoint that doesn't fit it, or a result that is there
    already.

    Args:
        config: A file, or one of :data:`KINDS`: the config that fits the checkpoint and the data. ``'knn'`` trains nothing.
        checkpoint: Of a pre-training by any method.
        scale: None takes the scale that the checkpoint was trained at.
        force: Replace the result of an earlier run.
        epochs: Instead of the config's, at least 2.
        ema: On the average of the weights, which is written beside the checkpoint as ``ema_<its name>``.
        options: Of :class:`LaunchOptions`.
    """
    launch, config, checkpoint = LaunchOptions(**options), str(config), str(checkpoint)
    if ema:
        checkpoint = _write_average(Path(checkpoint))
    fitted = 'linear' if config == KNN else config
    name, cfg = benchmark_config(fitted, checkpoint, scale, cfg_options, launch.data_root, world_size(launch.launcher))
    if epochs is not None:
        check_range('--epochs', epochs, 2, kind=int)
        set_epochs(cfg, epochs)
    if config == KNN:
        return _knn(cfg, checkpoint, launch, force)
    cfg = prepare(cfg, launch)
    path = _result_file(cfg.work_dir, force)
    _check_encoder(cfg, checkpoint)
    write_tokenizer(cfg, checkpoint)
    run = run_training(cfg)
    history = run.message_hub.log_scalars.get(f'val/{TOP1}')  # also of what a resumed run has measured before
    if history is None:
        raise ConfigError(f'{name} has measured no {TOP1}: its val_evaluator must be Accuracy')
    values = [float(value) for value in history.data[0]]
    result = dict(top1=values[-1], best_top1=max(values), epochs=run.epoch, config=name)
    result |= dict(checkpoint=checkpoint, scale=run.cfg.get('scale'), seed=run.seed)
    result |= dict(batch=run.cfg.get('batch_arithmetic'), classes=run.cfg.model.head.get('num_classes'))
    return _write(result, path)


def _check_encoder(cfg: Config, checkpoint: str) -> None:
    """Raise ConfigError where the run that is resumed was begun on another encoder, whose score would be taken for this one's."""
    newest = (cfg.get('load_from') or latest_checkpoint(cfg.work_dir)) if cfg.get('resume') else None
    was = None if newest is None else _encoder_of(newest)
    if was is None:
        return
    # By its run: folders above may have moved. A bare name was given in the run's own folder.
    named = name_of_run if Path(was).parent.name else (lambda path: Path(path).name)
    if named(was) != named(checkpoint):
        raise ConfigError(
            f'{cfg.work_dir} was begun on {was}, and {checkpoint} is named now: leave --resume out, or take another --work-dir'
        )


def _encoder_of(classifier: str | Path) -> str | None:
    """The checkpoint that a classifier was begun on, by the config in its own; None where that doesn't say."""
    found: Any = (read_checkpoint(classifier).get('meta') or {}).get('cfg')
    with suppress(SyntaxError, ValueError, TypeError, RecursionError):
        found = parse_config(found)
    found = lookup(found, CHECKPOINT)
    return found if isinstance(found, str) else None


def _write_average(checkpoint: Path) -> str:
    """A checkpoint in which the average of the weights is the weights; each process writes the same."""
    content = read_checkpoint(checkpoint)
    path = checkpoint.with_name(f'ema_{checkpoint.name}')
    atomic_save(dict(meta=content.get('meta'), state_dict=averaged_weights(checkpoint, content)), path)
    return str(path)


def _knn(cfg: Config, checkpoint: str, launch: LaunchOptions, force: bool) -> dict:
    """The protocol's k-NN on the images and by the pooling of a linear probe, whole and not at random."""
    path = _result_file(launch.work_dir or f'work_dirs/{Path(checkpoint).absolute().parent.name}_{KNN}', force)
    model = get_model(checkpoint=checkpoint, device=launch.device)
    protocol = PROTOCOL.replace(pooling='cls' if cfg.model.backbone.get('out_type') == 'cls_token' else 'mean')
    use_packed_data(cfg)
    loaders = labelled_dataloaders(cfg, (None, None), 1)
    protocol = protocol.replace(k=min(protocol.k, len(loaders[0].dataset)))
    encode, prepared = partial(_last_block, model, protocol.pooling), preprocessor_of(model, cfg)
    with autocast(launch.precision, next(model.parameters()).device):
        (train_x, train_y), (test_x, test_y) = (extract_features(encode, loader, prepared) for loader in loaders)
    accuracy = score_knn(protocol, train_x, train_y, test_x, test_y)[protocol.k]
    result = dict(top1=accuracy, best_top1=accuracy, epochs=0, config=f'{protocol.k}-NN', checkpoint=checkpoint)
    result |= dict(classes=len(train_y.unique()), images=[len(train_y), len(test_y)], protocol=protocol.as_dict())
    return _write(result, path)


def _last_block(model: nn.Module, pooling: str, images: Tensor) -> Tensor:
    return block_features(model, images, [-1], pooling)[:, 0]


def _result_file(work_dir: str, force: bool) -> Path:
    path = Path(work_dir) / RESULT_FILE
    if path.exists() and not force:
        raise ConfigError(f'{path} exists: pass --force to replace it, or another --work-dir')
    return path


def _write(result: dict, path: Path) -> dict:
    if is_main_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
    return result | dict(file=str(path))


def write_tokenizer(cfg: Config, checkpoint: str) -> None:
    """The tokenizer of a checkpoint in a file, for an encoder that has it in front."""
    tokenizer = cfg.model.backbone.get('tokenizer') or {}
    if tokenizer.get('checkpoint') == TOKENIZER_FILE:
        tokenizer.checkpoint = str(Path(cfg.work_dir) / TOKENIZER_FILE)
        state = read_checkpoint(checkpoint)['state_dict']
        state = {key.removeprefix('tokenizer.'): value for key, value in state.items() if key.startswith('tokenizer.')}
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
        atomic_save(dict(tokenizer=tokenizer.type.removeprefix('ldae.'), state_dict=state), tokenizer.checkpoint)


def benchmark_config(
    name: str,
    checkpoint: str,
    scale: str | None = None,
    cfg_options: dict | None = None,
    data_root: str | None = None,
    processes: int = 1,
) -> tuple[str, Config]:
    """Name and content of the config with the checkpoint in it, at the checkpoint's scale unless another is named; one of
    :data:`KINDS` is fitted to the checkpoint and to its data, or those of ``data_root``."""
    content, kind, pretrained, preset = read_checkpoint(checkpoint), name, None, None
    with nullcontext() if kind in KINDS else suppress(ConfigError):
        pretrained = load_config_of(checkpoint)
    if pretrained is not None and pretrained.get('scale') not in shipped_scales():
        pretrained.pop('scale', None)  # a scale of one's own has left all that counts in the config
    if kind in KINDS:
        method, preset = method_of(pretrained), matching(pretrained)
        if method is None:
            what = f'a {pretrained.get("model", {}).get("type")}, which is not a pre-training of {", ".join(METHODS)}'
            raise ConfigError(f'{checkpoint} holds {what}: name a checkpoint of one')
        # Without benchmarks of its size, that of another is fitted.
        name = f'ldae::benchmarks/{preset or ("mae_vit-b_256" if method == "mae" else f"{method}_vit-b")}_{kind}.py'
    full = load_config(name)
    if not is_benchmark(full):
        raise ConfigError(
            f'{name} is not a benchmark of a pre-trained encoder: take {_suggestion(full)} '
            f'(or just {" or ".join(KINDS[:2])})'
        )
    if not any(key.startswith('backbone.') for key in content['state_dict']):
        raise ConfigError(f'{checkpoint} has no encoder (backbone.*): name a checkpoint of pre-training')
    if pretrained is not None:
        old, method = pretrained.get('model', {}).get('type'), method_of(pretrained)
        if method and (method == 'ldae') != full.model.backbone.type.endswith('LDAEViT'):
            raise ConfigError(f'{name} does not fit {checkpoint}, which holds {old}: take {_suggestion(pretrained)}')
        if scale is None and 'scale' not in full and (preset or kind not in KINDS):
            scale = pretrained.get('scale')
    options = {CHECKPOINT: checkpoint, **(cfg_options or {})}
    if kind not in KINDS:
        return name, load_config(name, options, scale, data_root)
    cfg = load_config(name, scale=scale)
    if preset is None:
        if data_root is None:
            tell_of_own_images(pretrained)
        fit_encoder(cfg, pretrained, data_root)
        folder = f'work_dirs/{Path(checkpoint).absolute().parent.name}_{kind}'
        name, cfg = kind, named_after(cfg, kind, folder)
    fit_features(cfg, pretrained, content['state_dict'], TOKENIZER_FILE)
    cfg.merge_from_dict(options)
    if data_root is not None:
        set_data_root(cfg, data_root)
    if 'scale' not in cfg or is_folder(cfg.train_dataloader.dataset):
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        crop_packed_images(cfg)
        data, datasets = Config(dict(train_dataloader=cfg.train_dataloader, val_dataloader=cfg.val_dataloader)), []
        use_packed_data(data)
        for loader in LOADERS[:2]:
            with explain_errors(loader):
                datasets.append(DATASETS.build(dict(data[loader].dataset)))
        set_classes(cfg, max(map(num_classes, datasets)))
        fit_schedule(cfg, len(datasets[0]), processes)
        cfg.merge_from_dict(options)
    return name, cfg


def matching(pretrained: Config) -> str | None:
    """The first part of the names of the benchmarks of a pre-training config of a named size, such as ``'ldae_vit-b'``;
    None where there are none."""
    model = pretrained.get('model', {})
    backbone = model.get('backbone') or {}
    method = method_of(pretrained)
    size = _size(backbone.get('arch'), pretrained)
    if method is None or size is None or size == 'half-l' and method not in ('ldae', 'mae'):
        return None
    at_256 = method == 'mae' and (size == 'half-l' or backbone.get('img_size', 224) == 256)
    part = model.get('tokenizer') or backbone
    geometry = part.get('img_size', 224), part.get('patch_size', 16)
    if 'scale' not in pretrained and geometry != (256 if method == 'ldae' or at_256 else 224, 16):
        return None
    if 'scale' in pretrained:  # whose images may have been given another shape, and other bands
        rules = read_scale(find_scale(pretrained.scale)).scale
        steps = pipeline_of(pretrained, LOADERS) or [{}]
        own = (*geometry_of(pretrained), reading_of(steps[0]))
        if own != (as_size(rules.img_size), rules.patch_size, rules.in_channels, reading_of(rules.get('reading', {}))):
            return None
    return f'{method}_vit-{size}{"_256" if at_256 else ""}'


def _size(arch: str | dict | None, pretrained: Config) -> str | None:
    if isinstance(arch, str):
        return NAMES.get(arch)
    if not arch:
        return None
    if 'scale' in pretrained:
        archs = read_scale(find_scale(pretrained.scale)).scale.archs
        return next((NAMES[name] for name, small in archs.items() if dict(small) == dict(arch)), None)
    return SIZES.get((arch.get('embed_dims'), arch.get('num_layers')))


def _suggestion(cfg: Config) -> str:
    """The benchmarks of a pre-training config, by name."""
    name = matching(cfg)
    if name is None:
        return ' or '.join(KINDS) if method_of(cfg) else 'one of configs/benchmarks'
    return ' or '.join(f'configs/benchmarks/{name}_{kind}.py' for kind in KINDS[:2])
