# SPDX-License-Identifier: Apache-2.0
"""The rows of the paper's tables: figures, inheritance, one change each, two small steps, and labels that don't matter."""

import ast
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ldae.config import configs_root, load_config
from ldae.config.rows import AFTER, list_rows
from ldae.datasets import idx
from ldae.export import plain_vit
from ldae.export.plain_vit import patch_map_of
from ldae.export.timm_format import build, features_of
from ldae.launch import build_runner, prepare
from ldae.models.tokenizers import BaseTokenizer
from ldae.models.tokenizers.base import save_tokenizer
from ldae.utils import ConfigError

PATHS = {row.name: row.path for row in list_rows()}
ROWS = list(PATHS)
#: Rows of other papers change what makes up their idea.
AFTER_PAPER = {row.name for row in list_rows(AFTER)}
SCALE = 'fashion-mnist_subset'
BATCH = 4

# ImageNet-1k top-1 of a linear probe, in the paper's tables; (top-1, FID-50K) where there are both.
PAPER = {
    't1_1_dit-baseline': (57.5, 11.6),
    't1_2_no-class-conditioning': (62.5, 30.9),
    't1_3_no-perceptual': (58.4, 54.3),
    't1_4_no-adversarial': (59.0, 75.6),
    't1_5_linear-schedule': (63.4, 93.2),
    **{f't2_conv-vae_d{d}': x for d, x in {8: 54.5, 16: 63.4, 32: 62.8, 64: 57.0, 128: 48.1}.items()},
    **{f't2_patch-vae_d{d}': x for d, x in {8: 58.3, 16: 64.9, 32: 64.8, 64: 56.8}.items()},
    **{f't2_patch-ae_d{d}': x for d, x in {8: 59.9, 16: 64.7, 32: 64.6, 64: 59.9}.items()},
    **{f't2_pca_d{d}': x for d, x in {8: 56.0, 16: 63.4, 32: 65.1, 64: 60.0, 128: 53.9}.items()},
    'f5_pixel_256': 23.6,
    't3_1_predict-clean': 62.4,
    't3_2_no-input-scaling': 63.6,
    't3_3_image-input': 63.6,
    't3_4_image-output': 63.9,
    't3_5_original-image': 64.5,
    't3_6_single-level': 61.5,
    'aug_random-crop': 65.0,
    'epochs_400': 65.0,
    'epochs_800': 67.5,
    'epochs_1600': 69.6,
    'size_vit-b': 60.3,
    'size_half-l': 65.0,
    'size_vit-l': 70.9,
    'table4_vit-b': 66.6,
    'table4_vit-l': 75.0,
    **{f'a_t{t}_clean': x for t, x in {0: 64.1, 10: 64.5, 20: 64.1, 40: 63.3, 80: 62.2}.items()},
    **{f'a_t{t}_noisy': x for t, x in {0: 64.2, 10: 65.0, 20: 65.0, 40: 65.0, 80: 64.5}.items()},
    **{f'kl1_patch-vae_d{d}': x for d, x in {8: 58.3, 16: 64.9, 32: 64.8, 64: 56.8}.items()},
    **{
        f'{kind}_cut{n}': x
        for kind in ('a', 'one')
        for n, x in zip(range(9, 16), (58.5, 62.0, 64.1, 64.5, 63.6, 61.9, 59.7), strict=True)
    },
}
# The paper prints no figure for these.
NO_FIGURE = (
    *('f5_pixel_32', 'f5_pixel_64', 'f5_pixel_128', 'norm_global', 'norm_whiten', 'norm_none'),
    *('decoder_mae', 'decoder_depth1', 'decoder_depth2', 'decoder_depth4', 'decoder_masked', 'decoder_masked_mae'),
    *(f'decoder_masked_depth{n}' for n in (1, 2, 4)),
    *('weight_snr', 'target_noise', 'basis_dct', 'basis_random', 'labels_pca_d32', 'ema'),
    *('aug_flip', 'betas_999'),
)

# Which parts of its parent a row changes, where that isn't one.
NOTHING, LABELS = set(), {'model.num_classes', 'train_dataloader'}
CONDITIONAL = ('t1_1_dit-baseline', 'labels_pca_d32')
CHANGES = {
    **dict.fromkeys(('t1_2_no-class-conditioning', 'labels_pca_d32'), LABELS),
    # The same row under the name that it has in another table.
    **dict.fromkeys(('t2_conv-vae_d16', 'epochs_400', 'size_half-l', 'norm_global'), NOTHING),
    # A size has its own way to the batch of 2048.
    **dict.fromkeys(('size_vit-b', 'size_vit-l'), {'model.backbone', 'train_dataloader', 'optim_wrapper'}),
    **dict.fromkeys(('aug_random-crop', 'aug_flip'), {'train_pipeline', 'train_dataloader'}),
    **dict.fromkeys(('epochs_800', 'epochs_1600'), {'param_scheduler', 'train_cfg'}),
    **{f'table4_vit-{s}': {'param_scheduler', 'train_cfg', 'timesteps', 'inputs'} for s in 'bl'},
    **{f'a_cut{n}': {'model.backbone', 'model.neck'} for n in range(9, 16)},
}
# Our own configs that are rows of the paper.
SAME = {
    't3_5_original-image': 'vit-half-l_pca',
    'aug_random-crop': 'vit-half-l_pca_rrc',
    'epochs_800': 'vit-half-l_pca_rrc_800e',
    'epochs_1600': 'vit-half-l_pca_rrc_1600e',
    'size_vit-b': 'vit-b_pca_rrc',
    'size_vit-l': 'vit-l_pca_rrc',
}


def path_of(name: str) -> Path:
    return PATHS[name]


@cache
def flat(name: str) -> dict:
    """The config's parts, the model's one by one, without options that are off."""
    cfg = load_config(path_of(name) if '/' not in name else configs_root() / name).to_dict()
    model = cfg.pop('model')
    if cfg['optim_wrapper'].get('accumulative_counts') == 1:
        del cfg['optim_wrapper']['accumulative_counts']
    return {**cfg, **{f'model.{key}': value for key, value in model.items() if value is not None}}


def base_of(name: str) -> str | list[str]:
    for node in ast.parse(path_of(name).read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            return ast.literal_eval(node.value)
    raise AssertionError(f'{name} inherits nothing')


def test_the_papers_figures_are_those_of_the_rows():
    found = {row.name: (row.paper_linear, row.paper_fid) for row in list_rows() if row.table != AFTER}
    expected = {name: x if isinstance(x, tuple) else (x, None) for name, x in PAPER.items()}
    assert found == {**expected, **dict.fromkeys(NO_FIGURE, (None, None))}


@pytest.mark.parametrize('name', ROWS[1:])
def test_a_row_inherits_a_row_and_changes_one_thing(name):
    base = base_of(name)
    assert isinstance(base, str)
    parent = Path(base).stem
    assert parent in ROWS
    mine, theirs = flat(name), flat(parent)
    changed = {key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key)}
    if name in AFTER_PAPER:
        assert 0 < len(changed) <= 2, changed
        return
    expected = CHANGES.get(name)
    assert changed == expected if expected is not None else len(changed) <= 1, changed


def test_the_road_runs_from_the_baseline_to_the_end():
    road, name = [], 'a_cut15'
    while isinstance(base_of(name), str):
        road.append(name)
        name = Path(base_of(name)).stem
    assert name == 't1_1_dit-baseline'
    assert [row for row in reversed(road) if row.startswith('t')] == [
        *('t1_2_no-class-conditioning', 't1_3_no-perceptual', 't1_4_no-adversarial', 't1_5_linear-schedule'),
        *('t2_conv-vae_d16', 't2_patch-vae_d16', 't2_patch-ae_d16', 't2_pca_d16', 't2_pca_d32'),
        *('t3_1_predict-clean', 't3_2_no-input-scaling', 't3_3_image-input', 't3_4_image-output'),
        't3_5_original-image',
    ]


@pytest.mark.parametrize(('row', 'config'), SAME.items())
def test_our_own_config_is_the_papers_row(row, config):
    assert flat(row) == flat(f'ldae/{config}.py')


def test_only_class_conditional_rows_read_labels():
    for name in ROWS:
        reads = name in CONDITIONAL
        assert flat(name)['train_dataloader']['dataset']['with_label'] is reads
        assert flat(name).get('model.num_classes') == (1000 if reads else None)


@pytest.fixture(scope='module')
def run_row(tmp_path_factory: pytest.TempPathFactory):
    """``run_row(name, scale, data_root) -> Runner`` after two steps at small scale."""
    folder = tmp_path_factory.mktemp('rows')

    @cache
    def run(name: str, scale: str = SCALE, data_root: Path | None = None) -> Runner:
        options = {} if data_root is None else dict(data_root=str(data_root))
        cfg = load_config(path_of(name), options, scale)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(batch_size=BATCH, num_workers=0, persistent_workers=False)
            loader.dataset.indices = 2 * BATCH
        cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
        if cfg.model.tokenizer.get('checkpoint'):
            cfg.model.tokenizer.checkpoint = tokenizer_file(cfg.model.tokenizer, folder)
        cfg.work_dir = str(folder / scale / name)
        cfg.experiment_name = f'{scale}_{name}'  # runs of one name within a second would share their log
        runner = build_runner(prepare(cfg))
        runner.train()
        return runner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idx, 'read_idx', cache(idx.read_idx))
        yield run


def tokenizer_file(cfg: Config, folder: Path) -> str:
    """A learned tokenizer, not trained, but measured as training does at its end."""
    path = folder / f'{cfg.type}_{cfg.latent_dim}.pth'
    if not path.is_file():
        init_default_scope('mmpretrain')
        tokenizer: BaseTokenizer = MODELS.build(dict(cfg, checkpoint=None))
        tokenizer.take(tokenizer.training_net())
        tokenizer.fit([torch.randn(8, cfg.in_channels, cfg.img_size, cfg.img_size)])
        save_tokenizer(tokenizer, path)
    return str(path)


def check_two_steps(runner: Runner) -> None:
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert runner.iter == len(losses) == 2
    assert all(map(math.isfinite, losses))
    assert any(key.startswith('val/denoising') for key in runner.message_hub.log_scalars)


@pytest.mark.parametrize('name', ROWS)
def test_row_takes_two_steps_at_small_scale(name, run_row):
    check_two_steps(run_row(name))


@pytest.mark.parametrize('name', sorted(AFTER_PAPER))
def test_row_of_another_paper_becomes_a_plain_vit(name, run_row):
    """With the tokenizer folded into its embedding, where that is linear per patch, and one time step merged."""
    model, images = run_row(name).model.eval(), torch.randn(2, 1, 32, 32)
    if patch_map_of(model.tokenizer) is None:
        with pytest.raises(ConfigError, match='cannot be a plain ViT'):
            plain_vit(model)
        return
    vit = plain_vit(model)
    found = features_of(build(vit))(images)[0][:, vit.reg_tokens :]
    torch.testing.assert_close(found, model.extract_feat(images)[-1], rtol=1e-4, atol=1e-4)


def test_the_axis_ends_in_ldae_to_the_bit(run_row):
    """The row that noises all tokens has the loss and the gradients of the row that it changes."""
    images, found = torch.randn(BATCH, 1, 32, 32), []
    state = run_row('t3_5_original-image').model.state_dict()
    for name in ('axis_ldae', 't3_5_original-image'):
        model = run_row(name).model.train()
        model.load_state_dict(state)
        model.zero_grad()
        torch.manual_seed(0)
        loss = model.loss(images)['loss']
        loss.backward()
        found.append([loss.detach(), *(param.grad for param in model.parameters() if param.grad is not None)])
    assert len(found[0]) > 10
    assert all(map(torch.equal, *found))


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> dict[str, Path]:
    """Data for the scales that read some."""
    cifar10 = tmp_path_factory.mktemp('cifar10')
    for name in [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']:
        records = torch.randint(0, 256, (2 * BATCH, 1 + 3 * 32 * 32), dtype=torch.uint8)
        records[:, 0] %= 10
        (cifar10 / f'{name}.bin').write_bytes(records.numpy().tobytes())
    return {'cifar10': cifar10, 'fashion-mnist': idx.SUBSET_ROOT, 'image-folder': data_root}


@pytest.mark.parametrize('scale', ['cifar10', 'fashion-mnist', 'image-folder'])
@pytest.mark.parametrize('name', ['t3_5_original-image', 'aug_random-crop', 'f5_pixel_32'])
def test_row_takes_two_steps_at_other_scales(name, scale, run_row, folders):
    check_two_steps(run_row(name, scale, folders[scale]))


@pytest.mark.parametrize('name', ROWS)
def test_labels_cannot_change_the_loss_of_any_row_but_class_conditional_ones(name, run_row):
    model, images = run_row(name).model.train(), torch.randn(BATCH, 1, 32, 32)
    with torch.no_grad():
        for param in model.parameters():  # gates start at zero: a new model hears nothing of any condition
            param.add_(0.05 * torch.randn_like(param))
    losses = []
    for labels in ([0, 1, 2, 3], [0, 1, 2, 3], [9, 8, 7, 6]):
        torch.manual_seed(0)
        samples = [DataSample().set_gt_label(label) for label in labels]
        losses.append(float(model.loss(images, samples)['loss'].detach()))
    assert losses[0] == losses[1]
    assert (losses[0] == losses[2]) is (name not in CONDITIONAL)
