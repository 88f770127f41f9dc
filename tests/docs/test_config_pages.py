# SPDX-License-Identifier: Apache-2.0
"""configs/*/README.md are what their script writes, one a folder, and their links and commands are good."""

import re
import shlex
from importlib import import_module

import yaml
from pages import DOCS, ROOT, command_lines, files_of, not_stale, slugs

from ldae.version import __version__

CONFIGS = ROOT / 'configs'


def test_each_folder_of_configs_has_its_page():
    made = files_of(DOCS / 'make_config_pages.py')
    not_stale(made)
    assert {path.parent for path in made} == {path for path in CONFIGS.iterdir() if path.is_dir()} - {
        CONFIGS / '_base_'
    }


def test_links_and_commands_are_good():
    for page in CONFIGS.glob('*/README.md'):
        for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
            path, _, anchor = target.partition('#')
            if '://' not in target:
                assert (page.parent / path).exists(), (page, target)
                assert not anchor or anchor in slugs((page.parent / path).resolve()), (page, target)
        for line in command_lines(page):
            words = shlex.split(line)
            if words[0] == 'ldae':
                import_module(f'ldae.cli.{words[1]}').parse_args(words[2:])
            else:
                assert (ROOT / words[0]).is_file(), line


def test_forms_can_be_read_and_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__
    assert citation['preferred-citation']['url'] == 'https://arxiv.org/abs/2401.14404'
    for form in (ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yml'):
        content = yaml.safe_load(form.read_text())
        assert form.stem == 'config' or {'name', 'description', 'body'} <= set(content), form
