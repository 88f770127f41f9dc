# SPDX-License-Identifier: Apache-2.0
import copy
import io
import re
import sys
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from data_roots import WRITERS, images_of, write_shards
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ldae.apis import probe
from ldae.apis.images import read_images
from ldae.config.components import check_data_roots
from ldae.datasets import ImageFolder, tar_shards
from ldae.datasets.load_image import BadImageError, read_file
from ldae.datasets.mask_folder import MaskFolder
from ldae.datasets.packed import PackedImages
from ldae.datasets.packing import PackOptions, pack
from ldae.datasets.roots import absolute_root, name_of_root
from ldae.datasets.verify import verify_folder
from ldae.evaluation.probe_data import data_description, labelled_dataloader
from ldae.generation.image_sets import open_images
from ldae.launch.auto import look_at
from ldae.launch.benchmark import benchmark
from ldae.models import PatchPCATokenizer
from ldae.utils import ConfigError

LOAD = [dict(type='ldae.LoadImage'), dict(type='PackInputs')]
EDGE = [dict(type='ResizeEdge', scale=16, edge='short', backend='pillow', interpolation='bicubic')]
EDGE += [dict(type='CenterCrop', crop_size=16)]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Tables are kept in the test's folder, and no network is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HF_HOME', str(tmp_path / 'hf'))
    init_default_scope('mmpretrain')
    try:
        from datasets import config
    except ImportError:
        return
    monkeypatch.setattr(config, 'HF_DATASETS_CACHE', tmp_path / 'hf')
    monkeypatch.setattr(config, 'HF_HUB_OFFLINE', True)


@pytest.fixture(params=WRITERS)
def root(request, tiny_image_folder, tmp_path) -> str:
    return WRITERS[request.param](tiny_image_folder, tmp_path / request.param)


def listed(dataset: ImageFolder) -> list[tuple[torch.Tensor, int]]:
    return [
        (sample['inputs'], sample['data_samples'].gt_label.item())
        for sample in map(dataset.__getitem__, range(len(dataset)))
    ]


def test_images_and_labels_are_those_of_the_folder_in_its_order(root, tiny_image_folder):
    for split, count in (('train', 16), ('val', 8)):
        ours, folder = (ImageFolder(str(place), split, pipeline=LOAD) for place in (root, tiny_image_folder))
        assert len(ours) == len(folder) == count
        for (image, label), (expected, of_folder) in zip(listed(ours), listed(folder), strict=True):
            assert torch.equal(image, expected)
            assert label == of_folder
        assert ours.get_gt_labels().tolist() == folder.get_gt_labels().tolist()
        assert ours.CLASSES in (folder.CLASSES, None)  # shards have numbers
    unlabelled = ImageFolder(root, with_label=False)
    assert 'gt_label' not in unlabelled.get_data_info(0)
    assert len(ImageFolder(root, indices=5)) == 5
    assert len(ImageFolder(root, fraction=0.25)) == 4


def test_the_readers_of_mmcv_read_them_too(root, tiny_image_folder):
    steps = [dict(type='LoadImageFromFile', color_type='grayscale', to_float32=True), dict(type='PackInputs')]
    ours, folder = (ImageFolder(str(place), pipeline=steps)[3]['inputs'] for place in (root, tiny_image_folder))
    assert ours.dtype == torch.float32
    assert ours.shape == (1, 40, 40)
    assert torch.equal(ours, folder)


def test_pca_and_pack_are_those_of_the_folder(root, tiny_image_folder, tmp_path):
    steps = [LOAD[0], *EDGE, LOAD[1]]
    found = []
    for name, place in (('ours', root), ('folder', tiny_image_folder)):
        dataset = ImageFolder(str(place), pipeline=steps)
        tokenizer = PatchPCATokenizer(img_size=16, patch_size=4, in_channels=3, latent_dim=8)
        tokenizer.fit([torch.stack([dataset[i]['inputs'] for i in range(len(dataset))]).float()])
        pack(dataset, tmp_path / f'{name}_packed' / 'train', PackOptions(edge=16))
        packed = PackedImages(str(tmp_path / f'{name}_packed'), pipeline=steps)
        found.append((tokenizer.basis, packed.__getitems__(range(16))['inputs'], packed.labels))
    for ours, folder in zip(*found, strict=True):
        assert torch.equal(ours, folder)


def test_what_is_held_out_is_the_same_with_labels_and_without(root):
    names = {}
    for split in ('train', 'val'):
        labelled, bare = (ImageFolder(root, split, held_out=0.25, with_label=label) for label in (True, False))
        names[split] = [labelled.get_data_info(i)['img_path'] for i in range(len(labelled))]
        assert names[split] == [bare.get_data_info(i)['img_path'] for i in range(len(bare))]
        assert np.bincount(labelled.get_gt_labels()).tolist() == dict(train=[6, 6], val=[2, 2])[split]
    assert not {*names['train']} & {*names['val']}


def test_a_survey_for_scale_auto_knows_classes_and_validation(root, tiny_image_folder):
    found, folder = look_at(root), look_at(str(tiny_image_folder))
    assert (found.images, found.side, found.classes, found.has_val) == (16, 40, 2, True)
    assert str(found) == str(folder)
    with pytest.raises(ConfigError, match='none'):
        look_at(f'{root}::val=none')


def test_tools_that_take_images_read_them(root, tiny_image_folder):
    assert verify_folder(root).summary() == f'{root}: all 16 images can be read'
    pictures = list(read_images(root))
    assert all(map(np.array_equal, pictures, read_images(images_of(tiny_image_folder, 'train'))))
    assert len(pictures) == 16
    images = open_images(root)
    assert np.array_equal(next(images.batches(16))[5], pictures[5][..., ::-1])
    with pytest.raises(ConfigError, match='masks are read from folders'):
        MaskFolder(root, 'train', (16, 16))


def test_other_images_of_the_same_name_have_another_key_of_caches(tiny_image_folder, tmp_path):
    keys = []
    for _ in range(2):
        write_shards(tiny_image_folder, tmp_path / 'shards')
        loader = labelled_dataloader(dict(dataset=ImageFolder('wds::shards'), batch_size=4, num_workers=0), None)
        keys.append(data_description(loader))
        (tiny_image_folder / 'train' / 'a' / '0.jpg').write_bytes(
            (tiny_image_folder / 'val' / 'b' / '1.jpg').read_bytes()
        )
        (tmp_path / 'shards').rename(tmp_path / f'shards_{len(keys)}')
    assert keys[0] != keys[1]
    assert keys[0][:-1] == keys[1][:-1]


JPEG = b'jpeg'


def shard(path: str, *members: tuple[str, bytes], links: tuple[str, ...] = ()) -> None:
    with tarfile.open(path, 'w') as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, '/etc/passwd'
            tar.addfile(member)


def labels_and_classes(root: str, split: str = 'train') -> tuple[list[int], tuple | None]:
    dataset = ImageFolder(root, split)
    return dataset.get_gt_labels().tolist(), dataset.CLASSES


def test_labels_of_shards_are_numbers_names_or_folders():
    pytest.importorskip('webdataset')
    shard('numbers.tar', ('a.jpg', JPEG), ('a.cls', b'7\n'), ('b.cls', b'2'), ('b.jpg', JPEG))
    assert labels_and_classes('wds::numbers.tar') == ([7, 2], None)
    shard('names.tar', ('a.jpg', JPEG), ('a.txt', b'dog'), ('b.jpg', JPEG), ('b.txt', b'cat'))
    assert labels_and_classes('wds::names.tar::label=txt') == ([1, 0], ('cat', 'dog'))
    shard('folders.tar', ('./b/1.jpg', JPEG), ('./a/1.jpg', JPEG), ('./10/x/1.jpg', JPEG))
    assert labels_and_classes('wds::folders.tar') == ([2, 1, 0], ('10', 'a', 'b'))  # as of class folders


def test_nothing_of_a_shard_is_followed_or_run():
    pytest.importorskip('webdataset')
    members = [('../../a.jpg', JPEG), ('/b.jpg', JPEG), ('c.pkl', b'cos\nsystem\n'), ('d.pyd', b'x')]
    shard('odd.tar', *members, links=('e.jpg',))
    dataset = ImageFolder('wds::odd.tar', with_label=False)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert list(map(read_file, paths)) == [JPEG, JPEG]
    assert [path.rpartition('::')[2] for path in paths] == ['../../a.jpg', '/b.jpg']


def test_patterns_and_folders_find_their_splits():
    pytest.importorskip('webdataset')
    for folder, count in (('train', 3), ('valid', 1)):
        Path('data', folder).mkdir(parents=True)
        for number in range(count):
            shard(f'data/{folder}/x-{number}.tar', (f'{folder}{number}.jpg', JPEG))
    for root in (
        'wds::data',
        'wds::data/train',
        'wds::data/train/*.tar',
        'wds::data/train/x-{0..2}.tar',
        'wds::data/**/x-*.tar::train=data/train::val=data/valid',
        'wds::data/*/x-*.tar',  # of both splits
    ):
        sizes = [len(ImageFolder(root, split, with_label=False)) for split in ('train', 'val')]
        assert sizes == [3, 1], root
    Path('data/valid/x-0.tar').rename('other.tar')
    with pytest.raises(ConfigError, match=r"wds::data has no images of 'val' .* ::val=\.\.\. or pass --no-validate"):
        ImageFolder('wds::data', 'val', with_label=False)
    assert len(ImageFolder('wds::data::val=other.tar', 'val', with_label=False)) == 1
    assert len(ImageFolder('wds::other.tar', with_label=False)) == 1


@pytest.mark.parametrize(
    'root',
    [
        'wds::a-*.tar::val=a-1.tar',  # the pattern for training takes it, too
        'wds::a-0.tar::val=a-0.tar',
        'wds::a-0.tar::val=linked.tar',
        'wds::data::train=a-0.tar::val=a-*.tar',
        'wds::data::train=data',  # what is said of it goes before the names in it
    ],
)
def test_an_image_of_training_is_not_scored_on(root):
    pytest.importorskip('webdataset')
    Path('data').mkdir()
    for name in ('a-0', 'a-1', 'data/train', 'data/val'):
        shard(f'{name}.tar', ('0.jpg', JPEG))
    Path('linked.tar').symlink_to('a-0.tar')
    assert len(ImageFolder(root, with_label=False)) > 0
    with pytest.raises(ConfigError, match=r"\w.tar is one of 1 files of both training and 'val': name others"):
        ImageFolder(root, 'val', with_label=False)


def test_a_list_for_training_is_not_one_for_tests():
    Path('a.jpg').write_bytes(JPEG)
    Path('list.csv').write_text('path,label\na.jpg,0\n')
    assert len(ImageFolder('csv::list.csv')) == 1
    with pytest.raises(ConfigError, match=r"list.csv is one of 1 files of both training and 'test'"):
        ImageFolder('csv::list.csv::test=list.csv', 'test')
    Path('b.jpg').write_bytes(JPEG)
    Path('other.csv').write_text('path,label\nb.jpg,0\n./a.jpg,0\n')
    with pytest.raises(ConfigError, match=r"/a.jpg is one of 1 images of both training and 'val'"):
        ImageFolder('csv::list.csv::val=other.csv', 'val')
    Path('other.csv').write_text('path,label\nb.jpg,0\n')
    assert len(ImageFolder('csv::list.csv::val=other.csv', 'val')) == 1


BAD_ROOTS = {
    'wds::nothing-*.tar': r'nothing-\*.tar matches no .tar file',
    'wds::a-{0..3}.tar': r'a-1.tar does not exist, one of 3 missing of 4 files',
    'wds::pipe:cat a-0.tar': 'addresses and commands are not opened: download the files',
    'wds::https://host/a.tar': 'addresses and commands are not opened',
    'hf::https://host/a.parquet': 'addresses and commands are not opened',
    'wds::': 'names no place',
    'wds::a-0.tar::labelled=cls': r"after wds::WHERE come, once each, ::image=, .*; not 'labelled=cls'",
    'wds::a-0.tar::label=a::label=b': 'once each',
    'wds::a-0.tar::label=json': r'has no labels: no sample has a file .json',
    'wds::a-0.tar::image=png': 'has no train images',
    'wds::a-${UNSET}.tar': 'the pattern cannot be expanded .*UNSET',
    'csv::none.csv': 'none.csv matches no .csv file',
}


@pytest.mark.parametrize('root', BAD_ROOTS)
def test_a_root_that_cannot_be_is_one_line(root):
    pytest.importorskip('webdataset')
    shard('a-0.tar', ('a.jpg', JPEG), ('a.cls', b'0'))
    with pytest.raises(ConfigError, match=BAD_ROOTS[root]):
        ImageFolder(root)


BAD_SHARDS = {
    r"bad.tar holds two files .jpg of key 'a'": [('a.jpg', JPEG), ('a.cls', b'0'), ('a.jpg', JPEG)],
    r"has several images of key 'a', jpg, png: say which, ::image=": [('a.jpg', JPEG), ('a.png', JPEG)],
    'bad.tar/b.jpg has no label': [('a.jpg', JPEG), ('a.cls', b'0'), ('b.jpg', JPEG)],
    "bad.tar/b.jpg has label 'cat', and the first is '1'": [
        ('a.jpg', JPEG),
        ('a.cls', b'1'),
        ('b.jpg', JPEG),
        ('b.cls', b'cat'),
    ],
    "has label '0.5', which is neither a whole number from 0 nor a name": [('a.jpg', JPEG), ('a.cls', b'0.5')],
    'a.jpg has no label': [('a.jpg', JPEG), ('a.cls', b'-1')],
    'has no labels: no sample has a file .cls': [('a.jpg', JPEG)],
    'has no train images': [],
}


@pytest.mark.parametrize('message', BAD_SHARDS)
def test_samples_that_cannot_be_are_one_line_with_shard_and_key(message):
    pytest.importorskip('webdataset')
    shard('bad.tar', *BAD_SHARDS[message])
    with pytest.raises(ConfigError, match=re.escape(message)):
        ImageFolder('wds::bad.tar')


def test_a_damaged_image_is_named_by_its_shard_and_key(tiny_image_folder):
    pytest.importorskip('webdataset')
    data = (tiny_image_folder / 'val' / 'a' / '0.jpg').read_bytes()
    shard('x.tar', ('good.jpg', data), ('dir/key 7.jpg', data[:300]))
    dataset = ImageFolder('wds::x.tar', pipeline=LOAD, with_label=False)
    with pytest.raises(ConfigError, match=r'x.tar::.*::dir/key 7.jpg is truncated; of 2 images'):
        [dataset[i] for i in range(2)]
    assert [verdict.reason for verdict in verify_folder('wds::x.tar').bad] == ['is truncated']


def test_a_file_that_is_too_large_for_an_image_is_not_read(tmp_path):
    Path('x.tar').write_bytes(b'')
    with pytest.raises(BadImageError, match='cannot be read'):
        read_file(f'wds::{tmp_path}/x.tar::0+{1 << 40}::a.jpg')


def test_classes_of_val_are_numbered_as_those_of_train():
    pytest.importorskip('webdataset')
    shard('train.tar', ('a.jpg', JPEG), ('a.cls', b'cat'), ('b.jpg', JPEG), ('b.cls', b'dog'))
    shard('val.tar', ('a.jpg', JPEG), ('a.cls', b'dog'))
    assert labels_and_classes('wds::train.tar') == ([0, 1], ('cat', 'dog'))
    assert labels_and_classes('wds::train.tar', 'val') == ([1], ('cat', 'dog'))
    shard('val.tar', ('a.jpg', JPEG), ('a.cls', b'dog'), ('b.jpg', JPEG), ('b.cls', b'emu'))
    with pytest.raises(ConfigError, match="no training image has class 'emu' of val"):
        ImageFolder('wds::train.tar', 'val')


LISTS = {
    'path,label\na.jpg,3\nd/b.jpg,1\n': ([3, 1], None),
    'a.jpg,cat\nd/b.jpg,bird\n': ([1, 0], ('bird', 'cat')),
    'Label;File\ncat;a.jpg\nbird;d/b.jpg\n': ([1, 0], ('bird', 'cat')),
    'n\tpath\tclass\n1\ta.jpg\t0\n\n2\td/b.jpg\t1\n': ([0, 1], None),
    '\ufeffimage,label\n"a.jpg",0\n"d/b.jpg",1\n': ([0, 1], None),
}


@pytest.mark.parametrize('text', LISTS)
def test_lists_are_read_whatever_their_columns_and_separators(text, tmp_path):
    Path('there/d').mkdir(parents=True)
    for name in ('a.jpg', 'd/b.jpg'):
        Path('there', name).write_bytes(JPEG)
    Path('there/list.csv').write_text(text)
    assert labels_and_classes('csv::there/list.csv') == LISTS[text]
    paths = [ImageFolder('csv::there/list.csv').get_data_info(i)['img_path'] for i in range(2)]
    assert paths == [f'{tmp_path}/there/a.jpg', f'{tmp_path}/there/d/b.jpg']
    Path('there/list.csv').write_text(f'file,who,kind\n../there/a.jpg,x,y\n{tmp_path}/there/d/b.jpg,x,z\n')
    assert labels_and_classes('csv::there/list.csv::label=kind') == ([0, 1], ('y', 'z'))


BAD_LISTS = {
    'is not a list of images': '',
    'has no train images': 'path,label\n',
    'line 3: it has 1 columns, and the first line 2': 'path,label\na.jpg,1\na.jpg\n',
    "line 2: 'http://host/a.jpg' is not the path": 'path,label\nhttp://host/a.jpg,1\n',
    "line 2: '' is not the path": 'path,label\n,1\n',
    "line 3: a.jpg has label '2', and '1' above": 'path,label\na.jpg,1\na.jpg,2\n',
    'a.jpg has no label': 'path,label\na.jpg,\n',
    'b.jpg does not exist: paths are relative to the folder of the list': 'path,label\nb.jpg,1\n',
    'line 2: unexpected end of data': 'path,label\n"a.jpg,1\n',
    'has no column of labels: say which, ::label=, of path': 'path\na.jpg\n',
    'has no column of images: say which, ::image=, of id, photo, label': 'id,photo,label\n1,a.jpg,1\n',
}


@pytest.mark.parametrize('message', BAD_LISTS)
def test_a_list_that_cannot_be_is_one_line_with_its_line(message):
    Path('a.jpg').write_bytes(JPEG)
    Path('list.csv').write_text(BAD_LISTS[message])
    with pytest.raises(ConfigError, match=re.escape(message)):
        ImageFolder('csv::list.csv')


def test_options_that_belong_to_folders_are_refused():
    with pytest.raises(ConfigError, match="leave ann_file='a.txt' out"):
        ImageFolder('csv::list.csv', ann_file='a.txt')
    loader = dict(dataset=dict(type='ldae.CIFAR10', data_root='wds::x.tar'))
    with pytest.raises(ConfigError, match='wds:: is read by ldae.ImageFolder, and train_dataloader has ldae.CIFAR10'):
        check_data_roots(Config(dict(train_dataloader=loader)))
    loader = dict(dataset=dict(type='ldae.ImageFolder', data_root='webdataset::x.tar'))
    with pytest.raises(ConfigError, match='begins with webdataset::, and what is not a folder with wds::, hf::, csv::'):
        check_data_roots(Config(dict(train_dataloader=loader)))


def test_a_library_that_is_missing_is_named(monkeypatch):
    shard('a.tar', ('a.jpg', JPEG))
    for module, root in (('webdataset', 'wds::a.tar'), ('datasets', 'hf::a.parquet')):
        for name in [module, *(name for name in sys.modules if name.startswith(f'{module}.'))]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=f'needs the library {module}, which is not installed: pip install'):
            ImageFolder(root)


def test_roots_have_names_and_mean_the_same_elsewhere(tmp_path):
    Path('pq').mkdir()
    assert (
        absolute_root('wds::x-{0..3}.tar::label=cls::val=v.tar')
        == f'wds::{tmp_path}/x-{{0..3}}.tar::label=cls::val={tmp_path}/v.tar'
    )
    assert absolute_root('hf::pq::val=test') == f'hf::{tmp_path}/pq::val=test'
    assert absolute_root('hf::owner/name') == 'hf::owner/name'
    assert absolute_root('images') == f'{tmp_path}/images'
    roots = ('wds::a/x-{0..3}.tar', 'hf::owner/name::config=c', 'csv::a/b.csv', 'data/my images')
    assert list(map(name_of_root, roots)) == ['x-_0..3_.tar', 'name', 'b.csv', 'my images']


def test_a_checkpoint_that_names_data_of_the_hub_downloads_nothing(small_ldae, tmp_path):
    cfg = copy.deepcopy(small_ldae._config)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset = dict(type='ldae.ImageFolder', data_root='hf::nobody/nothing', pipeline=LOAD)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=small_ldae.state_dict()), path)
    for function in (probe, partial(benchmark, 'linear'), open_images):
        with pytest.raises(ConfigError, match='the images that the checkpoint names .*: name .* with --data-root'):
            function(str(path))


def test_bands_of_arrays_are_read_from_shards_and_lists():
    pytest.importorskip('webdataset')
    arrays = [np.full((8, 8, 5), value, np.uint8) for value in (3, 4)]
    files = []
    for array in arrays:
        buffer = io.BytesIO()
        np.save(buffer, array)
        files.append(buffer.getvalue())
    shard('x.tar', *((f'{n}.npy', data) for n, data in enumerate(files)))
    for n, data in enumerate(files):
        Path(f'{n}.npy').write_bytes(data)
    Path('x.csv').write_text('0.npy,0\n1.npy,1\n')
    steps = [dict(type='ldae.LoadImage', channels=5), dict(type='PackInputs')]
    for root in ('wds::x.tar::image=npy', 'csv::x.csv'):
        dataset = ImageFolder(root, with_label=False, pipeline=steps)
        assert [dataset[i]['inputs'][:, 0, 0].tolist() for i in range(2)] == [[3] * 5, [4] * 5]


def test_a_shard_stays_open_while_it_is_read(tmp_path, monkeypatch):
    (tmp_path / 'a.tar').write_bytes(b'0123456789')
    # As for the second of two threads that open it, and for what the cache has let go: nobody else holds it.
    monkeypatch.setattr(tar_shards, '_opened', tar_shards._opened.__wrapped__)
    assert tar_shards.read_part(str(tmp_path / 'a.tar'), 2, 3) == b'234'
