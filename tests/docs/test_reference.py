# SPDX-License-Identifier: Apache-2.0
"""docs/reference.py: nothing public is left out of the reference, and the site is built from it where Sphinx is there."""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, ROOT

import ldae
from ldae import registry
from ldae.cli import TOOLS


@pytest.fixture(scope='module')
def reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module('reference')


@pytest.fixture(scope='module')
def files(reference) -> dict[str, str]:
    return dict(reference.files())


def test_every_public_call_and_room_is_there(reference, files: dict):
    for name in set(ldae.__all__) - {'__version__'}:
        assert f':: ldae.{name}\n' in files['api/ldae.rst']
    packages = {path.parent.name for path in (ROOT / 'ldae').glob('*/__init__.py')} - {'cli'}
    assert set(reference.ROOMS) == packages
    assert ':: ldae.models.PatchPCATokenizer\n' in files['api/models.rst']
    assert ':: ldae.config.load_config\n' in files['api/config.rst']


def test_every_registered_component_is_there(reference, files: dict):
    page = files['api/components.rst']
    ours = {name for name, value in vars(registry).items() if isinstance(value, registry.Registry)}
    assert set(reference.REGISTRIES) == {name for name in ours if not name.startswith(('MMENGINE_', 'MMPRETRAIN_'))}
    for name in ('`ldae.LDAE`', '`linear_sigma`', '`ldae.FitTokenizerHook`', '`ldae.AutocastOptimWrapper`'):
        assert name in page
    for name, value in registry.MODELS.module_dict.items():
        if value.__module__.startswith('ldae.'):
            assert f'``ldae.{name}``: ' in page


@pytest.mark.parametrize('tool', TOOLS)
def test_every_option_of_a_command_is_there(tool: str, reference, files: dict):
    parser = reference.parser_of(tool)
    assert argparse.ArgumentParser.parse_args.__module__ == 'argparse'
    for action in parser._actions:
        for name in action.option_strings if action.help != argparse.SUPPRESS else ():
            assert re.search(rf'^\.\. option:: .*{name}\b', files[f'cli/{tool}.rst'], re.MULTILINE), name


def test_plain_text_stays_plain(reference):
    assert reference.escaped('a*b `c` d_ e_f |g| \\') == r'a\*b \`c\` d\_ e_f \|g\| \\'
    assert reference.escaped('with --new-schedule, a--b') == 'with ``--new-schedule``, a--b'


def test_only_what_differs_is_written_and_what_is_gone_is_removed(reference, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(reference, 'files', lambda: iter([('api/a.rst', 'a'), ('cli/b.rst', 'b')]))
    (tmp_path / 'api').mkdir()
    for name, text in (('a', 'a'), ('old', 'x')):
        (tmp_path / f'api/{name}.rst').write_text(text)
    before = (tmp_path / 'api/a.rst').stat().st_mtime_ns
    reference.write_pages(tmp_path)
    assert (tmp_path / 'api/a.rst').stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.rglob('*.rst')) == ['a.rst', 'b.rst']


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    pytest.importorskip('myst_nb', reason='the extra docs is not installed')
    pytest.importorskip('pydata_sphinx_theme', reason='the extra docs is not installed')
    out = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-d', out / 'trees', DOCS, out / 'html']
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    return out / 'html'


def test_the_site_asks_no_other_host_for_anything(site: Path):
    asset = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]+"')
    pages = [*site.rglob('*.html')]
    assert len(pages) > 80
    assert [found for page in pages for found in asset.findall(page.read_text())] == []
    sheets = re.compile(r'url\(["\']?(?:https?:)?//')
    assert [sheet.name for sheet in site.rglob('*.css') if sheets.search(sheet.read_text())] == []


@pytest.mark.parametrize(
    'question',
    [
        'train on my folder', 'why is my accuracy low', 'resume', 'use two gpus', 'export to timm', 'add a tokenizer',
        'what did the paper report', 'is it safe to open this checkpoint',
    ],
)  # fmt: skip
def test_the_index_of_the_search_has_a_title_for_each_question_of_a_newcomer(question: str, site: Path):
    titles = re.search(r'"alltitles":\s*(\{.*?\]\]\})', (site / 'searchindex.js').read_text()) or pytest.fail(
        'no titles'
    )
    known = [
        re.sub(r'[^\w ]', '', title.lower()).split() for title in re.findall(r'"((?:[^"\\]|\\.)*)":\[\[', titles[1])
    ]
    assert any(set(question.split()) <= set(title) for title in known)
