# SPDX-License-Identifier: Apache-2.0
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldae.config import load_config
from ldae.generation import ImageSet, Statistics, open_images
from ldae.registry import DATASETS
from ldae.utils import ConfigError

DEMO = 'ldae/demo_fashion-mnist'


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 12, 10, 3), dtype=np.uint8)


@pytest.fixture
def folder(pixels, tmp_path) -> Path:
    (tmp_path / 'images' / 'b').mkdir(parents=True)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / 'images' / ('b' * (number > 5)) / f'{number}.png')
    return tmp_path / 'images'


def all_of(images: ImageSet, batch_size: int = 4) -> np.ndarray:
    return np.concatenate([np.stack(batch) for batch in images.batches(batch_size)])


@pytest.mark.parametrize('batch_size', [1, 4, 100])
@pytest.mark.parametrize('workers', [1, 3])
def test_a_folder_gives_its_files_in_the_order_of_their_names(batch_size, workers, folder, pixels):
    images = open_images(folder, workers=workers)
    assert np.array_equal(all_of(images, batch_size), pixels)
    protocol = images.protocol()
    assert (protocol['images'], protocol['size'], protocol['kind']) == (9, (12, 10), 'PNG files')
    assert protocol['resized'] is None


def test_the_folder_that_sampling_wrote_is_its_images(folder, pixels, tmp_path):
    (tmp_path / 'sampling.json').write_text('{}')
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / 'grid.png')
    assert np.array_equal(all_of(open_images(tmp_path)), pixels)


def test_an_array_in_a_file_is_read_an_image_at_a_time(pixels, tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / 'x.npz', pixels, np.arange(9))
        images = open_images(tmp_path / 'x.npz')
        assert np.array_equal(all_of(images), pixels)
        images.choose(4, 0, '--num')
        assert np.array_equal(all_of(images), pixels[images.numbers])


@pytest.mark.parametrize('shape', [(9, 12, 10), (9, 12, 10, 1)])
def test_grey_is_repeated(shape, pixels, tmp_path):
    grey = pixels[..., :1].reshape(shape)
    np.savez(tmp_path / 'x.npz', grey)
    expected = pixels[..., :1].repeat(3, axis=3)
    assert np.array_equal(all_of(open_images(tmp_path / 'x.npz')), expected)
    assert np.array_equal(all_of(open_images(grey)), expected)


def test_images_in_memory_are_taken_as_they_are(pixels):
    tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    pictures = [Image.fromarray(image) for image in pixels]
    for source in (pixels, tensors, pictures, list(pixels)):
        assert np.array_equal(all_of(open_images(source)), pixels)
    with pytest.raises(ConfigError, match='list is not a set of images'):
        open_images([])


def test_a_choice_is_the_same_each_time_and_its_seed_is_told(folder, pixels):
    first, second, other = (open_images(folder) for _ in range(3))
    first.choose(5, 0, '--num')
    second.choose(5, 0, '--num')
    other.choose(5, 1, '--num')
    assert first.numbers == second.numbers != other.numbers
    assert np.array_equal(all_of(first), pixels[first.numbers])
    assert (first.protocol()['images'], first.protocol()['of'], first.protocol()['seed']) == (5, 9, 0)
    assert len({first.key(), other.key(), open_images(folder).key()}) == 3
    with pytest.raises(ConfigError, match=r'--num 10: .*images has 9 images'):
        first.choose(10, 0, '--num')


def test_images_of_several_sizes_are_refused_unless_a_size_is_named(folder):
    Image.fromarray(np.zeros((30, 20, 3), np.uint8)).save(folder / 'z.png')
    with pytest.raises(ConfigError, match=r'images of 12 x 10 and of 30 x 20 pixels: --size N resizes'):
        all_of(open_images(folder))
    images = open_images(folder)
    images.crop = 8
    assert all_of(images).shape == (10, 8, 8, 3)
    assert images.protocol()['resized'] == '10 resized, bicubic, and cropped to 8 x 8'


def test_a_crop_is_of_the_centre_and_leaves_images_of_its_size_alone(pixels):
    square = pixels[:, :10, :10]
    images = open_images(list(square))
    images.crop = 10
    assert np.array_equal(all_of(images), square)
    images = open_images(pixels[:1])
    images.crop = 5
    expected = Image.fromarray(pixels[0]).resize((5, 6), Image.Resampling.BICUBIC)
    assert np.array_equal(all_of(images)[0], np.asarray(expected)[:5])


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_config_gives_its_data_set_without_augmentation(split):
    images = open_images(f'{DEMO}:{split}', cfg_options={'train_dataloader.dataset.crop_scale': (0.2, 1.0)})
    cfg = load_config(DEMO)[f'{split}_dataloader'].dataset
    expected = DATASETS.build(dict(cfg)).images
    images.choose(50, 0, '--num')
    found = all_of(images, 16)
    assert len(expected) == images.total
    assert np.array_equal(found[..., 0], expected[images.numbers, 0].numpy())
    assert images.protocol()['kind'].startswith('ldae.IDXDataset(split=')


def test_a_config_means_its_training_images_unless_it_says_otherwise():
    assert open_images(DEMO).name == f'{DEMO}, train'


def test_images_of_a_config_are_cropped_by_its_pipeline_and_rgb(tmp_path):
    for split in ('train', 'val'):
        (tmp_path / split / 'a').mkdir(parents=True)
        red = np.zeros((300, 400, 3), np.uint8)
        red[..., 0], red[..., 2] = 200, np.arange(400) % 256
        Image.fromarray(red).save(tmp_path / split / 'a' / '0.png')
    for split in ('train', 'val'):
        options = {'train_dataloader.num_workers': 0, 'val_dataloader.num_workers': 0}
        images = open_images(f'vit-b_pca:{split}', data_root=str(tmp_path), cfg_options=options)
        (image,) = all_of(images)
        assert image.shape == (256, 256, 3)
        assert (image[..., 0] == 200).all()
        assert (image[..., 1] == 0).all()
        assert 'ResizeEdge 256, CenterCrop 256' in images.protocol()['kind']
        resized = Image.fromarray(red).resize((341, 256), Image.Resampling.BICUBIC)
        assert np.array_equal(image, np.asarray(resized)[:, 42:298])


def test_a_checkpoint_names_its_own_images(tmp_path):
    content = dict(meta=dict(cfg=load_config(DEMO).pretty_text), state_dict=dict(x=torch.zeros(1)))
    torch.save(content, tmp_path / 'epoch_1.pth')
    assert open_images(f'{tmp_path}/epoch_1.pth:val').total == 2000


def test_options_are_also_of_the_config_in_a_checkpoint(tmp_path):
    content = dict(meta=dict(cfg=load_config(DEMO).pretty_text), state_dict=dict(x=torch.zeros(1)))
    torch.save(content, tmp_path / 'epoch_1.pth')
    few = dict(cfg_options={'val_dataloader.dataset.indices': 7})
    assert open_images(f'{tmp_path}/epoch_1.pth:val', **few).total == 7
    with pytest.raises(ConfigError, match="data_root='elsewhere'"):
        open_images(f'{tmp_path}/epoch_1.pth:val', data_root='elsewhere')


def test_images_that_a_checkpoint_names_are_not_fetched_from_elsewhere(tmp_path):
    cfg = load_config(DEMO, {'train_dataloader.dataset.data_root': 's3://bucket/images'})
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=dict(x=torch.zeros(1))), tmp_path / 'epoch_1.pth')
    with pytest.raises(ConfigError, match='name a folder with --data-root'):
        open_images(f'{tmp_path}/epoch_1.pth:train')


def test_statistics_are_recognised(tmp_path):
    np.savez(tmp_path / 'x.npz', mu=np.zeros(3), sigma=np.eye(3))
    assert isinstance(open_images(tmp_path / 'x.npz'), Statistics)


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (lambda path: path.mkdir(), 'x.npz holds no images'),
        (lambda path: path.write_bytes(b''), r'x.npz holds neither images \(arr_0\) nor statistics'),
        (lambda path: np.savez(path, other=np.zeros(3)), 'x.npz holds neither images'),
        (lambda path: np.savez(path, np.zeros((2, 4, 4, 3))), r'must be uint8 images .* got float64 \(2, 4, 4, 3\)'),
        (lambda path: np.savez(path, np.zeros((2, 4, 4, 2), np.uint8)), 'must be uint8 images'),
        (lambda path: np.savez(path, np.zeros((0, 4, 4, 3), np.uint8)), 'must be uint8 images'),
        (lambda path: np.savez(path, np.array([{}], dtype=object)), 'must be uint8 images'),
        (lambda path: np.savez(path, mu=np.zeros(3), sigma=-np.eye(3)), '^[^(]*x.npz holds no statistics: mu must'),
        (lambda path: None, 'x.npz does not exist'),
    ],
)
def test_what_holds_no_images_is_one_line(make, said, tmp_path):
    make(tmp_path / 'x.npz')
    with pytest.raises(ConfigError, match=said) as caught:
        open_images(tmp_path / 'x.npz')
    assert '\n' not in str(caught.value)


def test_an_array_that_is_cut_off_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive, archive.open('arr_0.npy', 'w') as file:
        np.lib.format.write_array_header_1_0(file, dict(descr='|u1', fortran_order=False, shape=(10**12, 4, 4, 3)))
        file.write(bytes(100))
    with pytest.raises(ConfigError, match=r'x\.npz is damaged \(ValueError: .*: make it anew'):
        all_of(open_images(tmp_path / 'x.npz'))


@pytest.mark.parametrize(
    ('source', 'said'),
    [
        (
            'nowhere',
            'nowhere is neither a folder of images nor an .npz file; as a config: config nowhere does not exist',
        ),
        ('nowhere:val', 'nowhere:val is neither a folder'),
        ('ldae/vit-b_pca:train', 'data'),
    ],
)
def test_a_source_that_is_nothing_is_one_line(source, said):
    with pytest.raises(ConfigError, match=said):
        open_images(source, data_root='/nowhere' if '/' in source else None)


def test_latents_are_no_images(monkeypatch):
    batches = [dict(inputs=torch.zeros(2, 16, 8))]
    monkeypatch.setattr('ldae.generation.image_sets.labelled_dataloader', lambda *args: batches)
    with pytest.raises(ConfigError, match=r'IDXDataset gives torch\.float32 \(16, 8\), not images'):
        all_of(open_images(f'{DEMO}:val'))
