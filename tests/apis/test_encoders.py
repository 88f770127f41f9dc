# SPDX-License-Identifier: Apache-2.0
"""Encoders of other libraries give the features that these libraries give."""

import argparse
import json
from itertools import product

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from mmengine.config import Config
from mmpretrain.models import MAEViT, MoCoV3ViT, VisionTransformer
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer as TimmViT

from ldae.apis import FeatureExtractor, encoder_images, get_encoder, get_model
from ldae.datasets.packed import resize_edge
from ldae.evaluation import block_features, extract_features, poolings_of
from ldae.evaluation.probe_data import labelled_dataloaders, preprocessor_of
from ldae.models import EncoderPreprocessor
from ldae.utils import ConfigError

WIDTH, SIZE, PATCH = 128, 32, 8
ARCH = dict(embed_dims=WIDTH, num_layers=3, num_heads=2, feedforward_channels=256)
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def timm_vit(**options):
    options = dict(img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=3, num_heads=2, num_classes=5) | options
    return random(TimmViT(**options))


def random(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.eval()  # which mmpretrain's don't return
    return model


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def features(encoder, pictures, pooling='mean', blocks=None):
    inputs = encoder.data_preprocessor(dict(inputs=pictures))['inputs']
    with torch.no_grad():
        return block_features(encoder, inputs, blocks, pooling)[:, -1]


def normalised(pictures):
    return (pictures.float() - MEAN) / STD


def assert_tokens_are(encoder, pictures, tokens, extra=1):
    """Both poolings equal those of the reference's own tokens (B, L, C)."""
    torch.testing.assert_close(features(encoder, pictures), tokens[:, extra:].mean(dim=1), rtol=1e-5, atol=1e-5)
    if extra:
        torch.testing.assert_close(features(encoder, pictures, 'cls'), tokens[:, 0], rtol=1e-5, atol=1e-5)


def mae_file(vit):
    decoder = {'mask_token': torch.zeros(1, 1, 8), 'decoder_pos_embed': torch.zeros(1, 17, 8)}
    decoder |= {'decoder_blocks.0.norm1.weight': torch.zeros(8), 'decoder_embed.weight': torch.zeros(8, WIDTH)}
    return dict(model={k: v for k, v in vit.state_dict().items() if not k.startswith('head')} | decoder)


def moco_file(vit):
    state = {f'module.base_encoder.{key}': value for key, value in vit.state_dict().items()}
    state |= {f'module.momentum_encoder.{key}': value + 1 for key, value in vit.state_dict().items()}
    state |= {'module.predictor.0.weight': torch.zeros(4, 4)}
    return dict(epoch=300, arch='vit_base', state_dict=state, optimizer=dict(state={}, param_groups=[]), scaler={})


def dino_file(vit):
    return {key: value for key, value in vit.state_dict().items() if not key.startswith('head')}


def full_dino_file(vit):
    teacher = {f'backbone.{key}': value for key, value in dino_file(vit).items()}
    student = {f'module.{key}': value + 1 for key, value in teacher.items()}
    heads = {'head.mlp.0.weight': torch.zeros(4, 4), 'head.last_layer.weight_g': torch.zeros(4, 1)}
    options = argparse.Namespace(arch='vit_base', patch_size=8)
    return dict(
        student=student,
        teacher=teacher | heads,
        args=options,
        epoch=7,
        optimizer={},
        dino_loss={'center': torch.zeros(1, 4)},
    )


def ibot_file(vit):
    return dict(teacher=full_dino_file(vit)['teacher'] | {'backbone.masked_embed': torch.zeros(1, WIDTH)})


@pytest.mark.parametrize('make', [mae_file, moco_file, dino_file, full_dino_file, ibot_file])
def test_official_files_give_what_their_own_network_gives(make, pictures, tmp_path):
    vit = timm_vit()
    torch.save(make(vit), tmp_path / 'official.pth.tar')
    encoder = get_encoder(tmp_path / 'official.pth.tar', device='cpu')
    assert_tokens_are(encoder, pictures, vit.forward_features(normalised(pictures)).detach())
    assert poolings_of(encoder) == ('mean', 'cls')


def test_i_jepa_has_patches_only(pictures, tmp_path):
    vit = timm_vit(class_token=False, global_pool='avg', fc_norm=False)
    states = {
        name: {f'module.{k}': v + i for k, v in dino_file(vit).items()}
        for i, name in enumerate(('target_encoder', 'encoder'))
    }
    torch.save(dict(states, predictor={}, opt={}, epoch=1), tmp_path / 'IN1K-vit.h.14-300e.pth.tar')
    encoder = get_encoder(tmp_path / 'IN1K-vit.h.14-300e.pth.tar', device='cpu')
    assert_tokens_are(encoder, pictures, vit.forward_features(normalised(pictures)).detach(), 0)
    assert poolings_of(encoder) == ('mean',)


def test_a_fine_tuned_mae_has_its_own_pooling(pictures, tmp_path):
    vit = timm_vit(global_pool='avg')
    content = dict(model=vit.state_dict(), args=argparse.Namespace(model='vit_base_patch16'), epoch=99)
    torch.save(content, tmp_path / 'mae_finetuned_vit_base.pth')
    encoder = get_encoder(tmp_path / 'mae_finetuned_vit_base.pth', device='cpu')
    expected = vit.forward_head(vit.forward_features(normalised(pictures)), pre_logits=True)
    torch.testing.assert_close(features(encoder, pictures, 'own'), expected.detach(), rtol=1e-5, atol=1e-5)
    assert poolings_of(encoder) == ('mean', 'cls', 'own')


@pytest.mark.parametrize(
    'options',
    [
        dict(init_values=0.1),
        dict(reg_tokens=4, no_embed_class=True),
        dict(class_token=False, global_pool='avg', fc_norm=False),
    ],
)
def test_timms_state_dict_is_recognised_with_its_parts(options, pictures, tmp_path):
    vit = timm_vit(**options)
    save_file(vit.state_dict(), tmp_path / 'vit.safetensors')
    encoder = get_encoder(str(tmp_path / 'vit.safetensors'), device='cpu')
    tokens = vit.forward_features(normalised(pictures)).detach()
    assert_tokens_are(encoder, pictures, tokens, vit.num_prefix_tokens)


def test_dinov2_with_registers_is_as_timm_converts_it(pictures, tmp_path):
    vit = timm_vit(init_values=0.1, reg_tokens=4, no_embed_class=True)
    state = {key: value for key, value in vit.state_dict().items() if not key.startswith('head')}
    state['register_tokens'] = state.pop('reg_token')
    state['pos_embed'] = torch.cat([torch.full((1, 1, WIDTH), 0.2), state['pos_embed']], dim=1)
    state |= dict(cls_token=state['cls_token'] - 0.2, mask_token=torch.zeros(1, WIDTH))
    torch.save(state, tmp_path / 'dinov2.pth')
    encoder = get_encoder(tmp_path / 'dinov2.pth', device='cpu')
    assert_tokens_are(encoder, pictures, vit.forward_features(normalised(pictures)).detach(), 5)


def test_torchvisions_state_dict_gives_torchvisions_features(pictures, tmp_path):
    vit = random(torchvision.models.VisionTransformer(SIZE, PATCH, 3, 2, WIDTH, 256))
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    encoder = get_encoder(tmp_path / 'vit.pth', device='cpu')
    images = vit._process_input(normalised(pictures))
    tokens = vit.encoder(torch.cat([vit.class_token.expand(2, -1, -1), images], dim=1)).detach()
    assert_tokens_are(encoder, pictures, tokens)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('kind', [VisionTransformer, MAEViT, MoCoV3ViT])
def test_mmpretrains_state_dict_gives_mmpretrains_features(kind, prefix, pictures, tmp_path):
    options = dict(out_type='raw', layer_scale_init_value=0.1) if kind is not MAEViT else {}
    vit = random(kind(arch=ARCH, img_size=SIZE, patch_size=PATCH, **options))
    state = {f'{prefix}{key}': value for key, value in vit.state_dict().items()}
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'vit.pth')
    encoder = get_encoder(tmp_path / 'vit.pth', device='cpu')
    images = normalised(pictures)
    tokens = (vit(images, mask=None) if kind is MAEViT else vit(images))[-1].detach()
    assert_tokens_are(encoder, pictures, tokens)


def test_heads_are_those_that_are_told_and_moco_v3s_own(pictures, tmp_path, caplog):
    vit = timm_vit(num_heads=4)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    told = get_encoder(tmp_path / 'vit.pth', device='cpu', cfg_options=dict(num_heads=4))
    assert_tokens_are(told, pictures, vit.forward_features(normalised(pictures)).detach())
    small = timm_vit(embed_dim=384, num_heads=12)
    torch.save(moco_file(small) | dict(arch='vit_small'), tmp_path / 'vit-s-300ep.pth.tar')
    encoder = get_encoder(tmp_path / 'vit-s-300ep.pth.tar', device='cpu')
    assert_tokens_are(encoder, pictures, small.forward_features(normalised(pictures)).detach())


HF = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=SIZE, patch_size=PATCH
)


def hf_models():
    yield 'vit', transformers.ViTModel(transformers.ViTConfig(**HF)), 1
    yield 'classifier', transformers.ViTForImageClassification(transformers.ViTConfig(**HF)), 1
    yield 'dinov2', transformers.Dinov2Model(transformers.Dinov2Config(**HF)), 1
    yield 'registers', transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**HF)), 5
    yield 'clip', transformers.CLIPModel(transformers.CLIPConfig(vision_config=HF, text_config=HF)), 1
    yield 'siglip', transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**HF)), 0


@pytest.mark.parametrize('number', range(6))
def test_a_folder_of_transformers_gives_its_features(number, pictures, tmp_path):
    name, model, extra = list(hf_models())[number]
    model = random(model)
    model.save_pretrained(tmp_path / name)
    processor = dict(image_mean=[0.5] * 3, image_std=[0.25] * 3, size=dict(height=SIZE, width=SIZE), resample=3)
    (tmp_path / name / 'preprocessor_config.json').write_text(json.dumps(processor))
    encoder = get_encoder(f'transformers::{tmp_path / name}', device='cpu')
    images = (pictures.float() / 255 - 0.5) / 0.25
    network = getattr(model, 'vit', getattr(model, 'vision_model', model))
    with torch.no_grad():
        output = network(pixel_values=images)
        layers = network(pixel_values=images, output_hidden_states=True).hidden_states
    assert_tokens_are(encoder, pictures, output.last_hidden_state, extra)
    first = features(encoder, pictures, blocks=[1])
    torch.testing.assert_close(first, layers[1][:, extra:].mean(dim=1), rtol=1e-5, atol=1e-5)
    poolings = poolings_of(encoder)
    assert ('cls' in poolings) == (extra > 0)
    assert ('own' in poolings) == (name in ('vit', 'clip', 'siglip'))  # else there is none, or the class token
    if 'own' in poolings:
        torch.testing.assert_close(features(encoder, pictures, 'own'), output.pooler_output, rtol=1e-5, atol=1e-5)


def test_mae_of_transformers_sees_all_patches_in_order(pictures, tmp_path):
    model = random(
        transformers.ViTMAEForPreTraining(
            transformers.ViTMAEConfig(
                **HF,
                decoder_hidden_size=16,
                decoder_num_hidden_layers=1,
                decoder_num_attention_heads=2,
                decoder_intermediate_size=16,
            )
        )
    )
    model.save_pretrained(tmp_path)
    encoder = get_encoder(tmp_path, device='cpu')
    model.vit.config.mask_ratio = model.vit.embeddings.config.mask_ratio = 0.0
    noise = torch.arange(16.0).expand(2, -1)
    tokens = model.vit(normalised(pictures), noise=noise).last_hidden_state.detach()
    assert_tokens_are(encoder, pictures, tokens)
    assert poolings_of(encoder) == ('mean', 'cls')


def timm_folder(folder, model_args, state, **more):
    folder.mkdir()
    pretrained = dict(mean=[0.5] * 3, std=[0.5] * 3, input_size=[3, SIZE, SIZE], interpolation='bicubic', crop_pct=0.9)
    config = dict(architecture='vit_tiny_patch16_224', model_args=model_args, pretrained_cfg=pretrained, **more)
    (folder / 'config.json').write_text(json.dumps(config))
    save_file(state, folder / 'model.safetensors')


def test_a_folder_of_timm_gives_its_features_and_prepares_pictures_as_it_says(pictures, tmp_path):
    args = dict(img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=2, num_heads=2)
    vit = random(timm.create_model('vit_tiny_patch16_224', num_classes=3, **args))
    timm_folder(tmp_path / 'vit', args, vit.state_dict())
    for name in (tmp_path / 'vit', f'timm::local-dir:{tmp_path / "vit"}', f'transformers::{tmp_path / "vit"}'):
        encoder = get_encoder(name, device='cpu')
        tokens = vit.forward_features((pictures.float() / 255 - 0.5) / 0.5).detach()
        assert_tokens_are(encoder, pictures, tokens)
    assert encoder.pretrained_cfg['crop_pct'] == 0.9


def test_a_name_of_timm_is_wrapped_with_its_pictures(pictures):
    encoder = get_encoder('timm::vit_tiny_patch16_224', device='cpu')
    assert encoder.input_size == (224, 224)
    assert features(encoder, pictures).shape == (2, 192)


FILES_DATA = dict(
    data_preprocessor=dict(type='ClsDataPreprocessor', mean=[0.0], std=[1.0], to_rgb=False),
    val_dataloader=dict(
        dataset=dict(
            type='ldae.ImageFolder',
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='ResizeEdge', scale=20, edge='short'),
                dict(type='CenterCrop', crop_size=16),
                dict(type='PackInputs'),
            ],
        )
    ),
)
MEMORY_DATA = dict(
    val_dataloader=dict(dataset=dict(type='ldae.CIFAR10')), data_preprocessor=dict(mean=[0.0], std=[1.0])
)


def test_red_is_red_whatever_the_data_give():
    encoder = get_encoder('timm::vit_tiny_patch16_224', device='cpu')
    red = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    red[:, 0] = 255
    expected = (torch.tensor([1.0, 0.0, 0.0]) - 0.5) / 0.5  # by timm's mean and deviation of this model
    turned = dict(
        data_preprocessor=dict(mean=[0.0], std=[1.0], to_rgb=True), val_dataloader=dict(dataset=dict(type='X'))
    )
    for data, batch in ((FILES_DATA, red.flip(1)), (MEMORY_DATA, red), (turned, red.flip(1))):
        prepared = preprocessor_of(encoder, Config(data))(dict(inputs=batch))['inputs']
        torch.testing.assert_close(prepared.mean(dim=(0, 2, 3)), expected)


def test_a_model_of_ones_own_sees_the_channels_of_its_training_on_other_data():
    model = get_model('mmpretrain::deit-tiny_4xb256_in1k', device='cpu')  # which turns what files give
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255
    from_files = preprocessor_of(model, Config(FILES_DATA))(dict(inputs=red.flip(1)))['inputs']
    from_memory = preprocessor_of(model, Config(MEMORY_DATA))(dict(inputs=red))['inputs']
    assert torch.equal(from_files, from_memory)
    assert from_files[0, 0].mean() > 2 > 0 > from_files[0, 1].mean()
    at_its_size = get_encoder('mmpretrain::deit-tiny_4xb256_in1k', device='cpu')
    whole = preprocessor_of(at_its_size, Config(MEMORY_DATA))(dict(inputs=red))['inputs']
    assert whole.shape == (1, 3, 224, 224)
    torch.testing.assert_close(whole[..., :8, :8], from_memory)
    grey = preprocessor_of(at_its_size, Config(MEMORY_DATA))(dict(inputs=red[:, :1]))['inputs']
    torch.testing.assert_close(grey.mean(dim=(0, 2, 3)), ((255 - MEAN) / STD).flatten())


def test_pictures_grey_or_of_another_size_come_in_the_encoders_form():
    prepare = EncoderPreprocessor([127.5] * 3, [127.5] * 3, (32, 32))
    grey = torch.full((2, 1, 28, 28), 255, dtype=torch.uint8)
    assert torch.equal(prepare(dict(inputs=grey))['inputs'], torch.ones(2, 3, 32, 32))
    assert prepare(dict(inputs=[grey[0], grey[1, :, :20]]))['inputs'].shape == (2, 3, 32, 32)
    with pytest.raises(ConfigError, match='4 channels'):
        prepare(dict(inputs=torch.zeros(1, 4, 32, 32)))
    to_grey = EncoderPreprocessor([0.0], [1.0], (8, 8))
    colour = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    pillow = Image.fromarray(colour[0].permute(1, 2, 0).numpy()).convert('L')
    assert (to_grey(dict(inputs=colour))['inputs'][0, 0] - torch.from_numpy(np.array(pillow))).abs().max() <= 1


def test_a_probe_sees_pictures_as_the_extractor_does(tmp_path):
    rng = np.random.default_rng(0)
    for split, name in product(('train', 'val'), ('a', 'b')):
        folder = tmp_path / 'photos' / split / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(folder / f'{number}.png')
    torch.save(mae_file(timm_vit()), tmp_path / 'mae.pth')
    encoder = get_encoder(tmp_path / 'mae.pth', device='cpu')
    steps = [
        dict(type='ldae.LoadImage'),
        resize_edge(18),
        dict(type='CenterCrop', crop_size=16),
        dict(type='PackInputs'),
    ]
    dataset = dict(type='ldae.ImageFolder', data_root=str(tmp_path / 'photos'), pipeline=steps)
    loaders = {
        f'{s}_dataloader': dict(batch_size=3, num_workers=0, dataset=dict(dataset, split=s)) for s in ('train', 'val')
    }
    data = encoder_images(Config(dict(loaders, data_preprocessor=dict(mean=[1.0], std=[2.0], to_rgb=True))), encoder)
    _, test = labelled_dataloaders(data, (None, None), k=1)
    rows, labels = extract_features(
        lambda images: block_features(encoder, images, [2], 'cls')[:, 0], test, preprocessor_of(encoder, data)
    )
    assert labels.tolist() == [0, 0, 1, 1]
    encoder.pretrained_cfg['crop_pct'] = 16 / 18
    extract = FeatureExtractor(encoder, pool='cls', blocks=2)
    torch.testing.assert_close(rows, extract(tmp_path / 'photos/val'), rtol=1e-4, atol=1e-4)


def test_files_are_read_at_the_encoders_size_and_a_pipeline_of_ones_own_stays():
    cfg = Config(FILES_DATA)
    encoder = get_encoder('timm::vit_tiny_patch16_224', device='cpu')
    steps = encoder_images(cfg, encoder).val_dataloader.dataset.pipeline
    assert (steps[1].scale, steps[2].crop_size) == (280, 224)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == 20
    own = get_model('ldae/demo_fashion-mnist', device='cpu')
    assert encoder_images(cfg, own).val_dataloader.dataset.pipeline[1].scale == 20


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def hf_folder(folder, **changes):
    transformers.ViTModel(transformers.ViTConfig(**HF)).save_pretrained(folder)
    path = folder / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def bad_files(vit):
    state = vit.state_dict()
    yield 'code', mae_file(vit) | dict(args=Bomb()), 'pickled Python objects'
    yield 'code in options', mae_file(vit) | dict(args=argparse.Namespace(lr=Bomb())), 'pickled Python objects'
    yield 'CNN', timm.create_model('resnet18').state_dict(), 'no patch embedding among 122 tensors'
    yield 'text model', {'embeddings.word_embeddings.weight': torch.zeros(9, 8)}, 'no patch embedding'
    yield (
        'transformers',
        {'vit.embeddings.patch_embeddings.projection.weight': torch.zeros(8, 3, 4, 4)},
        'transformers::FOLDER',
    )
    yield 'relative positions', {k: v for k, v in state.items() if k != 'pos_embed'}, 'no position embedding'
    yield 'odd positions', state | {'pos_embed': torch.zeros(1, 13, WIDTH)}, '13 positions'
    yield 'a block that is missing', {k: v for k, v in state.items() if 'blocks.1.' not in k}, 'a part of it is missing'
    yield 'a tensor that is missing', {k: v for k, v in state.items() if k != 'blocks.2.mlp.fc2.bias'}, 'lacks 1 of'
    yield 'another shape', state | {'blocks.1.attn.proj.weight': torch.zeros(4, 4)}, 'another shape for 1'
    yield 'strange tensors', state | {'blocks.1.attn.rel_pos': torch.zeros(4)}, 'no known ViT has'
    yield 'too many blocks', state | {'blocks.999999999.norm1.weight': torch.zeros(4)}, 'no known ViT has'
    yield 'scalars', {'patch_embed.proj.weight': torch.zeros(()), 'pos_embed': torch.zeros(())}, 'holds no plain ViT'
    yield 'a list', [1, 2], 'no state_dict'


@pytest.mark.parametrize('number', range(14))
def test_a_file_that_is_no_known_vit_is_one_line_and_runs_nothing(number, tmp_path):
    name, content, message = list(bad_files(timm_vit()))[number]
    torch.save(content, tmp_path / f'{name}.pth')
    with pytest.raises(ConfigError, match=message) as caught:
        get_encoder(tmp_path / f'{name}.pth', device='cpu')
    assert '\n' not in str(caught.value)
    assert name in str(caught.value)


def test_a_file_that_is_cut_short_is_one_line(tmp_path):
    torch.save(mae_file(timm_vit()), tmp_path / 'mae.pth')
    content = (tmp_path / 'mae.pth').read_bytes()
    for suffix in ('.pth', '.safetensors'):
        (tmp_path / f'cut{suffix}').write_bytes(content[: len(content) // 2])
        with pytest.raises(ConfigError, match='cut'):
            get_encoder(tmp_path / f'cut{suffix}', device='cpu')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(auto_map={'AutoModel': 'evil.Model'}), 'run code of its own'),
        (dict(model_type='evil'), "no image model of type 'evil'"),
        (dict(model_type='bert'), 'takes no images'),
        (dict(model_type=None), 'neither timm'),
        (dict(hidden_size=48), 'another shape for|cannot load'),
        (dict(num_hidden_layers=4), 'lacks'),
        (dict(num_hidden_layers=10**9), 'out of range'),
        (dict(patch_size='large'), 'no image model|cannot load'),
        (dict(architecture='vit_tiny_patch16_225'), "did you mean 'vit_tiny_patch16_224'"),
        (dict(architecture='vit_tiny_patch16_224', model_args=dict(checkpoint_path='x.pth')), 'checkpoint_path'),
        (dict(architecture='vit_tiny_patch16_224', model_args=dict(embed_dim='x')), 'cannot build'),
        (dict(architecture='vit_tiny_patch16_224', model_args=[1]), 'model_args'),
        (dict(architecture='vit_tiny_patch16_224', model_args=dict(img_size=1 << 23)), 'another shape|lacks'),
        (dict(architecture='vit_tiny_patch16_224'), 'lacks'),
    ],
)
def test_a_folder_that_is_no_image_model_is_one_line(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        get_encoder(hf_folder(tmp_path / 'model', **changes), device='cpu')
    assert '\n' not in str(caught.value)


def test_numbers_of_a_folder_of_timm_are_checked(tmp_path):
    args = dict(img_size=SIZE, patch_size=PATCH, embed_dim=64, depth=1, num_heads=1)
    state = timm.create_model('vit_tiny_patch16_224', num_classes=0, **args).state_dict()
    for number, (key, value) in enumerate([('mean', 'x'), ('std', [0.5]), ('std', [0, 0, 0]), ('input_size', [3])]):
        timm_folder(tmp_path / str(number), args, state)
        path = tmp_path / str(number) / 'config.json'
        config = json.loads(path.read_text())
        config['pretrained_cfg'][key] = value
        path.write_text(json.dumps(config))
        if key != 'input_size':  # the network knows its own
            with pytest.raises(ConfigError, match='timm cannot build|one of each of 3 channels'):
                get_encoder(path.parent, device='cpu')


def test_a_folder_asks_for_no_kernels_of_others(tmp_path, pictures):
    folder = hf_folder(
        tmp_path / 'model', attn_implementation='someone/kernels', _attn_implementation='someone/kernels'
    )
    encoder = get_encoder(folder, device='cpu')
    assert encoder.backbone.network.config._attn_implementation in ('sdpa', 'eager')


def test_a_folder_without_weights_or_of_something_else_is_one_line(tmp_path):
    folder = hf_folder(tmp_path / 'model')
    (folder / 'preprocessor_config.json').write_text('{"size": {"height": -1, "width": 5}}')
    with pytest.raises(ConfigError, match=r'preprocessor_config\.json'):
        get_encoder(folder, device='cpu')
    (folder / 'model.safetensors').unlink()
    with pytest.raises(ConfigError, match='no weights'):
        get_encoder(folder, device='cpu')
    torch.save(dict(weight=Bomb()), folder / 'pytorch_model.bin')
    with pytest.raises(ConfigError, match='pickled Python objects'):
        get_encoder(folder, device='cpu')
    (folder / 'config.json').write_text('{')
    with pytest.raises(ConfigError, match=r'config\.json cannot be read'):
        get_encoder(folder, device='cpu')
    (folder / 'config.json').unlink()
    with pytest.raises(ConfigError, match=r'no config\.json'):
        get_encoder(folder, device='cpu')


def test_a_name_reaches_the_network_only_when_asked(monkeypatch):
    asked = []

    def snapshot_download(name, local_files_only, **options):
        asked.append((name, local_files_only))
        raise OSError('no network')

    monkeypatch.setattr('huggingface_hub.snapshot_download', snapshot_download)
    with pytest.raises(ConfigError, match='add --pretrained'):
        get_encoder('transformers::facebook/vit-mae-base')
    with pytest.raises(ConfigError, match='cannot be downloaded'):
        get_encoder('transformers::facebook/vit-mae-base', pretrained=True)
    assert asked == [('facebook/vit-mae-base', True), ('facebook/vit-mae-base', False)]


def test_a_name_that_was_downloaded_is_its_folder(monkeypatch, tmp_path, pictures):
    folder = hf_folder(tmp_path / 'snapshot')
    monkeypatch.setattr('huggingface_hub.snapshot_download', lambda name, **options: str(folder))
    assert features(get_encoder('transformers::some/vit', device='cpu'), pictures).shape == (2, 32)


def test_options_of_configs_are_refused_for_what_has_none(tmp_path):
    torch.save(mae_file(timm_vit()), tmp_path / 'mae.pth')
    with pytest.raises(ConfigError, match='cfg_options: for a model that has a config'):
        get_encoder(tmp_path / 'mae.pth', device='cpu', cfg_options={'model.backbone.depth': 3})
    with pytest.raises(ConfigError, match='shared by 3 heads'):
        get_encoder(tmp_path / 'mae.pth', device='cpu', cfg_options=dict(num_heads=3))


def test_a_pooling_that_an_encoder_lacks_is_one_line(pictures):
    convolutional = get_encoder('timm::resnet18', device='cpu')
    with pytest.raises(ConfigError, match='pooling=cls: ResNet has mean and own only'):
        features(convolutional, pictures, 'cls')
    with pytest.raises(ConfigError, match='of the last block'):
        features(convolutional, pictures, 'own', blocks=[1])
