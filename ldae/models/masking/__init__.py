# SPDX-License-Identifier: Apache-2.0
from .random_masking import RandomMasking
