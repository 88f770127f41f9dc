# SPDX-License-Identifier: Apache-2.0
"""Notes that a checkpoint holds beside its tensors, made safe before anything uses them: the file may be anybody's."""

import re
from typing import Any

from ldae.utils import ConfigError

STEP_FILE = 'iter_{}.pth'
#: Names of the checkpoints that training writes, and may delete.
OWN = re.compile(r'(?:epoch|iter|best)_[^/\\\0]*\.pth')


def is_own_file(name: Any) -> bool:
    """Whether a name is that of a checkpoint in the folder, as training gives them, and no path."""
    return isinstance(name, str) and OWN.fullmatch(name) is not None


def clean_checkpoint(content: Any, filename: str) -> None:
    """Take out of a checkpoint what mmengine would run or use as a path, in place.

    mmengine runs the text ``meta['config']`` when it resumes, and deletes the files that notes in ``message_hub`` name.

    Raises:
        ConfigError: It isn't a checkpoint.
    """
    if not isinstance(content, dict):
        raise ConfigError(f'{filename} is not a checkpoint of a model: name the .pth file that training wrote')
    if isinstance(meta := content.get('meta'), dict):
        meta.pop('config', None)
    hub = content.get('message_hub')
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    for key, value in dict(info).items() if isinstance(info, dict) else ():
        if key == 'keep_ckpt_ids':
            info[key] = [step for step in value if type(step) is int] if isinstance(value, list | tuple) else []
        elif key == 'step_checkpoint':
            info[key] = value if is_own_file(value) and value.startswith('iter_') else None
        elif isinstance(key, str) and key.startswith('best_ckpt'):
            name = re.split(r'[/\\]', value)[-1] if isinstance(value, str) else None
            info[key] = value if is_own_file(name) and name.startswith('best_') else None
