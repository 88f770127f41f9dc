# SPDX-License-Identifier: Apache-2.0
"""The model index is what the configs say, and what OpenMMLab's readers understand."""

from pathlib import Path

import mmpretrain
import pytest
import yaml
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load
from pages import ROOT, files_of, not_stale

from ldae.apis import list_models

PUBLISHED = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / 'mae' / 'metafile.yml'
FOLDERS = ('ldae', 'mae', 'mocov3', 'simclr', 'byol', 'simmim', 'dino', 'benchmarks')


@pytest.fixture(scope='module')
def models() -> dict[str, dict]:
    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    return {model.name: model for model in index.models}


def test_the_files_are_up_to_date():
    pytest.importorskip('lightly')  # DINO's models are measured
    made = files_of(ROOT / 'docs' / 'make_model_index.py')
    assert len(made) == 1 + len(FOLDERS)
    not_stale(made)


def test_openmmlabs_loader_reads_all_configs(models: dict):
    assert {model.config for model in models.values()} == {
        f'configs/{name}.py' for name in list_models() if name.partition('/')[0] in FOLDERS
    }
    for model in models.values():
        assert (ROOT / model.config).is_file()
        assert model.metadata.data['Parameters'] > 0
        assert model.full_model.paper


def test_nothing_is_claimed_that_does_not_exist(models: dict):
    assert not any(model.weights or model.results for model in models.values())


@pytest.mark.parametrize('size', ['b', 'l'])
def test_mae_has_the_size_that_mmpretrain_publishes(size: str, models: dict):
    published = yaml.safe_load(PUBLISHED.read_text())['Models']
    kind = dict(b='base', l='large')[size]
    theirs = next(model['Metadata'] for model in published if f'mae_vit-{kind}-p16' in model['Name'])
    ours = models[f'mae_vit-{size}_400e'].metadata.data
    assert ours['Parameters'] == theirs['Parameters']
    assert ours['FLOPs'] == pytest.approx(theirs['FLOPs'], rel=0.01)
    assert ours['Batch Size'] == theirs['Batch Size']


def test_mmpretrains_hub_finds_our_models_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ModelHub, '_models_dict', {})
    ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    assert ModelHub.has('ldae_vit-b_pca')
    assert ModelHub.has('ldae_vit-b_linear')
