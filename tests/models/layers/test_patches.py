# SPDX-License-Identifier: Apache-2.0
import torch
from torch.nn import functional as F

from ldae.models.layers import AffinePatchMap, patchify, unpatchify


def test_patchify_orders_pixels_as_torch_unfold_does():
    images = torch.randn(2, 3, 8, 12)
    expected = F.unfold(images, 4, stride=4).transpose(1, 2)
    assert torch.equal(patchify(images, 4), expected)


def test_unpatchify_agrees_with_torch_fold():
    patches = torch.randn(2, 6, 48)
    expected = F.fold(patches.transpose(1, 2), (8, 12), 4, stride=4)
    assert torch.equal(unpatchify(patches, 4, (2, 3)), expected)


def test_affine_map_agrees_with_a_float64_loop():
    patch_map = AffinePatchMap(2, 5)
    for buffer in patch_map.buffers():
        buffer.copy_(torch.randn_like(buffer))
    x, z = torch.randn(5), torch.randn(2)
    e, d, m = (b.double() for b in (patch_map.encoder, patch_map.decoder, patch_map.mean))
    encoded = [sum(float(e[i, j]) * (float(x[j]) - float(m[j])) for j in range(5)) for i in range(2)]
    decoded = [sum(float(d[i, j]) * float(z[i]) for i in range(2)) + float(m[j]) for j in range(5)]
    torch.testing.assert_close(patch_map.encode(x).double(), torch.tensor(encoded).double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(patch_map.decode(z).double(), torch.tensor(decoded).double(), atol=1e-5, rtol=1e-5)
