# SPDX-License-Identifier: Apache-2.0
"""Stores of arrays on disk, ours and others': packed images, latents and features, written and read at random.

    pip install safetensors zarr pyarrow litdata
    python benchmarks/stores.py

What is made up has the shapes of real data: uint8 images of 3 x 256 x 256, JPEGs of 15 to 40 kB, float16 latents of 256 x 32 and
features of 768 numbers. Each store writes them into a temporary folder with a checksum, where it has any, in :data:`SHARDS`
shards, and gives batches of 256 rows as one array (of JPEGs: as bytes). They take turns in one thread, files come from the
page cache, and medians of the processor's time count: ours in microseconds a row, the others' as multiples of ours.
"""

import argparse
import importlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import machine, medians, times_in_turn

from ldae.datasets.store import ArrayFile, Kind, Store, entries_of, new_shard, take, write_manifest

SHARDS = 4
KIND = Kind('rows', 'this program', 'rows.json', 'write {folder} again')
Rows = np.ndarray | list[bytes]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scale', type=float, default=1.0, help='rows, as a multiple of the default')
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', nargs='+', default=list(STORES), choices=list(STORES))
    return parser.parse_args()


def make_rows(scale: float) -> dict[str, Rows]:
    rng = np.random.default_rng(0)
    count = int(1024 * scale)
    half = partial(rng.standard_normal, dtype=np.float32)
    return {
        'images': rng.integers(0, 256, (count, 3, 256, 256), np.uint8),
        'JPEGs': [rng.bytes(int(size)) for size in rng.integers(15_000, 40_000, 2 * count)],
        'latents': half((4 * count, 256, 32)).astype(np.float16),
        'features': half((16 * count, 768)).astype(np.float16),
    }


def parts_of(rows: Rows) -> list[Rows]:
    """The rows of each shard."""
    size = -(-len(rows) // SHARDS)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def flat(jpegs: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Bytes one after the other, and where each begins and ends."""
    return np.frombuffer(b''.join(jpegs), np.uint8), np.cumsum([0, *map(len, jpegs)])


class Memory:
    """A bare copy: the limit of the machine."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        self.rows = rows

    def open(self) -> None:
        pass

    def take(self, chosen: np.ndarray) -> Any:
        if isinstance(self.rows, np.ndarray):
            return self.rows[chosen]
        return [bytes(memoryview(self.rows[i])) for i in chosen]


class Mapped:
    """Rows of arrays that are mapped into memory."""

    def take(self, chosen: np.ndarray) -> Any:
        places = np.divmod(chosen, self.size)
        if self.arrays[0].ndim > 1:
            return take(self.arrays, *places)
        return [
            self.arrays[s][self.offsets[s][i] : self.offsets[s][i + 1]].tobytes() for s, i in zip(*places, strict=True)
        ]


class Ours(Mapped):
    """ldae/datasets/store.py."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        self.folder, self.size = folder, -(-len(rows) // SHARDS)
        for number, part in enumerate(parts_of(rows)):
            with new_shard(folder, number) as (shard, _):
                part, offsets = flat(part) if isinstance(part, list) else (part, np.zeros(1))
                np.save(shard / 'offsets.npy', offsets)
                with closing(ArrayFile(shard / 'rows.npy', part.shape, part.dtype)) as file:
                    file.write(part)
        write_manifest(folder, KIND, {}, entries_of(folder, KIND, SHARDS))

    def open(self) -> None:
        shards = Store(self.folder, KIND).shards
        self.arrays, self.offsets = ([shard[name] for shard in shards] for name in ('rows.npy', 'offsets.npy'))


class Safetensors(Mapped):
    """A file a shard, and a memory map of each tensor; no checksum."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        from safetensors.numpy import save_file

        self.folder, self.size = folder, -(-len(rows) // SHARDS)
        for number, part in enumerate(parts_of(rows)):
            part, offsets = flat(part) if isinstance(part, list) else (part, np.zeros(1))
            save_file(dict(rows=part, offsets=offsets), folder / f'{number}.safetensors')

    def open(self) -> None:
        from safetensors import safe_open

        self.files = [safe_open(path, 'pt') for path in sorted(self.folder.iterdir())]
        self.arrays = [file.get_tensor('rows').numpy() for file in self.files]
        self.offsets = [file.get_tensor('offsets').numpy() for file in self.files]


class Arrow(Mapped):
    """A file of one record batch a shard, by its buffers; no checksum."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        import pyarrow as pa

        self.folder, self.size = folder, -(-len(rows) // SHARDS)
        self.shape, self.dtype = ((), np.uint8) if isinstance(rows, list) else (rows.shape[1:], rows.dtype)
        for number, part in enumerate(parts_of(rows)):
            if isinstance(part, list):
                column = pa.array(part, pa.large_binary())
            else:
                width = part[0].nbytes
                column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(part), [None, pa.py_buffer(part)])
            table = pa.record_batch([column], ['rows'])
            with (
                pa.OSFile(str(folder / f'{number}.arrow'), 'wb') as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write(table)

    def open(self) -> None:
        import pyarrow as pa

        maps = [pa.memory_map(str(path)) for path in sorted(self.folder.iterdir())]
        columns = [pa.ipc.open_file(file).get_batch(0).column(0) for file in maps]
        if self.shape:
            self.arrays = [
                np.frombuffer(column.buffers()[1], self.dtype).reshape(-1, *self.shape) for column in columns
            ]
        else:
            self.arrays = [np.frombuffer(column.buffers()[2], np.uint8) for column in columns]
            self.offsets = [np.frombuffer(column.buffers()[1], np.int64) for column in columns]


class Zarr:
    """Zarr 3: shards of chunks of a row, each with its CRC-32C; JPEGs in chunks of 32 kB."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec

        self.folder, self.offsets, chunk = folder, None, 1
        if isinstance(rows, list):
            rows, self.offsets = flat(rows)
            chunk = 1 << 15
        shard = chunk * -(-len(rows) // SHARDS // chunk)
        array = zarr.create_array(
            folder / 'rows.zarr',
            shape=rows.shape,
            dtype=rows.dtype,
            chunks=(chunk, *rows.shape[1:]),
            shards=(shard, *rows.shape[1:]),
            compressors=[Crc32cCodec()],
        )
        array[:] = rows

    def open(self) -> None:
        import zarr

        self.array = zarr.open_array(self.folder / 'rows.zarr', mode='r')

    def take(self, chosen: np.ndarray) -> Any:
        if self.offsets is None:
            return self.array.oindex[chosen]
        return [self.array[self.offsets[i] : self.offsets[i + 1]].tobytes() for i in chosen]


def _item(item: Any) -> Any:
    return item


class LitData:
    """Chunks of 64 MB; no checksum."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        import litdata

        self.folder = folder
        items = rows if isinstance(rows, list) else [torch.from_numpy(row) for row in rows]
        litdata.optimize(_item, items, str(folder), num_workers=1, chunk_bytes='64MB', verbose=False)

    def open(self) -> None:
        import litdata

        self.data = litdata.StreamingDataset(str(self.folder), shuffle=False)

    def take(self, chosen: np.ndarray) -> Any:
        rows = [self.data[int(i)] for i in chosen]
        return torch.stack(rows).numpy() if isinstance(rows[0], torch.Tensor) else list(map(bytes, rows))


STORES: dict[str, tuple[str | None, Callable]] = {
    'ours': (None, Ours),
    'memory': (None, Memory),
    'safetensors': ('safetensors', Safetensors),
    'Arrow': ('pyarrow', Arrow),
    'Zarr': ('zarr', Zarr),
    'LitData': ('litdata', LitData),
}


def available(names: Sequence[str]) -> dict[str, Callable]:
    """The stores whose library is installed."""
    found = {}
    for name in dict.fromkeys(['ours', 'memory', *names]):
        library, store = STORES[name]
        try:
            importlib.import_module(library or 'numpy')
        except ImportError as error:
            print(f'{name} is left out: {error}')
            continue
        found[name] = store
    return found


def measure(stores: dict[str, Callable], rows: Rows, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds a row to write, and to read at random and in order, of each store."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folders = {store: Path(name) / store for store in stores}
        built, writing = {}, {}

        def write(store: str) -> None:
            folders[store].mkdir()
            built[store] = stores[store](folders[store], rows)

        writing = medians(times_in_turn({store: partial(write, store) for store in stores}, 1, warm_up=0))
        batches = dict(random=rng.permutation(len(rows))[: args.batch_size], sequence=np.arange(args.batch_size))
        for store in built.values():
            store.open()
        result = dict(write={store: value / len(rows) for store, value in writing.items()})
        for way, chosen in batches.items():
            check(built, rows, chosen)
            readers = {store: partial(one.take, chosen) for store, one in built.items()}
            # The first finds the processor's caches full of the last one's: it isn't counted.
            times = medians(times_in_turn({'warm-up': readers['ours']} | readers, args.rounds))
            result[way] = {store: times[store] / len(chosen) for store in built}
    return result


def check(built: dict[str, Any], rows: Rows, chosen: np.ndarray) -> None:
    """Each store must give what was written."""
    for name, store in built.items():
        for found, i in zip(store.take(chosen), chosen, strict=True):
            if not np.array_equal(np.asarray(found), np.asarray(rows[i])):
                raise RuntimeError(f'{name} gives another row {i}')


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    stores = available(args.only)
    print(machine())
    others = [name for name in stores if name != 'ours']
    print(f'{"":20}{"ours, us":>10}', *(f'{name:>12}' for name in others))
    copies = {}
    for kind, rows in make_rows(args.scale).items():
        for way, times in measure(stores, rows, args).items():
            ratios = (f'{times[name] / times["ours"]:11.2f}x' for name in others)
            print(f'{kind + ", " + way:20}{times["ours"] * 1e6:10.1f}', *ratios, flush=True)
            copies[f'{kind}, {way}'] = times['ours'] / times['memory']
    for what, ratio in copies.items():
        if 'write' not in what:
            print(f'a bare copy in memory, {what}: ldae / it = {ratio:.2f}')


if __name__ == '__main__':
    main()
