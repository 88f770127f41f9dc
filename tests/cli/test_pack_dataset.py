# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from ldae.cli import run_tool
from ldae.datasets import PackedImages


def run(*arguments: object) -> int:
    return run_tool('pack-dataset', ['--workers', '1', *map(str, arguments)])


def test_a_folder_is_packed_checked_and_read(tiny_image_folder: Path, tmp_path: Path, capsys):
    out = tmp_path / 'out'
    for split in ('train', 'val'):
        assert run(tiny_image_folder, '--out', out, '--split', split, '--edge', 32) == 0
        assert run('--out', out, '--split', split, '--verify') == 0
    assert [len(PackedImages(str(out), split)) for split in ('train', 'val')] == [16, 8]
    err = capsys.readouterr().err
    assert '16 images, 0.00 GB' in err
    assert 'all is as it was written' in err
    names = out / 'train' / 'shard-00000' / 'names.json'
    names.write_text(names.read_text()[::-1])
    assert run('--out', out, '--verify') == 1
    captured = capsys.readouterr()
    assert captured.out == f'{names} is damaged\n'
    assert 'pack again' in captured.err


def test_bad_images_are_listed(tiny_annotated_folder: Path, tmp_path: Path, capsys):
    (tiny_annotated_folder / 'train' / 'image 3.jpg').unlink()
    options = [tiny_annotated_folder, '--out', tmp_path / 'out', '--crop', 'none', '--max-bad', 0.1]
    assert run(*options) == 0
    captured = capsys.readouterr()
    assert captured.out == 'image 3.jpg\tdoes not exist\n'
    assert 'left out: 1 of 16 images' in captured.err


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['{out}/none'], 'is not a folder'),
        ([], 'which folder?'),
        (['{images}', '--edge', '0'], 'edge=0 is out of range'),
        (['{images}', '--workers', '0'], 'num_workers=0'),
        (['{images}', '--out', '{images}/new'], 'lies in the folder of the images'),
        (['{images}', '--crop', 'none', '--format', 'uint8'], "needs format='jpeg'"),
        (['--verify'], 'holds no packed images'),
        (['{images}', '--max-bad', '2'], 'max_bad=2.0 is out of range'),
    ],
)
def test_wrong_input_is_one_line(tiny_image_folder: Path, tmp_path: Path, arguments, line, capsys):
    places = dict(images=tiny_image_folder, out=tmp_path / 'out')
    words = ['--out', str(tmp_path / 'out'), *(word.format(**places) for word in arguments)]
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert [line in last and last.startswith('error: ') for last in err.splitlines()[-1:]] == [True]
