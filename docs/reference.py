# SPDX-License-Identifier: Apache-2.0
"""Write the site's reference: every public name of Python, every registered component, every command; conf.py calls this."""

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Rooms of the package, from what a newcomer calls to what carries it.
ROOMS = (
    'apis', 'launch', 'ablation', 'reports', 'evaluation', 'generation', 'export', 'models', 'datasets', 'engine', 'config',
    'visualization', 'page', 'utils',
)  # fmt: skip
REGISTRIES = (
    'MODELS', 'NOISE_SCHEDULES', 'DATASETS', 'TRANSFORMS', 'HOOKS', 'METRICS', 'LOOPS', 'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS', 'MODEL_WRAPPERS', 'FUNCTIONS',
)  # fmt: skip


def write_pages(folder: Path) -> None:
    """Write what differs, and take away pages that nothing writes any more."""
    pages = dict(files())
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
    for path in folder.rglob('*.rst'):
        if path.relative_to(folder).as_posix() not in pages:
            path.unlink()


def files() -> Iterator[tuple[str, str]]:
    """Name and text of each page."""
    rooms = {room: public_names(room) for room in ROOMS}
    calls = [name for name in import_module('ldae').__all__ if name != '__version__']
    yield 'api/ldae.rst', page('ldae', _first_line('ldae'), [entry('ldae', name) for name in calls])
    for room, names in rooms.items():
        own = [entry(f'ldae.{room}', name) for name in names if name not in calls]
        also = [f':py:obj:`ldae.{name}`' for name in names if name in calls]
        intro = _first_line(f'ldae.{room}') + (f'\n\nAlso here: {", ".join(also)}.' if also else '')
        yield f'api/{room}.rst', page(f'ldae.{room}', intro, own)
    yield 'api/components.rst', components({f'ldae.{room}.{name}' for room, names in rooms.items() for name in names})
    from ldae.cli import TOOLS

    for tool, about in TOOLS.items():
        yield f'cli/{tool}.rst', command(tool, about)


def public_names(room: str) -> list[str]:
    """What ``ldae/<room>/__init__.py`` shows: its ``__all__``, or what it imports from its own files."""
    module = import_module(f'ldae.{room}')
    if hasattr(module, '__all__'):
        return list(module.__all__)
    tree = ast.parse(Path(module.__file__).read_text())
    imported = [
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return sorted(name for name in imported if not name.startswith('_') and not inspect.ismodule(getattr(module, name)))


def entry(module: str, name: str) -> str:
    """The directive by which autodoc shows a name."""
    value = getattr(import_module(module), name)
    if inspect.isclass(value):
        return f'.. autoclass:: {module}.{name}\n   :members:\n   :show-inheritance:\n'
    if callable(value) and not isinstance(value, type):
        return f'.. autofunction:: {module}.{name}\n'
    keys = f': {", ".join(f"``{key}``" for key in value)}' if isinstance(value, dict | tuple | list) else ''
    return f'.. py:data:: {module}.{name}\n\n   A constant{keys}.\n'


def page(title: str, intro: str, parts: list[str]) -> str:
    """A page of parts under a title."""
    return '\n'.join([title, '=' * len(title), '', intro, '', *parts])


def _first_line(module: str) -> str:
    return (import_module(module).__doc__ or '').strip().partition('\n')[0]


def components(shown: set[str]) -> str:
    """The page of what a config can name, registry by registry; what no room shows is described there."""
    from ldae import registry

    import_module('ldae.models'), import_module('ldae.engine'), import_module('ldae.datasets')
    objects = {id(resolve(path)): path for path in sorted(shown)}
    parts, described = [], set()
    for name in REGISTRIES:
        found = getattr(registry, name)
        found.import_from_location()
        parts += [found.name.capitalize(), '-' * len(found.name), '']
        later = []
        for key, value in sorted(found.module_dict.items()):
            prefix = '' if name == 'NOISE_SCHEDULES' else 'ldae.'
            path = objects.get(id(value), f'{value.__module__}.{value.__qualname__}')
            if not path.startswith('ldae.'):
                continue
            role = 'class' if inspect.isclass(value) else 'func'
            parts.append(f'* ``{prefix}{key}``: :py:{role}:`{path}`')
            if id(value) not in objects and path not in described:
                described.add(path)
                later.append(entry(value.__module__, value.__qualname__))
        parts += ['', *later]
    intro = 'Every component that a config can name as its ``type``, beside those of mmpretrain, timm and mmengine.'
    return page('Registered components', intro, parts)


def resolve(path: str) -> Any:
    """The object of a dotted path."""
    module, _, name = path.rpartition('.')
    return getattr(import_module(module), name)


class _Asked(Exception):
    """Carries a tool's parser to whoever asked for it."""


def parser_of(tool: str) -> argparse.ArgumentParser:
    """The parser of ``ldae TOOL``, as it stands when the tool parses its arguments."""

    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Asked(self)

    module = import_module(f'ldae.cli.{tool.replace("-", "_")}')
    methods = {name: vars(argparse.ArgumentParser)[name] for name in ('parse_args', 'parse_known_args')}
    try:
        for name in methods:
            setattr(argparse.ArgumentParser, name, stop)
        module.parse_args([])
    except _Asked as asked:
        return asked.args[0]
    finally:
        for name, method in methods.items():
            setattr(argparse.ArgumentParser, name, method)
    raise AssertionError(f'ldae {tool} parsed nothing')


def command(tool: str, about: str) -> str:
    """The page of a command: what it does, an example, its arguments by group."""
    parser = parser_of(tool)
    parser.prog = f'ldae {tool}'
    parts = [escaped(parser.description or about), '']
    example = re.sub(r'^examples?:\n', '', (parser.epilog or '').strip())
    if example:
        parts += ['.. code-block:: text', '', *('   ' + line.strip() for line in example.splitlines()), '']
    parts += [f'.. program:: ldae {tool}', '']
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if not actions or [action.dest for action in actions] == ['help']:
            continue
        title = (group.title or '').capitalize()
        parts += [title, '-' * len(title), '', escaped(group.description or ''), '']
        for action in actions:
            parts += option(action)
    intro = about[0].upper() + about[1:] + '.'
    return page(f'ldae {tool}', '' if intro == parser.description else f'*{escaped(intro)}*', parts)


def option(action: argparse.Action) -> list[str]:
    """An argument, its values and its help."""
    values = argparse.HelpFormatter('')._format_args(action, action.dest.upper()) if action.nargs != 0 else ''
    if action.choices and not action.metavar:
        values = values.replace('{' + ','.join(map(str, action.choices)) + '}', '|'.join(map(str, action.choices)))
    names = action.option_strings or [action.metavar or action.dest]
    if isinstance(names[0], tuple):
        names = [' '.join(names[0])]
    heads = [f'{name} {values}'.strip() if action.option_strings else name for name in names]
    text = (action.help or '').replace('%%', '%')
    return [f'.. option:: {", ".join(heads)}', '', f'   {escaped(" ".join(text.split()))}', '']


def escaped(text: str) -> str:
    """Plain text as reStructuredText; options of a command as code, or two hyphens would be shown as a dash."""
    text = re.sub(r'([\\*`|]|_(?=\W|$))', r'\\\1', text)
    return re.sub(r'(?<![\w-])--[a-z][\w-]*', r'``\g<0>``', text)
