# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from ldae.datasets import ImageFolder, PackedImages, packing
from ldae.datasets.packing import PackOptions, pack, verify
from ldae.utils import ConfigError

SMALL = PackOptions(edge=32, shard_size=4)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.fixture
def dataset(tiny_image_folder: Path) -> ImageFolder:
    return ImageFolder(str(tiny_image_folder), 'train')


def test_two_processes_write_what_one_writes(dataset: ImageFolder, tmp_path: Path):
    pack(dataset, tmp_path / 'one', SMALL)
    pack(dataset, tmp_path / 'two', SMALL, num_workers=2)
    assert content(tmp_path / 'one') == content(tmp_path / 'two')
    assert verify(tmp_path / 'one', 2) == []


def test_after_a_kill_in_a_shard_the_same_call_goes_on(
    dataset: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written, store = [], packing._stored

    def killed_at_the_tenth(*args: object) -> bytes:
        written.append(1)
        if len(written) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return store(*args)

    folder = tmp_path / 'out'
    with monkeypatch.context() as patch:
        patch.setattr(packing, '_stored', killed_at_the_tenth)
        with pytest.raises(ConfigError, match='died.*run it again'):
            pack(dataset, folder, SMALL)
    assert sorted(path.name for path in folder.iterdir()) == [
        '.shard-00002.unfinished',
        'plan.json',
        'shard-00000',
        'shard-00001',
    ]
    with pytest.raises(ConfigError, match='no packed images'):
        PackedImages(str(folder))
    before = (folder / 'shard-00001').stat().st_mtime_ns
    pack(dataset, folder, SMALL)
    assert (folder / 'shard-00001').stat().st_mtime_ns == before
    pack(dataset, tmp_path / 'unbroken', SMALL)
    assert content(folder) == content(tmp_path / 'unbroken')


def test_a_changed_byte_is_found_and_only_its_shard_written_again(dataset: ImageFolder, tmp_path: Path):
    folder = tmp_path / 'out'
    pack(dataset, folder, SMALL)
    whole = content(folder)
    path = folder / 'shard-00002' / 'images.npy'
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    (folder / 'shard-00001' / 'names.json').unlink()
    assert verify(folder) == [f'{folder}/shard-00001/names.json is missing', f'{path} is damaged']
    for name in ('shard-00001', 'shard-00002'):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    pack(dataset, folder, SMALL)
    assert content(folder) == whole


def test_bad_images_are_left_out_and_reported(tiny_image_folder: Path, tmp_path: Path):
    (tiny_image_folder / 'train' / 'a' / '2.jpg').write_bytes(b'')
    dataset, folder = ImageFolder(str(tiny_image_folder), 'train'), tmp_path / 'out'
    with pytest.raises(ConfigError, match=r'1 of 16 images \(1 is empty\), first a/2\.jpg.*--max-bad'):
        pack(dataset, folder, SMALL)
    dataset.max_bad = 0.1
    manifest = pack(dataset, folder, SMALL)
    assert [shard['skipped'] for shard in manifest['shards']] == [[['a/2.jpg', 'is empty']], [], [], []]
    packed = PackedImages(str(folder))
    assert [packed.name(i) for i in (1, 2, 14)] == ['a/1.jpg', 'a/3.jpg', 'b/7.jpg']
    assert packed.labels.tolist() == [0] * 7 + [1] * 8


def test_a_shard_without_a_good_image_is_no_trouble(tiny_image_folder: Path, tmp_path: Path):
    for i in range(4):
        (tiny_image_folder / 'train' / 'a' / f'{i}.jpg').write_bytes(b'x')
    dataset = ImageFolder(str(tiny_image_folder), 'train', max_bad=0.5)
    pack(dataset, tmp_path / 'out', SMALL)
    packed = PackedImages(str(tmp_path / 'out'))
    assert len(packed) == 12
    assert packed.name(0) == 'a/4.jpg'
    assert packed[0]['inputs'].shape == (1, 3, 32, 32)


def test_whole_images_are_shrunk_and_never_enlarged(dataset: ImageFolder, tmp_path: Path):
    path = Path(dataset.img_prefix) / 'a' / '0.jpg'
    cv2.imwrite(str(path), np.zeros((30, 50, 3), np.uint8))
    cv2.imwrite(str(path.with_name('1.jpg')), np.zeros((64, 96, 3), np.uint8))
    pack(dataset, tmp_path / 'out', PackOptions('none', 32, format='jpeg'))
    packed = PackedImages(str(tmp_path / 'out'), pipeline=[dict(type='LoadImage'), dict(type='PackInputs')])
    assert packed[0]['inputs'].shape == (1, 3, 30, 50)
    assert packed[1]['inputs'].shape == (1, 3, 32, 48)


def test_the_files_are_numpys(dataset: ImageFolder, tmp_path: Path):
    pack(dataset, tmp_path / 'out', PackOptions(edge=32, format='jpeg', shard_size=9))
    folder = tmp_path / 'out' / 'shard-00001'
    data, offsets = np.load(folder / 'images.npy'), np.load(folder / 'offsets.npy')
    assert len(offsets) == 8
    last = cv2.imdecode(data[offsets[-2] : offsets[-1]], cv2.IMREAD_COLOR)
    assert last.shape == (32, 32, 3)
    assert np.load(folder / 'labels.npy').tolist() == [1] * 7


def test_what_is_there_is_not_overwritten_unasked(dataset: ImageFolder, tmp_path: Path):
    folder = tmp_path / 'out'
    pack(dataset, folder, SMALL)
    with pytest.raises(ConfigError, match='packed already.*--force'):
        pack(dataset, folder, SMALL)
    other = PackOptions(edge=16, shard_size=4)
    with pytest.raises(ConfigError, match=r"begun with {'edge': 32.*--force"):
        pack(dataset, folder, other)
    (folder / 'mine.txt').write_text('kept')
    pack(dataset, folder, other, force=True)
    assert PackedImages(str(folder))[0]['inputs'].shape == (1, 3, 16, 16)
    assert (folder / 'mine.txt').read_text() == 'kept'
    with pytest.raises(ConfigError, match='is not a packed data set'):
        pack(dataset, Path(dataset.img_prefix), SMALL, force=True)


def test_a_full_disk_is_one_line_and_leaves_no_shard(
    dataset: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args: object) -> bytes:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(packing, '_stored', full)
    with pytest.raises(ConfigError, match=r'cannot be written .*No space.*make room and run it again'):
        pack(dataset, tmp_path / 'out', SMALL)
    assert not list((tmp_path / 'out').glob('shard-*'))


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        (dict(crop='middle'), "crop='middle' is unknown"),
        (dict(crop='none'), "needs format='jpeg'"),
        (dict(edge=4), 'edge=4 is out of range'),
        (dict(size=300), 'size=300 is out of range'),
        (dict(quality=0), 'quality=0'),
        (dict(shard_size=0), 'shard_size=0'),
    ],
)
def test_options_are_checked(options: dict, line: str):
    with pytest.raises(ConfigError, match=line):
        PackOptions(**options)


def test_two_do_not_write_into_one_folder(dataset: ImageFolder, tmp_path: Path):
    (tmp_path / 'out').mkdir()
    with packing._alone(tmp_path / 'out'), pytest.raises(ConfigError, match='another process is packing into it'):
        pack(dataset, tmp_path / 'out', SMALL)
    assert len(pack(dataset, tmp_path / 'out', SMALL)['shards']) == 4


def test_when_the_main_process_stops_no_worker_goes_on(
    dataset: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    advance = packing._Progress.advance

    def after_the_stop(progress: packing._Progress, images: int = 1) -> None:
        while images and progress.done >= 0:
            pass
        advance(progress, images)

    monkeypatch.setattr(packing, 'wait', interrupted)
    monkeypatch.setattr(packing._Progress, 'advance', after_the_stop)
    with pytest.raises(KeyboardInterrupt):
        pack(dataset, tmp_path / 'out', SMALL, num_workers=2)
    assert not list((tmp_path / 'out').glob('shard-*'))
