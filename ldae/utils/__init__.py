# SPDX-License-Identifier: Apache-2.0
from .errors import ConfigError, check_choice, check_range
from .precision import full_precision

__all__ = ['ConfigError', 'check_choice', 'check_range', 'full_precision']
