# SPDX-License-Identifier: Apache-2.0
"""Write docs/how_long.md: how long trainings and scores took, by the results that are kept in docs/results.

    python benchmarks/how_long.py
    python benchmarks/how_long.py --measure        # time the tools first: the demo, and what is done with its encoder

Nothing is run without --measure. A line is made of finished runs of one commit on one machine; other work on that machine is in the
seconds. Results of another machine, put into a folder of docs/results, get lines of their own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from ldae.utils import provenance
from ldae.utils.files import atomic_write_text
from ldae.utils.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'how_long.md'
#: What --measure found.
TOOLS = ROOT / 'docs' / 'results' / 'how_long.jsonl'
#: Commands that are timed, one after the other in one folder.
COMMANDS = (
    'train --help',
    'demo --work-dir demo',
    'probe demo/ldae/seed0/epoch_10.pth --timesteps 10 300 --max-train-images 2000 --work-dir probed',
    'sample demo/ldae/seed0/epoch_10.pth --num 256 --steps 25 --out samples',
    'export demo/ldae/seed0/epoch_10.pth --to timm --out vit',
    'export demo/ldae/seed0/epoch_10.pth --to onnx --out vit.onnx',
    'figures --all demo/ldae/seed0 --out figures',
    'report demo --out report.html',
)
#: What isn't a training: its seconds are those of the one beside it.
NOT_TRAINED = ('pixels', 'latents', 'untrained')
INTRO = """\
# How long it takes, as measured

Wall-clock time of finished runs whose results are kept in [results](rows_and_results.md), each on one thread, beside other work: a quiet
machine is faster. Median, and the least and most of all; `where` is a line of the list below. In `generation`, and in lines 3 and 4 of
`after_paper`, scoring has samples and their distance in it. The demo, the tests, and what follows for your images:
[where time goes](performance.md#where-time-goes).

"""
COMMANDED = """
Whole commands, from the start of Python to its end, one thread each; the time of a processor is what other work doesn't lengthen much:

"""
NOTES = """
Lines of a GPU are missing: nothing in the results was run on one. What it would cost there by published figures:
[clusters](clusters.md); the commands to measure it: [on a GPU](performance.md#on-a-gpu). Written by `python benchmarks/how_long.py`.
"""


def runs() -> list[dict[str, Any]]:
    """Finished trainings of all kept results, with the folder of each."""
    found = []
    for file in sorted((ROOT / 'docs' / 'results').glob('*/results.jsonl')):
        for line in file.read_text().splitlines():
            run = json.loads(line)
            if 'row' in run and run['seconds'].get('train') and not run['row'].endswith(NOT_TRAINED):
                found.append(dict(run, folder=file.parent.name))
    return found


def table(found: list[dict[str, Any]]) -> tuple[list[list[str]], list[str]]:
    """A line for each kind of run, machine and commit; the machines and commits that lines name by number."""
    groups = defaultdict(list)
    for run in found:
        # Rows of an ablation differ in what they learn, methods of a comparison in what they cost.
        what = run['row'] if run['scale'] == 'the configs' else 'a row of the paper'
        groups[what, run['epochs'], run['folder'], run['device'], run['commit'], run['versions']['torch']].append(run)
    lines = [['what', 'results', 'epochs', 'images', 'runs', 'training', 'scoring', 'where']]
    places: dict[str, int] = {}
    for (what, epochs, folder, device, commit, torch), same in sorted(groups.items(), key=lambda item: item[0]):
        spans = [span([run['seconds'].get(kind) or 0.0 for run in same]) for kind in ('train', 'scoring')]
        images = f'{same[0]["images"]["train_images"]:,}'
        place = places.setdefault(place_of(device, torch, commit), len(places) + 1)
        lines.append([what, folder, str(epochs), images, str(len(same)), *spans, str(place)])
    return lines, list(places)


def span(seconds: list[float]) -> str:
    """The median, the least and the most."""
    least, middle, most = min(seconds), median(seconds), max(seconds)
    return f'{middle:.0f} s' if len(seconds) == 1 else f'{middle:.0f} s ({least:.0f} to {most:.0f})'


def measure() -> list[dict[str, Any]]:
    """What each of the commands takes, run in a folder that is then deleted."""
    where = dict(device=provenance.device(), commit=provenance.commit(), torch=provenance.versions()['torch'])
    found = []
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            start, before = time.perf_counter(), os.times()
            subprocess.run([sys.executable, '-m', 'ldae', *command.split()], cwd=folder, env=environment, check=True)
            seconds, after = time.perf_counter() - start, os.times()
            used = sum(after[2:4]) - sum(before[2:4])  # user and system time of ended children, theirs too
            found.append(dict(command=command, seconds=round(seconds, 1), processor=round(used, 1), **where))
    return found


def commands() -> tuple[list[list[str]], list[str]]:
    """A line for each command that was timed; the machines and commits they name."""
    lines, places = [['command', 'processor', 'wall clock', 'where']], {}
    for run in map(json.loads, TOOLS.read_text().splitlines()):
        place = place_of(run['device'], run['torch'], run['commit'])
        number = places.setdefault(place, chr(ord('a') + len(places)))
        lines.append([f'`ldae {run["command"]}`', f'{run["processor"]:.0f} s', f'{run["seconds"]:.0f} s', number])
    return lines, [f'{number}: {place}' for place, number in places.items()]


def place_of(device: str, torch: str, commit: str) -> str:
    return f'{device}, torch {torch}, commit `{commit}`'


def page() -> str:
    """The page, from what is kept."""
    lines, places = table(runs())
    listed = ''.join(f'{number}. {place}\n' for number, place in enumerate(places, 1))
    timed, machines = commands()
    listed += COMMANDED + markdown_table(timed, 1) + '\n\n' + '\n'.join(f'* {machine}' for machine in machines) + '\n'
    return INTRO + markdown_table(lines, 2) + '\n\n' + listed + NOTES


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--measure', action='store_true', help='time the tools first: minutes')
    if parser.parse_args().measure:
        timed, kept = measure(), map(json.loads, TOOLS.read_text().splitlines())
        others = [run for run in kept if any(run[key] != timed[0][key] for key in ('device', 'torch', 'commit'))]
        atomic_write_text(TOOLS, ''.join(json.dumps(run) + '\n' for run in others + timed))
    atomic_write_text(PAGE, page())
    print(f'wrote {PAGE.relative_to(ROOT)}')
