# SPDX-License-Identifier: Apache-2.0
from .errors import ConfigError, TrainingStopped, check_choice, check_range
from .precision import full_precision

__all__ = ['ConfigError', 'TrainingStopped', 'check_choice', 'check_range', 'full_precision']
