# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from small_models import ldae_config

from ldae.apis import get_model
from ldae.export import export_encoder, source_features
from ldae.export.onnx_format import OPSET

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


@pytest.fixture
def exported(saved, tmp_path):
    checkpoint, out = saved(ldae_config()), tmp_path / 'vit.onnx'
    export_encoder(checkpoint, 'onnx', out)
    return checkpoint, out


def test_onnxruntime_gives_the_source_s_features_for_any_batch_and_the_file_describes_itself(exported):
    checkpoint, out = exported
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    model = get_model(checkpoint=checkpoint, device='cpu')
    for batch in (1, 5):
        images = torch.randn(batch, 3, 16, 16)
        features, tokens = session.run(['features', 'tokens'], dict(images=images.numpy()))
        expected_tokens, expected = source_features(model, images)
        torch.testing.assert_close(torch.from_numpy(features), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.from_numpy(tokens), expected_tokens, rtol=1e-4, atol=1e-4)
    content = onnx.load(str(out))
    onnx.checker.check_model(content)
    assert [entry.version for entry in content.opset_import if entry.domain == ''] == [OPSET]
    metadata = session.get_modelmeta().custom_metadata_map
    preprocessing = json.loads(metadata['ldae.preprocessing'])
    assert preprocessing['img_size'] == 16
    assert preprocessing['channels'] == 'RGB'
    assert metadata['ldae.timestep'] == '10'
