# SPDX-License-Identifier: Apache-2.0
"""Read the pages: their blocks, sections, tables and links."""

import re
import runpy
from pathlib import Path
from typing import NamedTuple

import pytest

from ldae.utils import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PAGES = [ROOT / 'README.md', *sorted(path for path in DOCS.rglob('*.md') if DOCS / 'generated' not in path.parents)]
# A directive of the site, ```{name} ..., has a language of that name in braces.
FENCE = re.compile(r'(?:`(\w+\.py)`:\n\n)?^```(\w*|\{[\w-]+\})(?: [^\n]*)?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
HEADING = re.compile(r'^#+ +(.*)$', re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, its text, and the file that the line before it names."""

    language: str
    text: str
    file: str | None

    @property
    def is_config(self) -> bool:
        return self.text.startswith('_base_')


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path | str, language: str | None = None) -> list[Block]:
    """Fenced blocks of a page or text, of one language if it is given."""
    text = page if isinstance(page, str) else page.read_text()
    found = [Block(language, body, file or None) for file, language, body in FENCE.findall(text)]
    return [block for block in found if language in (None, block.language)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub('', page.read_text())


def sections(page: Path, level: int) -> dict[str, str]:
    """Text by heading of one level, up to the next heading of that level or above."""
    marks = '#' * level
    parts = re.split(rf'^{marks} +(.*)$', page.read_text(), flags=re.MULTILINE)[1:]
    above = re.compile(rf'^#{{1,{level}}} ', re.MULTILINE)
    return {title: above.split(text)[0] for title, text in zip(parts[::2], parts[1::2], strict=True)}


def slugs(page: Path) -> set[str]:
    """The anchors that a code host gives to a page's headings."""
    titles = HEADING.findall(FENCE.sub('', page.read_text()))
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def option_table(section: str) -> dict[str, str] | None:
    """Option -> default, as written, of the first table of options in a section; None if there is none."""
    match = re.search(r'^\| option \| default \|.*\n\|.*\n((?:\|.*\n)*)', section, re.MULTILINE)
    if match is None:
        return None
    rows = [[cell.strip() for cell in row.split('|')[1:3]] for row in match[1].splitlines()]
    return {option.strip('`'): default.strip('`') for option, default in rows}


def command_lines(page: Path) -> list[str]:
    """Commands in a page's shell blocks, one a string, without comments."""
    text = '\n'.join(block.text for block in blocks(page, 'bash')).replace('\\\n', ' ')
    return [line for line in (line.partition('#')[0].strip() for line in text.splitlines()) if line]


def files_of(script: Path) -> dict[Path, str]:
    """Read what a script of ``make pages`` would write; fail in one line with what it misses in a config."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'docs'))
        try:
            return runpy.run_path(str(script))['files']()
        except ConfigError as error:
            message = str(error)
    pytest.fail(message, pytrace=False)


def not_stale(files: dict[Path, str]) -> None:
    """Fail in one line if a generated file isn't what its script writes."""
    stale = [name_of(path) for path, text in files.items() if not path.is_file() or path.read_text() != text]
    if stale:
        pytest.fail(f'{", ".join(stale)} out of date: run make pages', pytrace=False)


def toctrees(page: Path) -> set[Path]:
    """Pages that a page's toctrees name; those that the build writes are left out."""
    entries = '\n'.join(block.text for block in blocks(page, '{toctree}')).splitlines()
    names = [re.sub(r'^.*<(.*)>$', r'\1', line) for line in entries if line and not line.startswith(':')]
    return {(page.parent / f'{name}.md').resolve() for name in names if not name.startswith('generated/')}
