# SPDX-License-Identifier: Apache-2.0
"""Sizes that fit a folder, with times that are given instead of taken."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldae.config import load_config
from ldae.datasets import ImageFolder
from ldae.launch import auto
from ldae.launch.auto import LADDER, Choice, Survey, auto_scale, choose, look_at, parse_duration, scale_text, shown
from ldae.launch.training import train
from ldae.registry import MODELS
from ldae.utils import ConfigError
from ldae.utils.locks import claimed


def folder(root: Path, count: int, side: int = 40, classes: int = 2, split: str = 'train') -> Path:
    """One image under many names, in classes."""
    first = root / split / 'c0' / '0.png'
    for number in range(count):
        path = root / split / f'c{number % classes}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        if number:
            path.hardlink_to(first)
        else:
            Image.fromarray(np.full((side, side + 10), 90, np.uint8)).save(path)
    return root


@pytest.mark.parametrize(('count', 'classes', 'side'), [(40, 2, 40), (1000, 1000, 41), (20, 1, 4000)])
def test_a_folder_is_surveyed_by_its_listing_and_headers(tmp_path, count, classes, side):
    found = look_at(str(folder(tmp_path, count, side, classes)))
    expected = classes if classes > 1 else 0
    assert (found.images, found.classes, found.side, found.has_val) == (count, expected, side, False)
    folder(tmp_path, 4, side, classes, 'val')
    assert look_at(str(tmp_path)).has_val


def by_cost(choice: Choice) -> float:
    """A millisecond for the smallest network; others by their products."""

    def cost(rung):
        return rung.grid**2 * rung.width**2 * rung.depth

    return 1e-3 * cost(choice.rung) / cost(LADDER[0])


@pytest.mark.parametrize(
    ('images', 'side', 'minutes', 'rung', 'size', 'batch'),
    [
        (300, 40, 3, 1, 32, 16),
        (300, 4000, 3, 1, 128, 16),
        (300, 4000, 60, 3, 128, 16),
        (20_000, 100, 30, 0, 64, 64),
        (20_000, 4000, 24 * 60, 3, 128, 64),
        (20_000, 4000, 240 * 60, 5, 256, 64),
    ],
)
def test_the_largest_network_is_taken_that_makes_its_passes_within_the_budget(images, side, minutes, rung, size, batch):
    found = choose(Survey('here', images, side, 10, True), 60 * minutes, by_cost, most=64)
    assert (found.rung, found.img_size, found.batch_size) == (LADDER[rung], size, batch)
    assert found.seconds == pytest.approx(found.epochs * (images // batch) * batch * by_cost(found))
    assert found.seconds <= 0.85 * 60 * minutes
    if rung:
        assert found.epochs >= 30
        assert found.epochs * (images // batch) >= 2000


def test_a_budget_below_one_pass_is_one_line_with_one_that_is_enough():
    with pytest.raises(ConfigError, match=r'--budget 10s is less than one pass .* 20s: give --budget 12m'):
        choose(Survey('here', 20_000, 64, 0, True), 10, lambda _: 1e-3)


@pytest.mark.parametrize('config', ['ldae::ldae/vit-b_pca.py', 'ldae::deconstruction/t2_pca_d16.py'])
def test_what_is_written_is_a_scale_that_configs_come_to(tmp_path, config):
    root = folder(tmp_path / 'photos', 64, classes=4)
    path = tmp_path / 'scale.py'
    path.write_text(scale_text(look_at(str(root)), Choice(LADDER[1], 48, 16, epochs=50, seconds=100)))
    cfg = load_config(config, scale=path)
    tokenizer = cfg.model.tokenizer
    paper = 16 if 'd16' in config else 32
    assert (tokenizer.img_size, tokenizer.patch_size, tokenizer.latent_dim) == (48, 6, max(2, round(36 * paper / 768)))
    assert cfg.model.backbone.arch == dict(embed_dims=96, num_layers=3, num_heads=3, feedforward_channels=384)
    assert cfg.model.neck.arch == dict(num_layers=1)
    assert (cfg.default_hooks.fit_tokenizer.num_images, tokenizer.in_channels) == (2000, 3)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (50, 16)
    assert cfg.default_hooks.checkpoint.interval == 5
    sets = [
        ImageFolder(**{k: v for k, v in cfg[f'{name}_dataloader'].dataset.items() if k not in ('type', 'pipeline')})
        for name in ('train', 'val', 'test')
    ]
    assert [len(part) for part in sets] == [52, 12, 12]
    assert [part.data_root for part in sets] == [str(root)] * 3
    assert [part.with_label for part in sets] == [False, True, True]


def test_what_is_said_of_blocks_is_what_is_built(tmp_path):
    for rung, decoder_layers in zip(LADDER, (1, 1, 1, 2, 3, 4, 4), strict=True):
        (tmp_path / 'scale.py').write_text(scale_text(Survey('.', 64, 64, 4, True), Choice(rung, 64, 8)))
        model = load_config('ldae::ldae/vit-b_pca.py', scale=tmp_path / 'scale.py').model
        assert f'; {model.backbone.arch.num_layers} blocks of width {rung.width}; ' in str(Choice(rung, 64, 8))
        assert model.neck.arch.num_layers == decoder_layers


@pytest.mark.parametrize(
    'name', ['t1_2_no-class-conditioning', 't2_conv-vae_d128', 't2_patch-ae_d8', 'basis_dct', 'f5_pixel_64']
)
@pytest.mark.parametrize(('rung', 'size'), [(0, 32), (0, 48), (0, 64), (1, 48), (1, 96), (1, 128), (5, 256)])
def test_rows_of_any_tokenizer_are_built_at_any_such_scale(tmp_path, name, rung, size):
    path = tmp_path / 'scale.py'
    path.write_text(scale_text(Survey(str(tmp_path), 64, size, 4, False), Choice(LADDER[rung], size, 16)))
    model = load_config(f'ldae::deconstruction/{name}.py', scale=path).model
    model.tokenizer.pop('checkpoint', None)
    with torch.device('meta'):
        built = MODELS.build(model)
    assert built.tokenizer.num_tokens == LADDER[rung].grid ** 2


def test_a_run_that_goes_on_keeps_its_scale(tmp_path, monkeypatch):
    root = folder(tmp_path / 'photos', 32)
    monkeypatch.setattr(auto, 'seconds_per_image', lambda *_, **__: 1e-3)
    path = auto_scale('ldae::ldae/vit-b_pca.py', 60, str(root), tmp_path / 'run')
    before = path.read_text()
    monkeypatch.setattr(auto, 'seconds_per_image', lambda *_, **__: pytest.fail('measured again'))
    assert auto_scale('ldae::ldae/vit-b_pca.py', 600, str(root), tmp_path / 'run', resume='auto') == path
    assert path.read_text() == before


@pytest.mark.parametrize(
    ('count', 'message'), [(0, 'holds no images'), (2, 'has 2 training images: at least 16 are needed')]
)
def test_a_folder_with_too_few_images_is_one_line(tmp_path, count, message):
    folder(tmp_path, count)
    (tmp_path / 'train').mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match=message):
        look_at(str(tmp_path))


def test_of_images_that_are_held_out_none_is_counted():
    with_val = choose(Survey('here', 640, 64, 4, True), 600, by_cost, most=64)
    without = choose(Survey('here', 800, 64, 4, False), 600, by_cost, most=64)
    assert (with_val.epochs, with_val.seconds) == (without.epochs, without.seconds)


def test_d_is_the_share_of_the_values_that_differ(tmp_path):
    for grey, expected in ((False, 8), (True, 3)):  # of 192 and of 64: 32 / 768
        survey = Survey(str(tmp_path), 100, 64, 0, True, grey)
        assert f'32: {expected},' in scale_text(survey, Choice(LADDER[1], 64, 8))


def test_large_pictures_are_decoded_at_a_part_of_their_size(tmp_path):
    root = folder(tmp_path, 32, side=400)
    (tmp_path / 'scale.py').write_text(scale_text(look_at(str(root)), Choice(LADDER[0], 64, 8)))
    cfg = load_config('ldae::ldae/vit-b_pca.py', scale=tmp_path / 'scale.py')
    options = {k: v for k, v in cfg.val_dataloader.dataset.items() if k != 'type'}
    assert ImageFolder(**options).pipeline.transforms[0].min_edge == 128


def images_in(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40, 40), 'red').save(root / name)
    return root


def test_folders_of_folders_of_classes_are_one_line_with_the_folder_to_name(tmp_path):
    root = images_in(tmp_path, *(f'photos/all/c{i % 4}/{i}.png' for i in range(20)))
    with pytest.raises(
        ConfigError, match=f'lie in folders of {root}/photos/all, its classes: pass --data-root {root}/photos'
    ):
        look_at(str(root))
    found = look_at(str(root / 'photos' / 'all'))
    assert (found.classes, found.notes) == (4, ())


def test_classes_that_hold_folders_are_said(tmp_path):
    found = look_at(str(images_in(tmp_path, *(f'y{i % 2}/d{i % 3}/{i}.png' for i in range(20)))))
    assert found.classes == 2
    assert found.notes == ('the classes are the 2 folders at the top (y0, y1, ...), whatever lies in them',)


def test_classes_of_one_image_are_said_and_something_is_held_out_all_the_same(tmp_path):
    root = images_in(tmp_path, *(f'c{i}/{i}.png' for i in range(20)))
    assert look_at(str(root)).notes[0].startswith('20 of 20 classes have one image')
    assert [len(ImageFolder(str(root), split, held_out=0.2)) for split in ('train', 'val')] == [16, 4]
    images_in(root, 'c0/a.png', 'c0/b.png')
    train, val = (ImageFolder(str(root), split, held_out=0.2) for split in ('train', 'val'))
    assert (len(train), len(val)) == (21, 1)


def test_a_table_beside_images_is_named_as_the_data_to_take_labels_from(tmp_path):
    root = images_in(tmp_path / "Ann's photos", *(f'{i}.png' for i in range(20)))
    lines = [f'{i}.png,label {i % 3},more' for i in range(20)]
    (root / 'labels.csv').write_text('\n'.join(['file,label,other', *lines]) + '\n')
    found = look_at(str(root))
    assert found.classes == 0
    (note,) = found.notes
    root_of_table = note[note.index('csv::') :]
    labelled = look_at(root_of_table)
    assert (labelled.images, labelled.classes, labelled.notes, labelled.has_val) == (20, 3, (), False)
    assert ImageFolder(root_of_table).get_gt_labels().tolist() == [i % 3 for i in range(20)]
    with pytest.raises(ConfigError, match=r'labels of labels.csv name the table: --data-root csv::'):
        ImageFolder(str(root), 'train')


def test_a_list_of_labels_has_classes_and_what_is_held_out_keeps_them(tmp_path):
    root = images_in(tmp_path, *(f'{i}.png' for i in range(20)))
    (root / 'meta').mkdir()
    (root / 'meta' / 'train.txt').write_text('\n'.join(f'{i}.png {i % 5}' for i in range(20)))
    found = look_at(str(root))
    assert (found.images, found.classes, found.has_val) == (20, 5, False)
    train, val = (ImageFolder(str(root), split, held_out=0.2) for split in ('train', 'val'))
    paths = [{part.get_data_info(i)['img_path'] for i in range(len(part))} for part in (train, val)]
    assert [len(part) for part in paths] == [15, 5]  # one of each class of four
    assert not paths[0] & paths[1]
    assert all(info % 5 == val.get_gt_labels()[i] for i, info in enumerate(int(Path(p).stem) for p in val_paths(val)))


def test_of_each_class_of_a_list_something_is_held_out(tmp_path):
    root = images_in(tmp_path, *(f'images/{i}.png' for i in range(36)))
    (root / 'meta').mkdir()
    (root / 'meta' / 'train.txt').write_text('\n'.join(f'images/{i}.png {i % 12}' for i in range(36)))
    splits = {
        (split, labels): ImageFolder(str(root), split, with_label=labels, held_out=0.2)
        for split in ('train', 'val')
        for labels in (True, False)
    }
    assert sorted(splits['val', True].get_gt_labels()) == list(range(12))
    for split in ('train', 'val'):  # pre-training and its scores
        assert val_paths(splits[split, True]) == val_paths(splits[split, False])


def test_the_name_of_a_folder_is_no_part_of_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(auto, 'seconds_per_image', lambda *_, **__: 1e-3)
    root = folder(tmp_path / 'summer\\2024\\usa """; raise OSError', 32)
    path = auto_scale('ldae::ldae/vit-b_pca.py', 60, str(root), tmp_path / 'run')
    assert load_config('ldae::ldae/vit-b_pca.py', scale=path).train_dataloader.dataset.data_root == str(root)


def test_a_scale_of_a_run_that_is_going_on_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(auto, 'seconds_per_image', lambda *_, **__: 1e-3)
    root, work = folder(tmp_path / 'photos', 32), tmp_path / 'run'
    path = auto_scale('ldae::ldae/vit-b_pca.py', 60, str(root), work)
    before = path.read_text()
    with claimed(work), pytest.raises(ConfigError, match='is in use by process'):
        train('vit-b_pca', scale='auto', budget='1h', data_root=str(root), work_dir=str(work))
    assert path.read_text() == before


def val_paths(dataset: ImageFolder) -> list[str]:
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def test_a_network_larger_than_the_memory_is_passed_over():
    def measure(choice):
        if choice.rung.grid > 8:
            raise ConfigError('too large')
        return 1e-6

    assert choose(Survey('here', 1000, 4000, 0, True), 1e6, measure).rung == LADDER[4]


def test_no_folder_is_one_line():
    with pytest.raises(ConfigError, match='pass --data-root FOLDER'):
        look_at(None)


@pytest.mark.parametrize(
    ('text', 'seconds'), [('100m', 6000), ('7d', 604_800), ('90s', 90), ('3m', 180), ('2h', 7200), ('0.5d', 43200)]
)
def test_durations_are_read_and_shown(text, seconds):
    assert parse_duration(text) == seconds
    assert parse_duration(shown(seconds)) == pytest.approx(seconds, rel=0.05)
    assert 'e+' not in shown(seconds)


@pytest.mark.parametrize('text', ['', 'soon', '-3m', '0s', 'nanh', 'infh', '30'])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ConfigError, match='give a time such as 90s, 30m or 2h'):
        parse_duration(text)


def test_steps_and_reading_add_up_by_a_clock_that_is_given(tmp_path, monkeypatch):
    """Steps of 80 ms, now and then one of a second, and 16 images read in 160 ms."""
    survey = look_at(str(folder(tmp_path / 'photos', 32)))
    seconds = iter([0.16, 1.0, 0.08, 0.08, 0.08, 1.0, 0.08, 0.08])
    monkeypatch.setattr(auto, 'timed', lambda function: (next(seconds, 0.08), function()))
    monkeypatch.setattr(auto, '_step_of', lambda cfg, images: lambda: None)
    monkeypatch.setattr(auto.os, 'sched_getaffinity', lambda _: {0, 1})
    found = auto.seconds_per_image('ldae::ldae/vit-b_pca.py', survey, Choice(LADDER[0], 32, 8), device='cpu')
    assert found == pytest.approx((0.08 + 0.004) / 8 + 0.16 / 16 / 2)


def test_a_step_and_the_reading_are_timed_on_the_real_thing(tmp_path):
    root = folder(tmp_path / 'photos', 32)
    survey = look_at(str(root))
    seconds = auto.seconds_per_image('ldae::ldae/vit-b_pca.py', survey, Choice(LADDER[0], 32, 8), device='cpu')
    assert 0 < seconds < 10
