# SPDX-License-Identifier: Apache-2.0
"""The process of one job: ``python -m ldae.ablation.worker FOLDER`` trains what is described there, then scores it."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor, nn

from ldae.apis import get_model
from ldae.evaluation import extract_features, knn_accuracy, linear_probe, pooled_features
from ldae.evaluation.linear_probe import standardise
from ldae.evaluation.probe_data import build_bounded_dataloader, probe_dataloaders
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.utils import ConfigError
from ldae.utils.error_lines import one_line, run_explained
from ldae.utils.files import atomic_write_text

from .jobs import CONFIG_FILE, DONE_FILE, JOB_FILE, SCORES_FILE, read_json

Encode = Callable[[Tensor], Tensor]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, unless that was done before, and score all members."""
    folder = Path((argv or sys.argv[1:])[0])
    job = read_json(folder / JOB_FILE)
    done = read_json(folder / DONE_FILE) or train(folder)
    if job['members']:
        scores = [score_member(folder, job, member, done) for member in job['members']]
        write_json(folder / SCORES_FILE, scores)
    elif not (folder / 'tokenizer.pth').is_file():
        raise ConfigError(f'{job["name"]}: its training has left no tokenizer.pth in {folder}')


def train(folder: Path) -> dict:
    """Train, from the last checkpoint if there is one; leave ``done.json``."""
    start = time.perf_counter()
    cfg = Config.fromfile(folder / CONFIG_FILE)
    runner = build_runner(prepare(cfg, LaunchOptions(work_dir=str(folder), resume='auto', no_validate=True)))
    runner.train()
    last = folder / 'last_checkpoint'
    checkpoint = Path(last.read_text().strip()).name if last.is_file() else None
    done = dict(checkpoint=checkpoint, seconds=round(time.perf_counter() - start, 1))
    write_json(folder / DONE_FILE, done)
    return done


def write_json(path: Path, value: object) -> None:
    """Write a file that is either whole or absent."""
    atomic_write_text(path, json.dumps(value, indent=2) + '\n')


def score_member(folder: Path, job: dict, member: dict, done: dict) -> dict:
    """Scores of one row, or the line that says why there are none: others may still have theirs."""
    start = time.perf_counter()
    entry = dict(row=member['row'], config=member['config'])
    try:
        entry |= score(folder, job, member, done)
    except Exception as error:  # whatever it is, the other rows go on
        line = one_line(error) or f'{type(error).__name__}: {error}'.splitlines()[0]
        return dict(entry, error=line)
    seconds = dict(train=done['seconds'], probe=round(time.perf_counter() - start, 1))
    return dict(entry, seconds=seconds)


def score(folder: Path, job: dict, member: dict, done: dict) -> dict:
    """k-NN and linear accuracy of an encoder's features, in percent, and what they were taken of."""
    cfg = Config.fromfile(folder / CONFIG_FILE)
    transfer = member['transfer']
    model = load_model(cfg, transfer, folder / done['checkpoint'])
    encode = ENCODERS[member.get('encoder', 'trained')](model, cfg, transfer, job['seed'])
    limits = (job['probe']['train_images'], job['probe']['test_images'])
    features = [
        extract(model, loader_cfg, limit, encode)
        for loader_cfg, limit in zip(probe_dataloaders(cfg), limits, strict=True)
    ]
    tokenizer = getattr(model, 'tokenizer', None)  # MAE has none
    return dict(
        **probe_features(*features[0], *features[1], job['probe'], job['seed']),
        timestep=getattr(model.backbone, 'timestep', None),
        transfer_noise=bool(transfer['transfer_noise']),
        tokenizer=type(tokenizer).__name__ if tokenizer else None,
        latent_dim=tokenizer.geometry.latent_dim if tokenizer else None,
        epochs=cfg.train_cfg.get('max_epochs'),
    )


def encode_trained(model: nn.Module, cfg: Config, transfer: dict, seed: int) -> Encode:
    """Average-pooled features of the pre-trained encoder."""
    return partial(pooled_features, model)


def encode_untrained(model: nn.Module, cfg: Config, transfer: dict, seed: int) -> Encode:
    """Those of the encoder as it was before training, with the tokenizer of the trained one."""
    torch.manual_seed(seed)
    untrained = load_model(cfg, transfer)
    if hasattr(model, 'tokenizer'):
        untrained.tokenizer.load_state_dict(model.tokenizer.state_dict())
    return partial(pooled_features, untrained)


def encode_latents(model: nn.Module, cfg: Config, transfer: dict, seed: int) -> Encode:
    """The tokenizer's latents, averaged over tokens."""
    return lambda images: model.tokenizer.encode(images).mean(dim=1)


def encode_pixels(model: nn.Module, cfg: Config, transfer: dict, seed: int) -> Encode:
    """The images themselves."""
    return lambda images: images.flatten(1)


ENCODERS = dict(
    trained=encode_trained, untrained=encode_untrained, latents=encode_latents, pixels=encode_pixels
)


def load_model(cfg: Config, transfer: dict, checkpoint: Path | None = None) -> nn.Module:
    """The pre-training model as a row's transfer settings want it, with the weights of a checkpoint or those of the start."""
    backbone = {} if transfer['timestep'] is None else dict(timestep=transfer['timestep'])
    options = {'model.transfer_noise': True} if transfer['transfer_noise'] else {}
    return get_model(cfg, checkpoint, get_device(), cfg_options=options, backbone=backbone)


def extract(
    model: nn.Module, loader_cfg: dict, limit: int | None, encode: Encode | None = None
) -> tuple[Tensor, Tensor]:
    """Features (n, C) and labels (n,) of at most ``limit`` images: the model's, or what else ``encode`` makes of them."""
    loader = build_bounded_dataloader(loader_cfg, limit or sys.maxsize)
    preprocess = partial(model.data_preprocessor, training=False)
    return extract_features(encode or partial(pooled_features, model), loader, preprocess)


def probe_features(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, probe: dict, seed: int
) -> dict[str, float]:
    """Both scores; the probe says whether k-NN sees standardised features, as the linear layer does."""
    if not torch.isfinite(train_x).all():
        raise ConfigError('the features are not finite: pre-training has diverged; lower its learning rate')
    if probe.get('standardised', True):
        train_x, test_x = standardise(train_x, test_x)
    knn = knn_accuracy(train_x, train_y, test_x, test_y, k=probe['k'], temperature=probe['temperature'])
    linear = linear_probe(train_x, train_y, test_x, test_y, epochs=probe['epochs'], seed=seed)
    return dict(knn=round(knn, 2), linear=round(linear.accuracy, 2))


if __name__ == '__main__':
    sys.exit(run_explained(main))
