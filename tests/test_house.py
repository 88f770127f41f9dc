# SPDX-License-Identifier: Apache-2.0
"""Rules of the house: what is annotated, and what tools may import before their arguments are read."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ldae
from ldae.cli import TOOLS

PACKAGE = Path(ldae.__file__).parent
SLOW = ('torch', 'torchvision', 'mmpretrain', 'mmcv', 'matplotlib', 'transformers', 'PIL', 'cv2')
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[str, ast.Module]:
    """Syntax tree of each module, by its path in the package."""
    paths = (path for path in sorted(PACKAGE.rglob('*.py')) if '.mim' not in path.parts)
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in paths}


def none(wrong: list[str], what_to_do: str) -> None:
    """Fail with a line for each place, and what to do there."""
    if wrong:
        pytest.fail('\n'.join([f'{what_to_do}:', *wrong]), pytrace=False)


def public_functions(body: list[ast.stmt], owner: str = '') -> Iterator[tuple[str, Function]]:
    """Functions of a module and methods of its classes whose names start with no underscore; and constructors."""
    for node in body:
        if isinstance(node, Function) and (node.name == '__init__' or not node.name.startswith('_')):
            yield owner + node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            yield from public_functions(node.body, f'{owner}{node.name}.')


def lacking(node: Function) -> list[str]:
    """Parameters of a function without an annotation, and 'return'."""
    arguments = node.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    names = [parameter.arg for parameter in parameters if parameter.annotation is None]
    names = [name for name in names if name not in ('self', 'cls')]
    return names + (['return'] if node.returns is None else [])


def test_public_functions_are_annotated():
    wrong = [
        f'{module}:{node.lineno} {name}: {", ".join(lacking(node))}'
        for module, tree in trees().items()
        for name, node in public_functions(tree.body)
        if lacking(node)
    ]
    none(wrong, 'annotate parameters and results of public functions')


HELP = f"""
import contextlib, io, json, sys
import ldae.cli
slow, said, found = {SLOW!r}, dict(), dict()
for tool in ldae.cli.TOOLS:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        ldae.cli.run_tool(tool, ['--help'])
    said[tool] = out.getvalue()
    found[tool] = sorted(name for name in slow if name in sys.modules)
print(json.dumps([said, found]))
"""


def test_help_imports_nothing_that_takes_seconds():
    """All tools in one process: one that imports too much is followed by others with the same list."""
    run = subprocess.run([sys.executable, '-c', HELP], capture_output=True, text=True, check=True)
    said, found = json.loads(run.stdout)
    assert set(said) == set(TOOLS)
    assert all(text.startswith('usage: ') and 'example' in text for text in said.values())
    wrong = [f'ldae {tool} --help: {", ".join(names)}' for tool, names in found.items() if names]
    none(wrong, 'import in main, after the arguments are read, what takes seconds')
