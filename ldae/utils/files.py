# SPDX-License-Identifier: Apache-2.0
from pathlib import Path


def write_text_whole(path: Path, text: str) -> None:
    """Write a small file that is at every moment the old one or the new one."""
    unfinished = path.with_name(f'.{path.name}.unfinished')
    unfinished.write_text(text)
    unfinished.replace(path)
