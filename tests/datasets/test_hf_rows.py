# SPDX-License-Identifier: Apache-2.0
"""Tables, as the library writes them; nothing is asked of a network."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import init_default_scope

from ldae.datasets import ImageFolder
from ldae.datasets.load_image import BadImageError, read_file
from ldae.utils import ConfigError

pytest.importorskip('datasets.load')  # and not the folder of tests of this name
import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image

JPEG = b'jpeg'
IN_BYTES = dict(bytes=JPEG, path='a.jpg')


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'hf')
    datasets.disable_progress_bars()
    init_default_scope('mmpretrain')


def parquet(features: dict | None = None, **columns: list) -> None:
    Dataset.from_dict(columns, features=features and Features(features)).to_parquet('t.parquet')


def images(root: str, **options: object) -> list[bytes]:
    dataset = ImageFolder(root, **options)
    return [read_file(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]


@pytest.mark.parametrize('of_type', [True, False])
def test_images_are_of_type_image_or_the_bytes_of_files(of_type):
    structs = dict(image=[IN_BYTES, dict(IN_BYTES, bytes=b'other')], label=[1, 0])
    parquet(dict(image=Image(), label=ClassLabel(names=['x', 'y'])) if of_type else None, **structs)
    assert images('hf::t.parquet') == [JPEG, b'other']
    assert (('x', 'y') if of_type else None) == ImageFolder('hf::t.parquet').CLASSES
    parquet(jpg=[JPEG, b'other'], n=[4, 5], who=['b', 'a'])
    assert images('hf::t.parquet::label=n') == [JPEG, b'other']
    assert ImageFolder('hf::t.parquet::label=n').get_gt_labels().tolist() == [4, 5]
    assert ImageFolder('hf::t.parquet::label=who').get_gt_labels().tolist() == [1, 0]


def test_a_file_that_is_written_anew_is_read_anew():
    for data in (b'one', b'two'):
        parquet(image=[data], label=[0])
        assert images('hf::t.parquet') == [data]


def test_splits_of_a_saved_data_set_are_found_or_named():
    tables = {
        name: Dataset.from_dict(dict(image=[name.encode()], label=[0])) for name in ('train', 'validation', 'more')
    }
    DatasetDict(tables).save_to_disk('saved')
    assert images('hf::saved') == [b'train']
    assert images('hf::saved', split='val') == [b'validation']
    assert images('hf::saved::val=more', split='val') == [b'more']
    for root in ('hf::saved::val=none', 'hf::saved/more'):
        with pytest.raises(
            ConfigError, match=r"has no images of 'val' \(its splits are .*\): say where they are, ::val="
        ):
            ImageFolder(root, 'val')
    assert images('hf::saved/more') == [b'more']
    with pytest.raises(ConfigError, match=r"'train' is the split of both training and 'val': name others, ::train="):
        ImageFolder('hf::saved::val=train', 'val')
    assert images('hf::saved::train=validation') == [b'validation']
    with pytest.raises(ConfigError, match=r"'validation' is the split of both training and 'val'"):
        ImageFolder('hf::saved::train=validation', 'val')


BAD = {
    'has no images, as Image or the bytes of their files: no column holds any, of text (string)': dict(text=['a']),
    "has no column 'photo': image, label": dict(image=[JPEG], label=[0]),
    'has several columns of images, left, right: say which, ::image=': dict(left=[JPEG], right=[JPEG]),
    'has no column of labels: say which, ::label=, of image': dict(image=[JPEG]),
    'row 1 has no label': dict(image=[JPEG] * 2, label=['a', None]),
    'row 0 has no label': dict(image=[JPEG], label=[-1]),
    'row 0 has label 0.5, which is neither a whole number from 0 nor a name': dict(image=[JPEG], label=[0.5]),
    'row 0 has label [0], which is neither': dict(image=[JPEG], label=[[0]]),
    "row 1 has label '3', and the first is 'a'": dict(image=[JPEG] * 2, label=['a', '3']),
}


@pytest.mark.parametrize('message', BAD)
def test_a_table_that_cannot_be_is_one_line(message):
    parquet(**BAD[message])
    with pytest.raises(ConfigError, match=re.escape(message)):
        ImageFolder('hf::t.parquet::image=photo' if 'photo' in message else 'hf::t.parquet')


def test_of_several_columns_of_classes_one_must_be_named():
    of_class = ClassLabel(names=['a', 'b'])
    parquet(dict(image=Image(), fine=of_class, coarse=of_class), image=[IN_BYTES], fine=[0], coarse=[1])
    with pytest.raises(ConfigError, match='several columns of labels, fine, coarse: say which, ::label='):
        ImageFolder('hf::t.parquet')
    assert ImageFolder('hf::t.parquet::label=coarse').get_gt_labels().tolist() == [1]
    assert len(ImageFolder('hf::t.parquet', with_label=False)) == 1


def test_no_file_is_read_that_a_table_names(tiny_image_folder):
    """The library writes such tables itself, of images that were given as paths."""
    path = str(tiny_image_folder / 'train' / 'a' / '0.jpg')
    parquet(dict(image=Image()), image=[path, path])
    with pytest.raises(ConfigError, match="row 0 of 'image' names a file and has not its bytes, and no file is read"):
        ImageFolder('hf::t.parquet', with_label=False)
    parquet(dict(image=Image()), image=[IN_BYTES, path])
    dataset = ImageFolder('hf::t.parquet', with_label=False)
    with pytest.raises(BadImageError, match='t.parquet::train::1 cannot be read'):
        read_file(dataset.get_data_info(1)['img_path'])
    Dataset.from_dict(dict(image=[path]), features=Features(image=Image())).save_to_disk('saved')
    assert images('hf::saved', with_label=False) == [Path(path).read_bytes()]


def test_a_saved_data_set_that_names_files_outside_of_it_is_refused():
    Dataset.from_dict(dict(image=[JPEG], label=[0])).save_to_disk('other')
    Dataset.from_dict(dict(image=[b'mine'], label=[0])).save_to_disk('saved')
    state = json.loads(Path('saved/state.json').read_text())
    (file,) = state['_data_files']
    file['filename'] = f'../other/{file["filename"]}'
    Path('saved/state.json').write_text(json.dumps(state))
    with pytest.raises(ConfigError, match='saved: it names .*other.*, which lies outside of it'):
        ImageFolder('hf::saved')


def test_damaged_files_and_names_of_nothing_are_one_line(capfd):
    parquet(image=[JPEG], label=[0])
    whole = Path('t.parquet').read_bytes()
    Path('cut.parquet').write_bytes(whole[: len(whole) // 2])
    Path('junk.arrow').write_bytes(b'junk' * 99)
    for root in ('cut.parquet', 'junk.arrow'):
        with pytest.raises(ConfigError, match=rf'{root} cannot be opened \(.*\): write or download it again'):
            ImageFolder(f'hf::{root}')
    for root in ('./none', '/none/at/all', 'none-*.parquet', 'none.arrow'):
        with pytest.raises(ConfigError, match=r'matches no \.(parquet|arrow) file'):
            ImageFolder(f'hf::{root}')
    assert not capfd.readouterr().err


def test_a_name_of_the_hub_without_a_network_is_one_line(monkeypatch, capfd):
    monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)
    with pytest.raises(
        ConfigError,
        match=r'hf::nobody/nothing cannot be opened \(.*\): no file is here: check its name, ::config=, the network',
    ):
        ImageFolder('hf::nobody/nothing')
    assert not capfd.readouterr().err


class Parquet:
    """A builder of the library, that finds its data set downloaded."""

    def __init__(self, *asked: object, **options: object) -> None:
        self.asked = asked, options

    def download_and_prepare(self) -> None:
        Parquet.prepared = self.asked

    def as_dataset(self) -> dict[str, Dataset]:
        return dict(
            train=Dataset.from_dict(dict(image=[JPEG], label=[0])),
            test=Dataset.from_dict(dict(image=[b't'], label=[0])),
        )


def test_a_name_of_the_hub_is_asked_of_the_library_with_its_options(monkeypatch):
    monkeypatch.setattr('datasets.load.load_dataset_builder', Parquet)
    assert images('hf::owner/name::config=small::revision=abc') == [JPEG]
    assert Parquet.prepared == (('owner/name', 'small'), dict(revision='abc'))
    assert images('hf::name::val=test', split='val') == [b't']
    monkeypatch.setattr('datasets.load.load_dataset_builder', lambda *asked, **options: SimpleNamespace())
    with pytest.raises(
        ConfigError, match='hf::name is kept as SimpleNamespace: tables with the images in them are read'
    ):
        ImageFolder('hf::name')
