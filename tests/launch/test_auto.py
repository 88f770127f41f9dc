# SPDX-License-Identifier: Apache-2.0
"""Sizes that fit a folder, with times that are given instead of taken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldae.config import load_config
from ldae.datasets import ImageFolder
from ldae.launch import auto
from ldae.launch.auto import LADDER, Choice, Survey, auto_scale, choose, look_at, parse_duration, scale_text, shown
from ldae.utils import ConfigError


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
    assert found.seconds == pytest.approx(found.epochs * images * by_cost(found))
    assert found.seconds <= 0.85 * 60 * minutes
    if rung:
        assert found.epochs >= 30
        assert found.epochs * images >= 2000 * batch


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
    assert (tokenizer.img_size, tokenizer.patch_size, tokenizer.latent_dim) == (48, 6, round(108 * paper / 768))
    assert cfg.model.backbone.arch == dict(embed_dims=96, num_layers=3, num_heads=3, feedforward_channels=384)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (50, 16)
    assert cfg.default_hooks.checkpoint.interval == 5
    sets = [
        ImageFolder(**{k: v for k, v in cfg[f'{name}_dataloader'].dataset.items() if k not in ('type', 'pipeline')})
        for name in ('train', 'val', 'test')
    ]
    assert [len(part) for part in sets] == [52, 12, 12]
    assert [part.with_label for part in sets] == [False, True, True]


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


def test_a_step_and_the_reading_are_timed_on_the_real_thing(tmp_path):
    root = folder(tmp_path / 'photos', 32)
    survey = look_at(str(root))
    seconds = auto.seconds_per_image('ldae::ldae/vit-b_pca.py', survey, Choice(LADDER[0], 32, 8), device='cpu')
    assert 0 < seconds < 10
