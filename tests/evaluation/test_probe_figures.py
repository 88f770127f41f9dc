# SPDX-License-Identifier: Apache-2.0
"""The curves of the appendix's pictures, of made-up figures."""

from itertools import product

from ldae.evaluation import PROTOCOL
from ldae.evaluation.probe import ProbeRow, ProbeScores, accuracy_over_block, accuracy_over_timestep, report

ROWS = [
    ProbeRow(block, t, kind, {5: block + t, 20: 0.0}, 10 * block + t + (kind == 'noisy'), 0.1, 0.0)
    for block, t, kind in product((1, 3), (0, 20), ('clean', 'noisy'))
]


def curves(figure, panel: int) -> dict:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[panel].get_lines()
    }


def test_over_the_time_step_the_deepest_block_is_shown():
    figure = accuracy_over_timestep(ROWS)
    assert curves(figure, 0) == {'clean': ([0, 20], [30, 50]), 'noisy': ([0, 20], [31, 51])}
    assert curves(figure, 1)['clean'] == ([0, 20], [3, 23])


def test_over_the_block_each_time_step_and_input_has_a_curve():
    found = curves(accuracy_over_block(ROWS), 0)
    assert set(found) == {f't = {t}, {kind}' for t in (0, 20) for kind in ('clean', 'noisy')}
    assert found['t = 20, noisy'] == ([1, 3], [31, 51])


def scores(chosen: int | None) -> ProbeScores:
    """Of four blocks, of which the second is best on held-out images, and the last on test images."""
    rows = [
        ProbeRow(block, 10, 'clean', {20: 50.0 + block}, 60.0 + block, 0.3, 1e-3, held_out)
        for block, held_out in zip((1, 2, 3, 4), (70.0, 90.0, 80.0, None if chosen is None else 85.0), strict=True)
    ]
    mark = None if chosen is None else rows[chosen]
    return ProbeScores(rows, mark, PROTOCOL.replace(epochs=3), {}, {})


def test_the_table_shows_held_out_beside_test_accuracy_and_marks_the_choice():
    lines = report(scores(1)).splitlines()
    assert lines[0].split() == ['block', 't', 'input', '20-NN', 'linear', 'held', 'out', 'setting']
    assert lines[2].split() == ['2', '10', 'clean', '52.0', '62.0', '90.0', 'lr', '0.3,', 'wd', '0.001', 'chosen']
    assert [line.endswith('chosen') for line in lines[1:5]] == [False, True, False, False]
    assert lines[-1] == (
        'chosen: block 2, t = 10 by held-out training images: 90.0 -> test 62.0 (protocol ldae-1 (epochs=3))'
    )


def test_without_held_out_images_no_row_is_chosen():
    assert 'nothing was held out' in report(scores(None)).splitlines()[-1]
    assert report(scores(None)).splitlines()[4].split()[5] == '-'
