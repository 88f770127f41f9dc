# SPDX-License-Identifier: Apache-2.0
"""A folder for Hugging Face transformers: ``AutoModel.from_pretrained(FOLDER)``.

transformers' own ViTs all have a class token or a LayerNorm after the last block. Its ``TimmWrapperModel`` has neither of
its own: it holds timm's model, so its features are exact, and it comes with an image processor."""

import json
from pathlib import Path

import torch
from torch import Tensor

from ldae.utils.optional import import_extra

from .plain_vit import Features, PlainViT
from .preprocessing import Preprocessing
from .timm_format import timm_config, write_folder

SUFFIX, BESIDE = '', None
EXTRA = ('hf', 'transformers')
PREPROCESSOR = 'preprocessor_config.json'


def hint(out: Path) -> str:
    return f"transformers.AutoModel.from_pretrained('{out}')"


def write(vit: PlainViT, preprocessing: Preprocessing, about: dict, out: Path) -> None:
    """Write the folder ``out``: timm's, and what transformers looks for."""
    config = timm_config(vit, preprocessing, about)
    config.update(model_type='timm_wrapper', architectures=['TimmWrapperModel'])
    write_folder(vit, config, about, out)
    processor = {key: config[key] for key in ('architecture', 'pretrained_cfg')}
    processor = dict(image_processor_type='TimmWrapperImageProcessor', **processor)
    if not preprocessing.of_pictures:  # transformers has no processor of other images
        return
    (out / PREPROCESSOR).write_text(json.dumps(processor, indent=2) + '\n')


def read(out: Path) -> Features:
    """The model that transformers makes of the folder: images -> (tokens, feature)."""
    transformers = import_extra('transformers', 'hf', 'export to Hugging Face')
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(out, local_files_only=True).eval()
    if shown:
        transformers.utils.logging.enable_progress_bar()

    @torch.no_grad()
    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        output = model(pixel_values=images)
        return output.last_hidden_state, output.pooler_output

    return features
