# SPDX-License-Identifier: Apache-2.0
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ldae.utils import ConfigError
from ldae.visualization import (
    PALETTE,
    add_caption,
    denoising_grid,
    embedding,
    explained_variance,
    figure_to_array,
    filter_grid,
    loss_curve,
    noise_schedules,
    retrieval_grid,
    save_figure,
    segmentation_grid,
)


def test_denoising_grid_shows_all_images_with_time_step_and_sigma(tmp_path):
    batch = torch.rand(4, 1, 7, 7) * 255
    figure = denoising_grid(batch, [batch, batch], [batch, batch], [10, 500], [0.01, 0.71])
    clean, *pairs = figure.axes
    assert clean.images[0].get_array().shape == (31, 7, 3)
    assert [pair.images[0].get_array().shape for pair in pairs] == [(31, 15, 3)] * 2
    assert 't = 500' in pairs[1].get_title()
    assert '0.71' in pairs[1].get_title()
    path = save_figure(figure, tmp_path / 'new' / 'grid.png')
    assert Image.open(path).size[0] > 100


def test_a_notebook_shows_a_figure_without_pyplot():
    figure = filter_grid(torch.eye(12)[:10], patch_size=2, in_channels=3)
    with Image.open(io.BytesIO(figure._repr_png_())) as shown:
        assert shown.size == tuple(int(side) for side in figure.get_size_inches() * figure.dpi)


def test_counts_that_differ_are_one_clear_line():
    batch = torch.rand(4, 1, 7, 7)
    with pytest.raises(ConfigError, match='1 noisy, 1 denoised, 2 timesteps'):
        denoising_grid(batch, [batch], [batch], [10, 500])


def test_filter_grid_has_one_tile_a_row_of_the_basis():
    figure = filter_grid(torch.eye(12)[:10], patch_size=2, in_channels=3)
    assert figure.axes[0].images[0].get_array().shape == (7, 25, 3)  # 2 rows, 8 columns, a frame


def test_curves_of_schedules_are_their_tables():
    names = ['ddpm_linear', 'linear_gamma_sq', 'linear_sigma', 'single_level']
    figure = noise_schedules(names)
    signal, noise, ratio = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    t = np.arange(1000)
    # By hand: Ho et al. (2020), section 4, and the paper's two linear schedules.
    ddpm = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    sigma = np.sqrt(2) * t / 999
    expected = [
        (ddpm, 1 - ddpm),
        (1 - (t + 1) / 1000, (t + 1) / 1000),
        (np.ones(1000), sigma**2),
        (np.ones(1000), np.full(1000, 1 / 3)),
    ]
    for i, (gamma_sq, sigma_sq) in enumerate(expected):
        lines = [axes.lines[i] for axes in (signal, noise, ratio)]
        for line, values in zip(lines[:2], (gamma_sq, np.sqrt(sigma_sq)), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), t)
            np.testing.assert_allclose(line.get_ydata(), values, rtol=1e-9, atol=1e-12)
        drawn = lines[2].get_ydata()
        shown = (gamma_sq > 0) & (sigma_sq > 0)
        np.testing.assert_allclose(drawn[shown], (gamma_sq / np.where(shown, sigma_sq, 1))[shown], rtol=1e-9)
        assert np.isnan(drawn[~shown]).all()


def test_an_unknown_schedule_is_one_clear_line():
    with pytest.raises(ConfigError, match="did you mean 'linear_sigma'"):
        noise_schedules(['linear_sigm'])


def test_explained_variance_adds_up_to_100_percent():
    axes = explained_variance(torch.tensor([0.5, 0.3, 0.2]), latent_dim=2).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [50, 80, 100])
    assert axes.get_title() == 'd = 2: 80.0%'


def test_a_figure_becomes_an_array():
    array = figure_to_array(explained_variance(torch.ones(3) / 3))
    assert array.dtype == np.uint8
    assert array.shape == (450, 600, 3)


@pytest.mark.parametrize(
    ('count', 'points', 'label'), [(3, 3, 'loss'), (500, 500, 'loss'), (1003, 334, 'means of 3 steps')]
)
def test_the_loss_is_drawn_over_its_steps(count, points, label):
    losses = np.random.default_rng(0).random(count)
    axes = loss_curve(losses, last_step=2000).axes[0]
    drawn, mean = axes.lines
    assert drawn.get_xdata()[-1] == mean.get_xdata()[-1] == 2000
    assert len(drawn.get_xdata()) == points
    assert drawn.get_ydata()[-1] == pytest.approx(losses[-(count // points) :].mean())
    assert mean.get_ydata()[-1] == pytest.approx(drawn.get_ydata()[-math.ceil(points / 10) :].mean())
    assert label in axes.get_ylabel()


def test_neighbours_are_rows_below_their_labels():
    images = [[torch.zeros(1, 8, 8), torch.full((1, 8, 8), 255.0), torch.zeros(1, 8, 8)] for _ in range(2)]
    figure = retrieval_grid(images, [['cat', 'cat', 'a dog of a long name'], ['dog', 'cat', 'dog']])
    titles = [(axes.get_title(), axes.title.get_color()) for axes in figure.axes]
    assert titles[:3] == [('cat', 'black'), ('cat', PALETTE[2]), ('a dog of a lo…', PALETTE[1])]
    assert titles[4:] == [('cat', PALETTE[1]), ('dog', PALETTE[2])]
    assert min(figure_to_array(figure).shape[:2]) > 100


def test_masks_have_the_colours_of_their_classes_and_ignored_pixels_none():
    mask = torch.tensor([[0, 1], [-1, 2]])
    figure = segmentation_grid([(torch.zeros(3, 8, 8), mask, mask.clamp(min=0))] * 2, ['a', 'b', 'c'])
    shown = figure.axes[2].images[0].get_array()
    assert shown[1, 0].tolist() == [1, 1, 1]
    assert len({tuple(pixel) for pixel in shown.reshape(-1, 3).tolist()}) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['a', 'b', 'c']


def test_a_caption_stands_below_what_stays_where_it_is():
    figure = noise_schedules()
    figure.draw_without_rendering()
    before = [axes.get_tightbbox().translated(0, 0) for axes in figure.axes]
    height = figure.get_figheight()
    add_caption(figure, 'A long caption. ' * 20)
    figure.draw_without_rendering()
    moved = (figure.get_figheight() - height) * figure.dpi
    text = figure.texts[-1].get_window_extent()
    for axes, box in zip(figure.axes, before, strict=True):
        np.testing.assert_allclose(axes.get_tightbbox().bounds, box.translated(0, moved).bounds, atol=1.5)
        assert text.y1 < axes.get_tightbbox().y0
    assert text.y0 >= 0
    assert 0 <= text.x0 < text.x1 <= figure.bbox.x1


def test_points_of_many_labels_differ_without_their_colours():
    figure = embedding(np.random.default_rng(0).normal(size=(60, 2)), [f'{i % 20:02}' for i in range(60)])
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert len(set(markers[:12])) == 12
    assert len({(line.get_marker(), line.get_color()) for line in figure.axes[0].lines}) == 20
