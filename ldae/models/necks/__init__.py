# SPDX-License-Identifier: Apache-2.0
from .ldae_decoder import LDAEDecoder
