# SPDX-License-Identifier: Apache-2.0
from .accuracies import (
    accuracy_against_distance,
    accuracy_by_encoder,
    accuracy_by_row,
    accuracy_curves,
    accuracy_over_dimension,
    accuracy_over_share,
    road,
)
from .curves import bound_curves, embedding, explained_variance, loss_curve, loss_over_steps, noise_schedules
from .figures import (
    GREY,
    PALETTE,
    add_caption,
    denoising_grid,
    figure_to_array,
    filter_grid,
    filter_grids,
    image_columns,
    image_rows,
    reconstruction_grid,
    retrieval_grid,
    save_figure,
    segmentation_grid,
)
from .tiles import filters_to_uint8, heat, tile
