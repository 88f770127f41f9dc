# SPDX-License-Identifier: Apache-2.0
from .accuracies import (
    accuracy_against_distance,
    accuracy_by_encoder,
    accuracy_by_row,
    accuracy_curves,
    accuracy_over_dimension,
)
from .figures import (
    denoising_grid,
    explained_variance,
    figure_to_array,
    filter_grid,
    image_rows,
    loss_curve,
    loss_over_steps,
    noise_schedules,
    reconstruction_grid,
    retrieval_grid,
    save_figure,
    segmentation_grid,
)
from .tiles import filters_to_uint8, tile
