# SPDX-License-Identifier: Apache-2.0
import copy
import functools
import json
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ldae.config import load_config
from ldae.config.packed import use_packed_data
from ldae.datasets import FastRandomResizedCrop, ImageFolder, PackedImages, batch_collate
from ldae.datasets.packing import PackOptions, pack, verify
from ldae.registry import DATASETS
from ldae.utils import ConfigError
from ldae.utils.rng import Draws

EDGE, SIZE = 32, 24
RESIZE = dict(type='ResizeEdge', scale=EDGE, edge='short', backend='pillow', interpolation='bicubic')
CENTER = [dict(type='ldae.LoadImage'), RESIZE, dict(type='CenterCrop', crop_size=SIZE), dict(type='PackInputs')]
RANDOM = [
    dict(type='ldae.LoadImage'),
    dict(type='RandomResizedCrop', scale=SIZE, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
BATCH = [15, 0, 7, 8, 3]


@pytest.fixture(scope='module')
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images; uint8 and JPEG under centre crop, and whole images in JPEGs, in shards of 5, 5, 5 and 1."""
    folder, rng = tmp_path_factory.mktemp('packed'), np.random.default_rng(0)
    for name in [f'{label}/{i}.jpg' for label in 'ab' for i in range(8)]:
        write_image(folder / 'images' / 'train' / name, rng)
    dataset = ImageFolder(str(folder / 'images'), 'train')
    pack(dataset, folder / 'uint8' / 'train', PackOptions(edge=EDGE, size=SIZE, shard_size=5))
    pack(dataset, folder / 'jpeg' / 'train', PackOptions(edge=EDGE, size=SIZE, format='jpeg', shard_size=5))
    pack(dataset, folder / 'whole' / 'train', PackOptions('none', EDGE, format='jpeg', shard_size=5))
    return folder


def write_image(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (52, 40), interpolation=cv2.INTER_CUBIC))


def unpacked(packed: Path, pipeline: list = CENTER, **options: object) -> ImageFolder:
    return ImageFolder(str(packed / 'images'), 'train', pipeline=pipeline, **options)


def stacked(dataset: ImageFolder, indices: list[int]) -> torch.Tensor:
    return torch.stack([dataset[i]['inputs'] for i in indices])


def test_uint8_under_centre_crop_is_exactly_the_unpacked_images(packed: Path):
    dataset = PackedImages(str(packed / 'uint8'))
    batch = dataset.__getitems__(BATCH)
    folder = unpacked(packed)
    assert len(dataset) == len(folder) == 16
    assert torch.equal(batch['inputs'], stacked(folder, BATCH))
    assert [int(s.gt_label) for s in batch['data_samples']] == [folder[i]['data_samples'].gt_label for i in BATCH]
    assert [s.sample_idx for s in batch['data_samples']] == BATCH
    assert dataset.metainfo['classes'] == folder.CLASSES
    assert dataset.name(9) == 'b/1.jpg'
    assert torch.equal(dataset[-1]['inputs'], dataset[15]['inputs'])


def test_jpegs_are_the_unpacked_images_but_for_their_coding(packed: Path):
    batch = PackedImages(str(packed / 'jpeg'), with_label=False).__getitems__(BATCH)
    assert [s.sample_idx for s in batch['data_samples']] == BATCH
    assert 'gt_label' not in batch['data_samples'][0]
    differ = batch['inputs'].int() - stacked(unpacked(packed), BATCH)
    assert differ.abs().float().mean() < 4


def test_the_pipeline_of_the_unpacked_images_is_done_already(packed: Path):
    plain = PackedImages(str(packed / 'uint8'))
    dataset = PackedImages(str(packed / 'uint8'), pipeline=CENTER)
    assert dataset.pipeline is None
    flip = [*CENTER[:3], dict(type='RandomFlip', prob=1.0), CENTER[3]]
    flipped = PackedImages(str(packed / 'uint8'), pipeline=flip).__getitems__(BATCH)
    assert torch.equal(flipped['inputs'].flip(3), plain.__getitems__(BATCH)['inputs'])
    assert int(flipped['data_samples'][0].gt_label) == 1


def test_random_crops_are_those_of_the_decoded_images(packed: Path):
    dataset = PackedImages(str(packed / 'whole'), pipeline=RANDOM)
    batch = dataset.__getitems__(Draws(BATCH, seed=1, epoch=0, place=0))
    again = dataset.__getitems__(Draws(BATCH[:2], seed=1, epoch=0, place=0))
    assert torch.equal(batch['inputs'][:2], again['inputs'])
    assert batch['inputs'].shape == (5, 3, SIZE, SIZE)
    # The first of them by mmpretrain's transforms, after what OpenCV alone decodes.
    raw = (packed / 'whole' / 'train' / 'shard-00003').joinpath
    jpeg = np.load(raw('images.npy'))
    folder = packed / 'again' / 'train' / 'b'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / '0.png'), cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    source = ImageFolder(str(packed / 'again'), 'train', pipeline=RANDOM)
    (expected,) = [source[i]['inputs'] for i in Draws([0], seed=1, epoch=0, place=0)]
    assert torch.equal(batch['inputs'][0], expected)


def test_a_config_for_a_folder_reads_what_was_packed_there(packed: Path):
    def read(root: str) -> Config:
        dataset = dict(type='ldae.ImageFolder', data_root=str(packed / root), pipeline=CENTER, max_bad=0.5)
        loader = dict(batch_size=2, dataset=dict(dataset, split='train'))
        cfg = Config(dict(train_dataloader=loader, val_dataloader=dict(dataset=dict(dataset, split='val'))))
        use_packed_data(cfg)
        return cfg

    plain, found = read('images'), read('uint8')
    assert plain.train_dataloader.dataset.type == 'ldae.ImageFolder'
    assert 'collate_fn' not in plain.train_dataloader
    assert found.train_dataloader.collate_fn.type == 'ldae.batch_collate'
    assert found.val_dataloader.dataset.type == 'ldae.ImageFolder'  # that split wasn't packed
    init_default_scope('mmpretrain')
    loader = dict(found.train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
    batch = next(iter(Runner.build_dataloader(loader)))
    assert torch.equal(batch['inputs'], stacked(unpacked(packed), [0, 1]))


@pytest.mark.parametrize(
    ('dataset', 'loader', 'line'),
    [
        (dict(pipeline=RANDOM), {}, 'pack-dataset IMAGES --out DIR --crop none'),
        (dict(pipeline=[CENTER[0], dict(RESIZE, scale=40), *CENTER[2:]]), {}, '--out DIR --edge 40 --size 24'),
        (dict(ann_file='some.txt'), {}, 'train_dataloader sets ann_file, which is for unpacked ones: remove it'),
        ({}, dict(collate_fn=dict(type='pseudo_collate')), 'collate_fn of its own, .*pseudo_collate'),
    ],
)
def test_what_packed_images_cannot_give_is_one_line(packed: Path, dataset: dict, loader: dict, line: str):
    dataset = dict(type='ldae.ImageFolder', data_root=str(packed / 'uint8'), pipeline=CENTER) | dataset
    cfg = Config(dict(train_dataloader=dict(loader, dataset=dataset)))
    with pytest.raises(ConfigError, match=line) as caught:
        use_packed_data(cfg)
    assert '\n' not in str(caught.value)


def test_a_folder_that_was_packed_anew_is_another_to_caches(packed: Path, tmp_path: Path):
    found = []
    for edge in (EDGE, SIZE, SIZE):
        pack(
            ImageFolder(str(packed / 'images'), 'train'),
            tmp_path / 'train',
            PackOptions(edge=edge, size=SIZE),
            force=True,
        )
        found.append(PackedImages(str(tmp_path)).identity)
    assert found[0] != found[1] == found[2]


def test_images_of_training_are_not_served_as_others(packed: Path):
    root = str(packed / 'uint8' / 'train')
    assert len(PackedImages(root)) == 16
    line = "holds packed images of 'train', and those of 'val' are asked for: name the folder above it"
    with pytest.raises(ConfigError, match=line):
        PackedImages(root, 'val')
    loader = dict(dataset=dict(type='ldae.ImageFolder', data_root=root, split='val'))
    cfg = Config(
        dict(train_dataloader=dict(dataset=dict(type='ldae.ImageFolder', data_root=root)), val_dataloader=loader)
    )
    use_packed_data(cfg)  # of which training may be all that is wanted
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 16
    with pytest.raises(ConfigError, match=line):
        DATASETS.build(cfg.val_dataloader.dataset)


def test_random_crops_of_whole_packed_images_and_options_that_say_nothing_are_taken_over(packed: Path):
    dataset = dict(type='ldae.ImageFolder', data_root=str(packed / 'whole'), pipeline=RANDOM, ann_file='')
    cfg = Config(dict(train_dataloader=dict(collate_fn=dict(type='default_collate'), dataset=dataset)))
    use_packed_data(cfg)
    init_default_scope('mmpretrain')
    batch = Runner.build_dataloader(dict(cfg.train_dataloader, batch_size=2, sampler=dict(type='DefaultSampler')))
    assert next(iter(batch))['inputs'].shape == (2, 3, SIZE, SIZE)
    use_packed_data(cfg)  # as in a dumped config
    assert cfg.train_dataloader.dataset.type == 'ldae.PackedImages'


def test_another_protocol_than_was_packed_is_refused(packed: Path):
    with pytest.raises(ConfigError, match='the images were packed by .*CenterCrop'):
        PackedImages(str(packed / 'uint8'), pipeline=RANDOM)
    fast = PackedImages(str(packed / 'whole'), pipeline=RANDOM, fast_resize=True)
    assert isinstance(fast.pipeline.transforms[0], FastRandomResizedCrop)
    with pytest.raises(ConfigError, match='different sizes'):
        PackedImages(str(packed / 'whole'))
    assert PackedImages(str(packed / 'uint8'), pipeline=RANDOM[1:])[0]['inputs'].shape == (1, 3, SIZE, SIZE)


@pytest.mark.parametrize('kind', ['uint8', 'jpeg'])
def test_workers_read_what_the_main_process_reads(packed: Path, kind: str):
    dataset = PackedImages(str(packed / kind))
    expected = dataset.__getitems__(range(16))['inputs']  # maps are open before the workers start
    loader = DataLoader(dataset, 4, num_workers=2, collate_fn=batch_collate, multiprocessing_context='fork')
    assert torch.equal(torch.cat([batch['inputs'] for batch in loader]), expected)


def test_a_copy_for_another_process_carries_no_images(packed: Path):
    dataset = PackedImages(str(packed / 'uint8'))
    expected = dataset[3]['inputs']
    sent = pickle.dumps(dataset)
    assert len(sent) < 5000
    assert torch.equal(pickle.loads(sent)[3]['inputs'], expected)


def test_processes_share_a_global_shuffle(packed: Path, monkeypatch: pytest.MonkeyPatch):
    dataset, seen = PackedImages(str(packed / 'uint8')), []
    for rank in (0, 1):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        seen.append(list(DefaultSampler(dataset, shuffle=True, seed=0)))
    assert sorted(seen[0] + seen[1]) == list(range(16))
    shards = [{i // 5 for i in part[:4]} for part in seen]
    assert max(map(len, shards)) > 1


def test_a_config_for_a_folder_takes_packed_images_by_two_options(packed: Path):
    options = {
        'train_dataloader.dataset.type': 'ldae.PackedImages',
        'train_dataloader.collate_fn.type': 'ldae.batch_collate',
        'train_dataloader.dataset.data_root': str(packed / 'big'),
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
    }
    pack(ImageFolder(str(packed / 'images')), packed / 'big' / 'train', PackOptions())
    cfg = load_config('ldae::ldae/vit-b_pca.py', options)
    init_default_scope('mmpretrain')
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    assert batch['inputs'].shape == (4, 3, 256, 256)
    assert len(batch['data_samples']) == 4


def test_parts_of_it(packed: Path):
    root = str(packed / 'uint8')
    assert len(PackedImages(root, indices=3)) == 3
    few = PackedImages(root, indices=[9, 1])
    assert torch.equal(few.__getitems__([0, 1])['inputs'], PackedImages(root).__getitems__([9, 1])['inputs'])
    quarter = PackedImages(root, fraction=0.25)
    names = [quarter.name(i) for i in range(len(quarter))]
    folder = unpacked(packed, fraction=0.25)
    assert names == [str(Path(folder.get_data_info(i)['img_path']).relative_to(folder.img_prefix)) for i in range(4)]
    with pytest.raises(ConfigError, match='lie below 16'):
        PackedImages(root, indices=[16])
    with pytest.raises(ConfigError, match='needs with_label=True'):
        PackedImages(root, with_label=False, fraction=0.5)
    with pytest.raises(IndexError):
        PackedImages(root)[16]


def _cut(folder: Path) -> None:
    path = folder / 'shard-00001' / 'images.npy'
    path.write_bytes(path.read_bytes()[:-1])


def _format(folder: Path) -> None:
    path = folder / 'packed.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(format=9)))


@pytest.mark.parametrize(
    ('harm', 'line'),
    [
        (_cut, r'shard-00001/images\.npy has [\d,]+ bytes of [\d,]+: remove .*shard-00001 and run'),
        (lambda folder: (folder / 'shard-00002' / 'labels.npy').unlink(), r'shard-00002/labels\.npy is missing'),
        (lambda folder: shutil.rmtree(folder / 'shard-00000'), 'is missing'),
        (lambda folder: (folder / 'packed.json').unlink(), 'holds no packed images.*pack-dataset'),
        (lambda folder: (folder / 'packed.json').write_text('{'), r'packed\.json cannot be read'),
        (_format, 'has format 9'),
    ],
)
def test_what_is_not_as_it_was_written_is_one_line(packed: Path, tmp_path: Path, harm, line: str):
    shutil.copytree(packed / 'uint8', tmp_path / 'uint8')
    harm(tmp_path / 'uint8' / 'train')
    with pytest.raises(ConfigError, match=line) as caught:
        PackedImages(str(tmp_path / 'uint8'))
    assert '\n' not in str(caught.value)


def test_a_folder_whose_manifest_does_not_name_its_kind_is_read_as_before(packed: Path, tmp_path: Path):
    shutil.copytree(packed / 'uint8', tmp_path / 'uint8')
    path = tmp_path / 'uint8' / 'train' / 'packed.json'
    manifest = json.loads(path.read_text())
    assert manifest.pop('kind') == 'packed images'
    path.write_text(json.dumps(manifest))
    dataset = PackedImages(str(tmp_path / 'uint8'))
    assert torch.equal(dataset.__getitems__(BATCH)['inputs'], stacked(unpacked(packed), BATCH))
    assert verify(path.parent) == []


def test_a_damaged_jpeg_is_named(packed: Path, tmp_path: Path):
    shutil.copytree(packed / 'jpeg', tmp_path / 'jpeg')
    path = tmp_path / 'jpeg' / 'train' / 'shard-00000' / 'images.npy'
    data = bytearray(path.read_bytes())
    data[128:] = bytes(len(data) - 128)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r'shard-00000, image 2, is not a readable image: check with'):
        PackedImages(str(tmp_path / 'jpeg'))[2]


def test_labels_that_were_not_packed(packed: Path):
    dataset = ImageFolder(str(packed / 'images'), 'train', with_label=False)
    pack(dataset, packed / 'bare' / 'train', PackOptions(edge=EDGE))
    with pytest.raises(ConfigError, match='packed without labels'):
        PackedImages(str(packed / 'bare'))
    assert PackedImages(str(packed / 'bare'), with_label=False).metainfo == {}


def test_a_folder_of_packed_images_is_no_folder_of_images(packed: Path):
    with pytest.raises(ConfigError, match=r'holds packed ones: set dataset\.type=ldae\.PackedImages'):
        ImageFolder(str(packed / 'uint8'), 'train', with_label=False)


VALUES = (None, -1, 0, 1.5, 'x', '', [], {}, True, 10**30, [None], '\0', '../../x', float('nan'))


def _places(node: object, above: tuple = ()) -> Iterator[tuple]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield (*above, key)
        yield from _places(child, (*above, key))


def test_a_manifest_of_wrong_values_is_read_or_one_line(packed: Path, tmp_path: Path):
    folder = tmp_path / 'copy'
    shutil.copytree(packed / 'uint8', folder)
    manifest = folder / 'train' / 'packed.json'
    whole, draw, lines = json.loads(manifest.read_text()), random.Random(0), []
    places = list(_places(whole))
    for _ in range(200):
        place, mutated = draw.choice(places), copy.deepcopy(whole)
        *above, last = place
        functools.reduce(lambda node, key: node[key], above, mutated)[last] = draw.choice(VALUES)
        manifest.write_text(json.dumps(mutated))
        try:
            PackedImages(str(folder), 'train')[0]
        except ConfigError as error:
            lines.append(str(error))
    assert len(lines) > 100
    assert '\n' not in ''.join(lines)
    for text in ('[' * 100_000, '\0', '\ufeff{}', '{"format": 1'):
        manifest.write_text(text)
        with pytest.raises(ConfigError, match='cannot be read'):
            PackedImages(str(folder), 'train')
