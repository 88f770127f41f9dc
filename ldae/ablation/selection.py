# SPDX-License-Identifier: Apache-2.0
"""From what the command line names to rows."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ldae.utils import ConfigError
from ldae.utils.errors import nearest

if TYPE_CHECKING:
    from ldae.config.rows import Row


def select_rows(patterns: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The rows that any pattern names, once each, in the order of ``rows``.

    Args:
        patterns: Names of rows, globs of names, or names of tables.
        rows: All there are, in the paper's order.

    Raises:
        ConfigError: A pattern names nothing.
    """
    chosen = set()
    for pattern in patterns:
        found = {row.name for row in rows if row.table == pattern or fnmatchcase(row.name, pattern)}
        if not found:
            known = [row.name for row in rows] + list(dict.fromkeys(row.table for row in rows))
            raise ConfigError(f"no row or table is called '{pattern}'{nearest(pattern, known)}")
        chosen |= found
    return [row for row in rows if row.name in chosen]
