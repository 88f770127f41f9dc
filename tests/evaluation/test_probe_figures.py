# SPDX-License-Identifier: Apache-2.0
"""The curves of the appendix's pictures, of made-up figures."""

from itertools import product

from ldae.evaluation.probe import ProbeRow
from ldae.evaluation.probe_figures import accuracy_over_block, accuracy_over_timestep

ROWS = [
    ProbeRow(block, t, kind, {5: block + t, 20: 0.0}, 10 * block + t + (kind == 'noisy'), 0.1, 0.0)
    for block, t, kind in product((1, 3), (0, 20), ('clean', 'noisy'))
]


def curves(figure, panel: int) -> dict:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in figure.axes[panel].get_lines()
    }


def test_over_the_time_step_the_deepest_block_is_shown():
    figure = accuracy_over_timestep(ROWS)
    assert curves(figure, 0) == {'clean': ([0, 20], [30, 50]), 'noisy': ([0, 20], [31, 51])}
    assert curves(figure, 1)['clean'] == ([0, 20], [3, 23])


def test_over_the_block_each_time_step_and_input_has_a_curve():
    found = curves(accuracy_over_block(ROWS), 0)
    assert set(found) == {f't = {t}, {kind}' for t in (0, 20) for kind in ('clean', 'noisy')}
    assert found['t = 20, noisy'] == ([1, 3], [31, 51])
