# SPDX-License-Identifier: Apache-2.0
# The room is not called `report`: that is the public call, `ldae.report`.
from .figures import FIGURES, Options, draw_figures, figures, save_figures
from .reporting import Run, report, watch
from .sources import Source
