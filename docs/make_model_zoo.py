# SPDX-License-Identifier: Apache-2.0
"""Write docs/model_zoo.md from what the configs say of themselves; ``make pages`` calls this.

A config's docstring is one sentence, then fields, one a line: ``Run:``, ``Batch:``, ``Paper:``, ``mmpretrain:`` (its
published figure), ``Ours:``.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from ldae.config.rows import TABLES, list_rows  # noqa: E402
from ldae.utils.tables import markdown_table  # noqa: E402

PAGE = ROOT / 'docs' / 'model_zoo.md'
FIELD = re.compile(r'^(Run|Batch|Cost|Paper|mmpretrain|Ours): +(.*)$')
COMMAND = re.compile(r'tools/[\w.]+(?: +(?!\()[^\s;,()]+)*')  # up to prose in brackets, or the end of a line

INTRO = """\
# Model zoo

All configs that are meant to be run, from their own docstrings. This page is written by
[make_model_zoo.py](make_model_zoo.py): after a change of a config, run `make pages`.

* **Batch**: processes x accumulated batches, if there are several, x images = images a step. lr is scaled when the batch differs,
  of other methods, low-shot benchmarks and `_mmpretrain` only with `--auto-scale-lr` ([fewer GPUs](several_gpus.md#fewer-gpus-or-another-batch)).
* **Published** figures are ImageNet-1k top-1 in percent, as printed in the l-DAE paper or by mmpretrain. They are not
  ours. The configs named `linear` and `finetune` in `configs/benchmarks` measure them.
* **Ours** are measured with this repository.
* In commands, `CKPT` is the checkpoint of a pre-training run.
"""

SECTIONS = {
    'ldae': (
        'l-DAE: pre-training',
        '`rrc` is random resized crop instead of centre crop; 400 epochs unless the name has another number.',
    ),
    'mae': (
        'MAE: pre-training',
        "For the same comparison. At 224 px they are mmpretrain's recipes; `256` marks those on l-DAE's data. They "
        'use fp16 on a GPU, without one what `--precision auto` chooses.',
    ),
    'mocov3': ('MoCo v3: pre-training', "mmpretrain's recipes for a ViT. See [methods](methods.md)."),
    'simclr': (
        'SimCLR: pre-training',
        'Recipes of ours for a ViT: those of the paper and mmpretrain are for ResNet-50.',
    ),
    'byol': ('BYOL: pre-training', 'Recipes of ours for a ViT: those of the paper and mmpretrain are for ResNet-50.'),
    'simmim': ('SimMIM: pre-training', "Its authors' recipe for a plain ViT-B; the configs say what is ours."),
    'dino': (
        'DINO: pre-training',
        "Its authors' recipe for a ViT-B, with the extra `dino`; the configs say what is ours.",
    ),
    'benchmarks': (
        'Benchmarks of a pre-trained encoder',
        "By MAE's protocol as the l-DAE paper uses it, and, where the name ends in `_mmpretrain`, by mmpretrain's.",
    ),
}

ROWS_NOTE = """\
One config a row, in the paper's order, each changing one thing of another: 8 processes x 2 x 128 images = 2048, 400 epochs
unless the row says otherwise. `--scale fashion-mnist_subset` brings them to the data that ship. Rows with a learned
tokenizer (VQGAN-style, convolutional VAE, patch-wise VAE and AE) name its file, which has to be there first.

```bash
tools/dist_train.sh configs/deconstruction/t3_5_original-image.py 8
tools/train.py configs/deconstruction/t3_5_original-image.py --scale fashion-mnist_subset
```"""


def describe(path: Path) -> dict[str, str]:
    """Fields of a config's docstring, and its first sentence as ``about``."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or '').splitlines()
    fields, field = dict(about=lines[0].rstrip('.') if lines else ''), None
    for line in lines[1:]:
        match = FIELD.match(line)
        if match:
            field = match[1]
            fields[field] = match[2].strip()
        elif field and line.startswith(' '):
            fields[field] += '\n' + line.strip()
        else:
            field = None
    return fields


def published(fields: dict[str, str]) -> str:
    """The figures of others, each with its source."""
    paper = fields.get('Paper', 'no figure')
    parts = [] if re.match('no|not ', paper) and not re.search(r'\d\d\.\d', paper) else [f'paper: {paper}']
    if 'mmpretrain' in fields:
        parts.append(f'mmpretrain: {fields["mmpretrain"]}')
    return '; '.join(parts).replace('\n', ' ') or '-'


def commands(fields: dict[str, str]) -> list[str]:
    """The command lines in the ``Run`` field."""
    text = fields.get('Run', '').replace('\\\n', '')
    return [match.strip() for match in COMMAND.findall(text)]


def batch(fields: dict[str, str]) -> str:
    """The arithmetic of the ``Batch`` field, without what follows it."""
    return re.split('[;,\n]', fields.get('Batch', '-'))[0]


def section(folder: str) -> str:
    """Table and commands of ``configs/<folder>``."""
    title, note = SECTIONS[folder]
    rows = [['config', 'what', 'batch', 'published', 'ours']]
    lines: list[str] = []
    for path in sorted((ROOT / 'configs' / folder).glob('*.py')):
        fields = describe(path)
        name = f'[{path.stem}](../configs/{folder}/{path.name})'
        ours = re.sub(r'\(docs/(\w+\.md)\)', r'([figures](\1))', fields.get('Ours', '-'))
        rows.append([name, fields['about'], batch(fields), published(fields), ours])
        lines += [line for line in commands(fields) if line not in lines]
    return '\n'.join([f'## {title}', '', note, '', markdown_table(rows, 5), '', '```bash', *lines, '```', ''])


def rows_section() -> str:
    """The rows of the paper's tables, as ``ldae.config.rows`` lists them."""
    lines = ["## The rows of the paper's tables", '', ROWS_NOTE, '']
    for table, title in TABLES.items():
        cells = [['row', 'config', 'published', 'ours']]
        for row in list_rows(table):
            figures = dict(linear=row.paper_linear, FID=row.paper_fid)
            text = ', '.join(f'{kind} {value}' for kind, value in figures.items() if value is not None)
            link = f'[{row.name}](../configs/{row.path.parent.name}/{row.path.name})'
            cells.append([row.label, link, f'paper: {text}' if text else '-', 'not yet measured'])
        lines += [f'### {title}', '', markdown_table(cells, 4), '']
    return '\n'.join(lines)


def page() -> str:
    """The whole page."""
    return '\n'.join([INTRO, *(section(folder) for folder in SECTIONS), rows_section()])


def files() -> dict[Path, str]:
    """The page, with what it holds."""
    return {PAGE: page()}


if __name__ == '__main__':
    for file, text in files().items():
        file.write_text(text)
        print(f'wrote {file}')
