# SPDX-License-Identifier: Apache-2.0
"""A range or choice of an option stands in the signature that takes it: not in the code behind it, nor in a table beside it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ldae

ROOT = Path(ldae.__file__).parent
CHECKS = ('check_range', 'check_choice')


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """The constructors of a file, and what is called right after one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in ('__init__', '__post_init__'):
            yield node


def parameters(function: ast.FunctionDef) -> set[str]:
    given = function.args
    return {argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)}


def variables(function: ast.FunctionDef) -> set[str]:
    return {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def restated(function: ast.FunctionDef) -> Iterator[str]:
    """Checks of an option, or of each of several, against bounds that are the same for every call."""
    options, found = parameters(function) - variables(function), variables(function)
    # What a loop gives a name to is an option, or an item of one.
    options |= {n.target.id for n in ast.walk(function) if isinstance(n, ast.For) and isinstance(n.target, ast.Name)}
    for call in ast.walk(function):
        if not isinstance(call, ast.Call) or getattr(call.func, 'id', '') not in CHECKS:
            continue
        place, value, *bounds = [*call.args, *(keyword.value for keyword in call.keywords)]
        if ast.unparse(place).startswith("'--"):
            continue  # of a command, which says its own name
        is_option = ast.unparse(value) in options or ast.unparse(value).startswith('self.')
        depends = any(
            isinstance(node, ast.Call) or isinstance(node, ast.Name) and node.id in parameters(function) | found
            for bound in bounds
            for node in ast.walk(bound)
        )
        if is_option and not depends:
            yield ast.unparse(call)


def test_no_constructor_restates_a_range_that_its_signature_can_carry():
    found = [
        f'{path.relative_to(ROOT)}: {call}'
        for path in sorted(ROOT.rglob('*.py'))
        for function in functions(path)
        for call in restated(function)
    ]
    assert not found


def test_the_check_sees_a_range_that_is_restated():
    source = """
def __init__(self, size, depth, names):
    check_range('size', size, 1, kind=int)
    check_choice('size', self.size, ('a', 'b'))
    check_range('depth', depth, 0, size - 1)
    check_range('depth', len(names), 1)
"""
    assert len(list(restated(ast.parse(source).body[0]))) == 2
