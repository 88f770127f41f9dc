# SPDX-License-Identifier: Apache-2.0
"""What a scale changes of a config, and what it leaves."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from ldae.cli import run_tool
from ldae.config import configs_root, load_config
from ldae.config.scale import apply_scale, find_scale, tokenizer_checkpoint
from ldae.registry import MODELS
from ldae.utils import ConfigError

SCALES = sorted(path.stem for path in (configs_root() / 'scales').glob('*.py'))
SUBSET = 'fashion-mnist_subset'


def row(name: str, scale: str | None = SUBSET, **options):
    return load_config(f'ldae::deconstruction/{name}.py', options, scale)


def test_the_four_scales_are_there():
    assert SCALES == ['cifar10', 'fashion-mnist', SUBSET, 'image-folder']


def test_small_scale_of_the_last_row():
    cfg = row('t3_5_original-image')
    tokenizer = cfg.model.tokenizer
    assert (tokenizer.img_size, tokenizer.patch_size, tokenizer.in_channels) == (32, 8, 1)
    assert tokenizer.latent_dim == 8
    assert cfg.train_dataloader.dataset.type == 'ldae.IDXDataset'
    assert cfg.train_dataloader.dataset.with_label is False
    assert cfg.train_dataloader.dataset.crop_scale is None
    assert cfg.val_evaluator.type == 'ldae.DenoisingMetric'
    assert cfg.work_dir == f'./work_dirs/{SUBSET}/t3_5_original-image'
    full = row('t3_5_original-image', None)
    for part in ('noiser', 'head'):
        assert cfg.model[part] == full.model[part]
    assert cfg.default_hooks.plain_checkpoint == full.default_hooks.plain_checkpoint


@pytest.mark.parametrize('scale', SCALES)
def test_an_average_of_the_weights_reaches_back_over_less_of_a_shorter_run(scale):
    assert row('ema', None).default_hooks.ema.momentum == 1e-4
    assert 1e-3 <= row('ema', scale).default_hooks.ema.momentum <= 0.04
    assert 'ema' not in row('t3_5_original-image', scale).default_hooks


@pytest.mark.parametrize('scale', SCALES)
def test_dimensions_keep_their_order(scale):
    dims = [row(f't2_pca_d{d}', scale).model.tokenizer.latent_dim for d in (8, 16, 32, 64, 128)]
    assert dims == sorted(set(dims))
    tokenizer = row('t2_pca_d128', scale).model.tokenizer
    assert dims[-1] < tokenizer.in_channels * tokenizer.patch_size**2
    conv = [row(f't2_conv-vae_d{d}', scale).model.tokenizer for d in (8, 16, 32, 64, 128)]
    assert all(cfg.latent_dim % (cfg.patch_size // cfg.downsample) ** 2 == 0 for cfg in conv)


@pytest.mark.parametrize('scale', SCALES)
def test_pixels_are_halved_three_times(scale):
    sizes = [row(f'f5_pixel_{size}', scale).model.tokenizer.resized for size in (256, 128, 64, 32)]
    tokenizer = row('f5_pixel_256', scale).model.tokenizer
    assert sizes == [tokenizer.img_size // 2**i for i in range(4)]
    assert sizes[-1] % (tokenizer.img_size // tokenizer.patch_size) == 0


@pytest.mark.parametrize('scale', SCALES)
def test_epochs_and_warm_up_are_in_proportion(scale):
    one, two, four = (row(f'epochs_{n}', scale) for n in (400, 800, 1600))
    epochs = one.train_cfg.max_epochs
    assert (two.train_cfg.max_epochs, four.train_cfg.max_epochs) == (2 * epochs, 4 * epochs)
    for cfg in (one, two, four):
        warm_up, cosine = cfg.param_scheduler
        assert warm_up.end == cosine.begin == epochs / 4
        assert cosine.end == cfg.train_cfg.max_epochs == cosine.begin + cosine.T_max


@pytest.mark.parametrize('scale', SCALES)
def test_sizes_keep_their_order(scale):
    small, half, large = (row(f'size_{n}', scale).model.backbone.arch for n in ('vit-b', 'half-l', 'vit-l'))
    assert small.embed_dims < half.embed_dims == large.embed_dims
    assert small.num_layers == half.num_layers == large.num_layers / 2
    for arch in (small, half, large):
        assert arch.embed_dims % 4 == arch.embed_dims % arch.num_heads == 0


def test_cuts_divide_as_many_blocks():
    cuts = [row(f'a_cut{n}').model for n in range(9, 16)]
    half = row('size_half-l').model.backbone.arch
    layers = [(model.backbone.arch.num_layers, model.neck.arch.num_layers) for model in cuts]
    assert {sum(pair) for pair in layers} == {2 * half.num_layers}
    assert [pair[0] for pair in layers] == sorted(pair[0] for pair in layers)
    assert layers[3] == (half.num_layers, half.num_layers)
    assert layers[0][0] < half.num_layers < layers[-1][0]


def test_a_decoder_with_heads_of_its_own_comes_to_a_scale():
    neck = load_config('ldae::ldae/vit-b_pca_masked.py', scale='fashion-mnist_subset').model.neck
    assert neck.arch == dict(embed_dims=48, num_layers=2)


@pytest.mark.parametrize(('name', 'small', 'full'), [('depth1', {}, {}), ('depth4', dict(num_layers=3), {}),
    ('mae', dict(embed_dims=48, num_layers=2), dict(embed_dims=512, num_layers=8))])  # fmt: skip
def test_light_decoders_stay_light(name, small, full):
    depth = {'depth1': dict(num_layers=1), 'depth4': dict(num_layers=4)}.get(name, {})
    assert row(f'decoder_{name}').model.neck.arch == {**depth, **small}
    assert row(f'decoder_{name}', None).model.neck.arch == {**depth, **full}


@pytest.fixture
def lighter(tmp_path):
    def write(share: object) -> Path:
        path = tmp_path / 'lighter.py'
        path.write_text(f"_base_ = 'ldae::scales/{SUBSET}.py'\n\nscale = dict(decoder_share={share!r})\n")
        return path

    return write


@pytest.mark.parametrize(
    ('share', 'half', 'large'), [(1 / 3, 1, 2), (0.333, 1, 2), (0.5, 2, 3), (0.01, 1, 1), (1, 3, 6)]
)
def test_a_share_sizes_the_decoders_that_a_row_says_nothing_of(lighter, share, half, large):
    path = lighter(share)
    assert [row(f'size_{name}', path).model.neck.arch.num_layers for name in ('half-l', 'vit-l')] == [half, large]
    for name in ('decoder_depth2', 'decoder_mae', 'a_cut9', 'a_cut12'):
        assert row(name, path).model.neck == row(name).model.neck
    built = MODELS.build(row('t3_5_original-image', path).model)
    assert (len(built.backbone.layers), len(built.neck.layers)) == (3, half)
    assert load_config('ldae::mae/vit-b_256_400e.py', scale=path).model.neck.decoder_depth == 3


def test_without_a_share_halves_are_equal():
    assert 'arch' not in row('t3_5_original-image').model.neck


@pytest.mark.parametrize('share', [0, -0.5, 1.5, 'a third', True])
def test_a_bad_share_is_one_line(lighter, share):
    path = lighter(share)
    with pytest.raises(ConfigError, match=r'lighter.py: scale.decoder_share is .*: give a number above 0, up to 1'):
        row('t3_5_original-image', path)


def test_blocks_of_one_model_are_those_that_a_cut_trains():
    cuts = [row(f'a_cut{n}').model.backbone.arch.num_layers for n in range(9, 16)]
    assert [row(f'one_cut{n}').blocks for n in range(9, 16)] == [[n] for n in cuts]
    assert row('one_cut13', None).blocks == [13]
    assert row('one_cut13').model == row('t3_5_original-image').model


@pytest.mark.parametrize('scale', SCALES)
def test_flips_and_betas_of_a_row_reach_a_scale(scale):
    assert row('betas_999', scale).optim_wrapper.optimizer.betas == (0.9, 0.999)
    assert row('t3_5_original-image', scale).optim_wrapper.optimizer.betas == (0.9, 0.95)
    dataset = row('aug_flip', scale).train_dataloader.dataset
    assert dataset.get('flip') == 0.5 or [step for step in dataset.pipeline if step.type == 'RandomFlip']
    assert 'flip' not in row('t3_5_original-image', scale).train_dataloader.dataset
    assert 'flip' not in row('aug_flip', scale).val_dataloader.dataset


def test_a_length_of_ones_own_keeps_lengths_and_warm_up_in_proportion():
    for name, epochs in (('t3_5_original-image', 12), ('epochs_800', 24)):
        cfg = load_config(f'ldae::deconstruction/{name}.py', scale=SUBSET, epochs=12)
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == epochs
        assert cfg.param_scheduler[0].end == 3


def test_only_the_baseline_has_labels_at_small_scale():
    cfg = row('t1_1_dit-baseline')
    assert cfg.model.num_classes == 10
    assert cfg.train_dataloader.dataset.with_label is True
    cfg = row('t1_2_no-class-conditioning')
    assert cfg.model.num_classes is None
    assert cfg.train_dataloader.dataset.with_label is False


@pytest.mark.parametrize('scale', ['fashion-mnist', SUBSET, 'cifar10'])
def test_random_crop_reaches_data_in_memory(scale):
    assert row('aug_random-crop', scale).train_dataloader.dataset.crop_scale == (0.2, 1.0)
    assert row('aug_random-crop', scale).val_dataloader.dataset.get('crop_scale') is None


def test_pipelines_of_a_folder_keep_their_steps_at_its_size():
    crop = row('aug_random-crop', 'image-folder')
    assert [(step.type, step.get('scale')) for step in crop.train_dataloader.dataset.pipeline] == [
        ('ldae.LoadImage', None),
        ('RandomResizedCrop', 64),
        ('PackInputs', None),
    ]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        pipeline = row('t3_5_original-image', 'image-folder')[loader].dataset.pipeline
        assert (pipeline[1].scale, pipeline[2].crop_size) == (64, 64)


def test_learned_tokenizers_have_a_file_of_the_scale():
    assert tokenizer_checkpoint('patch-ae_d16') == 'work_dirs/patch-ae_d16/tokenizer.pth'
    assert row('t2_patch-ae_d16', None).model.tokenizer.checkpoint == tokenizer_checkpoint('patch-ae_d16')
    assert row('t2_patch-ae_d16').model.tokenizer.checkpoint == tokenizer_checkpoint('patch-ae_d16', SUBSET)
    assert SUBSET in tokenizer_checkpoint('patch-ae_d16', SUBSET)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('name', ['conv-vae_f8_kl-gan', 'patch-vae_d16'])
def test_training_of_a_tokenizer_is_scaled_and_keeps_its_optimizer(name, scale):
    full, cfg = (load_config(f'ldae::tokenizers/{name}.py', scale=x) for x in (None, scale))
    assert cfg.model.tokenizer.img_size < full.model.tokenizer.img_size
    assert cfg.optim_wrapper == full.optim_wrapper
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
    assert cfg.val_evaluator == full.val_evaluator
    assert set(cfg.default_hooks) == set(full.default_hooks)
    warm_up, cosine = cfg.param_scheduler
    assert 1 <= warm_up.end == cosine.begin < cosine.end == cfg.train_cfg.max_epochs
    assert f'{cfg.work_dir}/tokenizer.pth' == './' + tokenizer_checkpoint(name, scale)
    if 'gan' in name:
        assert cfg.model.adversarial.start_step < full.model.adversarial.start_step


@pytest.mark.parametrize('scale', [None, SUBSET])
@pytest.mark.parametrize('name', ['t1_1_dit-baseline', 't1_3_no-perceptual', 't2_conv-vae_d32', 't2_patch-ae_d8'])
def test_a_row_has_the_tokenizer_that_its_config_trains(name, scale):
    used = row(name, scale).model.tokenizer
    trained = load_config(f'ldae::tokenizers/{Path(used.checkpoint).parent.name}.py', scale=scale).model.tokenizer
    for key in ('checkpoint', 'latent_norm'):
        used.pop(key, None), trained.pop(key, None)
    assert used == trained


def test_options_of_the_command_come_after_the_scale():
    options = {'train_cfg.max_epochs': 3, 'model.tokenizer.latent_dim': 5}
    cfg = load_config('ldae::deconstruction/t3_5_original-image.py', options, SUBSET)
    assert (cfg.train_cfg.max_epochs, cfg.model.tokenizer.latent_dim) == (3, 5)


@pytest.mark.parametrize(('scale', 'whole'), [(SUBSET, 64), ('cifar10', 192)])
def test_all_components_of_a_patch_stay_all_and_a_rank_follows_the_dimensions(scale, whole):
    model = {r: load_config(f'ldae::after_paper/asymflow_r{r}.py', scale=scale).model for r in (0, 8, 768)}
    assert {one.tokenizer.latent_dim for one in model.values()} == {whole}
    assert [one.head.rank for one in model.values()] == [0, 2, whole]


@pytest.mark.parametrize('scale', ['fashion-mnist', 'cifar10', 'image-folder'])
def test_data_root_reaches_every_data_set(scale):
    cfg = row('t3_5_original-image', scale, data_root='here')
    assert {cfg[name].dataset.data_root for name in ('train_dataloader', 'val_dataloader', 'test_dataloader')} == {
        'here'
    }


def test_a_scale_of_ones_own_is_a_file(tmp_path: Path):
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = r'{find_scale(SUBSET)}'\nscale = dict(epochs=4)\n")
    cfg = row('t3_5_original-image', mine)
    assert cfg.train_cfg.max_epochs == 4
    assert cfg.work_dir == './work_dirs/mine/t3_5_original-image'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('scale = dict(archs=dict(_delete_=True, base=dict()))', "no entry for 'half-large'"),
        ('scale = dict(latent_dims=dict(_delete_=True))', 'no entry for 32'),
    ],
)
def test_what_a_scale_lacks_is_said_in_one_line(tmp_path: Path, text, message):
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = r'{find_scale(SUBSET)}'\n{text}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        row('t3_5_original-image', mine)
    assert '\n' not in str(caught.value)


def test_a_time_step_of_the_scale_leaves_those_that_rows_name(tmp_path: Path):
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = r'{find_scale(SUBSET)}'\nscale = dict(timestep=123)\n")
    assert row('t3_1_predict-clean', mine).model.backbone.timestep == 123
    assert row('a_t40_clean', mine).model.backbone.timestep == 40
    mine.write_text(f"_base_ = r'{find_scale(SUBSET)}'\nscale = dict(timestep=[123, 7])\n")
    several = row('t3_1_predict-clean', mine)
    assert (several.timesteps, several.model.backbone.timestep) == ([123, 7], 123)
    assert 'timesteps' not in row('a_t40_clean', mine)


def test_unknown_scale_offers_the_nearest():
    with pytest.raises(ConfigError, match=f"did you mean '{SUBSET}'"):
        find_scale('fashion-mnist_subst')


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize(
    ('mae', 'ldae'),
    [
        ('vit-b_256_400e', 'vit-b_pca_rrc'),
        ('vit-half-l_256_1600e', 'vit-half-l_pca_rrc_1600e'),
        ('vit-l_256_1600e', 'vit-l_pca_rrc_1600e'),
    ],
)
def test_mae_comes_to_a_scale_as_the_ldae_beside_it(mae, ldae, scale):
    mae, ldae = (load_config(f'ldae::{name}.py', scale=scale) for name in (f'mae/{mae}', f'ldae/{ldae}'))
    for key in ('train_dataloader', 'data_preprocessor', 'auto_scale_lr', 'scale'):
        assert mae[key] == ldae[key], key
    assert mae.train_cfg.max_epochs == ldae.train_cfg.max_epochs
    assert (mae.val_dataloader, mae.test_dataloader) == (None, ldae.test_dataloader)
    encoder, tokenizer = mae.model.backbone, ldae.model.tokenizer
    assert encoder.arch == ldae.model.backbone.arch
    assert (encoder.img_size, encoder.patch_size) == (tokenizer.img_size, tokenizer.patch_size)
    # MAE's own, at its place between the papers' rates: 1.5e-4 and 1e-4.
    optimizer = mae.optim_wrapper.optimizer
    assert optimizer.weight_decay == 0.05
    assert optimizer.lr == pytest.approx(1.5 * ldae.optim_wrapper.optimizer.lr)


@pytest.mark.parametrize('name', ['vit-b_300e', 'vit-l_1600e'])
def test_mmpretrains_mae_comes_to_a_scale_too(name):
    cfg = load_config(f'ldae::mae/{name}.py', scale=SUBSET)
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    assert model.neck.decoder_pos_embed.shape[1] == 1 + 16
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == {'vit-b_300e': 3, 'vit-l_1600e': 16}[name]
    images = torch.randn(2, 1, 32, 32)
    assert torch.isfinite(model(images, mode='loss', data_samples=None)['loss'])


def test_a_config_is_scaled_once():
    with pytest.raises(ConfigError, match='already'):
        apply_scale(row('t3_5_original-image'), 'cifar10')


@pytest.mark.parametrize('name', ['mae/demo_fashion-mnist.py', 'ldae/fashion-mnist_pca.py'])
def test_what_has_no_scale_is_refused(name):
    with pytest.raises(ConfigError, match="of the paper's scale"):
        load_config(f'ldae::{name}', scale=SUBSET)


def test_a_scale_that_lacks_something_is_said_in_one_line(tmp_path: Path):
    mine = tmp_path / 'mine.py'
    mine.write_text('scale = dict(img_size=32)\n')
    with pytest.raises(ConfigError, match=r'lacks .*optim_wrapper.*scale\.patch_size') as caught:
        row('t3_5_original-image', mine)
    assert '\n' not in str(caught.value)


def test_a_config_is_no_scale():
    with pytest.raises(ConfigError, match='is not a scale'):
        row('t3_5_original-image', configs_root() / 'ldae' / 'vit-b_pca.py')


@pytest.mark.usefixtures('tidy_configs')
def test_print_config_takes_a_scale(capsys: pytest.CaptureFixture):
    options = ['ldae::deconstruction/t3_5_original-image.py', '--scale', SUBSET]
    assert run_tool('print-config', options) == 0
    assert f"scale = '{SUBSET}'" in capsys.readouterr().out
    assert run_tool('print-config', [*options, '--diff', 'ldae::deconstruction/t3_4_image-output.py']) == 0
    changed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(('+', '-'))]
    assert any('OriginalImageHead' in line for line in changed)
    assert not any('img_size' in line for line in changed)
