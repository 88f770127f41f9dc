# SPDX-License-Identifier: Apache-2.0
"""The files that runs leave in their folders, read as data: nothing in them is run, and what is broken is said."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from ldae.ablation.cost import stored_operations
from ldae.ablation.generation import SAMPLES
from ldae.ablation.jobs import JOB_FILE
from ldae.ablation.results import SCALARS, ResultsFile, read_log
from ldae.config import configs_root
from ldae.config.reading import read_config
from ldae.config.stored import parse_config
from ldae.utils import ConfigError

#: What a folder is, by a file in it; the first that is there counts.
KINDS = {
    'comparison': 'comparison.json',
    'study': 'results.jsonl',
    'probe': 'probe.json',
    'benchmark': 'benchmark.json',
    'segmentation': 'segmentation.json',
    'samples': 'sampling.json',
}
STUDIES = ('study', 'comparison')
#: Pages that tools write beside their results.
PAGES = ('comparison.md', 'table.md', 'probe.md', 'segmentation.md')
#: Folders that hold no runs of their own.
SKIPPED = ('vis_data', 'vis_image', 'features', 'non_finite')
DEEPEST, MOST_RUNS, LARGEST = 4, 500, 1 << 26
#: Not options of a run, but words about it.
ABOUT = ('batch_arithmetic', 'chosen_precision', 'small_batch', 'fewer_workers', 'made_with', 'work_dir', 'launcher')
#: In the text of a config by which something was trained.
TRAINS = 'train_dataloader = dict('
#: Logged beside training, by its steps.
BY_STEP = ('health/', 'skipped_steps')
STALE = 600  # seconds without a line in the log


@dataclass
class RunFiles:
    """The folder of a training, a study, a probe or the like.

    Attributes:
        kind: 'training', or one of :data:`KINDS`.
        notes: What is missing, broken or stale, a line each.
        drawn: PNGs of figures, by name.
        is_counted: Whether its operations are counted, which takes a second.
    """

    path: Path
    kind: str
    notes: list[str] = field(default_factory=list)
    drawn: dict[str, bytes] = field(default_factory=dict)
    is_counted: bool = True

    @property
    def name(self) -> str:
        """The last two parts of the path."""
        return encodable('/'.join(self.path.resolve().parts[-2:]))

    @cached_property
    def options(self) -> dict[str, Any]:
        """The config by which it was trained, flat: ``{'model.backbone.arch': ...}``; nothing where there is none."""
        file = self.config_file
        if file is None:
            return {}
        try:
            return dict(flat(parse_config(_text(file))))
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            self.notes.append(f'{file.name} cannot be read as data ({" ".join(str(error).split())[:120]})')
            return {}

    @cached_property
    def config_file(self) -> Path | None:
        """The newest config that was written into the folder, of a training rather than of what tested it later."""
        found = [*self.path.glob('*.py'), *self.path.glob('*/vis_data/config.py')]
        found = [file for file in found if file.is_file() and file.name != 'auto_scale.py']
        order = {file: (TRAINS in _text(file), file.parent == self.path, file.stat().st_mtime) for file in found}
        return max(order, key=order.get, default=None)

    @property
    def config_name(self) -> str:
        """The name of that config, in the folder's own copy."""
        own = [file for file in self.path.glob('*.py') if file.name != 'auto_scale.py']
        file = self.config_file
        return file.stem if file in own or not own else max(own, key=lambda one: one.stat().st_mtime).stem

    @cached_property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Options that differ from the config of ldae that the run's is called after: (that one's, its own)."""
        bases = [] if self.config_file is None else sorted(configs_root().glob(f'*/{self.config_name}.py'))
        if len(bases) != 1:
            return {}
        base = dict(flat(read_config(bases[0]).to_dict()))
        return {
            key: (base.get(key), self.options.get(key))
            for key in sorted({*base, *self.options})
            if not key.startswith(ABOUT) and _plain(base.get(key)) != _plain(self.options.get(key))
        }

    @property
    def is_trained(self) -> bool:
        """Whether it is a training, or a benchmark that trains."""
        return self.kind == 'training' or self.kind == 'benchmark' and bool(self.log)

    @cached_property
    def log(self) -> list[dict[str, float]]:
        """Numbers that were logged, by step, as :func:`ldae.ablation.results.read_log` reads them."""
        return read_log(self.path)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Logged numbers, as points (step, value) by name."""
        names = dict.fromkeys(name for entry in self.log for name in entry if name not in ('step', 'iter', 'epoch'))
        return {name: [(int(e['step']), e[name]) for e in self.log if name in e] for name in names}

    @cached_property
    def _training(self) -> set[str]:
        """Names of the numbers that training logs at its steps."""
        return {name for entry in self.log if 'iter' in entry for name in entry}

    def axis_of(self, name: str) -> str:
        """The unit that the points of a curve are counted by: 'step', or 'epoch' of validations of a training by epochs."""
        by_epoch = 'epoch' in self._training and name not in self._training and not name.startswith(BY_STEP)
        return 'epoch' if by_epoch else 'step'

    @cached_property
    def facts(self) -> dict[str, str]:
        """Machine, versions and settings, how far it came, and what it cost."""
        facts = {'folder': str(self.path)}
        if self.kind == 'training':
            facts |= self._of_training()
        elif self.kind not in STUDIES:
            content = _read_json(self.path / KINDS[self.kind], self.notes)
            own = [(key, value) for key, value in flat(content) if not key.startswith(('protocol.', 'results'))]
            facts |= {key: shown(value) for key, value in own if value is not None}
            if self.is_trained:
                facts |= self._of_training()
        else:
            facts |= _made_with(self.entries)
        return facts

    def _of_training(self) -> dict[str, str]:
        made = {
            key.removeprefix('made_with.'): value for key, value in self.options.items() if key.startswith('made_with.')
        }
        facts = dict(made)
        words = {'batch_arithmetic': 'batch', 'chosen_precision': 'precision'}
        said = {word: str(self.options[key]) for key, word in words.items() if key in self.options}
        facts |= {word: text.removeprefix(f'{word} ') for word, text in said.items()}
        steps = [entry for entry in self.log if 'iter' in entry or 'epoch' in entry]  # validations have the step alone
        if steps:
            unit = 'epoch' if 'epoch' in steps[-1] else 'step'
            reached, total = (
                steps[-1][unit],
                self.options.get(f'train_cfg.max_{"iters" if unit == "step" else "epochs"}'),
            )
            total = total if isinstance(total, int | float) else None
            reach = f'{unit} {reached:,.0f}' + (f' of {total:,}' if total else '')
            facts['reached'] = reach + (f', step {steps[-1]["step"]:,.0f}' if unit == 'epoch' else '')
            # Of a step that is logged, whose gradients may be accumulated with those of others.
            batch = re.search(
                r'(\d{1,6}) x (\d{1,9}) x(?:.*, but (\d{1,9}) a)?', str(self.options.get('batch_arithmetic', ''))
            )
            if batch:
                images = steps[-1]['step'] * int(batch[1]) * int(batch[3] or batch[2])
                each = stored_operations(_text(self.config_file)) if self.config_file and self.is_counted else None
                facts |= {'images seen': f'{images:,.0f}', 'FLOP': f'{1e9 * images * each:.1e}' if each else '-'}
            facts['hours'] = f'{self._seconds() / 3600:.2f}'
            if total and reached < total and time.time() - self._last_change() > STALE:
                self.notes.append(f'stopped at {reach}: the same command with --resume goes on')
        else:
            self.notes.append('nothing was logged: it has not begun, or stopped before the first line')
        checkpoints = sorted(self.path.glob('*.pth'))
        if not checkpoints:
            self.notes.append('no checkpoint here')
        self.notes += [f'{file.name} is damaged, or cut short' for file in checkpoints if not _is_whole(file)]
        if self.config_file is None:
            self.notes.append('no config: what it was trained by cannot be told')
        return {key: shown(value) for key, value in facts.items()}

    def _seconds(self) -> float:
        """Of training: the logged time of a step, for the steps since the line before."""
        spent, before = 0.0, 0.0
        for entry in self.log:
            if 'time' in entry:
                spent += entry['time'] * (entry['step'] - before)
                before = entry['step']
        return spent

    def _last_change(self) -> float:
        return max((file.stat().st_mtime for file in self.path.glob(SCALARS)), default=0.0)

    @cached_property
    def entries(self) -> list[dict]:
        """Of a study: its results, a row and a seed each."""
        file = self.path / KINDS['study']
        found, lines = ResultsFile(file).read(), sum(map(bool, map(str.strip, _text(file).splitlines())))
        if lines > len(found):
            self.notes.append(f'{lines - len(found)} lines of {file.name} are not results, and left out')
        return found

    @property
    def page(self) -> str:
        """The Markdown page that a tool has written of it; '' if there is none."""
        found = [self.path / name for name in PAGES if (self.path / name).is_file()]
        if found and self.kind in STUDIES:
            results = self.path / KINDS['study']
            if results.is_file() and results.stat().st_mtime > found[0].stat().st_mtime + 1:
                self.notes.append(f'{found[0].name} is older than {results.name}: the tool writes it anew when it ends')
        return _text(found[0]) if found else ''

    @property
    def pictures(self) -> list[Path]:
        """PNG files of the folder and of the newest part of a training, newest last; hidden ones are unfinished."""
        found = [*self.path.glob('*.png'), *self.path.glob('*/vis_data/vis_image/*.png')]
        found = [f for f in found if f.is_file() and not f.is_symlink() and not f.name.startswith('.')]
        return sorted(found, key=lambda f: f.stat().st_mtime)


def find_runs(folders: Iterable[str | Path], of: type[RunFiles] = RunFiles) -> list[RunFiles]:
    """All runs in some folders and below, each an ``of``. Raises ConfigError for a folder that isn't there, or if there is none in any."""
    folders = [Path(folder) for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f'{folder} is not a folder: name the work dir of a run, or of several')
    found = list(
        {(run.path.resolve(), run.kind): run for folder in folders for run in _runs_below(folder, 0, of)}.values()
    )
    if not found:
        names = ', '.join(map(str, folders))
        raise ConfigError(
            f'{names}: no run is there: neither a log (*/vis_data), nor {", ".join(sorted(KINDS.values()))}'
        )
    return found[:MOST_RUNS]


def _runs_below(folder: Path, depth: int, of: type[RunFiles]) -> Iterator[RunFiles]:
    kind = next((kind for kind, name in KINDS.items() if (folder / name).is_file()), None)
    is_training = any(folder.glob('*/vis_data')) or (folder / 'last_checkpoint').is_file()
    if is_training and kind != 'benchmark':
        yield of(folder, 'training')
    if kind is not None:
        yield of(folder, kind)
    skipped = (*SKIPPED, SAMPLES) if (folder / JOB_FILE).is_file() else SKIPPED  # a study says what came of its samples
    for child in sorted(folder.iterdir()) if depth < DEEPEST else ():
        if child.is_dir() and not child.is_symlink() and child.name not in skipped and not child.name.startswith('.'):
            yield from _runs_below(child, depth + 1, of)


def flat(node: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all that isn't a dict in nested dicts and lists of dicts."""
    items: Iterable = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list | tuple) and any(isinstance(item, Mapping) for item in node):
        items = enumerate(node)
    if not items:
        if prefix:
            yield prefix, node
        return
    for key, value in items:
        yield from flat(value, f'{prefix}.{key}' if prefix else str(key))


def encodable(text: str) -> str:
    """A text with ? for what UTF-8 has no bytes for, as in names of files that aren't UTF-8."""
    return text.encode(errors='replace').decode()


def shown(value: Any) -> str:
    """A value in few characters."""
    text = f'{value:.6g}' if isinstance(value, float) else str(value)
    return text if len(text) <= 160 else f'{text[:157]}...'


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _made_with(entries: Sequence[dict]) -> dict[str, str]:
    """Machine, commit and versions of some results."""
    facts = {}
    for key in ('device', 'commit', 'scale'):
        facts[key] = ', '.join(sorted({str(entry[key]) for entry in entries if entry.get(key)}))
    versions = {f'{name} {value}' for entry in entries for name, value in (entry.get('versions') or {}).items()}
    return {key: value for key, value in (facts | {'versions': ', '.join(sorted(versions))}).items() if value}


def _is_whole(checkpoint: Path) -> bool:
    """Whether a file ends as torch writes it: as an archive, or in its old format, which doesn't tell."""
    try:
        with checkpoint.open('rb') as file:
            return file.read(1) == b'\x80' or is_zipfile(file)
    except OSError:
        return False


def _text(file: Path) -> str:
    """The content of a file of bounded size; '' if it isn't there."""
    if not file.is_file() or file.stat().st_size > LARGEST:
        return ''
    return file.read_text(errors='replace')


def _read_json(file: Path, notes: list[str]) -> dict:
    try:
        content = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        notes.append(f'{file.name} is damaged: {error}')
        return {}
    return content if isinstance(content, dict) else {}
