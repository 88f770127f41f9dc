# SPDX-License-Identifier: Apache-2.0
"""What README.md and CONTRIBUTING.md tell people to write does work."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from ldae.config import load_config
from ldae.config.components import check_types
from ldae.registry import MODELS

ROOT = Path(__file__).parents[1]


def python_blocks(name: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', (ROOT / name).read_text(), re.DOTALL)


def run(code: str, path: Path) -> object:
    """Write a module and import it."""
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _clean_registry():
    yield
    MODELS._module_dict.pop('SampledPixelsTokenizer', None)


@pytest.mark.usefixtures('_clean_registry')
def test_a_tokenizer_in_five_steps(tmp_path: Path):
    component, config, test = python_blocks('CONTRIBUTING.md')
    run(component, tmp_path / 'sampled_pixels.py')
    run(test, tmp_path / 'test_it.py').test_encode_undoes_decode()

    (tmp_path / 'config.py').write_text(config)
    assert len(config.strip().splitlines()) < 10
    cfg = load_config(tmp_path / 'config.py')
    check_types(cfg)

    cfg.model.tokenizer.update(img_size=32, patch_size=8, latent_dim=8)
    cfg.model.backbone.arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    model = MODELS.build(cfg.model)
    loss = model.loss(torch.randn(2, 3, 32, 32))['loss']
    loss.backward()
    assert torch.isfinite(loss)


def test_the_config_of_the_readme(tmp_path: Path):
    (config,) = python_blocks('README.md')
    assert len(config.strip().splitlines()) < 10
    (tmp_path / 'mine.py').write_text(config)
    cfg = load_config(tmp_path / 'mine.py')
    check_types(cfg)
    cfg.model.tokenizer.update(img_size=32, patch_size=8)
    cfg.model.backbone.arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    assert MODELS.build(cfg.model).tokenizer.latent_dim == 16


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_files_that_are_named_exist(name: str):
    text = (ROOT / name).read_text()
    named = set(re.findall(r'(?<![\w/.:-])((?:configs|tools|ldae|tests)/[\w./-]+\.(?:py|sh))', text))
    missing = {path for path in named if not (ROOT / path).exists()}
    assert {path for path in missing if 'sampled' not in path} == set()
    assert named
