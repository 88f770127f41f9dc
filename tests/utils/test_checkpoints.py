# SPDX-License-Identifier: Apache-2.0
import os

import pytest
import torch

from ldae.cli import run_tool
from ldae.utils import ConfigError
from ldae.utils.checkpoints import read_checkpoint


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
