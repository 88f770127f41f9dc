# SPDX-License-Identifier: Apache-2.0
"""Tar shards as files to read from at any place: which files are in one, and the bytes of one of them.

:mod:`tarfile` lists the same in three times the time; a data set of millions of images would take minutes to open, in each process.
"""

import mmap
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from ldae.utils import ConfigError

BLOCK = 512
#: A file in a shard: ``wds::SHARD::PLACE+SIZE::NAME``.
ADDRESS = re.compile(r'wds::(.+?)::(\d+)\+(\d+)::(.*)', re.DOTALL)
#: Types of headers: of plain files; of links, folders and devices, which have no data; and of headers of the next one.
PLAIN, WITHOUT_DATA, HEADERS = b'0\x007', b'123456', b'LKxg'
COMPRESSED = (b'\x1f\x8b', b'BZh', b'\xfd7zXZ', b'\x28\xb5\x2f\xfd')
#: Bytes of a header of the next one, and of an image's file.
MAX_HEADER, MAX_FILE = 1 << 20, 1 << 30
AGAIN = 'write or download it again'


class Member(NamedTuple):
    """A file in a shard; ``is_plain`` is False for links, devices and files with holes, which are not read."""

    name: str
    place: int
    size: int
    is_plain: bool = True


def read_member(address: str) -> bytes:
    """The bytes of a file in a shard; fewer, where the shard has become shorter. Raises OSError if it can't be an image's."""
    shard, place, size, _ = ADDRESS.fullmatch(address).groups()
    if int(size) > MAX_FILE:
        raise OSError(f'{size} bytes')
    return read_part(shard, int(place), int(size))


def read_part(shard: str, place: int, size: int) -> bytes:
    """Some bytes of a shard."""
    file = _opened(shard)  # held: what the cache lets go, or a second thread has opened, is closed when nobody has it
    return os.pread(file.fileno(), size, place)


@lru_cache(64)  # pread keeps no place: processes that are forked, and threads, share what is open
def _opened(shard: str) -> object:
    return open(shard, 'rb', buffering=0)


def members_of(shard: str) -> Iterator[Member]:
    """The files in a shard, in their order, but for folders. Raises ConfigError if it is damaged, cut off, compressed or not a tar
    file."""
    if not os.path.getsize(shard):
        raise ConfigError(f'{shard} is empty, which not even a shard without files is: {AGAIN}')
    _opened.cache_clear()  # it may be another file by now
    with open(shard, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place, extended = 0, {}
        while any(data[place : place + 8]):  # a name is never empty
            head = data[place : place + BLOCK]
            try:
                member, kind = _member(head, place + BLOCK, extended)
                data_of_header = data[place + BLOCK : place + BLOCK + member.size] if kind in HEADERS else b''
                extended = extended | _extended(kind, data_of_header) if kind in HEADERS else {}
            except (ValueError, IndexError) as error:
                packed = any(data[: len(first)] == first for first in COMPRESSED)
                why = 'is compressed: unpack it' if packed else f'is damaged at byte {place:,}: {AGAIN}'
                raise ConfigError(f'{shard} {why}') from error
            place = member.place + -(-member.size // BLOCK) * BLOCK
            if member.place + member.size > len(data):
                raise ConfigError(f'{shard} is cut off in {member.name!r}: {AGAIN}')
            if kind not in HEADERS and kind != b'5':
                yield member
        if data[place:].strip(b'\0'):
            raise ConfigError(f'{shard} has an end at byte {place:,}, and more after it: {AGAIN}')
        if place >= len(data):
            raise ConfigError(f'{shard} is cut off, since no end of it is there: {AGAIN}')


def _member(head: bytes, place: int, extended: Mapping[str, str]) -> tuple[Member, bytes]:
    """The file that a header is of, and its type."""
    if _number(head[148:156]) != sum(head) - sum(head[148:156]) + 8 * ord(' '):
        raise ValueError('the checksum differs')
    kind = head[156:157]
    size = 0 if kind in WITHOUT_DATA else int(extended.get('size', _number(head[124:136])))
    if size < 0 or kind in HEADERS and size > MAX_HEADER:
        raise ValueError('the size is none')
    prefix = head[345:500] if head[257:263] == b'ustar\0' else b''
    name = b'/'.join(part for part in (prefix.split(b'\0')[0], head[:100].split(b'\0')[0]) if part)
    name = extended.get('path', name.decode(errors='surrogateescape'))
    return Member(name, place, size, kind in PLAIN and 'GNU.sparse' not in extended), kind


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field[1:], 'big')
    return int(field.strip(b' \0') or b'0', 8)


def _extended(kind: bytes, data: bytes) -> dict[str, str]:
    """The things that a header says of the next file: its name or size, and whether it has holes."""
    if kind == b'x' and b'path=' not in data and b'size=' not in data and b'GNU.sparse' not in data:
        return {}
    if kind != b'x':
        return dict(path=data.rstrip(b'\0').decode(errors='surrogateescape')) if kind == b'L' else {}
    found = {}
    while data:
        length = int(data.split(b' ', 1)[0])
        key, _, value = data[:length].partition(b' ')[2][:-1].decode(errors='surrogateescape').partition('=')
        found['GNU.sparse' if key.startswith('GNU.sparse') else key] = value
        if length < 1:
            raise ValueError('the length is missing')
        data = data[length:]
    return found
