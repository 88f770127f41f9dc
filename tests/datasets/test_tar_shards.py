# SPDX-License-Identifier: Apache-2.0
import gzip
import io
import tarfile
from pathlib import Path

import pytest

from ldae.datasets.tar_shards import members_of, read_member
from ldae.utils import ConfigError

NAMES = ['a.jpg', 'd/b.jpg', 'x' * 99, 'y' * 100, 'y' * 90 + '/z.jpg', 'ü/é.jpg']
FORMATS = dict(ustar=tarfile.USTAR_FORMAT, gnu=tarfile.GNU_FORMAT, pax=tarfile.PAX_FORMAT)


def write(path: Path, names: list[str] = NAMES, kind: int = tarfile.PAX_FORMAT) -> Path:
    """A file of i * 300 bytes of each name, after a folder and before a link."""
    with tarfile.open(path, 'w', format=kind) as tar:
        others = {name: tarfile.TarInfo(name) for name in ('folder', 'link.jpg', 'hard.jpg')}
        others['folder'].type, others['link.jpg'].type, others['hard.jpg'].type = b'5', b'2', b'1'
        others['link.jpg'].linkname = others['hard.jpg'].linkname = '/etc/passwd'
        tar.addfile(others['folder'])
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 300 * i, 1.5  # for which PAX writes a header more
            tar.addfile(member, io.BytesIO(bytes([65 + i]) * member.size))
        tar.addfile(others['link.jpg'])
        tar.addfile(others['hard.jpg'])
    return path


@pytest.mark.parametrize('kind', FORMATS)
def test_members_are_those_of_tarfile_and_links_are_told_from_files(tmp_path, kind):
    names = NAMES if kind == 'ustar' else [*NAMES, 'q' * 90 + '/' + 'r' * 300]
    path = write(tmp_path / 'shard.tar', names, FORMATS[kind])
    with tarfile.open(path) as tar:
        files = [member for member in tar if member.isreg()]
        expected = [(member.name, member.offset_data, member.size) for member in files]
        contents = [tar.extractfile(member).read() for member in files]
    found = list(members_of(str(path)))
    assert [member[:3] for member in found if member.is_plain] == expected
    assert [member.name for member in found if not member.is_plain] == ['link.jpg', 'hard.jpg']
    addresses = [f'wds::{path}::{place}+{size}::{name}' for name, place, size in expected]
    assert list(map(read_member, addresses)) == contents


def test_a_file_with_holes_is_not_plain(tmp_path):
    member = tarfile.TarInfo('a.jpg')
    member.pax_headers = {'GNU.sparse.major': '1', 'GNU.sparse.minor': '0'}
    with tarfile.open(tmp_path / 'shard.tar', 'w', format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    assert [member.is_plain for member in members_of(str(tmp_path / 'shard.tar'))] == [False]


def test_a_size_of_eight_bytes_is_read(tmp_path):
    """As GNU writes it where octal digits don't suffice."""
    path = write(tmp_path / 'shard.tar', ['a', 'b'], tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes())
    head = 2 * 512  # of b, after those of the folder and of a
    data[head + 124 : head + 136] = b'\x80' + (300).to_bytes(11, 'big')
    data[head + 148 : head + 156] = b'%06o\0 ' % (
        sum(data[head : head + 512]) - sum(data[head + 148 : head + 156]) + 256
    )
    path.write_bytes(data)
    assert [(member.name, member.size) for member in members_of(str(path))][1] == ('b', 300)
    with tarfile.open(path) as tar:
        assert tar.getmembers()[2].size == 300


@pytest.mark.parametrize('length', range(512, 9000, 700))
def test_a_shard_that_is_cut_off_anywhere_is_said_to_be(tmp_path, length):
    path = write(tmp_path / 'shard.tar')
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        ConfigError, match=r'shard.tar is (cut off|damaged at byte [0-9,]+).*: write or download it again'
    ):
        list(members_of(str(path)))


DAMAGED = {
    'is damaged at byte 512': lambda data: data[:518] + bytes(9) + data[527:],
    'is damaged at byte 0': lambda data: b'\xff\xd8\xff' + bytes(range(250)) * 9,
    'is compressed: unpack it': gzip.compress,
    'is empty, which not even': lambda data: b'',
    'has an end at byte .*, and more after it': lambda data: data + data,
}


@pytest.mark.parametrize('message', DAMAGED)
def test_what_is_wrong_with_a_shard_is_one_line_with_its_name(tmp_path, message):
    path = write(tmp_path / 'shard.tar')
    path.write_bytes(DAMAGED[message](path.read_bytes()))
    with pytest.raises(ConfigError, match=f'shard.tar {message}'):
        list(members_of(str(path)))


@pytest.mark.parametrize('size', ['-512', '-1024', '99999999999999999999'])
def test_a_size_that_leads_back_or_nowhere_is_damage(tmp_path, size):
    member = tarfile.TarInfo('a.jpg')
    member.pax_headers = dict(size=size)
    with tarfile.open(tmp_path / 'shard.tar', 'w', format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    with pytest.raises(ConfigError, match='shard.tar is (damaged at byte 1,024|cut off in)'):
        list(members_of(str(tmp_path / 'shard.tar')))


def test_random_damage_ends_in_a_config_error_or_in_other_names(tmp_path):
    import random

    draw, whole = random.Random(0), write(tmp_path / 'shard.tar').read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for place in draw.sample(range(len(data)), 3):
            data[place] = draw.randrange(256)
        (tmp_path / 'shard.tar').write_bytes(data)
        try:
            found = list(members_of(str(tmp_path / 'shard.tar')))
        except ConfigError:
            continue
        assert all(0 < member.place <= member.place + member.size <= len(data) for member in found)
