# SPDX-License-Identifier: Apache-2.0
"""Tables for terminals and pages."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns; ``rows[0]`` is the header, and the first ``left`` columns are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(cells)]
        lines.append('  '.join(aligned).rstrip())
    return '\n'.join(lines)


def markdown_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The same in Markdown."""
    header, *body = rows
    ruler = '|' + '---|' * left + '---:|' * (len(header) - left)
    return '\n'.join([f'| {" | ".join(header)} |', ruler, *(f'| {" | ".join(row)} |' for row in body)])
