# SPDX-License-Identifier: Apache-2.0
"""The tutorials: whole, without outputs, and run by docs/run_tutorials.py (.ci/run, small; .ci/nightly, in the site)."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, blocks, name_of, toctrees

FOLDER = DOCS / 'tutorials'
TUTORIALS = sorted(set(FOLDER.glob('*.md')) - {FOLDER / 'index.md'})
all_tutorials = pytest.mark.parametrize('page', TUTORIALS, ids=name_of)
# Lines of cells that may stay as they are: what a cell is, and how it is shown.
OPTIONS = (':tags: [parameters]', ':tags: [hide-output]', ':tags: [remove-stderr]')


@pytest.fixture(scope='module')
def runner():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module('run_tutorials')


def test_there_are_seven_and_all_are_in_the_menu():
    assert len(TUTORIALS) == 7
    assert toctrees(FOLDER / 'index.md') == set(TUTORIALS)


def test_no_notebook_holds_outputs():
    """Nor is there a notebook in a format that could: what the pages show is what came out when the site was built."""
    assert [*DOCS.rglob('*.ipynb')] == []
    cells = [block for page in TUTORIALS for block in blocks(page) if block.language.startswith('{')]
    assert {cell.language for cell in cells} == {'{code-cell}'}
    options = {line for cell in cells for line in cell.text.splitlines() if line.startswith(':')}
    assert options <= set(OPTIONS)


@all_tutorials
def test_cells_are_python_and_the_head_names_small_amounts_of_its_parameters(page: Path, runner):
    cells, head = runner.cells_of(page), runner.head_of(page)
    assert head['file_format'] == 'mystnb'
    assert head['kernelspec']['name'] == 'python3'
    (parameters,) = [code for code, is_parameters in cells if is_parameters]
    known = {target.id for node in ast.parse(parameters).body for target in node.targets}
    assert set(head['quick']) <= known
    assert head['quick']
    for code, _ in cells:
        ast.parse(code)


def test_a_tutorial_is_run_with_its_small_amounts_and_a_failure_is_told(tmp_path: Path, runner):
    page = tmp_path / 'short.md'
    page.write_text(
        '---\nquick:\n  n: 2\n---\n# Short\n\n```{code-cell} ipython3\n:tags: [parameters]\n\nn = 3\n```\n\n'
        '```python\nn = 7\n```\n\n```{code-cell} ipython3\nprint("n is", n)\nn < 3 or 1 / 0\n```\n'
    )
    assert runner.run(page, quick=True) == (0, 'n is 2\n')
    status, said = runner.run(page)
    assert status == 1
    assert said.startswith('n is 3\n')
    assert 'ZeroDivisionError' in said
    unknown = [sys.executable, DOCS / 'run_tutorials.py', 'none']
    assert 'there is no tutorial' in subprocess.run(unknown, capture_output=True, text=True).stderr
