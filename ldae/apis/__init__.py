# SPDX-License-Identifier: Apache-2.0
"""What a newcomer calls from Python."""

from .models import get_model, list_models, load_config_of

__all__ = ['get_model', 'list_models', 'load_config_of']
