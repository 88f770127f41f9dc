# SPDX-License-Identifier: Apache-2.0
"""Write docs/rows.md from what the rows' configs say of themselves; ``make pages`` calls this."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # of a clone where ldae isn't installed

from ldae.config import configs_root, load_config  # noqa: E402
from ldae.config.rows import AFTER, TABLES, Row, list_rows  # noqa: E402
from ldae.utils.tables import markdown_table  # noqa: E402

PAGE = ROOT / 'docs' / 'rows.md'

INTRO = """\
# Rows: the whole deconstruction

Every row of the paper's tables is a config in [configs/deconstruction](../configs/deconstruction), and inherits the row
before it: what its file states is what the row changes. Rows from later papers are in
[configs/after_paper](../configs/after_paper) and the [last table](#after-the-paper-what-has-been-proposed-since-after-paper). A link leads to that file. This page is written by
[make_rows.py](make_rows.py): after a change of a config, run `make pages`.

The paper's figures are ImageNet-1k top-1 accuracy of a linear probe in percent and, for Table 1, FID-50K; a dash stands where
the paper prints no number. They are not ours: what we measured ourselves, at a small scale, is in
[Results](results.md).

```bash
# at the paper's scale: ViT-1/2L (12 + 12 blocks of 1024), 256 px, 400 epochs on ImageNet-1k
tools/dist_train.sh configs/deconstruction/t3_5_original-image.py 8 --data-root data/imagenet
# the same row at a small scale
tools/train.py configs/deconstruction/t3_5_original-image.py --scale fashion-mnist_subset
# what a row changes
tools/print_config.py configs/deconstruction/t3_5_original-image.py --diff configs/deconstruction/t3_4_image-output.py
# many rows, seeds, probes, and a table
tools/ablate.py table3 --scale fashion-mnist_subset --seeds 0 1 2
```

In Python, `ldae.config.rows.list_rows()` gives this list.
"""

SCALES_INTRO = """\
## Scales

A scale is one small file that the command names; the rows have no second copy. It replaces the data, the geometry of the
tokenizer, the named sizes of the network, latent dimensions and epochs; targets, noise, augmentation and labels stay the row's.
One's own scale is a file like these, named by its path. At the smallest scales two rows can become the same: the convolutional
VAE's d = 8 and d = 16, and neighbouring cuts of appendix A. Of several t, `tools/ablate.py` takes each row's best on
held-out training images.
"""

TOKENIZERS = """\
## Learned tokenizers

Rows on a learned tokenizer name its file, `work_dirs/<name>/tokenizer.pth`, or `work_dirs/<scale>/<name>/tokenizer.pth` at
a scale. The config of that name in [configs/tokenizers](../configs/tokenizers) trains it, with the same `--scale`:

```bash
tools/train.py configs/tokenizers/patch-ae_d16.py --scale fashion-mnist_subset
tools/train.py configs/deconstruction/t2_patch-ae_d16.py --scale fashion-mnist_subset
```

`tools/ablate.py` does so by itself.
"""


def parent(row: Row) -> str:
    """Name of the row that a row inherits, or a note that it is the first."""
    for node in ast.parse(row.path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            base = ast.literal_eval(node.value)
            return f'`{Path(base).stem}`' if isinstance(base, str) else '(the first row)'
    raise ValueError(f'{row.path} inherits nothing')


def table(name: str) -> str:
    """One table of the page."""
    rows = list_rows(name)
    with_fid = any(row.paper_fid is not None for row in rows)
    told = 'source' if name == AFTER else 'paper'
    head = ['config', 'row', 'inherits', 'what', told] + (['FID'] if with_fid else [])
    cells = [head]
    for row in rows:
        link = f'[{row.name}](../configs/{row.path.parent.name}/{row.path.name})'
        figures = [row.paper_linear, row.paper_fid][: 1 + with_fid]
        printed = [row.source] if row.source else ['-' if x is None else f'{x:.1f}' for x in figures]
        cells.append([link, row.label, parent(row), row.about, *printed])
    return '\n'.join([f'## {TABLES[name]} (`{name}`)', '', markdown_table(cells, len(head)), ''])


def scales() -> str:
    """The table of scales."""
    dims, size, length = 'd for 8 / 16 / 32 / 64 / 128', 'ViT-1/2L becomes', '400 epochs become'
    head = ['scale', 'image', 'patch', 'tokens', dims, size, length, 'features at t']
    cells = [head]
    for path in sorted((configs_root() / 'scales').glob('*.py')):
        rules = load_config(path).scale
        steps = rules.get('timestep', 10)
        arch, tokens = rules.archs['half-large'], (rules.img_size // rules.patch_size) ** 2
        cells.append(
            [
                f'[{path.stem}](../configs/scales/{path.name})',
                f'{rules.img_size} px, {rules.in_channels} channel{"s" * (rules.in_channels > 1)}',
                f'{rules.patch_size}',
                f'{tokens}',
                ' / '.join(str(d) for d in rules.latent_dims.values()),
                f'{arch.num_layers} + {arch.num_layers} blocks of {arch.embed_dims}',
                f'{rules.epochs}',
                ' / '.join(map(str, steps if isinstance(steps, list) else [steps])),
            ]
        )
    return '\n'.join([SCALES_INTRO, markdown_table(cells, len(head)), ''])


def page() -> str:
    """The whole page."""
    return '\n'.join([INTRO, *map(table, TABLES), scales(), TOKENIZERS])


def files() -> dict[Path, str]:
    """The page, with what it holds."""
    return {PAGE: page()}


if __name__ == '__main__':
    for file, text in files().items():
        file.write_text(text)
        print(f'wrote {file}')
