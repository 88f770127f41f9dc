# SPDX-License-Identifier: Apache-2.0
"""One awkward folder, and all who list images: they name the same ones, and say what they leave out."""

import os
from pathlib import Path

import pytest
import torch
from bad_files import PICTURE, PIXELS, encoded
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from ldae.apis.images import read_images
from ldae.datasets import ImageFolder, InMemoryDataset
from ldae.datasets.listing import Listing, is_hidden, list_images, listing_key
from ldae.datasets.load_image import FORMATS, SUFFIXES
from ldae.datasets.packing import PackOptions, pack
from ldae.datasets.verify import verify_folder
from ldae.launch.auto import look_at
from ldae.utils import ConfigError

READ = {
    'a': ('1.jpg', '2.JPEG', '3.png', '4.bmp', '5.ppm', '6.tif', '7.tiff', '8.jfif', '9.jpe', 'below/it.gif'),
    'b': ('1.webp', '2.webp', '3.jp2', '4.tga'),
    'c linked': ('1.dib', '2.pgm'),
}
KINDS = dict(
    jpe='JPEG', jfif='JPEG', jpg='JPEG', jpeg='JPEG', tif='TIFF', tiff='TIFF', ppm='PPM', pgm='PPM', jp2='JPEG2000'
)
HIDDEN = (
    '.ipynb_checkpoints/1.jpg', '@eaDir/1.jpg', '__MACOSX/a/1.jpg', '.hidden.jpg', 'Thumbs.db', 'a/.DS_Store', 'a/._1.jpg',
    'a/@eaDir/1.jpg', 'b/desktop.ini',
)  # fmt: skip
OTHERS = ('a/notes.txt', 'b/photo.heic', 'c linked/README', 'd/only.heic')
LINE = (
    '16 images; left out are 4 of other kinds (2 .heic, 1 .txt, 1 without a suffix); 9 hidden or of the system; 4 links'
)


def write(path: Path) -> None:
    kind = path.suffix[1:].lower()
    picture = PICTURE.convert('L') if kind == 'pgm' else PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture, KINDS.get(kind, kind.upper())))


@pytest.fixture(scope='module')
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('images')
    for name, files in READ.items():
        for file in files:
            # A class may be a link to a folder elsewhere.
            write((folder.parent / 'elsewhere' if name == 'c linked' else folder / name) / file)
    (folder / 'c linked').symlink_to(folder.parent / 'elsewhere')
    for name in (*HIDDEN, *OTHERS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('no image')
    (folder / 'a' / 'back').symlink_to(folder)
    (folder / 'a' / 'itself.jpg').symlink_to('itself.jpg')
    (folder / 'a' / 'nowhere.png').symlink_to('nowhere')
    os.mkfifo(folder / 'b' / 'pipe.jpg')
    return folder


EXPECTED = [f'{name}/{file}' for name, files in READ.items() for file in files]


def names_of(dataset: ImageFolder) -> list[str]:
    return [dataset.get_data_info(i)['img_path'].removeprefix(f'{dataset.img_prefix}/') for i in range(len(dataset))]


@pytest.mark.parametrize('with_label', [True, False])
def test_a_data_set_lists_what_can_be_read(awkward: Path, with_label: bool):
    pipeline = [dict(type='ldae.LoadImage')]
    dataset = ImageFolder(str(awkward), 'train', with_label=with_label, pipeline=pipeline, max_bad=0)
    assert names_of(dataset) == EXPECTED
    for i in range(len(dataset)):
        assert dataset[i]['img'].shape == PIXELS.shape
    if with_label:
        assert dataset.metainfo['classes'] == ('a', 'b', 'c linked', 'd')
        assert [dataset.get_data_info(i)['gt_label'] for i in (0, 10, 14)] == [0, 1, 2]


def test_verifying_packing_a_survey_and_the_api_list_the_same(awkward: Path, tmp_path: Path):
    found = verify_folder(str(awkward))
    assert (names_of(found.dataset), found.bad) == (EXPECTED, [])
    reasons = {Path(verdict.path).name: verdict.reason for verdict in found.passed_over}
    assert reasons == {
        'back': 'is a link to a folder that it lies in',
        'itself.jpg': 'is a broken link',
        'nowhere.png': 'is a broken link',
        'pipe.jpg': 'is not a file',
    }
    packed = pack(ImageFolder(str(awkward), 'train', max_bad=0), tmp_path / 'packed', PackOptions(edge=16))
    assert sum(shard['images'] for shard in packed['shards']) == len(EXPECTED)
    assert packed['classes'] == ['a', 'b', 'c linked', 'd']
    assert [image.shape for image in read_images(awkward)] == [PIXELS.shape] * len(EXPECTED)
    assert look_at(str(awkward)).images == len(EXPECTED)


def test_what_is_left_out_is_one_line(awkward: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('ldae.datasets.listing.MMLogger._instance_dict', {})
    list(read_images(awkward))
    ImageFolder(str(awkward), 'train')
    out, err = capsys.readouterr()
    assert out == ''
    of_api, empty, of_data = err.splitlines()
    assert of_api == of_data.replace(f'{awkward}/.:', f'{awkward}:')
    assert of_api.startswith(f'{awkward}: {LINE}')
    assert empty.endswith("1 class folders hold no image that can be read: 'd'; they keep labels")
    assert Listing('a', ['1.jpg']).left_out() == ''


def test_a_folder_that_is_hidden_itself_is_read(tmp_path: Path):
    write(tmp_path / '.cache' / 'a' / '1.jpg')
    assert list_images(tmp_path / '.cache').files == ['a/1.jpg']
    assert not is_hidden('a.b')


def test_images_beside_class_folders_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr('ldae.datasets.listing.MMLogger._instance_dict', {})
    write(tmp_path / 'a' / '1.jpg')
    write(tmp_path / 'loose.jpg')
    assert len(ImageFolder(str(tmp_path), 'train')) == 1
    assert '1 images lie outside of the class folders' in capsys.readouterr().err


def test_every_format_that_is_listed_has_a_reader_in_this_pillow():
    assert {'JPEG', 'PNG', 'GIF', 'TIFF', 'WEBP', 'JPEG2000'} <= set(FORMATS)
    assert not {'.eps', '.pdf', '.ps', '.pam', '.hdr'} & set(SUFFIXES)
    assert {'.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif'} <= set(SUFFIXES)  # as mmpretrain


@pytest.mark.parametrize('root', ['http://localhost:1/images', 's3://bucket/images', 'nonsense://x'])
def test_a_remote_folder_that_cannot_be_listed_is_one_line(root: str):
    with pytest.raises(ConfigError, match='cannot be listed') as caught:
        ImageFolder(root, 'train')
    assert '\n' not in str(caught.value)


def test_the_key_of_a_listing_tells_what_chooses_from_data_within_it():
    """Of torch's and mmengine's wrappers."""
    images, others = (TensorDataset(torch.zeros(4)) for _ in range(2))
    images.targets, others.targets = [0, 1, 0, 1], [1, 1, 0, 0]
    sets = [images, others, Subset(images, [0, 1]), Subset(images, [2, 3]), Subset(others, [0, 1])]
    sets += [Subset(images, range(2)), Subset(images, range(2, 4))]
    sets += [ConcatDataset([images, others]), ConcatDataset([others, images])]
    keys = [listing_key(dataset) for dataset in sets]
    assert len(set(keys)) == len(sets)
    assert keys == [listing_key(dataset) for dataset in sets]


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32, torch.bfloat16])
def test_images_in_memory_of_any_kind_have_a_key(dtype: torch.dtype):
    first, second = (InMemoryDataset(torch.full((2, 1, 4, 4), value).to(dtype), torch.zeros(2)) for value in (1, 2))
    assert listing_key(first) != listing_key(second)
