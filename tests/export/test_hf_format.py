# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_models import ldae_config, mae_config

from ldae.apis import FeatureExtractor, get_model
from ldae.export import export_encoder, source_features

transformers = pytest.importorskip('transformers')


@pytest.mark.parametrize('config', [ldae_config(), mae_config()], ids=['ldae', 'mae'])
def test_transformers_gives_the_source_s_features_from_a_picture_on(config, saved, tmp_path):
    checkpoint, out = saved(config), tmp_path / 'vit'
    export_encoder(checkpoint, 'hf', out)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    inputs = transformers.AutoImageProcessor.from_pretrained(out)(image)
    model = transformers.AutoModel.from_pretrained(out).eval()
    assert type(model).__name__ == 'TimmWrapperModel'
    with torch.no_grad():
        output = model(**inputs)
    tokens, feature = source_features(get_model(checkpoint=checkpoint, device='cpu'), inputs['pixel_values'])
    torch.testing.assert_close(output.last_hidden_state, tokens, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.pooler_output, feature, rtol=1e-4, atol=1e-4)


def test_the_folder_is_timm_s_as_well(saved, tmp_path):
    export_encoder(saved(ldae_config()), 'hf', tmp_path / 'vit')
    assert timm.create_model(f'local-dir:{tmp_path / "vit"}', pretrained=True).num_features == 32


@pytest.mark.parametrize('to', ['hf', 'timm'])
@pytest.mark.parametrize('config', [ldae_config(), mae_config()], ids=['ldae', 'mae'])
def test_an_exported_folder_is_an_encoder_that_sees_pictures_as_its_source(config, to, saved, tmp_path):
    checkpoint, out = saved(config), tmp_path / 'vit'
    export_encoder(checkpoint, to, out)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    own = FeatureExtractor(checkpoint=checkpoint, device='cpu')(image)
    torch.testing.assert_close(FeatureExtractor(out, device='cpu')(image), own, rtol=1e-4, atol=1e-4)
