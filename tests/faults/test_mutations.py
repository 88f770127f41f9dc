# SPDX-License-Identifier: Apache-2.0
"""Files of each format, damaged or forged in hundreds of ways: none runs code, touches another file, hangs, or ends in a
traceback."""

import copy
import hashlib
import io
import json
import os
import random
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_hostile_data import TINY, VALUES, leaves, write_store

import ldae
from ldae.ablation.comparison_report import Entry, comparison_page, row_as_json, summarise_comparison
from ldae.ablation.jobs import folder_of, read_done
from ldae.ablation.report import dimension_curves, summarise, table_page
from ldae.ablation.results import ResultsFile, read_scores
from ldae.config import load_config
from ldae.config.rows import Row
from ldae.datasets import ImageFolder, LatentDataset, PackedImages
from ldae.datasets.latents import LATENTS
from ldae.datasets.packed import PACKED
from ldae.datasets.packing import PLAN, _prepare
from ldae.datasets.store import entries_of
from ldae.engine.resume.checkpoint_notes import clean_checkpoint
from ldae.engine.resume.safe_checkpoint import latest_checkpoint
from ldae.evaluation.cache import FEATURES, FeatureCache
from ldae.evaluation.protocol import PROTOCOL
from ldae.models import ConvVAETokenizer, PatchPCATokenizer
from ldae.models.tokenizers.base import save_tokenizer
from ldae.models.tokenizers.conv_vae import build_autoencoder
from ldae.utils import ConfigError
from ldae.utils.checkpoints import read_checkpoint
from ldae.utils.locks import _name, _owner

COUNT, SECONDS = 200, 20
#: What Python says of when something is run, sent or changed.
RUNS = ('subprocess.', 'os.system', 'os.exec', 'os.fork', 'os.posix_spawn', 'os.spawn', 'ctypes.dlopen', 'socket.')
CHANGES = (
    'os.remove',
    'os.rename',
    'os.mkdir',
    'os.rmdir',
    'os.truncate',
    'os.chmod',
    'os.link',
    'os.symlink',
    'shutil.',
)
seen: list[str] | None = None


def note(event: str, arguments: tuple) -> None:
    if seen is None:
        return
    writes = event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+')
    if writes or event.startswith((*RUNS, *CHANGES)):
        seen.append(f'{event} {arguments}')


sys.addaudithook(note)  # which can't be taken away


class HangError(BaseException):
    pass


@contextmanager
def watched(what: str) -> Iterator[None]:
    """A block that does what it should or raises ConfigError, in one line, in time, and changes nothing."""
    global seen

    def hang(*_: object) -> None:
        raise HangError(what)

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    seen, said = [], ''
    try:
        yield
    except ConfigError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f'{what}: {type(error).__name__}: {error}') from error
    finally:
        events, seen = seen, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert '\n' not in said, (what, said)
    assert not events, (what, events)


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """A flipped bit, a cut, bytes put in or taken out, or zeros."""
    place, length = rng.randrange(len(whole) or 1), rng.randrange(1, 9)
    return rng.choice(
        [
            whole[:place]
            + bytes(byte ^ 1 << rng.randrange(8) for byte in whole[place : place + 1])
            + whole[place + 1 :],
            whole[:place],
            whole[:place] + rng.randbytes(length) + whole[place:],
            whole[:place] + whole[place + length :],
            whole[:place] + bytes(length) + whole[place + length :],
        ]
    )


def swapped(content: Any, rng: random.Random) -> Any:
    """A copy of a nest of dicts and lists in which two values have changed places."""
    changed = copy.deepcopy(content)
    nodes = []
    for path in rng.sample(list(leaves(changed)), 2):
        node = changed
        for key in path[:-1]:
            node = node[key]
        nodes.append((node, path[-1]))
    (a, i), (b, j) = nodes
    with suppress(TypeError):  # a tuple
        a[i], b[j] = b[j], a[i]
    return changed


def resealed(whole: bytes, rng: random.Random) -> bytes:
    """An archive whose pickle is forged, with fitting checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(out, 'w') as forged:
        for part in archive.infolist():
            data = archive.read(part)
            forged.writestr(part.filename, mutated(data, rng) if part.filename.endswith('data.pkl') else data)
    return out.getvalue()


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def archives(path: Path, rng: random.Random) -> Iterator[str]:
    """The file, changed in each of the ways in turn."""
    whole, content = path.read_bytes(), torch.load(path)
    for number in range(COUNT):
        path.write_bytes(mutated(whole, rng))
        yield f'{number}: bytes'
        path.write_bytes(resealed(whole, rng))
        yield f'{number}: pickle'
        torch.save(swapped(content, rng), path)
        yield f'{number}: values'


def test_checkpoints():
    Path('tiny.py').write_text(TINY)
    cfg = load_config('tiny.py')
    model = ldae.get_model(cfg, device='cpu')
    optimizer = torch.optim.AdamW(model.parameters())
    sum(param.sum() for param in model.parameters()).backward()
    optimizer.step()
    schedule = dict(param_name='lr', begin=0, end=8, last_step=3, base_values=[0.1], by_epoch=False)
    info = dict(keep_ckpt_ids=[1], step_checkpoint='iter_8.pth', best_ckpt='best_a_epoch_1.pth')
    data = dict(seed=0, sampler_seed=0, epoch=0, samples=8, world_size=1, batch_size=2)
    content = dict(
        meta=dict(cfg=cfg.pretty_text, epoch=1, iter=8, seed=0),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[schedule],
        message_hub=dict(log_scalars={}, runtime_info=info, resumed_keys=dict(best_ckpt=True)),
        progress=dict(moment='epoch', data=data),
    )
    path = Path('epoch_1.pth')
    torch.save(content, path)
    ldae.get_model(checkpoint=path, device='cpu')
    for number, what in enumerate(archives(path, random.Random(0))):
        with watched(what):
            latest_checkpoint('.')
        with watched(what):
            clean_checkpoint(read_checkpoint(path), path.name)
        if number % 7 == 0:
            with watched(what):
                ldae.get_model(checkpoint=path, device='cpu')


def test_tokenizer_files():
    save_tokenizer(PatchPCATokenizer(img_size=8, patch_size=4, latent_dim=4), 'a.pth')
    for what in archives(Path('a.pth'), random.Random(0)):
        with watched(what):
            PatchPCATokenizer(8, 4, latent_dim=4, checkpoint='a.pth')


def rows(*shape: int, dtype: str) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


STORES: dict[str, tuple[Any, dict, dict, Callable[[], Any]]] = {
    'pixels': (
        PACKED,
        dict(crop='center', format='uint8', edge=8, size=8, with_label=True),
        {'images.npy': rows(2, 3, 8, 8, dtype='u1')},
        lambda: PackedImages('data').__getitems__([0, 1]),
    ),
    'jpeg': (
        PACKED,
        dict(crop='center', format='jpeg', edge=8, size=8, with_label=True),
        {'images.npy': rows(64, dtype='u1'), 'offsets.npy': np.array([0, 32, 64])},
        lambda: PackedImages('data').__getitems__([0, 1]),
    ),
    'features': (
        FEATURES,
        dict(num_images=2, blocks=[1], timesteps=[10], noisy=[False], depth=1),
        {'block_1.npy': rows(1, 2, 4, dtype='f2')},
        lambda: FeatureCache('data').select(),
    ),
    'latents': (
        LATENTS,
        dict(shape=[2, 3, 4], dtype='float16', shard_size=4096, with_label=True, tokenizer='a'),
        {'latents.npy': rows(2, 3, 4, dtype='f2')},
        lambda: LatentDataset('data', True).__getitems__([0, 1]),
    ),
}


@pytest.mark.parametrize('name', STORES)
def test_stores(name):
    kind, settings, arrays, read = STORES[name]
    write_store(Path.cwd() / 'data', kind, settings, dict(arrays, **{'labels.npy': rows(2, dtype='i8')}), seconds=1.0)
    with watched('as written'):
        read()
    rng, manifest = random.Random(0), Path('data', kind.manifest)
    told = manifest.read_bytes()
    content = json.loads(told)
    files = {path: path.read_bytes() for path in sorted(Path('data').glob('*/*.npy'))}
    for number in range(COUNT):
        for text in (mutated(told, rng), json.dumps(swapped(content, rng)).encode()):
            manifest.write_bytes(text)
            with watched(f'{number}: {text}'):
                read()
        manifest.write_bytes(told)
        path = rng.choice(list(files))
        harmed = mutated(files[path], rng)
        path.write_bytes(harmed)
        with watched(f'{number}: bytes of {path}'):
            read()
        # Of a forged file, with a fitting checksum, the head decides how it is read.
        harmed = mutated(files[path][:80], rng) + files[path][80:]
        path.write_bytes(harmed)
        forged = copy.deepcopy(content)
        forged['shards'][0]['files'][path.name] = [len(harmed), hashlib.sha256(harmed).hexdigest()]
        manifest.write_text(json.dumps(forged))
        with watched(f'{number}: forged {path}: {harmed[:128]}'):
            read()
        manifest.write_bytes(told)
        path.write_bytes(files[path])


def test_annotation_files(tiny_image_folder):
    lines = [
        f'{path.parent.name}/{path.name} {i % 2}' for i, path in enumerate(sorted(tiny_image_folder.glob('val/*/*')))
    ]
    whole, path, rng = '\n'.join(lines).encode(), Path.cwd() / 'list.txt', random.Random(0)
    for number in range(COUNT):
        words = b' '.join(rng.sample(whole.split(), 8))
        for data in (mutated(whole, rng), mutated(mutated(whole, rng), rng), words):
            path.write_bytes(data)
            with watched(f'{number}: {data}'):
                images = ImageFolder(str(tiny_image_folder), 'val', str(path), data_prefix='val')
                images[0], images[len(images) - 1]


def texts(content: Any, rng: random.Random, count: int = COUNT) -> Iterator[bytes]:
    """A JSON file, changed in each of the ways in turn, and far too deep."""
    told = json.dumps(content).encode()
    yield from (b'[' * 100_000, b'\xff\xfe', b'{}', b'[[]]', b'null')
    for _ in range(count):
        yield mutated(told, rng)
        yield json.dumps(swapped(content, rng)).encode()
        changed = copy.deepcopy(content)
        *way, last = rng.choice(list(leaves(changed)))
        node = changed
        for key in way:
            node = node[key]
        node[last] = rng.choice(VALUES)
        yield json.dumps(changed).encode()


def row(name: str) -> Row:
    return Row(name, Path(f'{name}.py'), 'table2', 'label', 'about', 60.0, None)


ENTRY = dict(
    row='a', seed=0, config='c', knn=49.0, linear=50.0, latent_dim=8, tokenizer='PatchPCATokenizer', timestep=10
)
ENTRY |= dict(
    block=None, at_edge=['lrs'], protocol=PROTOCOL.as_dict(), device='x', commit='y', versions=dict(torch='2.0')
)
ENTRY |= dict(
    generation=dict(name='Fréchet distance', frechet=3.5, sampler='ddim', steps=50, samples=64, reference=128)
)
ENTRY |= dict(pooling='cls', held_out=48.0, cost=dict(images=64, gflop=0.5), seconds=dict(train=2.5, scoring=0.5))
ENTRY |= dict(attentive=dict(aim=dict(accuracy=51.0, held_out=50.0)))


def read_results() -> None:
    entries = [entry for entry in ResultsFile(Path('results.jsonl')).read() if 'protocol' in entry]  # as Study does
    summaries = summarise([row('a'), row('b')], entries)
    if summaries:
        table_page(summaries, 'tiny', 'ldae ablate')
        dimension_curves(summaries)
    methods = [Entry('a', 'untrained', 'a'), Entry('b', 'trained', 'b')]
    rows = summarise_comparison(entries, methods, dict(a={'c'}, b={'c'}))
    if rows:
        comparison_page(rows, 'ldae compare')
        json.dumps([row_as_json(row) for row in rows.values()])


JOB_ENTRY = dict(name='a', key='k', seed=0, watched=False, device='cpu', precision=None)
JSON_FILES: dict[str, tuple[Any, Callable[[], Any]]] = {
    'results.jsonl': (ENTRY, read_results),
    'scores.json': ([ENTRY, dict(row='b', config='c', error='x')], lambda: read_scores(Path('scores.json'))),
    'done.json': (dict(checkpoint='epoch_2.pth', seconds=3.5), lambda: read_done(Path())),
    'row/seed0/job.json': (dict(JOB_ENTRY, scoring={}, members=[{}]), lambda: folder_of(Path(), 'row', 0, 'k')),
    '.lock': (dict(host='h', pid=1, since='s', job=None, start='0'), lambda: is_claimed('.lock')),
    PLAN: (dict(crop='none', size=3), lambda: _prepare(Path(), dict(crop='none', size=3), force=False)),
    'shard-00000/shard.json': (
        dict(name='shard-00000', images=2, skipped=[['a', 'b']], files={'images.npy': [3, 'ab']}),
        lambda: entries_of(Path(), PACKED, 1, skipped=list[tuple[str, str]]),
    ),
}


def is_claimed(name: str) -> str:
    lock = os.open(name, os.O_RDONLY)
    try:
        return _name(_owner(lock))
    finally:
        os.close(lock)


@pytest.mark.parametrize('name', JSON_FILES)
def test_json_files(name):
    content, read = JSON_FILES[name]
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    read()
    for number, text in enumerate(texts(content, random.Random(0))):
        path.write_bytes(text)
        with watched(f'{number}: {text[:300]}'):
            assert '\n' not in str(read())


def test_the_folder_of_an_autoencoder_of_diffusers():
    diffusers = pytest.importorskip('diffusers')
    diffusers.utils.logging.set_verbosity(50)
    build_autoencoder(3, 4, 4, 4, 1).save_pretrained('vae')
    options = dict(img_size=32, patch_size=8, in_channels=3, latent_dim=16, downsample=4, checkpoint='vae')
    config, weights = Path('vae/config.json'), Path('vae/diffusion_pytorch_model.safetensors')
    told, whole = config.read_bytes(), weights.read_bytes()
    head = int.from_bytes(whole[:8], 'little') + 8
    ConvVAETokenizer(**options)
    rng = random.Random(0)
    for number, text in enumerate(texts(json.loads(told), rng, COUNT // 3 + 1)):
        config.write_bytes(text)
        with watched(f'{number}: {text[:1000]}'):
            ConvVAETokenizer(**options)
    config.write_bytes(told)
    for number in range(COUNT):
        weights.write_bytes(mutated(whole[:head], rng) + whole[head:])
        with watched(f'{number}: weights'):
            ConvVAETokenizer(**options)


def test_the_watch_sees_what_is_run_written_and_raised():
    with pytest.raises(AssertionError, match='open'), watched('x'):
        Path('a').write_text('a')
    with pytest.raises(AssertionError, match='os.remove'), watched('x'):
        Path('a').unlink()
    with pytest.raises(AssertionError, match='KeyError'), watched('x'):
        {}['a']
