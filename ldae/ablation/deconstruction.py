# SPDX-License-Identifier: Apache-2.0
"""Rows of the paper's tables at a small scale or the paper's, scored, beside the paper's figures."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from mmengine.config import Config

from ldae.config import list_rows, load_config
from ldae.config.rows import Row
from ldae.config.scale import PAPER, find_scale
from ldae.launch.batch import whole_batch
from ldae.utils import Choice, ConfigError, check_range
from ldae.utils.errors import nearest

from .jobs import SCORING, Job, Pretraining, Quick, Scoring, plan
from .report import Summary, row_table, summarise, write_report
from .study import Outcome, Study, checked_seeds

#: Of an l-DAE's features: noisy images are noised to the time step.
Input = Annotated[str, Choice('clean', 'noisy')]


def ablate(
    rows: Sequence[str],
    scale: str | Path,
    seeds: Sequence[int] = (0,),
    work_dir: str | Path = 'work_dirs/ablation',
    data_root: str | None = None,
    cfg_options: dict | None = None,
    timesteps: Sequence[int] | None = None,
    inputs: Sequence[Input] | None = None,
    epochs: int | None = None,
    scoring: Scoring = SCORING,
    quick: bool = False,
    command: str = 'ldae.ablate',
    **options: Any,
) -> Outcome:
    """Pre-train rows of the paper's tables at a scale, score them, and write ``results.jsonl``, ``table.md`` and pictures.

    Finished runs are left out, begun ones resumed, and a row that fails stops no other. Raises ConfigError for an
    unknown row or scale, or what no row could be run with.

    Args:
        rows: Names in ``configs/deconstruction`` or ``configs/after_paper``, globs of names, or tables such as ``'table3'``.
        scale: A name in ``configs/scales``, or a file; ``'paper'`` is the paper's own, with its batch whatever the processes.
        seeds: Of pre-training and scoring, one run each.
        work_dir: Runs go to ``<work_dir>/<scale>/<row>/seed<k>``.
        data_root, cfg_options: Instead of the scale's, for all rows.
        timesteps, inputs: Candidates instead of the scale's, and of ``'clean'`` and ``'noisy'`` images, for rows that name no time step
            of their own.
        epochs: At a scale, what becomes of the paper's 400 instead of the scale's; other lengths and warm-up in proportion.
        quick: A few images and epochs, to see everything run.
        command: What the table says it was written by.
        options: Of :class:`Study`: ``jobs``, ``force``, ``device``, ``executor``, ...
    """
    seeds, all_rows = checked_seeds(seeds), list_rows()
    selected = select_rows(rows, all_rows)
    if scoring.sampling is not None:
        scoring.sampling.check()
    is_paper = scale == PAPER
    name = (PAPER if is_paper else find_scale(scale).stem) + ('-quick' if quick else '')
    if epochs is not None:
        check_range('--epochs', epochs, 1, kind=int)
        if is_paper:
            raise ConfigError("--epochs is for a small scale: the rows epochs_* are the paper's lengths")
    study = Study(Path(work_dir) / name, name, **options)

    def load(path: Path) -> Config:
        cfg = load_config(path, cfg_options, scale, data_root, epochs)
        if is_paper:
            whole_batch(cfg)
        names_none = 'timesteps' in cfg or is_paper and 'timestep' not in cfg.model.get('backbone', {'timestep': None})
        if timesteps and names_none:
            cfg.timesteps = list(timesteps)
        if inputs and names_none:
            cfg.inputs = list(inputs)
        return study.in_precision(cfg)

    def report() -> list[Summary]:
        summaries = summarise(all_rows, study.entries())
        if not summaries:
            return []
        found = {summary.row for summary in summaries}
        missing = {row: why for row in selected if row not in found and (why := what_it_needs(row))}
        written = write_report(study.root, summaries, name, command, missing)
        mine = [summary for summary in summaries if summary.row in selected]
        print(f'\n{row_table(mine)}\n\nWrote {", ".join(path.name for path in written)} to {study.root}', flush=True)
        return mine

    return study.run(lambda: plan_jobs(selected, seeds, study.root, load, quick, scoring), report)


def what_it_needs(row: Row) -> str | None:
    """Why a row is often without a result: the perceptual loss of its tokenizer wants weights that nobody may have."""
    tokenizer = load_config(row.path).model.tokenizer
    return 'needs VGG' if 'lpips' in str(tokenizer.get('checkpoint')) else None


def plan_jobs(
    rows: Sequence[Row],
    seeds: Sequence[int],
    root: Path,
    load: Callable[[Path], Config],
    quick: bool | Quick = False,
    scoring: Scoring = SCORING,
) -> list[Job]:
    """The jobs of some rows; ``load`` reads a row's or tokenizer's config and brings it to the scale."""
    pretrainings = (Pretraining(row.name, load(row.path), [(row.name, 'trained')]) for row in rows)
    return plan(pretrainings, seeds, root, load, quick, scoring)


def select_rows(patterns: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The rows that any pattern (a name, a glob of names, or the name of a table) names, once each, in the order of
    ``rows``, which are all there are. Raises ConfigError if a pattern names nothing."""
    chosen = set()
    for pattern in patterns:
        found = {row.name for row in rows if row.table == pattern or fnmatchcase(row.name, pattern)}
        if not found:
            known = [row.name for row in rows] + list(dict.fromkeys(row.table for row in rows))
            raise ConfigError(f"no row or table is called '{pattern}'{nearest(pattern, known)}")
        chosen |= found
    return [row for row in rows if row.name in chosen]
