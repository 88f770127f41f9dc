# SPDX-License-Identifier: Apache-2.0
"""Where configs are."""

from pathlib import Path

from ldae.compat import PREFIX
from ldae.utils.errors import ConfigError, nearest
from ldae.utils.files import PACKAGE


def configs_root() -> Path:
    """The clone's ``configs/`` (also in an editable install), else those inside the installed package."""
    clone = PACKAGE.parent
    if (clone / 'configs' / 'ldae').is_dir() and (clone / 'setup.cfg').is_file():
        return clone / 'configs'
    return PACKAGE / '.mim' / 'configs'


def find_config(filename: str | Path) -> Path:
    """The file of a path, or of ``ldae::path`` below :func:`configs_root`; raise ConfigError if there is none."""
    name = str(filename)
    is_ours = name.startswith(PREFIX)
    path = configs_root() / name[len(PREFIX) :] if is_ours else Path(name).expanduser()
    if path.is_file():
        return path
    if is_ours:
        known = [PREFIX + file.relative_to(configs_root()).as_posix() for file in configs_root().rglob('*.py')]
        raise ConfigError(f'config {name} does not exist in {configs_root()}{nearest(name, known)}')
    siblings = [str(file) for file in path.parent.glob('*.py')] if path.parent.is_dir() else []
    raise ConfigError(f'config {name} does not exist{nearest(name, siblings)}')
