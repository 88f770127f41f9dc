# SPDX-License-Identifier: Apache-2.0
"""The page of rows is what its script writes."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / 'docs'


def test_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import make_rows

    monkeypatch.delitem(sys.modules, 'make_rows')
    assert make_rows.page() == make_rows.PAGE.read_text(), 'run python docs/make_rows.py'
    assert all(row.name in make_rows.page() for row in make_rows.list_rows())
