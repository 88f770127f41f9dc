# SPDX-License-Identifier: Apache-2.0
"""A config's recipe at another length, batch, learning rate or size, what depends on it following."""

from typing import Annotated

from mmengine.config import Config, ConfigDict

from ldae.utils import Choice, ConfigError, PositiveInt, Range, checked
from ldae.utils.sizes import Size

from .images import fit_images
from .methods import arch_of, geometry_of, method_of, size_method
from .reading import image_size
from .scale import set_epochs

#: Encoders by the names that DeiT and MAE have given them; mmpretrain's own 'small' is another network.
MODELS = {
    'tiny': dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768),
    'small': dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    **{name: name for name in ('base', 'half-large', 'large')},
}


@checked
def fit_recipe(
    cfg: Config,
    epochs: PositiveInt | None = None,
    batch_size: PositiveInt | None = None,
    lr: Annotated[float, Range(1e-12, 1e3)] | None = None,
    img_size: Size | None = None,
    model: Annotated[str, Choice(*MODELS)] | None = None,
    *,
    processes: PositiveInt = 1,
) -> None:
    """Change a config in place; None leaves an option as it is. Raises ConfigError for an option that this config has
    no place for.

    Args:
        epochs: Length of the run; warm-up and decay keep their shares of it, and there are at least ten checkpoints.
        batch_size: Images a process and step, of one batch: none are accumulated. The recipe's batch follows, and its lr by the
            square root (Adam's rule; the linear one would make it vanish for batches far below the recipe's).
        lr: As it is, whatever the batch.
        img_size: Pixels, one number or height and width, of pre-training: of the model and of all that is read for it.
        model: Of the encoder; decoders and projection heads follow.
        processes: Which share a step.
    """
    if epochs is not None:
        _need(cfg, '--epochs', cfg.get('train_cfg', {}).get('max_epochs'))
        set_epochs(cfg, epochs)
        checkpoint = cfg.default_hooks.get('checkpoint')
        if checkpoint and checkpoint.get('interval', 1) > 0:
            checkpoint.interval = min(checkpoint.get('interval', 1), max(1, epochs // 10))
    if batch_size is not None:
        cfg.train_dataloader.batch_size, step = batch_size, batch_size * processes
        (cfg.get('optim_wrapper') or {}).pop('accumulative_counts', None)
        base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        if base and lr is None:
            cfg.optim_wrapper.optimizer.lr *= (step / base) ** 0.5
            cfg.auto_scale_lr.base_batch_size = step
    if lr is not None:
        _need(cfg, '--lr', (cfg.get('optim_wrapper') or {}).get('optimizer'))
        cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr = lr, None
    if img_size is not None:
        _need(cfg, '--img-size', image_size(cfg))
        fit_images(cfg, img_size)
    if model is not None:
        _need(cfg, '--model', cfg.model.get('backbone', {}).get('arch'))
        arch = MODELS[model]
        if method_of(cfg) in (None, 'ldae'):
            cfg.model.backbone.arch = arch if isinstance(arch, str) else ConfigDict(arch)
        else:  # heads, too, know its width
            _, sizes = arch_of(dict(type='ldae.LDAEViT', arch=arch))
            size_method(cfg, ConfigDict(sizes), *geometry_of(cfg))


def _need(cfg: Config, option: str, value: object) -> None:
    if value is None:
        raise ConfigError(f'{option}: {cfg.filename or "this config"} has nothing that it sets')
