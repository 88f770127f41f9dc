# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from made_up import make_entry, make_row
from PIL import Image

from ldae.ablation import summarise, write_report
from ldae.ablation.report import beats, dimension_curves

ROWS = [make_row('up', linear=62.0), make_row('down', linear=61.0), make_row('ours', linear=None)]
ENTRIES = [
    *[make_entry('down', seed, 70.0 + seed) for seed in range(3)],
    *[make_entry('up', seed, 60.0 + seed) for seed in range(3)],
    make_entry('ours', 0, 65.0),
]


def test_a_summary_holds_mean_and_spread_of_the_latest_config_in_the_order_of_the_rows():
    old = [make_entry('up', seed, 10.0, config='old') for seed in range(5)]
    up, down, ours = summarise(ROWS, old + ENTRIES + [make_entry('up', 2, 62.0)])
    assert (up.row.name, up.linear.mean, up.linear.std, up.seeds) == ('up', 61.0, 1.0, (0, 1, 2))
    assert str(down.knn) == '70.0 ± 1.0'
    assert str(ours.linear) == '65.0'


def test_one_seed_shows_no_order():
    up, down, ours = summarise(ROWS, ENTRIES)
    assert beats(down, up)
    assert not beats(up, down)
    assert not beats(down, ours)


def test_the_table_labels_the_papers_figures_and_says_which_order_differs(tmp_path):
    write_report(tmp_path, summarise(ROWS, ENTRIES), 'tiny', 'tools/ablate.py up down')
    page = (tmp_path / 'table.md').read_text()
    assert "the paper's: linear, ImageNet" in page
    assert '`tools/ablate.py up down` on a machine, torch 2.0, commit abc' in page
    rows = [re.split(r' *\| *', line)[1:-1] for line in page.splitlines() if line.startswith('| `')]
    assert rows[0] == ['`up`', 'label of up', '8', '60.0 ± 1.0', '61.0 ± 1.0', '3', '62.0']
    assert rows[2][-2:] == ['1', '-']
    assert '* `down` (71.0 ± 1.0) above `up` (61.0 ± 1.0); the paper: 61.0 below 62.0' in page


def test_curves_are_drawn_where_a_tokenizer_has_several_dimensions(tmp_path):
    rows = [make_row(f't2_d{d}', 'table2', 60.0) for d in (8, 16)] + [make_row('f5', 'figure5', 23.6)]
    entries = [make_entry(f't2_d{d}', 0, 60.0, latent_dim=d) for d in (16, 8)]
    entries += [make_entry('f5', 0, 50.0, latent_dim=64, tokenizer='PixelTokenizer')]
    summaries = summarise(rows, entries)
    assert [d for d, _ in dimension_curves(summaries)['PatchPCA']] == [8, 16]
    assert 'Pixel' not in dimension_curves(summaries)
    for path in write_report(tmp_path, summaries, 'tiny', 'x')[1:]:
        assert min(Image.open(path).size) > 100
    assert (tmp_path / 'dimension.png').is_file()


@pytest.mark.parametrize('linear', [None, 50.0])
def test_rows_without_a_figure_in_the_paper_can_be_drawn(tmp_path, linear):
    write_report(tmp_path, summarise([make_row('a', linear=linear)], [make_entry('a', 0, 50.0)]), 'tiny', 'x')
    assert (tmp_path / 'accuracy.png').is_file()
