# SPDX-License-Identifier: Apache-2.0
"""Write docs/how_long.md: how long trainings and scores took, by the results that are kept in docs/results.

    python benchmarks/how_long.py

Nothing is run. A line is made of finished runs of one commit on one machine; other work on that machine is in the seconds. Results
of another machine, put into a folder of docs/results, get lines of their own.
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from ldae.utils.files import atomic_write_text
from ldae.utils.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'how_long.md'
#: What isn't a training: its seconds are those of the one beside it.
NOT_TRAINED = ('pixels', 'latents', 'untrained')
INTRO = """\
# How long it takes, as measured

Wall-clock time of finished runs whose results are kept in [results](rows_and_results.md), each on one thread, beside other work: a quiet
machine is faster. Median, and the least and most of all; `where` is a line of the list below. In `generation`, scoring has samples and
their distance in it. The demo, the tests, and what follows for your images:
[where time goes](performance.md#where-time-goes).

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
        place = places.setdefault(f'{device}, torch {torch}, commit `{commit}`', len(places) + 1)
        lines.append([what, folder, str(epochs), images, str(len(same)), *spans, str(place)])
    return lines, list(places)


def span(seconds: list[float]) -> str:
    """The median, the least and the most."""
    least, middle, most = min(seconds), median(seconds), max(seconds)
    return f'{middle:.0f} s' if len(seconds) == 1 else f'{middle:.0f} s ({least:.0f} to {most:.0f})'


def page() -> str:
    """The page, from what is kept."""
    lines, places = table(runs())
    listed = ''.join(f'{number}. {place}\n' for number, place in enumerate(places, 1))
    return INTRO + markdown_table(lines, 2) + '\n\n' + listed + NOTES


if __name__ == '__main__':
    atomic_write_text(PAGE, page())
    print(f'wrote {PAGE.relative_to(ROOT)}')
