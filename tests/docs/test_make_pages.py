# SPDX-License-Identifier: Apache-2.0
"""``make pages``: all that is made from the configs is written by one command, which a stale page names in one line."""

import importlib
from pathlib import Path

import pytest
from pages import ROOT, files_of, not_stale

from ldae.utils import ConfigError

DOCS = ROOT / 'docs'


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module


def test_every_script_is_called(load):
    called = {maker.__name__ for maker in load('make_pages').MAKERS}
    assert called == {path.stem for path in DOCS.glob('make_*.py')} - {'make_pages'}


def test_only_what_differs_is_written(load, tmp_path: Path, monkeypatch, capsys):
    pages, new, old = load('make_pages'), tmp_path / 'new.md', tmp_path / 'old.md'
    old.write_text('same')
    before = old.stat().st_mtime_ns
    maker = type('Maker', (), dict(files=staticmethod(lambda: {new: 'text', old: 'same'})))
    monkeypatch.setattr(pages, 'MAKERS', (maker,))
    monkeypatch.setattr(pages, 'ROOT', tmp_path)
    pages.main()
    assert new.read_text() == 'text'
    assert old.stat().st_mtime_ns == before
    assert capsys.readouterr().out == 'wrote new.md\n'


def test_a_stale_page_is_one_line_that_names_the_command():
    page = DOCS / 'model_zoo.md'
    not_stale({page: page.read_text()})
    with pytest.raises(pytest.fail.Exception) as failure:
        not_stale({page: page.read_text() + 'more', DOCS / 'absent.md': '', ROOT / 'README.md': ''})
    assert str(failure.value) == 'docs/model_zoo.md, docs/absent.md, README.md out of date: run make pages'
    assert not failure.value.pytrace


@pytest.mark.parametrize('line', ['', 'Batch:     as many as fit\n'])
def test_a_config_without_its_batch_is_one_line(line, load, tmp_path: Path, monkeypatch):
    index = load('make_model_index')
    monkeypatch.setattr(index, 'ROOT', tmp_path)
    config = tmp_path / 'mine.py'
    config.write_text(f'"""Mine.\n\n{line}"""\n')
    with pytest.raises(ConfigError, match=r'^mine\.py: its docstring needs a line "Batch:') as error:
        index.batch_size(config)
    assert '\n' not in str(error.value)
    config.write_text('"""Mine.\n\nBatch:     8 processes x 256 images = 2048; lr = 1\n"""\n')
    assert index.batch_size(config) == 2048


def test_what_a_script_has_to_say_is_one_line(tmp_path: Path):
    script = tmp_path / 'make_none.py'
    script.write_text(
        'from ldae.utils import ConfigError\ndef files():\n    raise ConfigError("mine.py: its docstring needs Batch:")\n'
    )
    with pytest.raises(pytest.fail.Exception, match=r'^mine\.py: its docstring needs Batch:$') as failure:
        files_of(script)
    assert not failure.value.pytrace
