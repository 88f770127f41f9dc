# SPDX-License-Identifier: Apache-2.0
# The room is not called `report`: that is the public call, `ldae.report`.
from .reporting import Run, report, watch
