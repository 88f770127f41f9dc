# SPDX-License-Identifier: Apache-2.0
"""The pages tell the truth: examples run, commands parse, options have these defaults, files and links exist."""

import ast
import inspect
import re
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from pages import (
    DOCS,
    PAGES,
    ROOT,
    Block,
    blocks,
    command_lines,
    name_of,
    option_table,
    prose,
    sections,
    slugs,
    toctrees,
)
from PIL import Image

import ldae.evaluation
from ldae.config import find_config, load_config
from ldae.config.components import components_of
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.models.tokenizer_training import AdversarialLoss, PerceptualLoss
from ldae.registry import (
    DATASETS,
    FUNCTIONS,
    HOOKS,
    METRICS,
    MODELS,
    NOISE_SCHEDULES,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    TRANSFORMS,
)
from ldae.utils.signatures import is_ours, passed_on

HOW_TO_ADD = ROOT / 'docs' / 'how_to_add.md'
TINY = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
CODE = [(page, block) for page in PAGES for block in blocks(page, 'python')]
CONFIGS = [pytest.param(p, b, id=f'{name_of(p)}-{i}') for i, (p, b) in enumerate(CODE) if b.is_config]
all_pages = pytest.mark.parametrize('page', PAGES, ids=name_of)


@pytest.fixture
def _own_components():
    """Take away after the test what examples register or import."""
    registries, modules = (MODELS, NOISE_SCHEDULES, HOOKS), set(sys.modules)
    before = [dict(registry._module_dict) for registry in registries]
    yield
    for registry, known in zip(registries, before, strict=True):
        registry._module_dict.clear()
        registry._module_dict.update(known)
    for name in set(sys.modules) - modules:
        if not hasattr(sys.modules[name], '__file__') or 'site-packages' not in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Block]], Path]:
    """Put blocks that name a file into a folder from which Python imports."""

    def write(found: list[Block]) -> Path:
        monkeypatch.syspath_prepend(tmp_path)
        for block in found:
            (tmp_path / (block.file or 'mine.py')).write_text(block.text)
        return tmp_path

    return write


def test_nobody_is_told_to_install_what_is_not_published():
    """Nor what somebody else might publish under the name: RELEASING.md says when this test goes."""
    code = [path for room in ('ldae', 'configs', 'benchmarks', 'tools') for path in (ROOT / room).rglob('*')]
    told = re.compile(r"pip install[^`#\n]*[ '\"]ldae($|[ \['\"`=<>~;,.)])", re.MULTILINE)
    kinds = ('.md', '.py', '.cfg', '.txt', '.sh')
    texts = {path: path.read_text() for path in [*PAGES, *ROOT.glob('*.*'), *code] if path.suffix in kinds}
    found = {name_of(path): told.search(text)[0] for path, text in texts.items() if told.search(text)}
    assert found.pop('RELEASING.md') == "pip install 'ldae["
    assert not found
    assert 'pip install ldae' in ''.join(
        match[0] for match in told.finditer('`pip install ldae`, or pip install -U "ldae[vae]"')
    )


@all_pages
@pytest.mark.usefixtures('_own_components')
def test_code_runs(page: Path):
    namespace = dict(__name__='example')
    torch.manual_seed(0)
    for block in blocks(page, 'python'):
        if not block.is_config:
            exec(compile(block.text, name_of(page), 'exec'), namespace)


@pytest.mark.parametrize(('page', 'block'), CONFIGS)
@pytest.mark.usefixtures('_own_components')
def test_config_builds(page: Path, block: Block, write):
    folder = write([other for other in blocks(page, 'python') if other.file and not other.is_config])
    (folder / 'mine.py').write_text(block.text)
    cfg = load_config(folder / 'mine.py')
    if 'model' not in cfg:  # a scale
        cfg = load_config('ldae::deconstruction/t3_5_original-image.py', scale=folder / 'mine.py')
    list(components_of(cfg))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        MODELS.build(dict(data_preprocessor=cfg.data_preprocessor, **cfg.model))
    for hook in cfg.default_hooks.values():
        if hook.type.startswith('ldae.'):
            HOOKS.build(hook)


@pytest.mark.parametrize('kind', ['A tokenizer', 'A noise schedule', 'A target', 'A hook'])
@pytest.mark.usefixtures('_own_components')
def test_the_steps_of_adding_a_component_end_in_training(kind: str, write):
    component, config = [block for block in blocks(sections(HOW_TO_ADD, 2)[kind], 'python') if block.file]
    assert len(config.text.strip().splitlines()) < 10
    folder = write([component, config])
    cfg = load_config(folder / 'mine.py', dict(data_root=str(write_images(folder / 'images'))))
    cfg.work_dir = str(folder / 'work')
    cfg.model.backbone.arch = TINY
    cfg.train_dataloader.update(batch_size=2, num_workers=0)
    cfg.train_cfg.max_epochs = 1
    runner = build_runner(prepare(cfg, LaunchOptions(no_validate=True)))
    runner.train()
    assert runner.iter == 2
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert np.isfinite(losses).all()


def write_images(folder: Path, count: int = 4) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        pixels = rng.integers(0, 256, (256, 260, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    return folder


def documented() -> list:
    """(options, section) of each heading that names a registered type or a function of ldae.evaluation."""
    found = []
    for page in PAGES:
        for title, text in sections(page, 2).items():
            if match := re.fullmatch(r'`(ldae\.[A-Z]\w+)`', title):
                found.append(pytest.param(options_of(resolve(match[1])), text, id=match[1]))
        for title, text in sections(page, 3).items():
            if match := re.match(r'`(\w+)\(.*\.\.\.\)`', title):
                found.append(pytest.param(options_of(getattr(ldae.evaluation, match[1])), text, id=match[1]))
    return found


def resolve(name: str) -> type | None:
    registries = (MODELS, HOOKS, DATASETS, TRANSFORMS, METRICS, OPTIM_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS)
    return next(filter(None, (registry.get(name) for registry in registries)), None)


def options_of(component: Callable) -> dict[str, Any]:
    """Option -> default, those included that ``**kwargs`` passes on to a parent of ours."""
    options = {
        '**' * (p.kind is p.VAR_KEYWORD) + name: p.default
        for name, p in inspect.signature(component).parameters.items()
        if p.kind is not p.VAR_POSITIONAL
    }
    constructors = [vars(cls)['__init__'] for cls in getattr(component, '__mro__', ()) if '__init__' in vars(cls)]
    fixed = {'self'}
    for child, parent in zip(constructors, constructors[1:], strict=False):
        given = passed_on(child, 'kwargs') if '**kwargs' in options and is_ours(parent) else None
        if given is None:
            break
        fixed |= given
        passed = inspect.signature(parent).parameters.values()
        del options['**kwargs']
        options |= {
            '**' * (p.kind is p.VAR_KEYWORD) + p.name: p.default
            for p in passed
            if p.name not in {*options, *fixed} and p.kind is not p.VAR_POSITIONAL
        }
    return options


@pytest.mark.parametrize(('parameters', 'section'), documented())
def test_options_and_defaults_are_those_of_the_code(parameters: dict[str, Any], section: str):
    table = option_table(section)
    if table is None:
        assert 'No options' in section
        assert set(parameters) <= {'init_cfg'}
        return
    required = {name for name, default in parameters.items() if default is inspect.Parameter.empty}
    if 'train_x' in parameters:  # a function's own arguments stand in its heading
        parameters = {name: value for name, value in parameters.items() if name not in required}
    assert set(table) == set(parameters)
    for name, default in table.items():
        if name in required:
            assert default in ('required', ''), name
        else:
            assert ast.literal_eval(default) == parameters[name], name


@pytest.mark.parametrize(('heading', 'loss'), [('`perceptual`', PerceptualLoss), ('`adversarial`', AdversarialLoss)])
def test_options_of_losses_are_those_of_the_code(heading: str, loss: type):
    section = sections(ROOT / 'docs' / 'components' / 'tokenizer_training.md', 3)[heading]
    parameters = {name: p.default for name, p in inspect.signature(loss).parameters.items()}
    parameters.pop('in_channels', None)  # the tokenizer's
    assert {name: ast.literal_eval(value) for name, value in option_table(section).items()} == parameters


@all_pages
def test_types_that_are_named_are_registered(page: Path):
    own = set(re.findall(r'class (\w+)', page.read_text()))
    names = set(re.findall(r'`(ldae\.[A-Z]\w+)`', prose(page)))
    assert [name for name in names if name.split('.')[1] not in own and resolve(name) is None] == []


@all_pages
def test_rows_of_a_table_have_the_cells_of_its_head(page: Path):
    for table in re.findall(r'(?:^\|.*\n)+', prose(page), re.MULTILINE):
        widths = {len(re.findall(r'(?<!\\)\|', line)) for line in table.splitlines()}
        assert len(widths) == 1, table


@all_pages
def test_modules_and_functions_that_are_named_exist(page: Path):
    for name in set(re.findall(r'`(ldae(?:\.[a-z_]\w*)+(?:\.[A-Z]\w*)?)', prose(page))):
        if FUNCTIONS.get(name) is None:  # which a config names like a type
            resolve_name(name)


@all_pages
def test_files_that_are_named_exist(page: Path):
    text = page.read_text()
    paths = re.findall(r'(?<![\w/.:-])((?:configs|tools|ldae|tests|docs|benchmarks)/[\w.-]+(?:/[\w.-]+)*)', text)
    missing = {path.rstrip('.') for path in paths if not (ROOT / path.rstrip('.')).exists()}
    assert missing == set()
    for name in set(re.findall(r'ldae::[\w/.-]+\.py', text)):
        find_config(name)


@all_pages
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
        path, _, anchor = target.partition('#')
        if '://' in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in slugs(linked), target


@all_pages
def test_commands_have_options_that_the_tools_know(page: Path):
    for line in command_lines(page):
        words = [word for word in shlex.split(line) if not re.match(r'[A-Z_]+=', word)]
        tool, arguments = tool_of(words)
        if tool is not None:
            import_module(f'ldae.cli.{tool}').parse_args(arguments)


def tool_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The module of ldae.cli that a command ends in, and its arguments there."""
    program, *rest = words or ['']
    path = Path(program)
    if path.name == 'ldae':
        return rest[0].replace('-', '_'), rest[1:]
    if path.parts[:1] != ('tools',):
        return None, []
    if path.suffix == '.py':
        return path.stem, rest
    launcher, tool = path.stem.split('_') if '_' in path.stem else ('dist', path.stem)
    if launcher == 'slurm':
        return tool, rest[2:]
    number = 1 + (tool in ('test', 'benchmark'))  # what stands before the number of processes
    assert rest[number].isdigit(), words
    return tool, rest[:number] + rest[number + 1 :]


def test_the_layout_is_that_of_the_repository():
    (tree,) = blocks(sections(ROOT / 'docs' / 'architecture.md', 2)['Layout'])
    parents: list[str] = []
    for line in tree.text.splitlines():
        depth, entry = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        parents[depth:] = [entry.rstrip('/')]
        path = ROOT.joinpath(*parents)
        assert path.is_dir() if entry.endswith('/') else path.is_file(), path


def links_of(page: Path) -> set[Path]:
    return {(page.parent / target.partition('#')[0]).resolve() for target in re.findall(r'\]\(([^)]+)\)', prose(page))}


def test_every_page_is_on_the_map():
    """By toctrees, which make the site's menus, and by links, which readers of the repository follow."""
    for step in (toctrees, links_of):
        reached, left = set(), [DOCS / 'index.md']
        while left:
            page = left.pop()
            if page not in reached and page in PAGES:
                reached.add(page)
                left += step(page)
        assert set(PAGES) - {ROOT / 'README.md'} - reached == set(), step.__name__


def test_every_entry_of_a_menu_is_a_page_once():
    entries = [entry for page in PAGES for entry in toctrees(page)]
    assert sorted(entries) == sorted(set(entries) & set(PAGES))
