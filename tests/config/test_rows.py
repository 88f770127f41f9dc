# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

import pytest

from ldae.config.rows import TABLES, list_rows, read_row
from ldae.utils import ConfigError

DOCSTRING = '"""One thing.\n\nRow:    a thing\nTable:  {table}\nPaper:  {paper}\nRun:    tools/train.py x.py\n"""\n'


def write(path: Path, table: str = 'table1', paper: str = 'none') -> Path:
    path.write_text(DOCSTRING.format(table=table, paper=paper))
    return path


def test_rows_come_in_the_papers_order():
    rows = list_rows()
    assert rows[0].name == 't1_1_dit-baseline'
    tables = [row.table for row in rows]
    assert tables == sorted(tables, key=list(TABLES).index)
    assert [row.name for row in list_rows('epochs')] == ['epochs_400', 'epochs_800', 'epochs_1600']
    assert [row.name[:4] for row in list_rows('table3')] == [f't3_{i}' for i in range(1, 7)]
    columns = [row.name.split('_')[1] for row in list_rows('table2')]
    assert list(dict.fromkeys(columns)) == ['conv-vae', 'patch-vae', 'patch-ae', 'pca']
    assert [row.name for row in list_rows('table2')][-5:] == [f't2_pca_d{d}' for d in (8, 16, 32, 64, 128)]


def test_every_table_has_rows_and_every_row_a_table():
    assert {row.table for row in list_rows()} == set(TABLES)
    assert sum(len(list_rows(table)) for table in TABLES) == len(list_rows())


def test_unknown_table_offers_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'table3'"):
        list_rows('tabel3')


@pytest.mark.parametrize(
    ('paper', 'linear', 'fid'),
    [('none', None, None), ('linear 65.1', 65.1, None), ('linear 57.5, FID 11.6', 57.5, 11.6)],
)
def test_figures_are_read_from_the_docstring(tmp_path: Path, paper, linear, fid):
    row = read_row(write(tmp_path / 'a.py', paper=paper))
    assert (row.name, row.table, row.label, row.about) == ('a', 'table1', 'a thing', 'One thing.')
    assert (row.paper_linear, row.paper_fid) == (linear, fid)


def test_docstring_without_a_line_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match='Table: '):
        read_row(write(tmp_path / 'a.py', table='table99'))
    (tmp_path / 'b.py').write_text('"""Nothing."""\n')
    with pytest.raises(ConfigError, match='Row:'):
        read_row(tmp_path / 'b.py')
    with pytest.raises(ConfigError, match='Source: and Run:'):
        read_row(write(tmp_path / 'c.py', table='after-paper'))


def test_a_row_of_another_paper_names_it():
    found = list_rows('after-paper')
    assert all(re.match(r'arXiv \d{4}\.\d{5}', row.source) and row.paper_linear is None for row in found)
    assert {row.path.parent.name for row in found} == {'after_paper'}
    assert all(row.source is None for row in list_rows('table1'))
