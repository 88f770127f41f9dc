# SPDX-License-Identifier: Apache-2.0
import errno
import io
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from ldae.engine.resume.safe_checkpoint import latest_checkpoint, write_pointer
from ldae.launch.build import _find_checkpoint
from ldae.utils import ConfigError
from ldae.utils.files import atomic_save


def save(folder, name: str, age: int = 0) -> None:
    torch.save(dict(name=name), folder / name)
    os.utime(folder / name, (10_000 - age, 10_000 - age))


def test_a_failed_save_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    atomic_save(dict(a=1), path)

    def fill_the_disk(content, file):
        file.write(b'half of it')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('torch.save', fill_the_disk)
    with pytest.raises(OSError, match='No space'):
        atomic_save(dict(a=2), path)
    assert torch.load(path) == dict(a=1)
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_complete_before_it_has_its_name(tmp_path, monkeypatch):
    """Killed at the rename, all that was written is in another file and the old checkpoint is untouched."""
    path = tmp_path / 'epoch_1.pth'
    atomic_save(dict(a=1), path)

    def killed(self, target):
        assert torch.load(self) == dict(a=2)
        raise KeyboardInterrupt

    monkeypatch.setattr('pathlib.Path.replace', killed)
    with pytest.raises(KeyboardInterrupt):
        atomic_save(dict(a=2), path)
    assert torch.load(path) == dict(a=1)


def test_the_pointed_checkpoint_is_taken_also_after_the_folder_was_moved(tmp_path):
    save(tmp_path, 'epoch_1.pth')
    save(tmp_path, 'epoch_2.pth', age=5)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')  # as mmengine writes it
    assert latest_checkpoint(tmp_path).name == 'epoch_2.pth'
    write_pointer(tmp_path, 'epoch_1.pth')
    assert latest_checkpoint(tmp_path).name == 'epoch_1.pth'


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    for age, name in enumerate(['epoch_3.pth', 'epoch_2.pth', 'epoch_1.pth']):
        save(tmp_path, name, age)
    write_pointer(tmp_path, 'epoch_3.pth')
    whole = (tmp_path / 'epoch_3.pth').read_bytes()
    (tmp_path / 'epoch_3.pth').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'epoch_2.pth').write_bytes(b'')
    assert latest_checkpoint(tmp_path).name == 'epoch_1.pth'


def test_a_pointer_to_nothing_gives_way_to_the_newest(tmp_path):
    save(tmp_path, 'iter_10.pth')
    write_pointer(tmp_path, 'iter_20.pth')
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'


def test_checkpoints_of_which_none_can_be_read_are_not_run_over(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(ConfigError, match='none of the 1 checkpoints in .* can be read: move them away'):
        latest_checkpoint(tmp_path)


def test_nothing_to_resume_from_is_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / 'missing') is None
    (tmp_path / 'tokenizer_abc.pth').write_bytes(b'')
    assert latest_checkpoint(tmp_path) is None


def test_a_disk_that_fills_up_in_the_middle_is_told_as_what_it_is(tmp_path, monkeypatch):
    """Torch's writer raises an error of its own over the first one when it closes the file."""

    class Filling(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 3_000_000:
                raise OSError(errno.ENOSPC, 'No space left on device')
            return super().write(data)

    monkeypatch.setattr(Path, 'open', lambda path, mode: Filling(path, mode))
    with pytest.raises(OSError, match='No space left'):
        atomic_save([torch.zeros(500_000) for _ in range(4)], tmp_path / 'a.pth')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('pointer', [b'\xff\xfe\0epoch_2.pth', b'', b'../../epoch_1.pth\0', b'nowhere.pth'])
def test_a_pointer_of_nonsense_leaves_the_newest(tmp_path, pointer):
    save(tmp_path, 'epoch_1.pth', age=5)
    save(tmp_path, 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_bytes(pointer)
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


def test_pipes_links_that_lead_nowhere_and_bare_tensors_are_passed_over(tmp_path):
    save(tmp_path, 'epoch_1.pth')
    os.mkfifo(tmp_path / 'epoch_2.pth')
    (tmp_path / 'epoch_3.pth').symlink_to('epoch_9.pth')
    (tmp_path / 'epoch_4.pth').symlink_to('epoch_4.pth')
    torch.save(torch.zeros(3), tmp_path / 'epoch_5.pth')
    (tmp_path / 'last_checkpoint').symlink_to('nowhere')
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
    write_pointer(tmp_path, 'epoch_3.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'


def test_a_flipped_bit_gives_way_to_the_checkpoint_before_and_says_so(tmp_path):
    for age, name in enumerate(['epoch_2.pth', 'epoch_1.pth']):
        torch.save(dict(state_dict=dict(a=torch.full((100,), 1.5))), tmp_path / name)
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    content = bytearray((tmp_path / 'epoch_2.pth').read_bytes())
    content[content.index(torch.full((100,), 1.5).numpy().tobytes()) + 7] ^= 16
    (tmp_path / 'epoch_2.pth').write_bytes(content)
    write_pointer(tmp_path, 'epoch_2.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
    with pytest.raises(ConfigError, match="epoch_2.pth is damaged: 'epoch_2/data/0'"):
        _find_checkpoint(Config(dict(load_from=str(tmp_path / 'epoch_2.pth'))))
