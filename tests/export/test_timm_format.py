# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import timm
import torch
from safetensors import safe_open
from small_models import ARCH, classifier_config, ldae_config, mae_config

from ldae.apis import get_model
from ldae.export import export_encoder, source_features
from ldae.export.plain_vit import PlainViT
from ldae.export.timm_format import model_args

TUNED = dict(
    type='ldae.LDAEViT', arch=ARCH, img_size=16, patch_size=4, out_type='avg_featmap', conditioned=False, pool_norm=True
)
CONFIGS = dict(ldae=ldae_config(), mae=mae_config(), tuned=classifier_config(TUNED))


@pytest.mark.parametrize('name', CONFIGS)
def test_timm_alone_gives_the_source_s_features_in_both_ways_of_loading(name, saved, tmp_path):
    checkpoint, out = saved(CONFIGS[name]), tmp_path / 'vit'
    export_encoder(checkpoint, 'timm', out)
    config = json.loads((out / 'config.json').read_text())
    by_folder = timm.create_model(f'local-dir:{out}', pretrained=True)
    by_arguments = timm.create_model(
        config['architecture'], num_classes=0, checkpoint_path=str(out / 'model.safetensors'), **config['model_args']
    )
    images = torch.randn(3, 3, 16, 16)
    expected = source_features(get_model(checkpoint=checkpoint, device='cpu'), images)[1]
    for model in (by_folder, by_arguments):
        assert all(norm.eps == 1e-6 for norm in model.modules() if isinstance(norm, torch.nn.LayerNorm))
        torch.testing.assert_close(model.eval()(images), expected, rtol=1e-4, atol=1e-4)


def test_timm_finds_the_preprocessing_in_the_folder(saved, tmp_path):
    export_encoder(saved(ldae_config()), 'timm', tmp_path / 'vit')
    found = timm.data.resolve_model_data_config(timm.create_model(f'local-dir:{tmp_path / "vit"}'))
    assert found['input_size'] == (3, 16, 16)
    assert found['interpolation'] == 'bicubic'
    assert found['crop_pct'] == 1.0
    assert [round(value, 3) for value in (*found['mean'], *found['std'])] == [
        *(0.485, 0.456, 0.406),
        *(0.229, 0.224, 0.225),
    ]


def test_a_head_for_fine_tuning_is_added_by_timm(saved, tmp_path):
    export_encoder(saved(ldae_config()), 'timm', tmp_path / 'vit')
    model = timm.create_model(f'local-dir:{tmp_path / "vit"}', pretrained=True, num_classes=7)
    assert model(torch.randn(1, 3, 16, 16)).shape == (1, 7)


def test_the_weights_say_where_they_come_from(saved, tmp_path):
    export_encoder(saved(ldae_config()), 'timm', tmp_path / 'vit', timestep=25)
    with safe_open(tmp_path / 'vit' / 'model.safetensors', 'pt') as file:
        metadata = file.metadata()
    assert metadata['format'] == 'pt'
    assert metadata['timestep'] == '25'
    assert metadata['source'] == 'epoch_1.pth'
    assert json.loads(metadata['model_args'])['class_token'] is False


@pytest.mark.parametrize('hidden', [72, 100, 383])
def test_the_hidden_width_survives_timm_s_rounding(hidden):
    vit = PlainViT({}, 16, 4, 3, 96, 1, 2, hidden, False, False, False, 'avg')
    model = timm.create_model('vit_base_patch16_224', **model_args(vit))
    assert model.blocks[0].mlp.fc1.out_features == hidden
