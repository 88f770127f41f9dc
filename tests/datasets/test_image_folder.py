# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

import pytest

from ldae.datasets import ImageFolder
from ldae.utils import ConfigError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def labels(dataset: ImageFolder) -> list[int]:
    return dataset.get_gt_labels().tolist()


def test_classes_are_the_folders(tiny_image_folder: Path):
    dataset = ImageFolder(str(tiny_image_folder), 'train', pipeline=PIPELINE)
    assert dataset.CLASSES == ('a', 'b')
    assert labels(dataset) == [0] * 8 + [1] * 8
    assert dataset[0]['inputs'].shape == (3, 40, 40)


def test_split_folder_is_optional(tiny_image_folder: Path):
    assert len(ImageFolder(str(tiny_image_folder / 'val'), 'train')) == 8


def test_home_is_expanded(tiny_image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv('HOME', str(tiny_image_folder.parent))
    assert len(ImageFolder('~/images', 'val')) == 8


def test_unlabelled_images_lie_at_any_depth(tiny_image_folder: Path, tiny_annotated_folder: Path):
    nested = ImageFolder(str(tiny_image_folder), 'train', with_label=False)
    assert len(nested) == 16
    assert 'gt_label' not in nested.get_data_info(0)
    assert len(ImageFolder(str(tiny_annotated_folder / 'val'), with_label=False)) == 8


def test_annotation_file_is_found_by_itself(tiny_annotated_folder: Path):
    dataset = ImageFolder(str(tiny_annotated_folder), 'val', pipeline=PIPELINE)
    assert labels(dataset) == [0, 1] * 4
    assert dataset[7]['data_samples'].gt_label.item() == 1


def test_annotation_file_can_be_named(tiny_annotated_folder: Path):
    (tiny_annotated_folder / 'meta' / 'few.txt').write_text('image 3.jpg 7\n\n')
    assert labels(ImageFolder(str(tiny_annotated_folder), 'train', ann_file='meta/few.txt')) == [7]
    with pytest.raises(ConfigError, match='none.txt'):
        ImageFolder(str(tiny_annotated_folder), ann_file='meta/none.txt')


def test_labels_of_an_annotation_file_are_ignored_when_not_wanted(tiny_annotated_folder: Path):
    dataset = ImageFolder(str(tiny_annotated_folder), 'train', with_label=False, pipeline=PIPELINE)
    assert 'gt_label' not in dataset.get_data_info(0)
    assert dataset[15]['inputs'].shape == (3, 40, 40)


def test_missing_and_empty_folders(tmp_path: Path):
    with pytest.raises(ConfigError, match='--data-root'):
        ImageFolder(str(tmp_path / 'nowhere'))
    with pytest.raises(ConfigError, match='holds no images'):
        ImageFolder(str(tmp_path), with_label=False)


def test_flat_folder_with_labels_wanted(tiny_annotated_folder: Path):
    with pytest.raises(ConfigError, match='with_label=False'):
        ImageFolder(str(tiny_annotated_folder / 'train'))


def test_one_split_is_not_taken_for_another(tiny_image_folder: Path):
    (tiny_image_folder / 'val').rename(tiny_image_folder / 'holdout')
    with pytest.raises(ConfigError, match="none named 'val'.*--no-validate"):
        ImageFolder(str(tiny_image_folder), 'val', with_label=False)


def test_images_of_training_under_the_name_of_val_are_not_scored_on(
    tiny_image_folder: Path, tiny_annotated_folder: Path
):
    for folder in (tiny_image_folder, tiny_annotated_folder):
        (folder / 'val').rename(folder / 'other')
        (folder / 'val').symlink_to('train')
    with pytest.raises(
        ConfigError, match='val is the folder of training: give it images of its own or pass --no-validate'
    ):
        ImageFolder(str(tiny_image_folder), 'val')
    assert len(ImageFolder(str(tiny_image_folder), 'train')) == 16
    assert len(ImageFolder(str(tiny_annotated_folder), 'val')) == 8, 'a list says which images these are'
    (tiny_image_folder / 'val').unlink()
    (tiny_image_folder / 'val').symlink_to('other')
    assert len(ImageFolder(str(tiny_image_folder), 'val')) == 8, 'a link to other images is as good as they'


def test_classes_of_the_splits_must_agree(tiny_image_folder: Path):
    (tiny_image_folder / 'val' / 'a').rename(tiny_image_folder / 'val' / 'c')
    with pytest.raises(ConfigError, match=re.escape("['a', 'c']")):
        ImageFolder(str(tiny_image_folder), 'val')


def test_unlabelled_line(tiny_annotated_folder: Path):
    (tiny_annotated_folder / 'meta' / 'train.txt').write_text('image 0.jpg 0\nimage1.jpg\n')
    with pytest.raises(ConfigError, match='line 2'):
        ImageFolder(str(tiny_annotated_folder), 'train')


def test_empty_annotation_file(tiny_annotated_folder: Path):
    (tiny_annotated_folder / 'meta' / 'train.txt').write_text('\n')
    with pytest.raises(ConfigError, match='is empty'):
        ImageFolder(str(tiny_annotated_folder), 'train')


def test_a_file_that_is_no_image_is_named(tiny_image_folder: Path):
    (tiny_image_folder / 'train' / 'a' / '0.jpg').write_text('not an image')
    dataset = ImageFolder(str(tiny_image_folder), 'train', pipeline=PIPELINE)
    with pytest.raises(ConfigError, match=r'a/0\.jpg is not a readable image'):
        dataset[0]


def test_a_listed_file_that_is_missing_is_named(tiny_annotated_folder: Path):
    (tiny_annotated_folder / 'train' / 'image 0.jpg').unlink()
    with pytest.raises(ConfigError, match=r'image 0\.jpg does not exist'):
        ImageFolder(str(tiny_annotated_folder), 'train', pipeline=PIPELINE)[0]


@pytest.mark.parametrize('line', ['../../../etc/passwd 0', 'a/../../../x.jpg 0', 'x\0.jpg 0'])
def test_annotations_name_files_below_the_folder_only(tiny_annotated_folder: Path, line: str):
    (tiny_annotated_folder / 'meta' / 'odd.txt').write_text(f'{line}\n')
    with pytest.raises(ConfigError, match=r'odd.txt, line 1: .* is not a file below'):
        ImageFolder(str(tiny_annotated_folder), ann_file='meta/odd.txt')


def test_annotations_may_go_up_within_the_folder(tiny_annotated_folder: Path):
    (tiny_annotated_folder / 'meta' / 'odd.txt').write_text('../train/0.jpg 0\n')
    assert labels(ImageFolder(str(tiny_annotated_folder), ann_file='meta/odd.txt')) == [0]


LISTED = 'a/0.jpg 0\nb/1.jpg 1\n'


@pytest.mark.parametrize(
    'data',
    [b'\xef\xbb\xbf' + LISTED.encode(), LISTED.encode('utf-16'), LISTED.replace('\n', '\r\n').encode()],
    ids=['utf-8 with a mark', 'utf-16', 'of Windows'],
)
def test_annotations_may_come_from_other_systems(tiny_image_folder: Path, data: bytes):
    (tiny_image_folder / 'list.txt').write_bytes(data)
    dataset = ImageFolder(str(tiny_image_folder), 'train', ann_file='list.txt')
    assert [(Path(info['img_path']).name, info['gt_label']) for info in map(dataset.get_data_info, (0, 1))] == [
        ('0.jpg', 0),
        ('1.jpg', 1),
    ]


def test_names_of_another_coding_are_those_of_the_files(tiny_image_folder: Path):
    name = b'a/\xe9t\xe9.jpg'.decode(errors='surrogateescape')
    (tiny_image_folder / 'train' / 'a' / '0.jpg').rename(tiny_image_folder / 'train' / name)
    (tiny_image_folder / 'list.txt').write_bytes(b'a/\xe9t\xe9.jpg 0\n')
    dataset = ImageFolder(str(tiny_image_folder), 'train', ann_file='list.txt', pipeline=[dict(type='ldae.LoadImage')])
    assert dataset[0]['img'].shape == (40, 40, 3)


@pytest.mark.parametrize('label', ['--1', '1.5', '²', '9' * 30, 'nan', '1e3'])
def test_a_label_that_is_no_integer_is_one_line(tiny_image_folder: Path, label: str):
    (tiny_image_folder / 'list.txt').write_text(f'a/0.jpg {label}\n')
    with pytest.raises(ConfigError, match='line 1: .* should read "path label"'):
        ImageFolder(str(tiny_image_folder), 'train', ann_file='list.txt')


def test_an_annotation_file_that_is_an_image_is_one_line(tiny_image_folder: Path):
    with pytest.raises(ConfigError, match='line 1: .* is not a file below|line 1: .* should read'):
        ImageFolder(str(tiny_image_folder), 'train', ann_file='train/a/0.jpg')
