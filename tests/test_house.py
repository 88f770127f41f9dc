# SPDX-License-Identifier: Apache-2.0
"""Rules of the house: how long functions are, what is annotated, and what tools may hold and import."""

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
LONGEST_FUNCTION = 60
SLOW = ('torch', 'torchvision', 'mmpretrain', 'mmcv', 'matplotlib', 'transformers', 'PIL', 'cv2')
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[str, ast.Module]:
    """Syntax tree of each module, by its path in the package."""
    paths = (path for path in sorted(PACKAGE.rglob('*.py')) if '.mim' not in path.parts)
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in paths}


def nodes(kind: object, only: str = '') -> Iterator[tuple[str, ast.AST]]:
    """(place, node) of each node of a kind in the modules below ``only``."""
    for name, tree in trees().items():
        if name.startswith(only):
            yield from (
                (f'{name}:{getattr(node, "lineno", 1)}', node) for node in ast.walk(tree) if isinstance(node, kind)
            )


def none(wrong: list[str], what_to_do: str) -> None:
    """Fail with a line for each place, and what to do there."""
    if wrong:
        pytest.fail('\n'.join([f'{what_to_do}:', *wrong]), pytrace=False)


def length(node: Function) -> int:
    """Lines of a function without its docstring."""
    text = node.body[0] if ast.get_docstring(node) is not None else None
    return node.end_lineno - node.lineno + 1 - (text.end_lineno - text.lineno + 1 if text else 0)


def test_no_function_is_longer_than_a_screen():
    long = [
        f'{place} {node.name}: {length(node)} lines'
        for place, node in nodes(Function)
        if length(node) > LONGEST_FUNCTION
    ]
    none(long, f'split functions of more than {LONGEST_FUNCTION} lines')


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


def test_a_docstring_says_what_a_thing_is_or_does():
    wrong = []
    for place, node in nodes((Function, ast.ClassDef, ast.Module)):
        text = ast.get_docstring(node) or ''
        if text.startswith('What '):
            wrong.append(f'{place} {text.splitlines()[0]}')
    none(wrong, 'begin a docstring with what the thing is or does, not with "What"')


def keeps_state(node: ast.ClassDef) -> bool:
    """Whether a class has a constructor or assigns to attributes of its instances."""
    assigned = (
        target
        for inner in ast.walk(node)
        if isinstance(inner, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in (inner.targets if isinstance(inner, ast.Assign) else [inner.target])
    )
    return any(isinstance(inner, Function) and inner.name == '__init__' for inner in node.body) or any(
        isinstance(target, ast.Attribute) and getattr(target.value, 'id', '') == 'self' for target in assigned
    )


def test_a_tool_is_its_arguments_and_one_call():
    wrong = [f'{place} {node.name}' for place, node in nodes(ast.ClassDef, 'cli/') if keeps_state(node)]
    none(wrong, 'move what holds state out of cli/, where a notebook can use it too')


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
