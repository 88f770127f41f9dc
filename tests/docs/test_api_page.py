# SPDX-License-Identifier: Apache-2.0
"""The page on the Python API names each option with its default."""

import ast
import inspect

from pages import ROOT, option_table, sections

import ldae

PAGE = ROOT / 'docs' / 'api.md'


def test_the_options_of_the_extractor_are_those_of_the_code():
    parameters = inspect.signature(ldae.FeatureExtractor).parameters
    table = option_table(sections(PAGE, 2)['Features'])
    assert set(table) == {'**kwargs'} | set(parameters) - {'kwargs'}
    for name, default in table.items():
        if name != '**kwargs':
            assert ast.literal_eval(default) == parameters[name].default, name


def test_all_that_is_exported_is_named():
    assert all(f'`ldae.{name}(' in PAGE.read_text() for name in ldae.__all__ if not name.startswith('__'))
