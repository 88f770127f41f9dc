# SPDX-License-Identifier: Apache-2.0
"""The order of the rooms: what may import what."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import ldae

PACKAGE = Path(ldae.__file__).parent
# From the roof to the ground: a room imports itself and those after it.
ORDER = (
    *('__main__', 'cli', 'page', 'reports', 'ablation', 'launch', 'export', 'engine', 'generation', 'apis'),
    *('evaluation', 'models', 'config', 'datasets', 'visualization', 'utils', 'registry', 'compat', 'version'),
)
LOOSE = {'__init__', '__main__', 'registry', 'version', 'compat'}


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    files = (path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)
    return {'.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts): path for path in files}


def imports_of(module: str, path: Path) -> Iterator[tuple[str, bool]]:
    """(name of ours that a module imports, whether inside a function), wherever in the module it stands."""
    package = module.split('.')[:-1]
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = '.'.join([*base, *([node.module] if node.module else [])])
            names = [f'{source}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from ((name, id(node) in inside) for name in names if name.split('.')[0] == 'ldae')


def room(name: str) -> str:
    return name.split('.')[1] if '.' in name else '__init__'


def owner(name: str, known: dict[str, Path]) -> str:
    """The module that an imported name is, or stands in."""
    while name not in known and f'{name}.__init__' not in known:
        name = name.rpartition('.')[0]
    return name if name in known else f'{name}.__init__'


def test_imports_run_downwards():
    wrong = []
    for module, path in modules().items():
        if room(module) == '__init__':
            continue  # the package shows calls of the rooms that own them
        for name, _ in imports_of(module, path):
            if room(name) not in ORDER:
                wrong.append(f'{module} imports {name} from the top of the package')
            elif ORDER.index(room(name)) < ORDER.index(room(module)):
                wrong.append(f'{module} imports {name}, which is above it')
    assert not wrong, '\n'.join(wrong)


def test_no_module_imports_itself_by_way_of_others():
    known = modules()
    graph = {
        module: {owner(name, known) for name, _ in imports_of(module, path)} - {module}
        for module, path in known.items()
    }
    # A package's __init__ shows what its modules hold, and they import each other past it.
    graph = {module: {name for name in names if not name.endswith('__init__')} for module, names in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_our_own_modules_are_imported_at_the_top_of_a_module():
    """An import inside a function hides a circle; tools import what takes seconds after their arguments are read."""
    inside = [
        f'{module}: {name}'
        for module, path in modules().items()
        for name, in_function in imports_of(module, path)
        if in_function and room(module) != 'cli'
    ]
    assert not inside, '\n'.join(inside)


def test_few_modules_stand_outside_a_room():
    assert {path.stem for path in PACKAGE.glob('*.py')} <= LOOSE
    rooms = {path.name for path in PACKAGE.iterdir() if (path / '__init__.py').is_file()}
    assert rooms <= set(ORDER), 'a new room needs a place in the order'
