# SPDX-License-Identifier: Apache-2.0
"""Configs: where they are, how they are read and scaled, and what is wrong with them."""

from ldae.utils.optional import lazy_names

_OWNERS = {
    'ldae.config.loading': ('load_config',),
    'ldae.config.reading': ('configs_root', 'find_config', 'pipeline_of', 'set_data_root', 'walk_dicts'),
    'ldae.config.rows': ('list_rows',),
    'ldae.config.scale': ('apply_scale',),
}
__all__ = sorted(name for names in _OWNERS.values() for name in names)
__getattr__, __dir__ = lazy_names(__name__, _OWNERS)
