# SPDX-License-Identifier: Apache-2.0
"""The demo: a comparison of one seed on the Fashion-MNIST subset that ships with ldae, watched and drawn."""

import time
from pathlib import Path

from mmengine.config import Config

from ldae.apis import get_model
from ldae.config import load_config
from ldae.evaluation.probe_data import probe_dataloaders
from ldae.generation.denoising import draw_denoising
from ldae.registry import DATASETS
from ldae.utils import ConfigError, check_range
from ldae.utils.files import write_json
from ldae.visualization import filter_grid, save_figure

from .comparison import LDAE_CONFIG, MAE_CONFIG, compare
from .jobs import CONFIG_FILE, QUICK, read_done
from .report import METRICS

#: Keys in results.json, and the rows of the comparison that they hold.
ROWS = dict(pixels='pixels', pca='latents', untrained='ldae_untrained', ldae='ldae', mae='mae')


def demo(
    work_dir: str | Path = 'work_dirs/demo',
    epochs: int | None = None,
    seed: int = 0,
    quick: bool = False,
    device: str = 'auto',
    precision: str | None = None,
) -> dict:
    """Pre-train l-DAE and MAE on the Fashion-MNIST subset that ships with ldae, compare them, and draw.

    Takes 5 to 8 minutes of one core. Beside what :func:`compare` writes, ``results.json``, ``denoising.png`` of one test
    image a class and ``pca_filters.png``.

    Args:
        epochs: Of both pre-trainings, at least 2, instead of the configs'.
        seed: Of both pre-trainings and the scores.
        quick: A few hundred images and 2 epochs, to see it run.
        device, precision: Of both pre-trainings, as of :class:`ldae.launch.LaunchOptions`.

    Returns:
        The content of ``results.json``.
    """
    check_range('--seed', seed, 0, 2**31 - 1, kind=int)
    if epochs is not None:
        check_range('--epochs', epochs, 2, kind=int)
    work_dir, start = Path(work_dir), time.perf_counter()
    few = QUICK._replace(epochs=epochs or QUICK.epochs)
    if quick:
        epochs = few.epochs
    configs = {name: load_config(path) for name, path in (('ldae', LDAE_CONFIG), ('mae', MAE_CONFIG))}
    if epochs is not None:
        for cfg in configs.values():
            set_epochs(cfg, epochs)
    # The networks are so small that a second thread saves a third of the time on an idle machine, and takes ten
    # times as long on a busy one, where threads wait for each other at every layer.
    options = dict(watched=True, num_threads=1, device=device, precision=precision, command='tools/demo.py')
    outcome = compare(**configs, seeds=[seed], work_dir=work_dir, quick=few if quick else False, **options)
    if outcome.failures:
        name, reason, _ = outcome.failures[0]
        raise ConfigError(f'{name}: {reason}')
    drawing = time.perf_counter()
    draw(outcome.folders[f'ldae seed {seed}'], work_dir, device)
    results = make_results(outcome.rows, seed)
    results['seconds']['draw'] = round(time.perf_counter() - drawing, 1)
    write_json(work_dir / 'results.json', results)
    print(f'l-DAE features: clean images at time step {results["timestep"]}, average over tokens.')
    seconds = time.perf_counter() - start
    print(f'{seconds:.0f} s. Wrote results.json, denoising.png, pca_filters.png to {work_dir}', flush=True)
    return results


def set_epochs(cfg: Config, epochs: int) -> None:
    """Shorten or lengthen a config of linear warm-up and cosine decay."""
    warmup, cosine = cfg.param_scheduler
    warmup.end = cosine.begin = min(warmup.end, epochs - 1)
    cosine.end, cosine.T_max = epochs, epochs - cosine.begin
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)


def draw(folder: Path, work_dir: Path, device: str = 'auto') -> None:
    """``denoising.png`` of one test image a class, ``pca_filters.png``, of the l-DAE that was trained in ``folder``."""
    cfg = Config.fromfile(folder / CONFIG_FILE)
    model = get_model(cfg, folder / read_done(folder)['checkpoint'], device)
    dataset = DATASETS.build(probe_dataloaders(cfg)[1]['dataset'])
    first = [int((dataset.labels == label).nonzero()[0]) for label in dataset.labels.unique()]
    images = model.data_preprocessor(dict(inputs=dataset.images[first], data_samples=None))['inputs']
    save_figure(draw_denoising(model, images, model.val_timesteps), work_dir / 'denoising.png')
    geometry = model.tokenizer.geometry
    title = f'{geometry.latent_dim} components hold {model.tokenizer.kept_variance:.0%} of the variance'
    figure = filter_grid(model.tokenizer.basis, geometry.patch_size, geometry.in_channels, title)
    save_figure(figure, work_dir / 'pca_filters.png')


def make_results(rows: dict[str, dict], seed: int) -> dict:
    """The content of ``results.json``, from the rows of the comparison."""
    entries = {name: row['entries'][seed] for name, row in rows.items()}
    scores = {name: {metric: entry[metric] for metric in METRICS} for name, entry in entries.items()}
    ldae = entries['ldae']
    spent = {f'train_{name}': entries[name]['seconds']['train'] for name in ('ldae', 'mae')}
    seconds = spent | dict(score=round(sum(e['seconds']['scoring'] for e in entries.values()), 1))
    results = dict(
        encoders={key: scores[name] for key, name in ROWS.items()}, extra=dict(mae_untrained=scores['mae_untrained'])
    )
    results |= dict(epochs=ldae['epochs'], seed=seed, timestep=ldae['timestep'])
    results |= dict(configs=dict(ldae=LDAE_CONFIG, mae=MAE_CONFIG))
    options = dict(epochs=ldae['epochs'], **ldae['images'], probe_epochs=ldae['protocol']['epochs'])
    return dict(results, options=options, protocol=ldae['protocol'], seconds=seconds, versions=ldae['versions'])
