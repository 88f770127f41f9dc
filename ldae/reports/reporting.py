# SPDX-License-Identifier: Apache-2.0
"""A report on runs: one page that holds all it shows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldae.utils import ConfigError
from ldae.utils.files import atomic_write_text
from ldae.visualization import loss_over_steps

from .document import document, is_part, section
from .figures import draw_figures, figures
from .runs import RunFiles, find_runs
from .sources import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Different models whose operations are counted, of a report.
MOST_COUNTED = 100


class Run(RunFiles):
    """The folder of a training, a study, a comparison, a probe, samples; shows itself in a notebook. Attributes ``options``,
    ``changes``, ``facts``, ``log``, ``entries`` and ``notes`` are read when they are asked for. Raises ConfigError for a
    folder that isn't there or holds no run.

    Args:
        path: The folder; ``kind``: what to take it for, by default what it looks like.
    """

    def __init__(self, path: str | Path, kind: str | None = None) -> None:
        super().__init__(Path(path), kind or find_runs([path])[0].kind)

    def figures(self, names: Sequence[str] | None = None, images: Any = None, **options: Any) -> dict[str, Figure]:
        """Its figures, as of :func:`ldae.figures`."""
        return figures(self.path, names, images, **options)

    def _repr_html_(self) -> str:
        points = self.curves().get('loss') if self.is_trained else None
        if points:  # a notebook has no script to draw charts
            self.drawn['loss'] = _png(loss_over_steps({self.name: points}))
        return section(self)


def report(
    folders: Iterable[str | Path] | str | Path,
    out: str | Path = 'report.html',
    refresh: int | None = None,
    with_figures: bool = False,
) -> list[Run]:
    """Write a page on all runs in some folders and below: what was run, on what, curves, tables, pictures, what is missing.

    The page is a single file that asks for nothing. What runs leave is read as data; nothing in it is run.

    Args:
        folders: Work dirs of trainings, studies, comparisons, probes, samples, or folders of them.
        out: File to write, whole or not at all.
        refresh: Seconds after which an open page loads itself anew; None never does.
        with_figures: Draw the figures of each run that isn't a part of a study, too (:func:`ldae.figures`): seconds to a minute each.

    Returns:
        What was found.

    Raises:
        ConfigError: A folder that isn't there, or no run in any.
    """
    folders = [folders] if isinstance(folders, str | Path) else list(folders)
    runs = find_runs(folders, Run)
    models = [str([one for one in run.options.items() if one[0].startswith('model.')]) for run in runs]
    counted = list(dict.fromkeys(models))[:MOST_COUNTED]
    for run, model in zip(runs, models, strict=True):
        run.is_counted = model in counted
    for run in runs if with_figures else ():
        if not is_part(run, runs):
            run.drawn = _drawn(run)
    title = 'Report on ' + ', '.join(Path(folder).resolve().name for folder in folders)
    page = document(title, runs, refresh)
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(Path(out), page)
    except OSError as error:
        raise ConfigError(f'{out} cannot be written ({error.strerror}): name another file with --out') from error
    return runs


def _drawn(run: Run) -> dict[str, bytes]:
    """PNGs of a run's figures; what the page shows already, or hasn't to do with the run, is left out."""
    pictures = {}
    for name, figure in draw_figures(Source([run.path], None, 4, None, False), captions=True):
        if name not in ('schedules', 'loss') and not isinstance(figure, str):
            pictures[name] = _png(figure)
    return pictures


def _png(figure: Figure) -> bytes:
    figure.savefig(content := BytesIO(), format='png', bbox_inches='tight')
    return content.getvalue()


def watch(folders: Iterable[str | Path], out: str | Path, seconds: int, with_figures: bool = False) -> None:
    """Write the page anew every so many seconds, until it is interrupted."""
    while True:
        report(folders, out, seconds, with_figures)
        time.sleep(seconds)
