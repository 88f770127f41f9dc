# SPDX-License-Identifier: Apache-2.0
"""The results file: one JSON object a line, appended and never rewritten."""

import json
import os
from pathlib import Path


class ResultsFile:
    """``results.jsonl``. Each entry is one row with one seed under one config; the last of several counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict) -> None:
        """Add a line in one write, so that a killed process leaves it whole or absent."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(entry) + '\n'
        with self.path.open('ab+') as file:
            if file.tell() and not self._ends_in_newline(file):
                line = '\n' + line  # what a full disk cut short must not swallow this entry too
            os.write(file.fileno(), line.encode())
            os.fsync(file.fileno())

    @staticmethod
    def _ends_in_newline(file) -> bool:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b'\n'

    def read(self) -> list[dict]:
        """All entries in order of time; lines that were cut short are left out."""
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        return [entry for entry in map(_parse, lines) if entry is not None]

    def find(self, row: str, seed: int, config: str) -> dict | None:
        """The entry of a finished run."""
        wanted = (row, seed, config)
        found = [e for e in self.read() if (e['row'], e['seed'], e['config']) == wanted]
        return found[-1] if found else None


def _parse(line: str) -> dict | None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None
