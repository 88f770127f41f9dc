# SPDX-License-Identifier: Apache-2.0
import pytest
import timm
import torch
from mmengine.dataset import DefaultSampler
from mmpretrain.models import MAE, MAEViT, ResNet, VisionTransformer
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

from ldae.evaluation import features
from ldae.evaluation.features import extract_features, pooled_features
from ldae.utils import ConfigError

ARCH = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)


def mae_vit():
    vit = MAEViT(arch=ARCH, img_size=28, patch_size=7, patch_cfg=dict(in_channels=1))
    vit.init_weights()
    vit.eval()  # returns None in mmpretrain
    return vit


def loader(count, batch_size, labels=True):
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)

    def collate(rows):
        samples = [DataSample().set_gt_label(int(i) % 3) if labels else DataSample() for i in rows]
        return dict(inputs=images[torch.tensor(rows)], data_samples=samples)

    sampler = DefaultSampler(range(count), shuffle=False)
    return DataLoader(range(count), batch_size=batch_size, sampler=sampler, collate_fn=collate)


def test_features_are_rows_in_the_order_of_the_data_set():
    rows, labels = extract_features(lambda images: images.flatten(1).double(), loader(10, 4))
    assert rows.dtype == torch.float32
    assert rows[:, 0].tolist() == list(range(10))
    assert rows.shape == (10, 4)
    assert labels.tolist() == [i % 3 for i in range(10)]
    assert labels.dtype == torch.int64


def test_no_gradient_is_kept():
    weight = torch.ones(4, 2, requires_grad=True)
    assert not extract_features(lambda images: images.flatten(1) @ weight, loader(5, 2))[0].requires_grad


def test_the_data_preprocessor_comes_first():
    rows, _ = extract_features(lambda x: x.flatten(1), loader(3, 2), lambda b: b | dict(inputs=b['inputs'] + 100))
    assert rows[:, 0].tolist() == [100, 101, 102]


@pytest.mark.parametrize('round_up', [True, False])
def test_shards_of_all_ranks_come_back_in_order(monkeypatch, round_up):
    world, count = 3, 10
    data = loader(count, 2)
    shards = []
    monkeypatch.setattr(features, 'all_gather', lambda rows: shards.append(rows) or [rows] * world)
    for rank in range(world):
        sampler = DefaultSampler(range(count), shuffle=False, round_up=False)
        sampler.rank, sampler.world_size, sampler.round_up = rank, world, round_up
        sampler.num_samples = -(-count // world) if round_up else -(-(count - rank) // world)
        sampler.total_size = world * -(-count // world) if round_up else count
        shard = DataLoader(range(count), batch_size=2, sampler=sampler, collate_fn=data.collate_fn)
        extract_features(lambda images: images.flatten(1), shard)
    gathered = shards[::2]  # features; the labels lie between them
    monkeypatch.setattr(features, 'all_gather', lambda rows: gathered)
    assert features._gather(gathered[0], shard)[:, 0].tolist() == list(range(count))


def test_data_without_labels_is_one_clear_line():
    with pytest.raises(ConfigError, match='with_label=True'):
        extract_features(lambda images: images.flatten(1), loader(3, 2, labels=False))


def test_mae_features_see_every_patch_and_leave_out_the_class_token():
    vit, images = mae_vit(), torch.rand(3, 1, 28, 28)
    tokens = vit(images, mask=None)[-1]
    assert tokens.shape == (3, 17, 24)
    for model in (vit, MAE(backbone=vit)):
        torch.testing.assert_close(pooled_features(model, images), tokens[:, 1:].mean(dim=1))


def test_any_backbone_of_mmpretrain_and_timm():
    images = torch.rand(2, 3, 32, 32)
    vit = VisionTransformer(arch=ARCH, img_size=32, patch_size=8, out_type='raw')
    vit.eval()
    torch.testing.assert_close(pooled_features(vit, images), vit(images)[-1][:, 1:].mean(dim=1))
    convnet = ResNet(18)
    convnet.eval()
    torch.testing.assert_close(pooled_features(convnet, images), convnet(images)[-1].mean(dim=(2, 3)))
    other = timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=8, depth=1).eval()
    torch.testing.assert_close(pooled_features(other, images), other.forward_features(images)[:, 1:].mean(dim=1))
