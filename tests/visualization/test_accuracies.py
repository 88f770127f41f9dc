# SPDX-License-Identifier: Apache-2.0
"""Pictures of plain numbers."""

import numpy as np

from ldae.visualization import accuracy_against_distance, accuracy_by_encoder, accuracy_by_row, accuracy_over_dimension


def points(axes) -> list:
    return [list(line.get_xdata()) for line in axes.lines if line.get_marker() == 'o']


def test_rows_stand_beside_the_papers_figures_where_there_are_any():
    figure = accuracy_by_row(dict(a=(50.0, 1.0), b=(60.0, None)), [None, 65.1], 'tiny')
    ours, papers = figure.axes
    assert points(ours) == [[50.0, 60.0]]
    np.testing.assert_equal(points(papers), [[np.nan, 65.1]])
    assert [label.get_text() for label in ours.get_yticklabels()] == ['a', 'b']
    assert [axes.get_title() for axes in figure.axes] == ['ours: tiny', "the paper's: ImageNet"]


def test_encoders_have_a_panel_for_each_score():
    figure = accuracy_by_encoder({'an encoder': ((40.0, None), (50.0, 2.0))})
    assert [points(axes) for axes in figure.axes] == [[[40.0]], [[50.0]]]
    assert [axes.get_xlabel() for axes in figure.axes] == ['k-NN, top-1 (%)', 'linear probe, top-1 (%)']


def test_dimensions_are_a_curve_each_tokenizer():
    figure = accuracy_over_dimension(dict(PCA=[(2, (50.0, 1.0)), (8, (60.0, None))]), 'tiny')
    assert points(figure.axes[0]) == [[2, 8]]


def test_names_of_points_cover_nothing_at_any_resolution():
    rows = {
        f't2_patch-vae_d{i}': (float(x), float(y))
        for i, (x, y) in enumerate(np.random.default_rng(0).random((40, 2)) + 1)
    }
    figure = accuracy_against_distance(
        rows, {'t1_5_linear-schedule': (100.0, 60.0), 'other': (50.0, 50.0)}, 'FD', 'tiny'
    )
    for dpi in (72, 150):
        figure.set_dpi(dpi)
        figure.draw_without_rendering()
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in axes.texts]
            assert len(boxes) >= 2
            assert all(one.count_overlaps(boxes) == 1 for one in boxes)  # itself
            assert all(axes.bbox.x0 <= one.x0 < one.x1 <= axes.bbox.x1 for one in boxes)
