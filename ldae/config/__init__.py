# SPDX-License-Identifier: Apache-2.0
"""Configs: where they are, how they are read and scaled, and what is wrong with them."""

from ldae.utils.lazy import lazy_names

_OWNERS = dict(
    apply_scale='ldae.config.scale',
    configs_root='ldae.config.paths',
    find_config='ldae.config.paths',
    list_rows='ldae.config.rows',
    load_config='ldae.config.loading',
    pipeline_of='ldae.config.reading',
    set_data_root='ldae.config.reading',
    walk_dicts='ldae.config.reading',
)
__all__ = list(_OWNERS)
__getattr__, __dir__ = lazy_names(__name__, _OWNERS)
