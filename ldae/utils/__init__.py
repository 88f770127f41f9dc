# SPDX-License-Identifier: Apache-2.0
from .errors import ConfigError, TrainingStopped, check_choice, check_range

__all__ = ['ConfigError', 'TrainingStopped', 'check_choice', 'check_range']
