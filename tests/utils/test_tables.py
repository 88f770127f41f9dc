# SPDX-License-Identifier: Apache-2.0
from ldae.utils.tables import markdown_table, text_table

ROWS = [['row', 'k-NN', 'linear'], ['a longer name', '7.5', '10.0'], ['b', '12.25', '9']]


def test_columns_are_aligned_for_a_terminal():
    assert text_table(ROWS).splitlines() == [
        'row             k-NN  linear',
        'a longer name    7.5    10.0',
        'b              12.25       9',
    ]


def test_numbers_stand_to_the_right_in_markdown():
    assert markdown_table(ROWS, left=2).splitlines()[:3] == [
        '| row | k-NN | linear |',
        '|---|---|---:|',
        '| a longer name | 7.5 | 10.0 |',
    ]
