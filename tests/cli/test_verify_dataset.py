# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ldae.cli import run_tool
from ldae.datasets import ImageFolder


@pytest.fixture
def dirty(tiny_image_folder: Path) -> Path:
    folder = tiny_image_folder / 'train' / 'a'
    (folder / '1.jpg').write_bytes(b'')
    whole = (folder / '2.jpg').read_bytes()
    (folder / '2.jpg').write_bytes(whole[:-100])
    (folder / 'link.jpg').symlink_to('nowhere')
    (folder / 'folder.jpg').mkdir()
    return tiny_image_folder


def test_a_clean_folder_has_status_0(tiny_image_folder: Path, capsys: pytest.CaptureFixture):
    assert run_tool('verify-dataset', [str(tiny_image_folder), '--split', 'val', '--workers', '1']) == 0
    out, err = capsys.readouterr()
    assert out == ''
    assert 'all 8 images can be read' in err


def test_bad_images_are_listed_and_status_is_1(dirty: Path, capsys: pytest.CaptureFixture):
    assert run_tool('verify-dataset', [str(dirty), '--workers', '2']) == 1
    out, err = capsys.readouterr()
    lines = [line.split('\t') for line in out.splitlines()]
    assert [(path.rpartition('/')[2], reason) for path, reason in lines] == [
        ('1.jpg', 'is empty'),
        ('2.jpg', 'is truncated'),
        ('folder.jpg', 'is not a file'),
        ('link.jpg', 'is a broken link'),
    ]
    assert (
        '2 of 16 images (1 is empty, 1 is truncated) cannot be read; 2 names that are not files are passed over' in err
    )


def test_the_list_as_json_and_an_annotation_file_without_them(dirty: Path, tmp_path: Path):
    out, clean = tmp_path / 'bad.json', tmp_path / 'images' / 'clean.txt'
    args = [str(dirty), '--format', 'json', '--out', str(out), '--write-ann', str(clean)]
    before = ImageFolder(str(dirty))
    assert run_tool('verify-dataset', args) == 1
    found = json.loads(out.read_text())
    assert found['images'] == 16
    assert [(entry['reason'], entry['listed']) for entry in found['bad']][:2] == [
        ('is empty', True),
        ('is truncated', True),
    ]
    after = ImageFolder(str(dirty), ann_file='clean.txt', max_bad=0)
    kept = {i['img_path']: i['gt_label'] for i in map(after.get_data_info, range(len(after)))}
    everything = {i['img_path']: i['gt_label'] for i in map(before.get_data_info, range(len(before)))}
    bad = {entry['path'] for entry in found['bad']}
    assert kept == {path: label for path, label in everything.items() if path not in bad}
    assert len(kept) == 14


def test_files_are_not_overwritten_unasked(dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / 'list.txt'
    out.write_text('mine')
    args = [str(dirty), '--out', str(out)]
    assert run_tool('verify-dataset', args) == 2
    assert 'exists: pass --force' in capsys.readouterr().err
    assert out.read_text() == 'mine'
    assert run_tool('verify-dataset', [*args, '--force']) == 1
    assert run_tool('verify-dataset', [str(dirty), '--out', str(tmp_path / 'none' / 'a')]) == 2


def test_unlabelled_and_annotated_folders(tiny_annotated_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tiny_annotated_folder / 'train' / 'image 3.jpg').write_bytes(b'')
    clean = tmp_path / 'clean.txt'
    assert run_tool('verify-dataset', [str(tiny_annotated_folder), '--write-ann', str(clean)]) == 1
    assert 'image 4.jpg 0' in clean.read_text().splitlines()
    assert 'image 3.jpg' not in clean.read_text()
    (tiny_annotated_folder / 'meta' / 'train.txt').unlink()
    args = [str(tiny_annotated_folder), '--write-ann', str(clean), '--force']
    assert run_tool('verify-dataset', args) == 1
    assert 'labels are not read' in capsys.readouterr().err
    assert 'image 4.jpg' in clean.read_text().splitlines()


def test_wrong_arguments_are_one_line(tiny_image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for args in (['nowhere'], [str(tiny_image_folder), '--workers', '0'], [str(tiny_image_folder), '--split', 'test']):
        assert run_tool('verify-dataset', args) == 2
        assert capsys.readouterr().err.startswith('error: ')


def test_strictly_damage_that_decoders_paint_over_is_listed(tiny_image_folder: Path):
    path = tiny_image_folder / 'train' / 'a' / '1.jpg'
    data = path.read_bytes()
    path.write_bytes(data[:-300] + data[-2:])  # the end is there, and what comes before it isn't
    assert run_tool('verify-dataset', [str(tiny_image_folder)]) == 0
    assert run_tool('verify-dataset', [str(tiny_image_folder), '--strict']) == 1


def test_names_of_another_coding_are_written_as_they_are(tiny_image_folder: Path, tmp_path: Path):
    name = os.fsencode(tiny_image_folder / 'train' / 'a') + b'/\xe9t\xe9.jpg'
    with open(name, 'wb'):
        pass
    command = [sys.executable, '-m', 'ldae', 'verify-dataset', str(tiny_image_folder), '--workers', '1']
    done = subprocess.run(command, capture_output=True, env=dict(os.environ, PYTHONUTF8='1'))
    assert (done.returncode, done.stdout) == (1, name + b'\tis empty\n'), done.stderr
    out, listed = tmp_path / 'bad.txt', tmp_path / 'list.txt'
    arguments = ['--workers', '1', '--out', str(out), '--write-ann', str(listed)]
    assert run_tool('verify-dataset', [str(tiny_image_folder), *arguments]) == 1
    assert out.read_bytes() == done.stdout
    assert len(listed.read_text().splitlines()) == 16
