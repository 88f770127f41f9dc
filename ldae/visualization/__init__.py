# SPDX-License-Identifier: Apache-2.0
from .ablations import accuracy_by_encoder, accuracy_by_row, accuracy_over_dimension
from .figures import (
    denoising_grid,
    explained_variance,
    figure_to_array,
    filter_grid,
    noise_schedules,
    reconstruction_grid,
    save_figure,
)
from .probes import accuracy_curves
from .tiles import filters_to_uint8, tile
