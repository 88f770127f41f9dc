# SPDX-License-Identifier: Apache-2.0
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from PIL import Image
from small_models import ARCH, classifier_config, ldae_config, mae_config

from ldae.apis import get_model
from ldae.export import export_encoder, source_features
from ldae.export.preprocessing import preprocessing_of
from ldae.utils import ConfigError

VIT = dict(type='VisionTransformer', arch=ARCH, img_size=16, patch_size=4)
CONFIGS = dict(
    ldae=ldae_config(),
    mae=mae_config(),
    tuned=classifier_config(dict(VIT, out_type='avg_featmap', final_norm=False)),
    token=classifier_config(dict(VIT, out_type='cls_token')),
)


@pytest.mark.parametrize('name', CONFIGS)
def test_mmpretrain_s_get_model_gives_the_source_s_features(name, saved, tmp_path):
    checkpoint, out = saved(CONFIGS[name]), tmp_path / 'vit.pth'
    export_encoder(checkpoint, 'mmpretrain', out)
    images = torch.randn(3, 3, 16, 16)
    expected = source_features(get_model(checkpoint=checkpoint, device='cpu'), images)[1]
    model = mmpretrain.get_model(str(tmp_path / 'vit.py'), pretrained=str(out), device='cpu')
    with torch.no_grad():
        torch.testing.assert_close(model.extract_feat(images)[-1], expected, rtol=1e-4, atol=1e-4)


def test_mmpretrain_prepares_pictures_as_the_other_formats_do(saved, tmp_path):
    checkpoint, out = saved(ldae_config()), tmp_path / 'vit.pth'
    export_encoder(checkpoint, 'mmpretrain', out)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    model = mmpretrain.get_model(str(tmp_path / 'vit.py'), pretrained=str(out), device='cpu')
    found = mmpretrain.FeatureExtractor(model)(pixels[..., ::-1])[0][-1]  # it takes arrays as BGR
    source = get_model(checkpoint=checkpoint, device='cpu')
    images = preprocessing_of(source, 16, 3)(Image.fromarray(pixels))[None]
    torch.testing.assert_close(found, source_features(source, images)[1][0], rtol=0, atol=0.05)


def test_the_stock_backbone_takes_it_as_pretrained_and_at_another_size(saved, tmp_path):
    checkpoint, out = saved(ldae_config()), tmp_path / 'vit.pth'
    export_encoder(checkpoint, 'mmpretrain', out)
    init_default_scope('mmpretrain')
    init_cfg = dict(type='Pretrained', checkpoint=str(out), prefix='backbone.')
    options = dict(img_size=24, with_cls_token=False, out_type='raw', final_norm=False)
    backbone = MODELS.build(dict(VIT, init_cfg=init_cfg, **options))
    backbone.eval()
    backbone.init_weights()
    images = torch.randn(2, 3, 24, 24)
    expected = source_features(get_model(checkpoint=checkpoint, device='cpu'), images)[0]
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)[-1], expected, rtol=1e-4, atol=1e-4)


def test_the_config_beside_it_holds_no_type_of_ours_and_says_how_pictures_are_prepared(saved, tmp_path):
    export_encoder(saved(ldae_config()), 'mmpretrain', tmp_path / 'vit.pth')
    cfg = Config.fromfile(tmp_path / 'vit.py')
    assert 'ldae.' not in cfg.pretty_text
    assert cfg.data_preprocessor.to_rgb is True
    assert cfg.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert [step.type for step in cfg.test_pipeline][1:3] == ['ResizeEdge', 'CenterCrop']


def test_registers_which_mmpretrain_does_not_have_are_one_line(saved, tmp_path):
    with pytest.raises(
        ConfigError, match="mmpretrain's VisionTransformer has no registers: export to timm, hf or onnx"
    ) as error:
        export_encoder(saved(ldae_config(backbone=dict(reg_tokens=4))), 'mmpretrain', tmp_path / 'vit.pth')
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'vit.pth').exists()


def test_an_export_can_be_exported_again(saved, tmp_path):
    export_encoder(saved(ldae_config()), 'mmpretrain', tmp_path / 'vit.pth')
    assert export_encoder(tmp_path / 'vit.pth', 'timm', tmp_path / 'again').errors['random images'] < 1e-5
