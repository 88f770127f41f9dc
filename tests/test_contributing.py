# SPDX-License-Identifier: Apache-2.0
"""README.md and CONTRIBUTING.md tell the truth: their guides are followed to the letter, in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from ldae.config import load_config
from ldae.config.components import components_of
from ldae.registry import MODELS

ROOT = Path(__file__).parents[1]
GUIDES = ('A tokenizer in five steps', 'A noise schedule in five steps', 'A head in five steps')
# A path in backquotes and a colon before a block say which file the block is, or changes.
BLOCK = re.compile(r'(?:`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
COMMANDS = ['make pages', 'make test lint']
# What of `make test` reads all configs or all pages, without what trains each or costs a minute by itself.
READERS = (
    *('tests/test_contributing.py::test_files_that_are_named_exist', 'tests/test_imports.py'),
    *('tests/docs/test_model_zoo.py', 'tests/docs/test_rows_page.py', 'tests/docs/test_make_pages.py'),
    'tests/docs/test_model_index.py::test_openmmlabs_loader_reads_all_configs',
    *('tests/docs/test_docs.py::test_files_that_are_named_exist', 'tests/apis/test_get_model.py'),
)


class Block(NamedTuple):
    """A fenced block of a guide: the file that it is or changes, its language and its text."""

    path: str
    language: str
    text: str


def guide(title: str) -> list[Block]:
    """Blocks of a guide; one without a path of its own goes on with that of the block before."""
    text = (ROOT / 'CONTRIBUTING.md').read_text().split(f'\n## {title}\n')[1].split('\n## ')[0]
    blocks, path = [], ''
    for named, language, body in BLOCK.findall(text):
        path = named or path
        blocks.append(Block(path, language, body))
    return blocks


def written_by(title: str) -> list[str]:
    """New files of a guide: component, config and test."""
    return [block.path for block in guide(title) if block.language == 'python']


def apply(diff: str, path: Path) -> None:
    """Apply a diff without line numbers: what it takes away, with the lines around, stands once in the file."""
    lines, text = diff.splitlines(keepends=True), path.read_text()
    old, new = (''.join(line[1:] or '\n' for line in lines if line[0] != sign) for sign in '+-')
    if text.count(old) != 1:
        pytest.fail(f'CONTRIBUTING.md changes lines of {path.name} that are not there once:\n{old}', pytrace=False)
    path.write_text(text.replace(old, new))


def follow(title: str, tree: Path) -> None:
    """Do the first steps of a guide, up to the commands."""
    for block in guide(title):
        path = tree / block.path
        if block.language == 'python':
            assert not path.exists(), path
            path.write_text(block.text)
        elif block.language == 'diff':
            apply(block.text, path)
        else:
            assert block.text.splitlines() == COMMANDS


def run(arguments: list[str], tree: Path) -> None:
    """Run Python in a tree, as its Makefile does; fail with what it prints."""
    env = dict(os.environ, PYTHONPATH=str(tree), OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=env, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f'{" ".join(arguments)}\n{done.stdout[-4000:]}{done.stderr[-2000:]}', pytrace=False)


def sources() -> list[str]:
    """Files of the repository, as git lists them; outside of a clone, all that aren't caches."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True
    )
    files = [name for name in listed.stdout.decode().split('\0') if name and (ROOT / name).is_file()]
    if 'CONTRIBUTING.md' in files:
        return files
    paths = [path.relative_to(ROOT) for path in ROOT.rglob('*') if path.is_file()]
    return [str(path) for path in paths if not any(re.match(r'\.|__pycache__', part) for part in path.parts)]


def recipe(target: str) -> list[list[str]]:
    """Arguments of the Python commands of a target of the Makefile."""
    lines = re.search(rf'^{target}:.*\n((?:\t.*\n)+)', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1]
    return [line.split()[1:] for line in lines.splitlines() if line.startswith('\t$(BIN)/python ')]


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which each guide is followed, and its pages are made."""
    tree = tmp_path_factory.mktemp('clone') / 'ldae'
    for path in sources():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tree / path)
    for title in GUIDES:
        follow(title, tree)
    commands = recipe('pages')
    assert commands
    for arguments in commands:
        run(arguments, tree)
    return tree


def test_the_guides_are_those_that_are_followed():
    found = re.findall(r'^## (.* in \w+ steps)$', (ROOT / 'CONTRIBUTING.md').read_text(), re.MULTILINE)
    assert tuple(found) == GUIDES


@pytest.mark.parametrize('title', GUIDES)
def test_a_guide_is_one_new_file_and_a_config_of_under_ten_lines(title):
    component, config, test = written_by(title)
    assert component.startswith('ldae/models/')
    assert config.startswith('configs/ldae/')
    assert test == f'tests/{Path(component).parent.relative_to("ldae")}/test_{Path(component).name}'
    (code,) = [block.text.split('"""')[2] for block in guide(title) if block.path == config]
    assert len([line for line in code.splitlines() if line]) < 10
    assert guide(title)[-1].language == 'bash'


def test_the_tests_of_a_tree_in_which_the_guides_are_followed_pass(tree: Path):
    files = [path for title in GUIDES for path in written_by(title)]
    configs = [path.removeprefix('configs/') for path in files if path.startswith('configs/')]
    tests = [path for path in files if path.startswith('tests/')]
    options = ['-q', '-x', '-p', 'no:cacheprovider']
    run(['-m', 'pytest', *options, *tests, *READERS], tree)
    run(['-m', 'pytest', *options, 'tests/configs', '-k', ' or '.join(configs)], tree)
    for name in configs:
        assert name in (tree / 'docs/model_zoo.md').read_text()
        assert f'configs/{name}' in (tree / 'configs/ldae/metafile.yml').read_text()


def test_the_config_of_the_readme(tmp_path: Path):
    (config,) = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
    assert len(config.strip().splitlines()) < 10
    (tmp_path / 'mine.py').write_text(config)
    cfg = load_config(tmp_path / 'mine.py')
    list(components_of(cfg))
    cfg.model.tokenizer.update(img_size=32, patch_size=8)
    cfg.model.backbone.arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    assert MODELS.build(cfg.model).tokenizer.latent_dim == 16


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_files_that_are_named_exist(name: str):
    text = (ROOT / name).read_text()
    named = set(re.findall(r'(?<![\w/.:-])((?:configs|tools|ldae|tests|docs)/[\w./-]+\.(?:py|sh|md))', text))
    new = {path for title in GUIDES for path in written_by(title)}
    assert {path for path in named - new if not (ROOT / path).exists()} == set()
    assert named
