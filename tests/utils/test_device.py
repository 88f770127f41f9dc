# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmengine.device import get_device

from ldae.utils import ConfigError, device
from ldae.utils.device import autocast, choose_precision, find_device, has_bf16, use_device


@pytest.fixture
def machine(monkeypatch):
    """Lets the CPU have bf16 or not, and the GPU be of a generation."""

    def machine(cpu_has_bf16: bool = True, generation: int = 8) -> None:
        monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: cpu_has_bf16, raising=False)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (generation, 0))

    return machine


@pytest.mark.parametrize('has', [True, False])
def test_auto_is_bf16_where_the_cpu_has_it(machine, has):
    machine(cpu_has_bf16=has)
    assert has_bf16('cpu') is has
    assert choose_precision('auto', 'cpu') == ('bf16' if has else 'fp32')
    assert choose_precision('bf16', 'cpu') == 'bf16'  # slow, but asked for


@pytest.mark.parametrize(('generation', 'found'), [(7, 'fp32'), (8, 'bf16'), (9, 'bf16')])
def test_auto_is_bf16_from_ampere_on(machine, generation, found):
    machine(generation=generation)
    assert choose_precision('auto', 'cuda') == found
    assert choose_precision('fp16', 'cuda') == 'fp16'


def test_an_untested_device_computes_in_float32_unless_told_otherwise():
    assert choose_precision('auto', 'mps') == 'fp32'


@pytest.mark.parametrize('name', ['cpu', 'mps'])
def test_fp16_needs_a_gpu(name):
    with pytest.raises(ConfigError, match='fp16 needs device cuda: take auto'):
        choose_precision('fp16', name)


@pytest.mark.parametrize(
    ('precision', 'dtype'), [(None, torch.float32), ('fp32', torch.float32), ('bf16', torch.bfloat16)]
)
def test_products_are_computed_in_the_precision(precision, dtype):
    with autocast(precision, 'cpu'):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


def test_auto_takes_a_gpu_but_no_untested_device(monkeypatch):
    for found, expected in dict(cuda='cuda', cpu='cpu', mps='cpu').items():
        monkeypatch.setattr(device, 'FOUND', found)
        assert find_device() == find_device(None) == expected


def test_a_device_that_is_not_there_is_one_line():
    for name in ('tpu9', *(() if torch.cuda.is_available() else ('cuda',))):
        with pytest.raises(ConfigError, match=f"device '{name}' can't be used: ") as error:
            find_device(name)
        assert '\n' not in str(error.value)


def test_runners_compute_where_they_are_told(monkeypatch):
    monkeypatch.setattr('mmengine.device.utils.DEVICE', 'cuda')
    assert use_device('cpu') == get_device() == 'cpu'
