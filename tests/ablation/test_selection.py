# SPDX-License-Identifier: Apache-2.0
import pytest
from made_up import make_row

from ldae.ablation import select_rows
from ldae.utils import ConfigError

ROWS = [make_row('t2_pca_d8', 'table2'), make_row('t2_ae_d8', 'table2'), make_row('t3_1'), make_row('t3_2')]


@pytest.mark.parametrize(
    ('patterns', 'names'),
    [
        (['t3_1'], ['t3_1']),
        (['table3', 't2_pca_*'], ['t2_pca_d8', 't3_1', 't3_2']),
        (['t3_2', 't3_?'], ['t3_1', 't3_2']),
        (['*'], [row.name for row in ROWS]),
    ],
)
def test_rows_are_named_by_name_glob_or_table_and_keep_their_order(patterns, names):
    assert [row.name for row in select_rows(patterns, ROWS)] == names


@pytest.mark.parametrize(('pattern', 'guess'), [('t2_pca_8', 't2_pca_d8'), ('tabel3', 'table3')])
def test_an_unknown_name_is_answered_with_the_nearest(pattern, guess):
    with pytest.raises(ConfigError, match=f"'{pattern}'; did you mean '{guess}'"):
        select_rows(['t3_1', pattern], ROWS)
