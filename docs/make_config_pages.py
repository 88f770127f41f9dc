# SPDX-License-Identifier: Apache-2.0
"""Write configs/*/README.md, in OpenMMLab's form, from the metafiles beside them; ``make pages`` calls this."""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # of a clone where ldae isn't installed
sys.path.insert(0, str(Path(__file__).parent))

from make_model_index import COLLECTIONS  # noqa: E402

from ldae.utils.tables import markdown_table  # noqa: E402

#: Of each method, in two sentences.
ABOUT = dict(
    ldae='Latent denoising autoencoders: noise in the few dimensions of a PCA of patches, a plain ViT that finds the clean image '
    'again. The decoder is as large as the encoder and thrown away.',
    mae="Three quarters of an image's patches are hidden, and a small decoder says what they were. mmpretrain's model and recipe, for "
    'comparison.',
    mocov3='Two views of an image are told from those of other images, by an encoder and its running average. '
    "mmpretrain's model and recipe for a ViT, for comparison.",
    simclr='Two views of an image are told from those of all other images of the batch. A recipe of ours for a ViT, for comparison.',
    byol="One view's features predict those that a running average of the network has of the other. A recipe of ours for a ViT, for "
    'comparison.',
    simmim='Six tenths of an image are masked, and a linear layer says which pixels were there. For comparison.',
    dino='Small and large views of an image are brought to the same distribution as a running average sees in the large ones. Needs the '
    'extra `dino` (lightly).',
)
#: Folders without a metafile of models: title, text, a command, where their configs are listed.
FOLDERS = dict(
    deconstruction=(
        "Rows of the paper's tables",
        'Each row inherits the row before it, and its file states what it changes.',
        'ldae ablate table3 --scale fashion-mnist_subset --seeds 0 1 2',
        'rows.md',
    ),
    after_paper=(
        'After the paper',
        'Rows of what has been proposed since, each with its source.',
        'ldae ablate after-paper --scale fashion-mnist_subset',
        'rows.md',
    ),
    tokenizers=(
        'Training of tokenizers',
        'Each writes `work_dirs/NAME/tokenizer.pth`, which rows name.',
        'ldae train configs/tokenizers/patch-ae_d16.py --scale fashion-mnist_subset',
        'components/tokenizer_training.md',
    ),
    scales=(
        'Scales',
        "What brings a row from the paper's images and network to smaller ones; not configs by themselves.",
        'ldae train deconstruction/t3_5_original-image --scale fashion-mnist_subset',
        'rows.md#scales',
    ),
)
RESULTS = 'No weights are published. Published figures, marked as such, and ours: [model zoo](../../docs/model_zoo.md).'
#: Of each method's paper: authors, where it appeared, the year.
CITED = dict(
    ldae=('Chen, Xinlei and Liu, Zhuang and Xie, Saining and He, Kaiming', 'arXiv preprint arXiv:2401.14404', 2024),
    mae=(
        "He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, Piotr and Girshick, Ross",
        'CVPR',
        2022,
    ),
    mocov3=('Chen, Xinlei and Xie, Saining and He, Kaiming', 'ICCV', 2021),
    simclr=('Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey', 'ICML', 2020),
    byol=("Grill, Jean-Bastien and Strub, Florian and Altch{\\'e}, Florent and others", 'NeurIPS', 2020),
    simmim=('Xie, Zhenda and Zhang, Zheng and Cao, Yue and Lin, Yutong and Bao, Jianmin and others', 'CVPR', 2022),
    dino=("Caron, Mathilde and Touvron, Hugo and Misra, Ishan and J{\\'e}gou, Herv{\\'e} and others", 'ICCV', 2021),
)


def citation(folder: str, title: str) -> str:
    """A method's paper in BibTeX."""
    authors, place, year = CITED[folder]
    fields = dict(title=title, author=authors, journal=place, year=year)
    key = authors.partition(',')[0].lower() + str(year) + re.search(r'\w{4,}', title)[0].lower()
    lines = [f'  {name:7} = {{{value}}},' for name, value in fields.items()]
    return '\n'.join(['## Citation\n\n```bibtex', f'@article{{{key},', *lines, '}', '```'])


def model_row(model: dict[str, Any]) -> list[str]:
    """A model of a metafile as cells."""
    facts, file = model['Metadata'], Path(model['Config']).name
    return [
        f'[{Path(file).stem}]({file})',
        f'{facts["Parameters"] / 1e6:.2f}',
        f'{facts["FLOPs"] / 1e9:.2f}',
        str(facts['Epochs']),
        str(facts['Batch Size']),
        facts['Training Data'],
    ]


def method_page(folder: str, models: list[dict[str, Any]]) -> str:
    """The page of a method, or of the benchmarks of all."""
    rows = [['config', 'parameters (M)', 'FLOPs (G)', 'epochs', 'batch', 'data'], *map(model_row, models)]
    if folder == 'benchmarks':
        title, paper, cited = 'Benchmarks', '', []
        about = 'Linear probes and fine-tuning of pre-trained encoders, with all labels and with 1% and 10% of them.'
        commands = 'tools/benchmark.sh linear work_dirs/vit-b_pca/epoch_400.pth 8 --data-root data/imagenet'
        more = '[Evaluation](../../docs/components/evaluation.md#linear-probe-and-fine-tuning)'
    else:
        title, name, url = COLLECTIONS[folder]
        paper, about, config = f'> [{name}]({url})\n\n', ABOUT[folder], Path(models[-1]['Config']).name
        cited = [citation(folder, name)]
        commands = f'tools/dist_train.sh configs/{folder}/{config} 8 --data-root data/imagenet'
        more = '[The method](../../docs/method.md)' if folder == 'ldae' else '[Methods](../../docs/methods.md)'
    note = (
        'Parameters are those of the whole model, FLOPs of one pass of the encoder over one image, none of it masked.'
    )
    parts = [
        f'# {title}\n\n{paper}## Introduction\n\n{about}',
        f'## How to use it\n\n```bash\n{commands}\n```\n\n{more}',
    ]
    parts += [f'## Models\n\n{markdown_table(rows, 1)}\n\n{note}', f'## Results\n\n{RESULTS}']
    return '\n\n'.join([*parts, *cited]) + '\n'


def folder_page(title: str, about: str, command: str, listed: str) -> str:
    """The page of a folder whose configs another page lists."""
    use = f'## How to use it\n\n```bash\n{command}\n```\n\n[List of configs](../../docs/{listed})'
    return f'# {title}\n\n## Introduction\n\n{about}\n\n{use}\n\n## Results\n\n{RESULTS}\n'


def files() -> dict[Path, str]:
    """A page for each folder of configs."""
    pages = {ROOT / 'configs' / folder / 'README.md': folder_page(*texts) for folder, texts in FOLDERS.items()}
    for metafile in sorted((ROOT / 'configs').glob('*/metafile.yml')):
        models = yaml.safe_load(metafile.read_text())['Models']
        pages[metafile.with_name('README.md')] = method_page(metafile.parent.name, models)
    return pages


if __name__ == '__main__':
    for file, text in files().items():
        file.write_text(text)
        print(f'wrote {file}')
