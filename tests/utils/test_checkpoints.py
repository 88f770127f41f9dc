# SPDX-License-Identifier: Apache-2.0
import os
import zipfile
from pathlib import Path

import pytest
import torch

from ldae.cli import run_tool
from ldae.utils import ConfigError
from ldae.utils.checkpoints import name_of_run, names_of_runs, read_checkpoint


@pytest.mark.parametrize(
    ('config', 'library'),
    [('{"architecture": "vit"}', 'timm'), ('{"architecture": "vit", "model_type": "timm_wrapper"}', 'transformers')],
)
def test_the_folder_of_an_export_is_told_from_a_checkpoint(config, library, tmp_path, capsys):
    (tmp_path / 'exported').mkdir()
    (tmp_path / 'exported' / 'config.json').write_text(config)
    command = [str(tmp_path / 'exported'), str(tmp_path), '--out', str(tmp_path / 'a.png')]
    assert run_tool('denoise', command) == 2
    assert f'is an encoder exported for another library ({library})' in capsys.readouterr().err


def test_an_onnx_file_is_told_from_a_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match=r'exported for another library \(ONNX\)'):
        read_checkpoint(tmp_path / 'vit.onnx')


def test_a_folder_names_its_newest_checkpoint(tmp_path):
    for age, name in enumerate(['tokenizer_ab.pth', 'epoch_3.pth', 'epoch_2.pth']):
        torch.save({}, tmp_path / name)
        os.utime(tmp_path / name, (100 - age, 100 - age))
    with pytest.raises(ConfigError, match=r'is a folder: name a .pth file that training wrote, such as .*epoch_3\.pth'):
        read_checkpoint(tmp_path)


def flip(path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_each_bit_of_a_tensor_counts(tmp_path):
    path = tmp_path / 'a.pth'
    weight = torch.linspace(1, 2, 8)
    torch.save(dict(state_dict=dict(weight=weight)), path)
    place = path.read_bytes().index(weight.numpy().tobytes())
    for number in range(8 * 32):
        flip(path, place + number // 8, number % 8)
        assert not torch.equal(torch.load(path)['state_dict']['weight'], weight)  # torch reads it all the same
        with pytest.raises(ConfigError, match="a.pth is damaged: 'a/data/0' in it is not as it was written"):
            read_checkpoint(path)
        flip(path, place + number // 8, number % 8)
    assert torch.equal(read_checkpoint(path)['state_dict']['weight'], weight)


def test_files_that_torch_wrote_without_checksums_and_not_as_zip_are_read(tmp_path):
    options = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(state_dict=dict(a=torch.ones(3))), tmp_path / 'bare.pth')
    finally:
        torch.serialization.set_crc32_options(options)
    torch.save(dict(state_dict=dict(a=torch.ones(3))), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    for name in ('bare.pth', 'old.pth'):
        assert torch.equal(read_checkpoint(tmp_path / name)['state_dict']['a'], torch.ones(3))


def test_what_is_compressed_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', bytes(1_000_000))
    with pytest.raises(ConfigError, match=r'was not written by torch\.save'):
        read_checkpoint(tmp_path / 'a.pth')


def test_runs_of_one_name_are_told_apart_by_the_folders_above():
    folders = [
        Path(path)
        for path in ('/a/x/vit', '/b/x/vit', '/b/mae', '/c/row/seed0', '/d/row/seed0', '/c/row/seed1', '/vit')
    ]
    names = ['a_x_vit', 'b_x_vit', 'mae', 'c_row_seed0', 'd_row_seed0', 'row_seed1', 'vit']
    assert names_of_runs(folders) == dict(zip(folders, names, strict=True))
    assert name_of_run('/c/row/seed0/epoch_4.pth') == 'row_seed0_epoch_4'
