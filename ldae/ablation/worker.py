# SPDX-License-Identifier: Apache-2.0
"""The process of one job: ``python -m ldae.ablation.worker FOLDER`` trains what is described there, then scores it."""

import logging
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldae.apis import get_model
from ldae.apis.encoders import encoder_images, get_encoder
from ldae.config.packed import use_packed_data
from ldae.evaluation import AttentiveOptions, attentive_probes, block_features, cache_features, extract_features
from ldae.evaluation.features import poolings_of
from ldae.evaluation.probe_data import labelled_dataloaders, preprocessor_of
from ldae.evaluation.protocol import Protocol, choose, score_sets
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.launch.batch import rank, share_batch, world_size
from ldae.models.tokenizers.base import load_tokenizer, load_tokenizer_state
from ldae.utils import ConfigError, check_range, provenance
from ldae.utils.checkpoints import read_checkpoint
from ldae.utils.device import use_device
from ldae.utils.error_lines import leave_processes, one_line, run_explained
from ldae.utils.files import write_json
from ldae.utils.locks import claimed

from .cost import training_cost
from .generation import score_samples
from .jobs import CONFIG_FILE, DONE_FILE, JOB_FILE, POOLINGS, SCORES_FILE, read_done, read_json

Encode = Callable[[nn.Module, Tensor], Tensor]
#: What is asked of a job; members and scoring are checked where they are used.
JOB = dict(name=str, device=str, precision=str | None, watched=bool, seed=int, scoring=dict, members=list[dict])
JOB |= dict(processes=int)
# While a Runner is built, its description of the machine fills the screen; and these lines say nothing.
NOISE = ('Exp name', '"FileClient"', '"HardDiskBackend"')


def main(argv: Sequence[str] | None = None) -> None:
    """Train, unless that was done before, and score all members; of several processes the first alone does so."""
    folder = Path((argv or sys.argv[1:])[0])
    job = read_json(folder / JOB_FILE, **JOB)
    if not job:
        raise ConfigError(f'{folder / JOB_FILE} is damaged: start the study again, which writes it anew')
    use_device(job['device'])
    cfg = Config.fromfile(folder / CONFIG_FILE)  # in whose place training leaves its own, without validation
    launcher = 'pytorch' if job['processes'] > 1 else 'none'
    if job['members'] and rank(launcher) == 0:
        # What is missing is said before training.
        labelled_images(deepcopy(cfg), job['scoring'])
    options = dict(device=job['device'], precision=job['precision'], launcher=launcher)
    try:
        done = finished(folder, job) or train(folder, job['watched'], **options)
    except Exception as error:
        if launcher != 'none' or all(member['encoder'] == 'trained' for member in job['members']):
            raise  # of several processes, the others don't answer any more
        traceback.print_exc()  # the rows that no training changes are scored all the same
        done = dict(checkpoint=None, seconds=None, error=line_of(error))
    leave_processes()
    if rank(launcher) > 0:
        return
    if job['members']:
        scores = [score_member(folder, job, member, done, cfg) for member in job['members']]
        write_json(folder / SCORES_FILE, scores)
    elif not (folder / 'tokenizer.pth').is_file():
        raise ConfigError(f'{job["name"]}: its training has left no tokenizer.pth in {folder}')


def finished(folder: Path, job: dict) -> dict:
    """The files that a training of ours has left; nothing where its checkpoint can't be read any more: it then goes on from the one before."""
    done = read_done(folder)
    is_foreign = any(member['encoder'] == 'foreign' for member in job['members'])
    if done.get('checkpoint') and not is_foreign and not Path(done['checkpoint']).is_absolute():
        try:
            read_checkpoint(folder / done['checkpoint'])
        except ConfigError as error:
            print(f'{error}: trained again from there', flush=True)
            return {}
    return done


def train(folder: Path, watched: bool = False, **launch: Any) -> dict:
    """Train, from the last checkpoint if there is one; leave ``done.json``. ``launch`` are options of LaunchOptions."""
    start = time.perf_counter()
    cfg = Config.fromfile(folder / CONFIG_FILE)
    if watched:
        cfg.log_level = 'WARNING'
    options = LaunchOptions(work_dir=str(folder), resume='auto', no_validate=not watched, **launch)
    share_batch(cfg, world_size(options.launcher))
    with claimed(folder) if rank(options.launcher) == 0 else nullcontext():
        runner = build_runner(prepare(cfg, options))
        for handler in runner.logger.handlers if watched else ():
            runner.logger.setLevel(logging.INFO)
            handler.setLevel(logging.INFO)
            handler.addFilter(lambda record: not record.getMessage().startswith(NOISE))
        runner.logger.info(runner.cfg.get('chosen_precision', ''))
        runner.train()
    last = folder / 'last_checkpoint'
    checkpoint = Path(last.read_text().strip()).name if last.is_file() else None
    done = dict(checkpoint=checkpoint, seconds=round(time.perf_counter() - start, 1))
    if rank(options.launcher) == 0:
        write_json(folder / DONE_FILE, done)
    return done


def score_member(folder: Path, job: dict, member: dict, done: dict, cfg: Config) -> dict:
    """Scores of one row, or the line that says why there are none: others may still have theirs."""
    start = time.perf_counter()
    entry = dict(row=member['row'], config=member['config'])
    if member.get('without_samples', entry['config']) != entry['config']:
        entry['without_samples'] = member['without_samples']
    try:
        entry |= score(folder, job, member, done, cfg)
    except Exception as error:  # whatever it is, the other rows go on
        return dict(entry, error=line_of(error))
    trained = done['seconds'] if member['encoder'] == 'trained' else None
    seconds = dict(train=trained, scoring=round(time.perf_counter() - start, 1))
    return dict(entry, seconds=seconds, device=provenance.device())


def line_of(error: Exception) -> str:
    """Whatever it is, in one line."""
    return one_line(error) or f'{type(error).__name__}: {error}'.splitlines()[0]


class Candidate(NamedTuple):
    """Where features are taken; None where there is nothing to choose."""

    timestep: int | None
    block: int | None
    pooling: str | None = POOLINGS[0]
    noisy: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without what is asked of few rows."""
        return {name: value for name, value in self._asdict().items() if name != 'noisy' or value is not None}


def score(folder: Path, job: dict, member: dict, done: dict, cfg: Config) -> dict:
    """k-NN and linear accuracy, in percent of the test images, of those features that do best on held-out training images;
    and what they were taken of."""
    cfg = deepcopy(cfg)
    if 'error' in done and member['encoder'] == 'trained':
        raise ConfigError(done['error'])
    transfer, scoring, seed = member['transfer'], job['scoring'], job['seed']
    protocol = Protocol.of_dict(scoring['protocol'])
    if transfer.get('foreign'):
        model = foreign_encoder(transfer['foreign'], get_device())
        cfg = encoder_images(cfg, model)
    else:
        model = (
            at_start(cfg, folder) if 'error' in done else model_for_transfer(cfg, transfer, folder / done['checkpoint'])
        )
    candidates, encode = [Candidate(None, None, None)], REFERENCES.get(member['encoder'])
    if encode is None:
        encoder = model if member['encoder'] != 'untrained' else untrained_twin(model, cfg, transfer, seed)
        poolings = [name for name in scoring.get('poolings', POOLINGS[:1]) if name in poolings_of(encoder)]
        places = transfer['timesteps'], transfer.get('blocks') or scoring['blocks'], poolings or POOLINGS[:1]
        inputs = [kind == 'noisy' for kind in transfer.get('inputs', ())] or [None]
        candidates = [Candidate(*place, noisy) for noisy in inputs for place in product(*map(dict.fromkeys, places))]
        encode = partial(encode_candidates, encoder=encoder, candidates=candidates)
    loaders, preprocess = labelled_images(cfg, scoring), preprocessor_of(model, cfg)
    (train, train_y), (test, test_y) = (extract(model, loader, encode, preprocess) for loader in loaders)
    if not torch.isfinite(train).all():
        raise ConfigError('the features are not finite: pre-training has diverged; lower its learning rate')
    sets = [dict(zip(candidates, x.chunk(len(candidates), dim=1), strict=True)) for x in (train, test)]
    scores = score_sets(protocol, sets[0], train_y, sets[1], test_y, seed=seed)
    best = choose(scores)
    is_noisy = bool(transfer['transfer_noise'] if best.noisy is None else best.noisy)
    tokenizer = getattr(model, 'tokenizer', None)  # MAE has none
    more = {}
    if scoring.get('attentive') and member['encoder'] not in REFERENCES and not is_noisy:
        more['attentive'] = score_attentive(folder, encoder, loaders, preprocess, best, scoring['attentive'], seed)
    if member['encoder'] == 'trained':
        more['cost'] = training_cost(model, cfg)
        if scoring.get('sampling'):
            found = score_samples(model, folder / CONFIG_FILE, dict(scoring['sampling']), seed)
            more['generation'] = found
    return dict(
        **scores[best].as_dict(),
        **{name: value for name, value in best.as_dict().items() if name != 'noisy'},
        candidates=[dict(c.as_dict(), held_out=s.as_dict()['held_out']) for c, s in scores.items()],
        transfer_noise=is_noisy,
        tokenizer=type(tokenizer).__name__ if tokenizer else None,
        latent_dim=tokenizer.geometry.latent_dim if tokenizer else None,
        epochs=cfg.train_cfg.get('max_epochs') if member['encoder'] == 'trained' else None,
        images=dict(train_images=len(train_y), test_images=len(test_y)),
        protocol=scoring['protocol'],
        **more,
    )


def foreign_encoder(name: str, device: str) -> nn.Module:
    """An encoder that was trained elsewhere; the weights of a name of another library are downloaded, unless they were before."""
    return get_encoder(name, device=device, pretrained='::' in name)


def labelled_images(cfg: Config, scoring: dict) -> list[DataLoader]:
    """Training and test images to score on. Raises ConfigError if there are none, fewer than neighbours, or a class is
    missing: known before an image is read."""
    use_packed_data(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    limits = scoring['train_images'], scoring['test_images']
    return labelled_dataloaders(cfg, limits, scoring['protocol']['k'], '--probe-k', scoring['per_class'])


def score_attentive(
    folder: Path,
    encoder: nn.Module,
    loaders: Sequence[DataLoader],
    preprocess: Callable,
    place: Candidate,
    kinds: Sequence[str],
    seed: int,
) -> dict[str, dict]:
    """Attentive probes of the patch tokens of one candidate, which lie in the folder of the job meanwhile."""
    steps = None if place.timestep is None else [place.timestep]
    for left in folder.glob('tokens_*'):  # of a killed process
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(dir=folder, prefix='tokens_') as tokens:
        caches = [
            cache_features(encoder, loader, preprocess, Path(tokens, str(i)), [place.block], steps, tokens=True)
            for i, loader in enumerate(loaders)
        ]
        (setting,) = caches[0].settings
        options = [AttentiveOptions(kind=kind) for kind in kinds]
        sets = [part for cache in caches for part in (cache.tokens(setting), cache.labels)]
        found = attentive_probes(*sets, options, seed=seed)
    return {kind: result.as_dict('accuracy') for kind, result in found.items()}


def extract(model: nn.Module, loader: DataLoader, encode: Encode, preprocess: Callable) -> tuple[Tensor, Tensor]:
    """Features (n, C) of what ``encode(model, images)`` makes of images, and labels (n,)."""
    return extract_features(partial(encode, model), loader, preprocess)


def encode_candidates(model: nn.Module, images: Tensor, encoder: nn.Module, candidates: Sequence[Candidate]) -> Tensor:
    """Features of each candidate, side by side: (B, C, H, W) -> (B, candidates x embed_dims)."""
    parts, (steps, blocks, poolings, inputs) = [], map(dict.fromkeys, zip(*candidates, strict=True))
    for noisy, timestep in product(inputs, steps):
        if noisy is not None:
            encoder.transfer_noise = noisy
        if timestep is not None:
            check_range('timesteps', timestep, 0, encoder.backbone.num_timesteps - 1, kind=int)
            encoder.backbone.timestep = timestep
        # (B, L, P, C), flat in the order of the candidates.
        parts.append(block_features(encoder, images, list(blocks), pooling=list(poolings)).flatten(1))
    return torch.cat(parts, dim=1)


#: What is scored beside the trained encoder and its untrained twin: latents averaged over tokens, and the images themselves.
REFERENCES = dict(
    latents=lambda model, images: model.tokenizer.encode(images).mean(dim=1),
    pixels=lambda model, images: images.flatten(1),
)


def untrained_twin(model: nn.Module, cfg: Config, transfer: dict, seed: int) -> nn.Module:
    """The model as it was before training, with the tokenizer of the trained one."""
    torch.manual_seed(seed)
    untrained = model_for_transfer(cfg, transfer)
    if hasattr(model, 'tokenizer'):
        untrained.tokenizer.load_state_dict(model.tokenizer.state_dict())
    return untrained


def at_start(cfg: Config, folder: Path) -> nn.Module:
    """The model as a training that has failed began: with the tokenizer that it was given, or has fitted."""
    model = get_model(cfg, device=get_device())
    for path in folder.glob('tokenizer_*.pth'):
        load_tokenizer(model.tokenizer, load_tokenizer_state(path), path)
    return model


def model_for_transfer(cfg: Config, transfer: dict, checkpoint: Path | None = None) -> nn.Module:
    """The pre-training model as a row's transfer settings want it, with the weights of a checkpoint or those of the start;
    without a checkpoint, its tokenizer needs no file."""
    backbone = {} if transfer['timestep'] is None else dict(timestep=transfer['timestep'])
    options = {'model.transfer_noise': True} if transfer['transfer_noise'] else {}
    if checkpoint is None and (cfg.model.get('tokenizer') or {}).get('checkpoint'):
        options['model.tokenizer.checkpoint'] = None
    ema = checkpoint is not None and transfer.get('ema', False)
    return get_model(cfg, checkpoint, get_device(), cfg_options=options, backbone=backbone, ema=ema)


if __name__ == '__main__':
    sys.exit(run_explained(main))
