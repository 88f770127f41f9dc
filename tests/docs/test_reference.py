# SPDX-License-Identifier: Apache-2.0
"""docs/reference.py: nothing public is left out of the reference, and the site is built from it where Sphinx is there."""

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from pages import DOCS, ROOT

import ldae
from ldae import registry
from ldae.cli import TOOLS

#: What a newcomer asks, and the page that answers.
QUESTIONS = {
    'train on my folder': 'own_images',
    'why is my accuracy low': 'low_accuracy',
    'resume': 'resume',
    'use two GPUs': 'several_gpus',
    'export to timm': 'export',
    'add a tokenizer': 'how_to_add',
    'what did the paper report': 'rows_and_results',
    'is it safe to open this checkpoint': 'reliability',
}


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


@pytest.fixture(scope='module')
def browser():
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    chromium = shutil.which('chromium') or pytest.skip('no chromium here')
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])


def test_the_search_leads_a_newcomer_to_the_page(site: Path, browser):
    tab, wrong = browser.new_page(), {}
    for question, page in QUESTIONS.items():
        tab.goto(f'{(site / "search.html").as_uri()}?q={quote_plus(question)}')
        tab.wait_for_function("document.querySelector('.search-summary')?.textContent.includes('found')")
        links = "[...document.querySelectorAll('ul.search li > a')].slice(0, 3).map(a => a.getAttribute('href'))"
        first = [re.split('[?#]', link)[0] for link in tab.evaluate(links)]
        if f'{page}.html' not in first:
            wrong[question] = first
    assert not wrong


def test_no_page_is_wider_than_a_phone(site: Path, browser):
    tab, wide, names = browser.new_page(viewport=dict(width=390, height=800)), [], [*QUESTIONS.values()]
    clipped = (
        "[...document.querySelectorAll('.prev-next-title')].some(e => e.getBoundingClientRect().right > innerWidth)"
    )
    for name in ['index', 'method', 'reference', 'commands', 'rows', 'faq', 'generated/api/models', *names]:
        tab.goto((site / f'{name}.html').as_uri())
        if tab.evaluate(f'document.documentElement.scrollWidth > innerWidth || {clipped}'):
            wide.append(name)
    assert not wide
