# SPDX-License-Identifier: Apache-2.0
"""A store is whole or it isn't there, and what is damaged, foreign or hostile is one line."""

import errno
import hashlib
import json
import pickle
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing import spawn

from ldae.datasets import store as module
from ldae.datasets.store import ArrayFile, Kind, Store, check_files, damaged_files, new_shard, new_store, take
from ldae.utils import ConfigError

KIND = Kind('rows', 'a test', 'rows.json', 'mend {part} of {folder}', dict(colour=str))
ROWS = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float16)


def write(folder: Path, count: int = 2, settings: dict | None = None) -> None:
    with new_store(folder, KIND, settings or dict(colour='red'), count) as (unfinished, entries):
        for number in range(count):
            write_shard(unfinished, number)
        entries['seconds'] = 1.5
        assert not folder.exists()


def write_shard(folder: Path, number: int) -> None:
    with new_shard(folder, number) as (shard, entry):
        entry['rows'] = 3
        with closing(ArrayFile(shard / 'rows.npy', (0, 5), '<f2')) as file:
            for row in ROWS[number]:
                file.write(row.tobytes())
            file.close(3)


def edit(folder: Path, **changes: object) -> None:
    path = folder / 'rows.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / 'a')
    return tmp_path / 'a'


def test_what_is_read_is_what_was_written_and_the_manifest_says_what_there_is(folder: Path):
    store = Store(folder, KIND)
    assert store.settings == dict(colour='red')
    assert np.array_equal(store.whole('rows.npy'), ROWS.reshape(6, 5))
    manifest = json.loads((folder / 'rows.json').read_text())
    assert (manifest['format'], manifest['kind'], manifest['seconds']) == (1, 'rows', 1.5)
    content = (folder / 'shard-00001' / 'rows.npy').read_bytes()
    expected = [len(content), hashlib.sha256(content).hexdigest()]
    assert manifest['shards'][1] == dict(name='shard-00001', rows=3, files={'rows.npy': expected})
    assert [path.name for path in folder.parent.iterdir()] == ['a']


@pytest.mark.parametrize('count', [2, 40])
def test_rows_of_many_arrays_are_those_of_one(count: int):
    values = np.random.default_rng(0).standard_normal((12, 4))
    numbers = np.random.default_rng(1).integers(0, 12, count)
    for shards in (1, 3):
        arrays = np.split(values, shards)
        assert np.array_equal(take(arrays, *np.divmod(numbers, 12 // shards)), values[numbers])


def test_a_file_may_be_written_at_any_place(tmp_path: Path):
    with closing(ArrayFile(tmp_path / 'a.npy', (2, 3), '<f2')) as file:
        file.write(ROWS[0, 0, :3].tobytes(), 3)
        file.write(ROWS[0, 1, :3].tobytes(), 0)
    assert np.array_equal(np.load(tmp_path / 'a.npy'), ROWS[0, [1, 0], :3])


def test_maps_are_for_reading_and_a_copy_for_another_process_carries_none(folder: Path):
    shard = Store(folder, KIND).shards[1]
    assert np.array_equal(shard['rows.npy'], ROWS[1])
    with pytest.raises(ValueError, match='read-only'):
        shard['rows.npy'][0] = 0
    sent = pickle.dumps(shard)
    assert ROWS[1].tobytes()[:8] not in sent
    assert np.array_equal(pickle.loads(sent)['rows.npy'], ROWS[1])


@pytest.mark.parametrize(
    ('harm', 'line'),
    [
        (lambda shard: (shard / 'rows.npy').unlink(), 'rows.npy is missing: mend .*shard-00001 of'),
        (lambda shard: shutil.rmtree(shard), 'rows.npy is missing'),
        (lambda shard: (shard / 'rows.npy').write_bytes(b'short'), 'has 5 bytes of 158: mend'),
        (lambda shard: (shard.parent / 'rows.json').unlink(), 'holds no finished rows, which a test writes'),
        (lambda shard: (shard.parent / 'rows.json').write_text('{'), r'cannot be read \(JSONDecodeError\): mend'),
        (lambda shard: (shard.parent / 'rows.json').write_bytes(b'\xff'), 'cannot be read'),
        (lambda shard: (shard.parent / 'rows.json').write_text('[]'), 'cannot be read'),
        (lambda shard: edit(shard.parent, format=2), 'has format 2, and this version of ldae reads 1: use'),
        (lambda shard: edit(shard.parent, format=None), 'has no format number'),
        (lambda shard: edit(shard.parent, kind='columns'), 'it describes columns, not rows'),
        (lambda shard: edit(shard.parent, settings={}), r'cannot be read \(KeyError\)'),
        (lambda shard: edit(shard.parent, settings=3), r'cannot be read \(TypeError\)'),
        (lambda shard: edit(shard.parent, shards=3), r'cannot be read \(TypeError\)'),
        (lambda shard: edit(shard.parent, shards=[dict(name='a')]), r'cannot be read \(KeyError\)'),
        (lambda shard: edit(shard.parent, shards=[dict(name='a', files=dict(b=['1', '2']))]), 'TypeError'),
    ],
)
def test_what_is_not_as_it_was_written_is_one_line(folder: Path, harm, line: str):
    harm(folder / 'shard-00001')
    with pytest.raises(ConfigError, match=line) as caught:
        Store(folder, KIND)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['../../x', '..', '/etc', 'a/b', '', '.hidden', 'a\x00'])
@pytest.mark.parametrize('of', ['shard', 'file'])
def test_names_that_leave_the_folder_are_refused(folder: Path, name: str, of: str):
    shard = dict(name=name, files={}) if of == 'shard' else dict(name='a', files={name: [0, '']})
    edit(folder, shards=[shard])
    for read in (lambda: Store(folder, KIND), lambda: damaged_files(folder, KIND)):
        with pytest.raises(ConfigError, match='is not the name of a file in it'):
            read()


@pytest.mark.parametrize('place', ['shard-00001', 'shard-00001/rows.npy'])
def test_a_link_to_elsewhere_is_refused(folder: Path, tmp_path: Path, place: str):
    (folder / place).rename(tmp_path / 'elsewhere')
    (folder / place).symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(ConfigError, match='is a link'):
        Store(folder, KIND)
    assert damaged_files(folder, KIND)


def test_a_flipped_bit_is_found_by_its_checksum_and_in_its_shard(folder: Path):
    assert damaged_files(folder, KIND) == []
    path = folder / 'shard-00001' / 'rows.npy'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    Store(folder, KIND)
    assert damaged_files(folder, KIND, num_workers=2) == [f'{path} is damaged']
    assert damaged_files(folder, KIND, [0]) == []
    path.unlink()
    assert damaged_files(folder, KIND, [1]) == [f'{path} is missing']


@pytest.mark.parametrize(
    'content', [b'', b'x' * 158, np.lib.format.magic(1, 0)], ids=['empty', 'foreign', 'head alone']
)
def test_a_file_that_is_not_numpys_is_one_line(folder: Path, content: bytes):
    shard = Store(folder, KIND).shards[0]
    (shard.folder / 'rows.npy').write_bytes(content)
    with pytest.raises(ConfigError, match='rows.npy cannot be read .*: mend .*shard-00000') as caught:
        shard['rows.npy']
    assert '\n' not in str(caught.value)


def test_pickled_objects_are_not_opened(folder: Path, tmp_path: Path):
    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / 'opened',)

    shard = Store(folder, KIND).shards[0]
    np.save(shard.folder / 'rows.npy', np.array([Hostile()], object), allow_pickle=True)
    with pytest.raises(ConfigError, match='cannot be read'):
        shard['rows.npy']
    assert not (tmp_path / 'opened').exists()


@pytest.mark.parametrize('error', [KeyboardInterrupt(), OSError(errno.ENOSPC, 'No space left on device')])
@pytest.mark.parametrize('at', ['ArrayFile.write', 'sha256_of', 'flush', 'atomic_write_text'])
def test_a_stop_or_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch, error: BaseException, at: str):
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(f'ldae.datasets.store.{at}', fail)
    full = isinstance(error, OSError)
    with pytest.raises(ConfigError if full else KeyboardInterrupt) as caught:
        write(tmp_path / 'a')
    assert not full or str(caught.value).endswith('a: rows cannot be written (No space left on device)')
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_was_begun_is_begun_anew(tmp_path: Path):
    (tmp_path / '.shard-00000.unfinished').mkdir()
    (tmp_path / '.shard-00000.unfinished' / 'half.npy').write_bytes(b'half')
    write_shard(tmp_path, 0)
    assert {path.name for path in (tmp_path / 'shard-00000').iterdir()} == {'rows.npy', 'shard.json'}


def test_what_is_there_is_replaced_only_if_asked(folder: Path):
    (folder / 'mine').write_text('kept')
    with pytest.raises(ConfigError, match='a exists: name another folder'):
        write(folder)
    assert (folder / 'mine').exists()
    with new_store(folder, KIND, dict(colour='blue'), 1, replace=True) as (unfinished, _):
        write_shard(unfinished, 0)
    assert Store(folder, KIND).settings == dict(colour='blue')
    assert [path.name for path in folder.parent.iterdir()] == ['a']


def test_a_shard_that_nobody_wrote_is_one_line(tmp_path: Path):
    with (
        pytest.raises(ConfigError, match='shard-00001/shard.json is missing: all processes must write into the same'),
        new_store(tmp_path / 'a', KIND, {}, 2) as (unfinished, _),
    ):
        write_shard(unfinished, 0)
    assert list(tmp_path.iterdir()) == []


def work(rank: int, folder: Path) -> None:
    """One of two processes."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    with new_store(folder / 'both', KIND, dict(colour='red'), 2) as (unfinished, _):
        write_shard(unfinished, rank)
    with (
        pytest.raises(ConfigError, match='the processes differ in what they are to write'),
        new_store(folder / 'differ', KIND, dict(colour=rank), 2),
    ):
        pass
    with pytest.raises(ConfigError, match='No such file'), new_store(folder / 'one', KIND, {}, 2) as (new, _):
        (new if rank else new / 'missing').joinpath('a').write_bytes(b'')
    torch.distributed.destroy_process_group()


def test_processes_that_write_together_agree_or_fail_together(tmp_path: Path):
    spawn(work, (tmp_path,), nprocs=2)
    write(tmp_path / 'alone')
    both, alone = (Store(tmp_path / name, KIND).manifest for name in ('both', 'alone'))
    assert both['shards'] == alone['shards']
    assert {path.name for path in tmp_path.iterdir()} <= {'both', 'alone', 'meet'}


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda _: type('Usage', (), dict(free=10**9)))
    with (
        pytest.raises(ConfigError, match=r'a: the rows take 2\.0 GB, 1\.0 GB are free: name another folder'),
        new_store(tmp_path / 'a', KIND, {}, 1, 2 * 10**9),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['labels.npy', 'offsets.npy'])
def test_zeros_in_the_place_of_labels_are_found_at_opening_and_all_else_when_asked(tmp_path: Path, name: str):
    with (
        new_store(tmp_path / 'a', KIND, dict(colour='red'), 1) as (unfinished, _),
        new_shard(unfinished, 0) as (shard, _),
    ):
        np.save(shard / 'rows.npy', ROWS[0])
        np.save(shard / name, np.arange(3))
    check_files(tmp_path / 'a', KIND)
    np.save(tmp_path / 'a' / 'shard-00000' / 'rows.npy', np.zeros_like(ROWS[0]))
    assert not Store(tmp_path / 'a', KIND).whole('rows.npy').any()
    with pytest.raises(ConfigError, match='rows.npy is damaged: mend'):
        check_files(tmp_path / 'a', KIND)
    np.save(tmp_path / 'a' / 'shard-00000' / name, np.zeros(3, int))
    with pytest.raises(ConfigError, match=f'{name} is damaged: mend'):
        Store(tmp_path / 'a', KIND)
