# SPDX-License-Identifier: Apache-2.0
"""docs/faq.md shows real errors: its commands are run, and lines of what can't be brought about stand in the code."""

import errno
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from pages import DOCS, blocks, sections
from PIL import Image

from ldae.cli import main
from ldae.utils.error_lines import one_line

PAGE = DOCS / 'faq.md'
COMMANDS = [block.text.splitlines() for block in blocks(PAGE, 'console')]
SHOWN = [block.text.strip().removeprefix('error: ') for block in blocks(PAGE, 'text')]
RAISED = [
    RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB.'),
    RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '),
    RuntimeError('Connection closed by peer [127.0.0.1]'),
    RuntimeError('Timed out waiting 1000ms for recv operation to complete'),
    OSError(errno.ENOSPC, 'No space left on device'),
    AssertionError('failed to load image: x.jpg'),
]


class Pickled:
    def __reduce__(self):
        return print, ('run',)


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The files that the page's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('LDAE_TRACEBACK', raising=False)
    for name in ('empty', 'photos'):
        Path(name).mkdir()
    for i in range(2):
        Image.new('RGB', (40, 40), (90 * i,) * 3).save(f'photos/{i}.png')
    torch.save(dict(state_dict={}), 'good.pth')
    torch.save(dict(state_dict={}, meta=Pickled()), 'stranger.pth')
    Path('cut.pth').write_bytes(Path('good.pth').read_bytes()[:500])


def is_shown(said: str, shown: str) -> bool:
    """Whether a line is the page's, where ``...`` stands for anything."""
    return fnmatchcase(said, re.sub(r'[*?\[]', '[\\g<0>]', shown).replace('...', '*'))


@pytest.mark.usefixtures('_folder')
@pytest.mark.parametrize(('command', 'shown'), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_each_command_ends_in_its_line(command: str, shown: str, capsys: pytest.CaptureFixture):
    try:
        status = main(command.removeprefix('$ ldae ').split())
    except SystemExit as left:  # argparse's
        status = left.code
    said = capsys.readouterr()
    assert status == 2
    assert is_shown(said.err.splitlines()[-1].removeprefix('ldae: '), shown)
    assert 'run\n' not in said.out


def test_each_other_line_is_what_its_error_becomes():
    lines = [one_line(error) for error in RAISED]
    assert len(lines) == len(SHOWN)
    for said, shown in zip(lines, SHOWN, strict=True):
        assert is_shown(said, shown)
    assert not is_shown('x.jpg is a readable image', SHOWN[-1])


def test_every_question_is_answered_by_a_link_or_a_command():
    for section in sections(PAGE, 3).values():
        assert re.search(r'\]\(|```|`', section)
