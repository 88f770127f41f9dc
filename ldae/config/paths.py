# SPDX-License-Identifier: Apache-2.0
"""Where configs are."""

from pathlib import Path

from ldae.compat import PREFIX
from ldae.utils.errors import ConfigError, nearest
from ldae.utils.files import PACKAGE

PARTS_OF_CONFIGS = ('_base_', 'scales')


def configs_root() -> Path:
    """The clone's ``configs/`` (also in an editable install), else those inside the installed package."""
    clone = PACKAGE.parent
    if (clone / 'configs' / 'ldae').is_dir() and (clone / 'setup.cfg').is_file():
        return clone / 'configs'
    return PACKAGE / '.mim' / 'configs'


def list_configs() -> list[str]:
    """Names of the configs that describe runs, such as ``'ldae/vit-b_pca'``."""
    files = (path.relative_to(configs_root()) for path in sorted(configs_root().rglob('*.py')))
    return [path.with_suffix('').as_posix() for path in files if path.parts[0] not in PARTS_OF_CONFIGS]


def find_config(filename: str | Path) -> Path:
    """The file of a path; of a path below :func:`configs_root`, be it ``'ldae::ldae/vit-b_pca.py'`` or
    ``'configs/ldae/vit-b_pca.py'``; or of a name, or its last part, as :func:`list_configs` gives it. Raises
    ConfigError if there is none, or there are several."""
    name, root = str(filename), configs_root()
    path = Path(name).expanduser()
    for place in (
        (root / name.removeprefix(PREFIX),) if name.startswith(PREFIX) else (path, root.parent / name, root / name)
    ):
        if place.is_file():
            return place
    known, short = list_configs(), name.removeprefix(PREFIX)
    found = [full for full in known if short in (full, full.rpartition('/')[2])]
    if len(found) > 1:
        raise ConfigError(f'config {name} may be any of {", ".join(found)}: give the whole name')
    if found:
        return root / f'{found[0]}.py'
    if name.startswith(PREFIX):
        raise ConfigError(
            f'config {name} does not exist in {root}{nearest(name, [f"{PREFIX}{full}.py" for full in known])}'
        )
    siblings = [str(file) for file in path.parent.glob('*.py')] if path.parent.is_dir() else []
    last_parts = [full.rpartition('/')[2] for full in known]
    raise ConfigError(f'config {name} does not exist{nearest(name, [*siblings, *known, *last_parts])}')
