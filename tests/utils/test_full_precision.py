# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from ldae.utils.device import full_precision


@pytest.mark.parametrize('precision', ['highest', 'high'])
def test_on_a_gpu_neither_products_nor_convolutions_are_tf32_and_settings_come_back(precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with full_precision(torch.device('cuda')):
            assert torch.get_float32_matmul_precision() == 'highest'
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
