# SPDX-License-Identifier: Apache-2.0
"""The rows of the paper's tables, one config each in ``configs/deconstruction``, and those of what came after it, in
``configs/after_paper``: listed from their own docstrings."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from ldae.utils.errors import ConfigError, nearest

from .reading import configs_root

FOLDERS = ('deconstruction', 'after_paper')
#: The table of rows from other papers, whose docstrings name them as Source:, not as Paper:.
AFTER = 'after-paper'
#: Tables in the paper's order, what each varies.
TABLES = {
    'table1': 'From a Diffusion Transformer to a self-supervised one',
    'table2': 'Tokenizers and the dimension of their latents',
    'figure5': 'Noise on pixels instead of latents',
    'table3': 'From there to a denoising autoencoder; the last row has one noise level',
    'augmentation': 'Augmentation',
    'epochs': 'Length of training',
    'size': 'Size of the model',
    'table4': 'The final comparison, at the best time step and input',
    'latent-norm': 'Scale of the latents',
    'loss-weight': 'Loss weight of a noise level',
    'target': 'Target at the end of the road',
    'decoder': 'Depth and width of the decoder',
    'basis': 'Bases that need no training',
    'labels': 'Class labels on latents of a PCA',
    'ema': 'Average of the weights',
    'optimizer': 'Betas of Adam',
    'kl-weight': 'Patch-wise VAE with the KL weight that is printed',
    'appendix-a-timestep': 'Appendix A: time step and noise in transfer',
    'appendix-a-cut': 'Appendix A: where the encoder ends',
    'one-cut': 'Appendix A: where the encoder ends, of one pre-trained model',
    AFTER: 'After the paper: what has been proposed since',
}
#: Table 2 has a column a tokenizer.
COLUMNS = ('conv-vae', 'patch-vae', 'patch-ae', 'pca')
FIELD = re.compile(r'^(Row|Table|Paper|Source|Run): +(.+)$', re.MULTILINE)


class Row(NamedTuple):
    """A row: its config, the paper's figures (ImageNet-1k linear probe top-1 in percent, FID-50K), and whose idea it is where
    that isn't the paper's."""

    name: str
    path: Path
    table: str
    label: str
    about: str
    paper_linear: float | None
    paper_fid: float | None
    source: str | None = None


def list_rows(table: str | None = None) -> list[Row]:
    """All rows, or those of one of :data:`TABLES`, in the paper's order."""
    if table is not None and table not in TABLES:
        raise ConfigError(f'there is no table {table!r}{nearest(table, TABLES)}')
    rows = (read_row(path) for folder in FOLDERS for path in (configs_root() / folder).glob('*.py'))
    return sorted((row for row in rows if table in (None, row.table)), key=_order)


def read_row(path: Path) -> Row:
    """The row that a config's docstring describes; raise ConfigError if a line of it is missing."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ''
    fields = dict(FIELD.findall(text))
    told = 'Source' if fields.get('Table') == AFTER else 'Paper'
    if {'Row', 'Table', told, 'Run'} - set(fields) or fields['Table'] not in TABLES:
        raise ConfigError(
            f'{path}: its docstring needs the lines Row:, Table: (one of {", ".join(TABLES)}), {told}: and Run:'
        )
    figures = {kind: float(value) for kind, value in re.findall(r'(linear|FID) ([\d.]+)', fields.get('Paper', ''))}
    about, papers = text.splitlines()[0], (figures.get('linear'), figures.get('FID'))
    return Row(path.stem, path, fields['Table'], fields['Row'], about, *papers, fields.get('Source'))


def _order(row: Row) -> tuple:
    """By table, then by column, then by name with numbers in it as numbers."""
    column = [f'_{kind}_' in row.name for kind in COLUMNS]
    parts = [(int(part), '') if part.isdigit() else (0, part) for part in re.split(r'(\d+)', row.name)]
    return list(TABLES).index(row.table), column.index(True) if any(column) else 0, parts
