# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from made_up import make_entry, make_row
from PIL import Image

from ldae.ablation import summarise, write_report
from ldae.ablation.report import beats, dimension_curves, table_page
from ldae.evaluation.protocol import PROTOCOL

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
    assert rows[0] == ['`up`', 'label of up', '8', '10', '60.0 ± 1.0', '61.0 ± 1.0', '3', '62.0']
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


def test_only_rows_with_a_spread_are_judged():
    page = table_page(summarise(ROWS[:2], [make_entry('up', 0, 60.0), make_entry('down', 0, 70.0)]), 'tiny', 'x')
    assert 'The order of rows is not judged: rows with one seed have no spread.' in page
    assert 'Reversed' not in page
    three = [make_row('third', linear=50.0), *ROWS[:2]]
    page = table_page(summarise(three, [*ENTRIES[:6], make_entry('third', 0, 1.0)]), 'tiny', 'x')
    assert 'Of 1 pairs of rows with a spread, 0 stand' in page
    assert '2 pairs with a row of one seed are not judged' in page


@pytest.mark.parametrize(
    ('pixels', 'seeds', 'says'),
    [
        (60.0, 3, "in the paper's order by more than both standard deviations together"),
        (70.5, 3, 'within the spread'),
        (80.0, 3, 'in the reverse order'),
        (60.0, 1, 'not judged, since one seed has no spread'),
    ],
)
def test_the_central_pair_is_judged(pixels, seeds, says):
    rows = [make_row('t2_pca_d32', 'table2', 65.1), make_row('f5_pixel_256', 'figure5', 23.6)]
    entries = [make_entry('t2_pca_d32', seed, 70.0 + seed) for seed in range(seeds)]
    entries += [make_entry('f5_pixel_256', seed, pixels + seed) for seed in range(seeds)]
    assert f'(linear): {says}. The paper: 65.1 and 23.6.' in table_page(summarise(rows, entries), 'tiny', 'x')


def test_tables_name_the_protocol_its_overrides_and_choices_at_the_edge():
    entries = [make_entry('up', 0, 60.0, protocol=PROTOCOL.replace(k=5).as_dict(), at_edge=['lr'])]
    page = table_page(summarise(ROWS, entries), 'tiny', 'x')
    assert 'Scored by protocol ldae-1 (k=5). At the edge of the values that were tried: up (lr).' in page
    assert 'ours: 5-NN' in page


def test_nine_cells_are_a_grid_of_prediction_and_loss():
    rows = [make_row(f'grid_{name}', 'after-paper', None) for name in ('clean_velocity', 'noise_noise')]
    sampled = dict(name='Fréchet distance (net)', samples=5, reference=5, steps=5, sampler='dpm++', frechet=12.5)
    entries = [make_entry('grid_clean_velocity', 0, 61.0), make_entry('grid_noise_noise', 0, 70.0, generation=sampled)]
    page = table_page(summarise([*rows, make_row('other', 'after-paper')], entries), 'tiny', 'x')
    lines = [re.split(r' *\| *', line)[1:-1] for line in page.splitlines() if line.startswith('|')]
    at = [i for i, line in enumerate(lines) if line[0].endswith('; prediction')]
    assert [lines[i][0] for i in at] == ['linear; prediction', 'Fréchet distance (net); prediction']
    assert [lines[i][1:] for i in at] == [['loss of clean', 'loss of noise', 'loss of velocity']] * 2
    assert lines[at[0] + 2 : at[0] + 5] == [
        ['clean', '-', '-', '61.0'],
        ['noise', '-', '70.0', '-'],
        ['velocity', '-', '-', '-'],
    ]
    assert lines[at[1] + 3] == ['noise', '-', '12.5', '-']
    assert 'prediction' not in table_page(summarise([make_row('a')], [make_entry('a', 0, 60.0)]), 'tiny', 'x')
