# SPDX-License-Identifier: Apache-2.0
import os
import pickle

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ldae.apis import get_model, list_models, load_config_of
from ldae.config import configs_root, load_config
from ldae.config.stored import parse_config
from ldae.models import LDAE
from ldae.registry import MODELS
from ldae.utils import ConfigError

DEMO = 'ldae/demo_fashion-mnist'


@pytest.fixture(scope='module')
def demo_checkpoint(tmp_path_factory):
    """A checkpoint as a Runner writes it, of a model with random weights, and that model."""
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    path = tmp_path_factory.mktemp('model') / 'epoch_1.pth'
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()), path)
    return path, model.eval()


def test_a_checkpoint_alone_is_no_name_of_a_model(demo_checkpoint):
    path, model = demo_checkpoint
    images = torch.randn(2, 1, 28, 28)
    for given in (path, str(path)):
        assert torch.equal(get_model(given).extract_feat(images)[-1], model.extract_feat(images)[-1])


def test_models_are_the_configs_that_describe_one():
    names = list_models()
    assert 'ldae/vit-b_pca' in names
    assert 'mae/vit-b_1600e' in names
    assert 'deconstruction/t3_6_single-level' in names
    assert not [name for name in names if name.startswith(('_base_', 'scales'))]
    assert set(list_models('mae/*')) == {name for name in names if name.startswith('mae/')}


def test_a_checkpoint_alone_gives_the_model_that_wrote_it(demo_checkpoint):
    path, source = demo_checkpoint
    model = get_model(checkpoint=path, device='cpu')
    images = torch.randn(2, 1, 28, 28)
    assert isinstance(model, LDAE)
    assert not model.training
    torch.testing.assert_close(model.extract_feat(images)[-1], source.extract_feat(images)[-1], rtol=0, atol=0)


@pytest.mark.parametrize(
    'name', [DEMO, 'ldae::ldae/demo_fashion-mnist.py', str(configs_root() / 'ldae/demo_fashion-mnist.py')]
)
def test_a_name_a_prefix_and_a_path_say_the_same(name):
    model = get_model(name, device='cpu', backbone=dict(timestep=7))
    assert model.backbone.timestep == 7
    assert model._config.model.type == 'ldae.LDAE'


def test_the_last_part_of_a_name_is_enough_where_it_is_unmistakable():
    assert get_model('fashion-mnist_pca', device='cpu').tokenizer.geometry.img_size == 28
    with pytest.raises(ConfigError, match='may be any of'):
        get_model('demo_fashion-mnist')


def test_a_name_at_another_scale_has_that_scales_geometry():
    assert get_model('ldae/vit-b_pca', scale='fashion-mnist_subset', device='cpu').tokenizer.latent_dim == 8


def test_a_probe_is_built_without_the_checkpoint_that_training_would_ask_for():
    options = {'model.backbone.arch': 'deit-tiny', 'model.neck.input_features': 192, 'model.head.in_channels': 192}
    assert get_model('benchmarks/ldae_vit-b_linear', cfg_options=options, device='cpu').backbone.embed_dims == 192


def test_timms_models_take_a_checkpoint_with_or_without_its_classifier(tmp_path):
    source = timm.create_model('vit_tiny_patch16_224', num_classes=3)
    torch.save(source.state_dict(), tmp_path / 'tiny.pth')
    model = get_model('timm::vit_tiny_patch16_224', tmp_path / 'tiny.pth', device='cpu')
    assert torch.equal(model.blocks[3].attn.qkv.weight, source.blocks[3].attn.qkv.weight)
    assert model._config is None


def test_mmpretrains_models_are_built_by_name():
    assert type(get_model('mmpretrain::deit-tiny_4xb256_in1k', device='cpu').backbone).__name__ == 'VisionTransformer'


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (None, 'name a model, or a checkpoint'),
        ('ldae/vit-b_pcb', "did you mean 'ldae/vit-b_pca'"),
        ('timm::vit_tiny_patch16_225', "did you mean 'vit_tiny_patch16_224'"),
        ('mmpretrain::deit-tyny_4xb256_in1k', "did you mean 'deit-tiny_4xb256_in1k'"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(model, message):
    with pytest.raises(ConfigError, match=message):
        get_model(model)


def test_a_config_that_does_not_fit_the_checkpoint_is_one_line(demo_checkpoint):
    with pytest.raises(ConfigError, match='use the config that it was made with'):
        get_model(DEMO, demo_checkpoint[0], cfg_options={'model.tokenizer.latent_dim': 4})
    with pytest.raises(ConfigError, match='use the config that it was made with'):
        get_model('mae/demo_fashion-mnist', demo_checkpoint[0])


def test_a_checkpoint_without_a_config_asks_for_one(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'bare.pth')
    with pytest.raises(ConfigError, match='name the config'):
        load_config_of(tmp_path / 'bare.pth')


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize('save', [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickled_code_is_refused_and_never_runs(tmp_path, save):
    save(dict(state_dict={}, meta=Bomb()), tmp_path / 'bomb.pth')
    with pytest.raises(ConfigError, match='TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        get_model(DEMO, tmp_path / 'bomb.pth')


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'PK\x03\x04 cut short'])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / 'bad.pth').write_bytes(content)
    with pytest.raises(ConfigError, match=r'bad\.pth'):
        get_model(DEMO, tmp_path / 'bad.pth')


def test_a_file_of_something_else_is_one_line(tmp_path):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(ConfigError, match='no state_dict'):
        get_model(DEMO, tmp_path / 'list.pth')


def test_the_text_of_every_config_reads_back_as_it_was():
    for name in ['ldae/vit-b_pca', 'benchmarks/mae_vit-l_finetune', 'tokenizers/conv-vae_f8_kl-lpips-gan', DEMO]:
        cfg = load_config(f'ldae::{name}.py')
        assert parse_config(cfg.pretty_text) == cfg.to_dict()


@pytest.mark.parametrize(
    'text', ['import os', 'a = open("x")', 'a = dict(b=print(1))', 'a.b = 1', 'a = [x for x in (1,)]', 'a = (']
)
def test_a_stored_config_is_data_and_never_run(text, tmp_path):
    with pytest.raises((ValueError, SyntaxError)):
        parse_config(text)
    torch.save(dict(meta=dict(cfg=text), state_dict={}), tmp_path / 'x.pth')
    with pytest.raises(ConfigError, match='cannot be read as data'):
        load_config_of(tmp_path / 'x.pth')


def test_numbers_without_end_are_data_too():
    assert parse_config('a = dict(b=inf, **{"c.d": -1})') == dict(a={'b': float('inf'), 'c.d': -1})


def test_a_config_object_is_left_as_it_was():
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py')
    before = Config(cfg.to_dict()).pretty_text
    get_model(cfg, cfg_options={'model.backbone.timestep': 5}, device='cpu')
    assert Config(cfg.to_dict()).pretty_text == before


def test_maes_own_checkpoints_are_timms_models(tmp_path):
    source = timm.create_model('vit_tiny_patch16_224', num_classes=0)
    state = dict(source.state_dict(), mask_token=torch.zeros(1), **{'decoder_embed.weight': torch.zeros(2)})
    torch.save(dict(model=state), tmp_path / 'mae.pth')
    model = get_model('timm::vit_tiny_patch16_224', tmp_path / 'mae.pth', device='cpu')
    assert torch.equal(model.norm.weight, source.norm.weight)
    for name in (None, DEMO):
        with pytest.raises(ConfigError, match="timm's names, as in MAE's own files: name its model of timm"):
            get_model(name, tmp_path / 'mae.pth', device='cpu')


def test_transformers_checkpoints_are_told_by_their_names(tmp_path):
    torch.save({'vit.encoder.layer.0.attention.attention.query.weight': torch.zeros(2)}, tmp_path / 'hf.pth')
    for name in (None, DEMO):
        with pytest.raises(ConfigError, match="transformers' names"):
            get_model(name, tmp_path / 'hf.pth', device='cpu')


@pytest.mark.parametrize('state', [{5: torch.zeros(2)}, {'a': None}, {'a': 'x'}, {'a': [1]}, {'a': 3}])
def test_a_state_of_anything_but_tensors_is_one_line(tmp_path, state):
    torch.save(dict(state_dict=state, meta=dict(cfg='')), tmp_path / 'a.pth')
    with pytest.raises(ConfigError, match='of its state_dict is not a tensor'):
        get_model(DEMO, tmp_path / 'a.pth', device='cpu')


def test_a_pipe_is_not_a_checkpoint(tmp_path):
    os.mkfifo(tmp_path / 'pipe.pth')
    with pytest.raises(ConfigError, match=r"pipe\.pth' is not a file"):
        get_model(DEMO, tmp_path / 'pipe.pth', device='cpu')


def with_average(path, target, **entries):
    """A checkpoint with halved weights as their average, beside the weights or in their place."""
    content = torch.load(path)
    half = {f'module.{key}': value / 2 for key, value in content['state_dict'].items() if value.is_floating_point()}
    torch.save(dict(content, ema_state_dict=dict(half, steps=torch.tensor(3)), **entries), target)
    return target


def test_the_average_of_the_weights_on_request(demo_checkpoint, tmp_path):
    path = with_average(demo_checkpoint[0], tmp_path / 'epoch_1.pth', ema_in_place=False)
    weights = demo_checkpoint[1].state_dict()
    for ema in (False, True):
        for name, value in get_model(checkpoint=path, device='cpu', ema=ema).state_dict().items():
            expected = weights[name] / 2 if ema and value.is_floating_point() else weights[name]
            assert torch.equal(value, expected), name


def test_where_the_average_is_in_the_place_of_the_weights_it_is_read_there(demo_checkpoint, tmp_path):
    path = with_average(demo_checkpoint[0], tmp_path / 'epoch_1.pth')  # as mmengine's hook, and ldae before, write it
    found = get_model(checkpoint=path, device='cpu', ema=True).state_dict()
    assert all(torch.equal(value, demo_checkpoint[1].state_dict()[name]) for name, value in found.items())


def test_no_average_is_one_line(demo_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r'epoch_1.pth holds no average of the weights \(EMA\): leave --ema out'):
        get_model(checkpoint=demo_checkpoint[0], device='cpu', ema=True)
    with pytest.raises(ConfigError, match='--ema takes the average of the weights from a checkpoint: name one'):
        get_model(DEMO, device='cpu', ema=True)
    broken = with_average(demo_checkpoint[0], tmp_path / 'epoch_1.pth', ema_in_place=False)
    content = torch.load(broken)
    for value in (3, dict(content['ema_state_dict'], **{'module.neck.predict.weight': 'x'})):
        torch.save(dict(content, ema_state_dict=value), broken)
        with pytest.raises(ConfigError, match='epoch_1.pth'):
            get_model(checkpoint=broken, device='cpu', ema=True)
