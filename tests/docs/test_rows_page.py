# SPDX-License-Identifier: Apache-2.0
"""The page of rows is what its script writes."""

from pages import ROOT, files_of, not_stale

from ldae.config.rows import list_rows

DOCS = ROOT / 'docs'


def test_page_is_up_to_date():
    made = files_of(DOCS / 'make_rows.py')
    not_stale(made)
    assert all(row.name in made[DOCS / 'rows.md'] for row in list_rows())
