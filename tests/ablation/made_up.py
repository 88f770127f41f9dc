# SPDX-License-Identifier: Apache-2.0
"""Rows and results that nobody has measured."""

from pathlib import Path

from ldae.config.rows import Row
from ldae.evaluation.protocol import PROTOCOL


def make_row(name: str, table: str = 'table3', linear: float | None = 60.0, fid: float | None = None) -> Row:
    """A row without a file."""
    return Row(name, Path(f'{name}.py'), table, f'label of {name}', f'about {name}', linear, fid)


def make_entry(row: str, seed: int, linear: float, config: str = 'c', **changes) -> dict:
    """A line of the results file."""
    return (
        dict(
            row=row,
            seed=seed,
            config=config,
            knn=linear - 1,
            linear=linear,
            latent_dim=8,
            tokenizer='PatchPCATokenizer',
            timestep=10,
            protocol=PROTOCOL.as_dict(),
            device='a machine',
            commit='abc',
            versions=dict(torch='2.0'),
        )
        | changes
    )
