# SPDX-License-Identifier: Apache-2.0
"""The results file: one JSON object a line, appended and never rewritten."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ldae.evaluation.protocol import Protocol
from ldae.utils.ranges import NaturalInt, Range, check_value

PERCENT = Annotated[float, Range(0, 100)]
#: What tables and pictures take of an entry.
SCORE = dict(row=str, config=str, knn=PERCENT, linear=PERCENT, timestep=NaturalInt | None, block=int | None)
SCORE |= dict(latent_dim=NaturalInt | None, tokenizer=str | None, at_edge=list[str] | None, versions=dict | None)
SCORE |= dict(pooling=str | None, held_out=PERCENT | None, seconds=dict | None, cost=dict | None, attentive=dict | None)
SECONDS = dict.fromkeys(('train', 'scoring'), Annotated[float, Range(0)] | None)
ATTENTIVE = dict(accuracy=PERCENT, held_out=PERCENT | None)
COST = dict(images=NaturalInt, gflop=Annotated[float, Range(0)])
GENERATION = dict(name=str, sampler=str, steps=NaturalInt, samples=NaturalInt, reference=NaturalInt)
GENERATION |= dict(frechet=Annotated[float, Range(-1e9, 1e30)])
#: Errors of what isn't as it should be.
WRONG = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
#: Where mmengine logs numbers, in the folder of a run: a folder for each time that it was started.
SCALARS = '*/vis_data/scalars.json'
#: The largest that float32, and so any loss or norm, can be; what is beyond it can't be drawn either.
LARGEST = float(np.finfo('float32').max)


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
        lines = self.path.read_text(errors='replace').splitlines() if self.path.is_file() else []
        return [entry for entry in map(_parse, lines) if entry is not None]

    def find(self, row: str, seed: int, config: str) -> dict | None:
        """The newest entry of a finished run; one with samples will do where none are asked for."""
        mine = [entry for entry in self.read() if (entry['row'], entry['seed']) == (row, seed)]
        found = [entry for entry in mine if config in hashes_of(entry)]
        return found[-1] if found else None


def without_samples(entry: dict) -> str:
    """The hash of all that the accuracies of an entry depend on."""
    return entry.get('without_samples') or entry['config']


def hashes_of(entry: dict) -> tuple[str, str]:
    """The hashes that an entry is found by: a result with samples will do where none are asked for."""
    return without_samples(entry), entry['config']


def _parse(line: str) -> dict | None:
    try:
        entry = json.loads(line)
        _check_score(entry, seed=int)
        if 'protocol' in entry:  # an earlier layout has none
            Protocol.of_dict(dict(k=None) | entry['protocol'])
    except WRONG:
        return None
    return entry


def _check_score(entry: dict, **more: Any) -> None:
    for name, hint in (SCORE | more).items():
        check_value(name, entry.get(name), hint)
    check_value('without_samples', entry.get('without_samples', ''), str)
    generation = entry.get('generation') or {}
    parts = [(generation, dict(reason=str) if 'reason' in generation else GENERATION), (entry.get('cost') or {}, COST)]
    parts.append((entry.get('seconds') or {}, SECONDS))
    parts += [(one, ATTENTIVE) for one in (entry.get('attentive') or {}).values()]
    for found, hints in parts:
        for name, hint in hints.items() if found else ():
            check_value(name, found.get(name), hint)


def read_scores(path: Path) -> list[dict]:
    """The scores that a job has left, or why a row has none; nothing if the file isn't there, or isn't of this kind."""
    try:
        scores = json.loads(path.read_text())
        for score in scores:
            if 'error' in score:
                for name in ('row', 'config', 'error'):
                    check_value(name, score.get(name), str)
            else:
                _check_score(score)
    except (FileNotFoundError, *WRONG):
        return []
    return scores


def read_log(run: Path) -> list[dict[str, float]]:
    """Numbers that a training has logged, by step, in all its parts, without those that float32 doesn't reach and lines that were cut
    short. Validations are among them, without their times, by the number that mmengine gives them: of epochs, where training counts these."""
    found: dict[tuple[int, bool], dict[str, float]] = {}  # a validation's number may be that of another step
    for line in (line for file in sorted(run.glob(SCALARS)) if file.is_file() for line in file.open(errors='replace')):
        try:
            entry = json.loads(line)
            numbers = {k: float(v) for k, v in entry.items() if isinstance(v, int | float) and abs(v) <= LARGEST}
            step = int(numbers['step'])
        except WRONG:
            continue
        if 'iter' not in numbers:
            numbers = {name: value for name, value in numbers.items() if name not in ('time', 'data_time')}
        found.setdefault((step, 'iter' in numbers), {}).update(numbers)
    return [found[key] for key in sorted(found)]
