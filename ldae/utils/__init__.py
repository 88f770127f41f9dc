# SPDX-License-Identifier: Apache-2.0
from .errors import ConfigError, TrainingStopped, check_choice, check_range
from .ranges import Choice, NaturalInt, PositiveInt, Range, Seed, Share, checked
