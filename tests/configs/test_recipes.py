# SPDX-License-Identifier: Apache-2.0
"""The numbers of the recipes: learning rates over time, who adapts, what decays, and errors before training."""

import math

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmpretrain.registry import MODELS
from shrink import shrink
from torch import nn

from ldae.config import configs_root, load_config
from ldae.launch import build_runner, prepare
from ldae.utils import ConfigError

ROOT = configs_root()
STEPS = 20  # an epoch; the paper's 625 would only make the test slow
# name, peak lr, warm-up epochs, epochs, final lr
SCHEDULES = [
    ('ldae/vit-b_pca.py', 1e-4 * 2048 / 256, 100, 400, 0),
    ('ldae/vit-half-l_pca_rrc_800e.py', 1e-4 * 2048 / 256, 100, 800, 0),
    ('ldae/vit-l_pca_rrc_1600e.py', 1e-4 * 2048 / 256, 100, 1600, 0),
    ('mae/vit-b_300e.py', 2.4e-3, 40, 300, 0),
    ('benchmarks/ldae_vit-b_linear.py', 6.4, 10, 90, 0),
    ('benchmarks/mae_vit-l_linear.py', 6.4, 10, 90, 0),
    ('benchmarks/ldae_vit-b_finetune.py', 4e-3, 5, 100, 1e-6),
    ('benchmarks/mae_vit-l_finetune.py', 4e-3, 5, 100, 1e-6),
]


def learning_rates(name: str, scale: float = 1) -> list[float]:
    """The config's lr at every step, of parameters that have a share of it."""
    cfg = load_config(ROOT / name)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr * scale)
    wrapper = OptimWrapper(optimizer)
    schedulers = [
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=wrapper, epoch_length=STEPS))
        for scheduler in cfg.param_scheduler
    ]
    lrs = []
    for _ in range(cfg.train_cfg.max_epochs * STEPS):
        lrs.append(optimizer.param_groups[0]['lr'])
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return lrs


@pytest.mark.parametrize(('name', 'peak', 'warm_up', 'epochs', 'final'), SCHEDULES)
def test_lr_warms_up_linearly_and_falls_by_half_a_cosine(name, peak, warm_up, epochs, final):
    lrs = learning_rates(name)
    one_step = peak / (warm_up * STEPS)  # mmengine reaches the peak at the last step of the warm-up, not after it
    assert len(lrs) == epochs * STEPS
    for epoch in (0, 1, warm_up / 2, warm_up, (warm_up + epochs) // 2, epochs - 1):
        if epoch < warm_up:
            expected = peak * epoch / warm_up
        else:
            progress = (epoch - warm_up) / (epochs - warm_up)
            expected = final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))
        assert lrs[round(epoch * STEPS)] == pytest.approx(expected, abs=1.1 * one_step), epoch
    assert max(lrs) == pytest.approx(peak)
    assert lrs[-1] == pytest.approx(final, abs=peak * 1e-5)


@pytest.mark.parametrize('name', ['ldae_vit-b_finetune', 'ldae_vit-l_finetune', 'mae_vit-l_256_finetune'])
@pytest.mark.parametrize('layers_from_the_top', [0, 1, 13, 25])
def test_a_layers_lr_is_its_share_of_maes_schedule_down_to_the_end(name, layers_from_the_top):
    cfg = load_config(ROOT / f'benchmarks/{name}.py')
    peak, share = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.paramwise_cfg.layer_decay_rate**layers_from_the_top
    lrs = learning_rates(f'benchmarks/{name}.py', share)
    for epoch in (5, 40, 70, 99):  # MAE's util/lr_sched.py: half a cosine down to min_lr, the whole times lr_scale
        maes = 1e-6 + (peak - 1e-6) * 0.5 * (1 + math.cos(math.pi * (epoch - 5) / 95))
        assert lrs[epoch * STEPS] == pytest.approx(share * maes, rel=0.02), epoch
    assert lrs[-1] == pytest.approx(share * 1e-6, rel=0.4)  # a step before the end
    assert sum(lrs) == pytest.approx(share * sum(learning_rates(f'benchmarks/{name}.py')), rel=1e-6)


def test_paper_recipe_is_adam_without_decay_at_batch_2048():
    cfg = load_config(ROOT / 'ldae/vit-b_pca.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('AdamW', 0)
    assert optimizer.lr == pytest.approx(8e-4)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 2048
    assert cfg.auto_scale_lr.enable
    assert cfg.model.tokenizer.latent_dim == 32
    assert (cfg.model.noiser.schedule, cfg.model.head.tail_weight) == ('linear_sigma', 0.1)
    assert [step.type for step in cfg.train_pipeline] == ['ldae.LoadImage', 'ResizeEdge', 'CenterCrop', 'PackInputs']


def test_random_crop_changes_the_training_crop_and_nothing_else():
    center, crop = (load_config(ROOT / f'ldae/vit-b_pca{suffix}.py') for suffix in ('', '_rrc'))
    assert [step.type for step in crop.train_dataloader.dataset.pipeline] == [
        'ldae.LoadImage',
        'RandomResizedCrop',
        'PackInputs',
    ]
    for cfg in (center, crop):
        cfg.train_dataloader.dataset.pop('pipeline')
        cfg.pop('train_pipeline')
    assert crop.to_dict() == center.to_dict()


def test_changing_one_thing_takes_under_ten_lines():
    name = 'ldae/vit-b_pca_d16.py'
    code = (ROOT / name).read_text().split('"""')[2]
    assert len([line for line in code.splitlines() if line]) < 10
    parent, child = load_config(ROOT / 'ldae/vit-b_pca.py'), load_config(ROOT / name)
    assert child.model.tokenizer.latent_dim == 16
    child.model.tokenizer.latent_dim = 32
    assert child.to_dict() == parent.to_dict()


@pytest.fixture
def linear(train, checkpoints):
    return train('benchmarks/ldae_vit-b_linear.py', checkpoints['ldae'])


def test_linear_probe_trains_the_head_alone_and_does_not_adapt_its_bias(linear):
    trained = {id(param): name for name, param in linear.model.named_parameters() if param.requires_grad}
    groups = linear.optim_wrapper.optimizer.param_groups
    excluded = {trained[id(group['params'][0])]: group.get('lars_exclude', False) for group in groups}
    assert excluded == {'head.fc.weight': False, 'head.fc.bias': True}


def test_linear_probe_leaves_the_pre_trained_encoder_as_it_is(linear):
    init_default_scope('mmpretrain')
    loaded = MODELS.build(linear.cfg.model.backbone)
    loaded.init_weights()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(linear.model.backbone.state_dict()[name], value, rtol=0, atol=0)


def test_fine_tuning_decays_lr_by_layer_and_not_the_weights_of_norms_and_biases():
    cfg = load_config(ROOT / 'benchmarks/ldae_vit-b_finetune.py')
    init_default_scope('mmpretrain')
    with torch.device('meta'):
        model = MODELS.build(dict(data_preprocessor=cfg.data_preprocessor, **cfg.model))
    optim_cfg = dict(cfg.optim_wrapper, type='OptimWrapper')
    names = {param: name for name, param in model.named_parameters()}
    optimizer = build_optim_wrapper(model, optim_cfg).optimizer
    groups = {names[param]: group for group in optimizer.param_groups for param in group['params']}
    lr = {name: group['lr'] / 4e-3 for name, group in groups.items()}
    assert lr['head.fc.weight'] == lr['backbone.ln2.weight'] == 1
    assert lr['backbone.layers.11.attn.qkv.weight'] == pytest.approx(0.85)
    assert lr['backbone.layers.0.attn.qkv.weight'] == pytest.approx(0.85**12)
    assert lr['backbone.patch_embed.projection.weight'] == pytest.approx(0.85**13)
    decayed = {name for name, group in groups.items() if group['weight_decay']}
    assert decayed == {name for name, param in model.named_parameters() if param.ndim > 1 and param.requires_grad}


@pytest.mark.parametrize('name', ['benchmarks/ldae_vit-b_linear.py', 'benchmarks/mae_vit-b_finetune.py'])
def test_benchmark_without_a_checkpoint_says_so_in_one_line(name, data_root, tmp_path):
    with pytest.raises(ConfigError, match='checkpoint') as error:
        build_runner(prepare(shrink(ROOT / name, data_root, tmp_path))).train()
    assert '\n' not in str(error.value)


def test_our_hooks_survive_inheritance():
    for name in ('ldae/vit-b_pca.py', 'mae/vit-b_300e.py', 'benchmarks/ldae_vit-b_finetune.py'):
        hooks = load_config(ROOT / name).default_hooks
        assert {'plain_checkpoint', 'check_loaded', 'timer', 'checkpoint'} <= set(hooks)
        assert hooks.checkpoint.max_keep_ckpts == 3


BENCHMARKS = sorted(path.stem for path in (ROOT / 'benchmarks').glob('*.py') if 'mmpretrain' not in path.stem)
FINETUNE = [name for name in BENCHMARKS if name.endswith('finetune')]
LINEAR = [name for name in BENCHMARKS if '_linear' in name]


def steps_of(cfg, split: str) -> dict[str, dict]:
    return {step.type: step for step in cfg[f'{split}_dataloader'].dataset.pipeline}


@pytest.mark.parametrize('name', FINETUNE)
def test_fine_tuning_has_the_numbers_of_the_papers_table(name):
    cfg = load_config(ROOT / f'benchmarks/{name}.py')
    optimizer, wrapper = cfg.optim_wrapper.optimizer, cfg.optim_wrapper
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', pytest.approx(4e-3), 0.05)
    assert wrapper.paramwise_cfg.layer_decay_rate == (0.65 if 'vit-l' in name else 0.85)
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
    pooling = 'avg_featmap' if name.startswith(('ldae', 'mae', 'simmim')) else 'cls_token'
    assert (cfg.model.backbone.out_type, cfg.model.backbone.drop_path_rate) == (pooling, 0.1)
    assert cfg.model.train_cfg.augments == [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    assert (cfg.model.head.loss.type, cfg.model.head.loss.label_smooth_val) == ('LabelSmoothLoss', 0.1)
    augment = steps_of(cfg, 'train')['RandAugment']
    level = (augment.magnitude_level, augment.total_level, augment.magnitude_std, augment.num_policies)
    assert level == (9, 10, 0.5, 2)
    # mmengine's momentum is the weight of the new value.
    assert 1 - cfg.default_hooks.ema.momentum == pytest.approx(0.9999)


@pytest.mark.parametrize('name', LINEAR)
def test_linear_probe_has_maes_recipe(name):
    cfg = load_config(ROOT / f'benchmarks/{name}.py')
    optimizer, batch = cfg.optim_wrapper.optimizer, 1024 if 'pct' in name else 16384
    assert (optimizer.type, optimizer.weight_decay, optimizer.momentum) == ('LARS', 0, 0.9)
    assert optimizer.lr == pytest.approx(0.1 * batch / 256)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_cfg.max_epochs == (500 if '_1pct' in name else 90)
    arch = cfg.model.backbone.arch
    depth = arch.num_layers if isinstance(arch, dict) else 24 if arch == 'large' else 12
    assert cfg.model.backbone.frozen_stages == depth
    if name.startswith('ldae'):
        assert (cfg.model.backbone.timestep, cfg.model.backbone.out_type) == (10, 'avg_featmap')
    assert cfg.model.get('train_cfg') is None


@pytest.mark.parametrize('name', BENCHMARKS)
def test_benchmarks_crop_and_flip_in_training_and_cut_the_centre_in_testing(name):
    cfg = load_config(ROOT / f'benchmarks/{name}.py')
    size = 256 if name.startswith('ldae') or '_256' in name else 224
    train, test = steps_of(cfg, 'train'), steps_of(cfg, 'val')
    assert train['RandomResizedCrop'].scale == size
    assert train['RandomFlip'].prob == 0.5
    assert ('RandAugment' in train) is ('RandomErasing' in train) is name.endswith('finetune')
    assert list(test) == ['ldae.LoadImage', 'ResizeEdge', 'CenterCrop', 'PackInputs']
    assert (test['ResizeEdge'].scale, test['CenterCrop'].crop_size) == (256, size)
    assert cfg.model.backbone.img_size == size
    part = {'_linear_1pct': 0.01, '_linear_10pct': 0.1}
    expected = next((fraction for end, fraction in part.items() if name.endswith(end)), None)
    assert cfg.train_dataloader.dataset.get('fraction') == expected
    assert cfg.val_dataloader.dataset.get('fraction') is None


def test_the_probes_batch_norm_has_no_parameters():
    cfg = load_config(ROOT / 'benchmarks/ldae_vit-b_linear.py')
    init_default_scope('mmpretrain')
    neck = MODELS.build(cfg.model.neck)
    assert list(neck.parameters()) == []
    x = torch.randn(64, 768) * 3 + 5
    (normalised,) = neck((x,))
    torch.testing.assert_close(normalised, (x - x.mean(0)) / x.std(0, correction=0), rtol=1e-4, atol=1e-4)
