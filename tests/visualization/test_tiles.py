# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from ldae.utils import ConfigError
from ldae.visualization import filters_to_uint8, tile
from ldae.visualization.tiles import check_shown, shown


def test_tiles_go_row_by_row_with_a_gap():
    images = torch.arange(3).float().view(3, 1, 1, 1).expand(3, 1, 2, 2) * 10
    canvas = tile(images, num_columns=2)
    assert canvas.shape == (5, 5, 3)
    assert canvas.dtype == np.uint8
    assert canvas[0, 0].tolist() == [0, 0, 0]
    assert canvas[0, 3].tolist() == [10, 10, 10]
    assert canvas[3, 0].tolist() == [20, 20, 20]
    assert canvas[2].min() == canvas[3, 3].min() == 255  # the gap, and where there is no image


def test_colours_stay_and_values_are_clipped():
    image = torch.tensor([300.0, -5.0, 127.6]).view(1, 3, 1, 1)
    assert tile(image, 1)[0, 0].tolist() == [255, 0, 128]


def test_of_other_bands_the_first_are_shown():
    image = torch.tensor([10.0, 20, 30, 40, 50]).view(1, 5, 1, 1)
    assert tile(image, 1)[0, 0].tolist() == [10, 20, 30]
    assert tile(image[:, :2], 1)[0, 0].tolist() == [10, 10, 10]
    assert shown(image, [4, 0, 2]).flatten().tolist() == [50, 10, 30]
    for bands in ([0, 1], [0, 1, 5]):
        with pytest.raises(ConfigError, match='one band or three, of 0 to 4'):
            check_shown(bands, 5)
    with pytest.raises(ConfigError, match='expected'):
        tile(image[0], 1)


def test_filters_keep_channel_row_column_order_and_show_zero_as_grey():
    basis = torch.zeros(2, 12)
    basis[0, 3], basis[1, 4] = 2.0, -0.1  # channel 0 at (1, 1); channel 1 at (0, 0)
    filters = filters_to_uint8(basis, patch_size=2, in_channels=3)
    assert filters.shape == (2, 3, 2, 2)
    assert filters[0, 0, 1, 1] == 255
    assert filters[1, 1, 0, 0] == 0
    assert filters[0, 1].unique().tolist() == [127.5]


def test_a_basis_of_another_geometry_is_one_clear_line():
    with pytest.raises(ConfigError, match='rows of length 12 are not 1 x 2 x 2'):
        filters_to_uint8(torch.zeros(2, 12), patch_size=2, in_channels=1)
