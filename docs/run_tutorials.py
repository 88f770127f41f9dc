# SPDX-License-Identifier: Apache-2.0
"""Run the code of the tutorials, each in a process and a folder of its own: ``make tutorials``.

Prints a line for each, with its time; ends in status 1 where one fails. ``--quick`` takes the small amounts that a tutorial's
head names for the variables of its cell of parameters.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

TUTORIALS = Path(__file__).parent / 'tutorials'
HEAD = re.compile(r'\A---\n(.*?)^---$', re.DOTALL | re.MULTILINE)
CELL = re.compile(r'^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```$', re.DOTALL | re.MULTILINE)
#: What Python is called with: as in a notebook, the cells share their names.
RUN = """
import json, sys
cells, quick = json.load(open(sys.argv[1]))
names = {'__name__': '__main__'}
for number, (code, is_parameters) in enumerate(cells, 1):
    exec(compile(code, f'cell {number}', 'exec'), names)
    if is_parameters:
        names.update(quick)
"""


def head_of(path: Path) -> dict[str, Any]:
    """What a tutorial says of itself before its first line."""
    head = HEAD.match(path.read_text())
    return yaml.safe_load(head[1]) if head else {}


def cells_of(path: Path) -> list[tuple[str, bool]]:
    """Code of each cell, and whether it holds the parameters."""
    return [(code, 'parameters' in options) for options, code in CELL.findall(path.read_text())]


def cpu_seconds() -> float:
    """Processor time of all processes that were started here and have ended, and of those that they have waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(path: Path, quick: bool = False) -> tuple[int, str]:
    """Exit status and output of a tutorial's code."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder, '.cells.json')
        code.write_text(json.dumps([cells_of(path), head_of(path).get('quick', {}) if quick else {}]))
        done = subprocess.run(
            [sys.executable, '-c', RUN, code.name],
            cwd=folder,
            env=dict(os.environ, MPLBACKEND='agg'),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return done.returncode, done.stdout


def main() -> int:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {path.stem: path for path in sorted(TUTORIALS.glob('*.md')) if path.stem != 'index'}
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(known)} (all)')
    parser.add_argument('--quick', action='store_true', help='small amounts, to see that all of it runs')
    parser.add_argument('--verbose', action='store_true', help='show what they print')
    args = parser.parse_args()
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f'there is no tutorial {unknown.pop()!r}: there are {", ".join(known)}')
    failed = 0
    for name in args.names or known:
        begin, used = time.perf_counter(), cpu_seconds()
        status, said = run(known[name], args.quick)
        seconds = f'{time.perf_counter() - begin:.0f} s, {cpu_seconds() - used:.0f} s of the processor'
        print(f'{name}: {"ran" if status == 0 else "FAILED"} in {seconds}', flush=True)
        if status or args.verbose:
            print(said, flush=True)
        failed += status != 0
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
