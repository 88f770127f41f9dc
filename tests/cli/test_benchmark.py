# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a score, from the command line; good input and bad."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

import ldae
from ldae.apis import get_model
from ldae.cli import run_tool
from ldae.config import configs_root, load_config
from ldae.datasets import IDXDataset
from ldae.evaluation import pooled_features
from ldae.launch.benchmark import KINDS, benchmark_config, matching, write_tokenizer
from ldae.registry import MODELS

SUBSET = 'fashion-mnist_subset'
FEW = [
    *('train_dataloader.dataset.indices=128', 'val_dataloader.dataset.indices=64', 'val_dataloader.batch_size=64'),
    *('train_dataloader.batch_size=64', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
]


def keep(cfg: Config, path: Path, images: torch.Tensor | None = None) -> Path:
    """A checkpoint of a config's model with random weights, as a Runner writes it."""
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for param in model.backbone.parameters():
        if param.requires_grad:
            nn.init.normal_(param, std=0.05)
    if hasattr(model, 'tokenizer') and model.tokenizer.needs_fit:
        model.tokenizer.fit([torch.randn(64, 1, 32, 32) if images is None else images])
    if hasattr(getattr(model, 'tokenizer', None), 'fitted'):
        model.tokenizer.fitted.fill_(1)
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    cfg = load_config('ldae::ldae/vit-b_pca.py', scale=SUBSET)
    return keep(cfg, tmp_path_factory.mktemp('pre') / 'epoch_4.pth')


@pytest.fixture(scope='module')
def mae_checkpoint(tmp_path_factory) -> Path:
    """An MAE of the scale's smallest encoder; the rest of it isn't read."""
    arch = load_config(f'ldae::scales/{SUBSET}.py').scale.archs.base
    cfg = load_config('ldae::mae/demo_fashion-mnist.py')
    cfg.model.backbone.update(arch=arch, img_size=32, patch_size=8)
    cfg.model.neck.update(embed_dim=arch.embed_dims, patch_size=8)
    cfg.model.head.patch_size = 8
    cfg.scale = SUBSET
    return keep(cfg, tmp_path_factory.mktemp('mae') / 'epoch_10.pth')


def benchmark(*args: object, few: list[str] = FEW) -> int:
    return run_tool('benchmark', [*map(str, args), '--cfg-options', *few])


def result(folder: Path) -> dict:
    return json.loads((folder / 'benchmark.json').read_text())


@pytest.mark.parametrize('kind', ['linear', 'finetune', 'linear_1pct'])
def test_a_kind_takes_the_config_and_the_scale_of_the_checkpoint(kind, checkpoint, tmp_path, capsys):
    few = FEW if kind != 'linear_1pct' else [part for part in FEW if 'train_dataloader.dataset' not in part]
    assert benchmark(kind, checkpoint, '--work-dir', tmp_path, few=few) == 0
    found = result(tmp_path)
    assert found['config'] == f'ldae::benchmarks/ldae_vit-b_{kind}.py'
    assert (found['scale'], found['epochs'], found['seed']) == (SUBSET, 1, 0)
    assert 0 <= found['top1'] <= found['best_top1'] <= 100
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f'top-1 {found["top1"]:.2f}% after 1 epochs')


def test_the_score_is_the_share_of_test_images_that_the_kept_model_gets_right(checkpoint, tmp_path):
    assert benchmark('linear', checkpoint, '--work-dir', tmp_path) == 0
    cfg = Config.fromfile(tmp_path / 'ldae_vit-b_linear.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    model.load_state_dict(torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict'])
    data = IDXDataset(split='test', indices=64, pad=2)
    batch = model.data_preprocessor(dict(inputs=data.images, data_samples=None))
    with torch.no_grad():
        scores = model.head(model.extract_feat(batch['inputs']))
    share = 100 * (scores.argmax(dim=1) == data.labels).double().mean()
    assert result(tmp_path)['top1'] == pytest.approx(float(share), abs=1e-4)


def test_a_notebook_gives_paths(checkpoint, tmp_path):
    options = {'train_dataloader.dataset.indices': 64, 'val_dataloader.dataset.indices': 64}
    found = ldae.benchmark('linear', checkpoint, cfg_options=options, work_dir=tmp_path, epochs=2)
    assert found['checkpoint'] == str(checkpoint)
    assert found == dict(result(tmp_path), file=str(tmp_path / 'benchmark.json'))


def test_an_mae_is_scored_by_its_own_config(mae_checkpoint, tmp_path):
    assert benchmark('linear', mae_checkpoint, '--work-dir', tmp_path) == 0
    assert result(tmp_path)['config'] == 'ldae::benchmarks/mae_vit-b_linear.py'
    assert Config.fromfile(tmp_path / 'mae_vit-b_linear.py').model.backbone.out_type == 'cls_token'


def test_the_demos_mae_is_scored_on_images_of_its_size(tmp_path):
    demo = keep(load_config('ldae::mae/demo_fashion-mnist.py'), tmp_path / 'epoch_10.pth')
    config = configs_root() / 'benchmarks/mae_vit-half-l_256_linear.py'
    size = ['model.backbone.img_size=28', 'model.backbone.patch_size=7']
    unpadded = [f'{split}_dataloader.dataset.pad=0' for split in ('train', 'val')]
    few = [*FEW, *size, *unpadded]
    assert benchmark(config, demo, '--scale', SUBSET, '--work-dir', tmp_path, few=few) == 0
    assert result(tmp_path)['scale'] == SUBSET


def test_a_run_that_stopped_goes_on(checkpoint, tmp_path, capfd):
    assert benchmark('linear', checkpoint, '--work-dir', tmp_path) == 0
    two = [option.replace('max_epochs=1', 'max_epochs=2') for option in FEW]
    assert benchmark('linear', checkpoint, '--work-dir', tmp_path, '--resume', '--force', few=two) == 0
    assert 'resumed epoch: 1' in ''.join(capfd.readouterr())
    assert result(tmp_path)['epochs'] == 2


def test_a_run_does_not_go_on_under_the_name_of_another_encoder(checkpoint, tmp_path, capsys):
    assert benchmark('linear', checkpoint, '--work-dir', tmp_path) == 0
    later = shutil.copy(checkpoint, checkpoint.with_name('epoch_8.pth'))
    assert benchmark('linear', later, '--work-dir', tmp_path, '--resume', '--force') == 2
    assert (
        f'{tmp_path} was begun on {checkpoint}, and {later} is named now: leave --resume out' in capsys.readouterr().err
    )
    assert result(tmp_path)['checkpoint'] == str(checkpoint)
    moved = tmp_path / 'elsewhere' / checkpoint.parent.name / checkpoint.name
    moved.parent.mkdir(parents=True)
    shutil.copy(checkpoint, moved)
    assert benchmark('linear', moved, '--work-dir', tmp_path, '--resume', '--force') == 0


def test_a_result_that_is_there_is_kept_unless_forced(checkpoint, tmp_path, capsys):
    (tmp_path / 'benchmark.json').write_text('{"top1": 77}')
    assert benchmark('linear', checkpoint, '--work-dir', tmp_path) == 2
    assert 'benchmark.json exists: pass --force' in capsys.readouterr().err
    assert result(tmp_path) == {'top1': 77}
    assert benchmark('linear', checkpoint, '--work-dir', tmp_path, '--force') == 0
    assert result(tmp_path)['scale'] == SUBSET


def one_line(args: list, capsys: pytest.CaptureFixture) -> str:
    assert benchmark(*args) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    return line


def test_a_config_of_another_size_is_one_line(checkpoint, tmp_path, capsys):
    config = configs_root() / 'benchmarks/ldae_vit-l_linear.py'
    line = one_line([config, checkpoint, '--scale', SUBSET, '--work-dir', tmp_path], capsys)
    assert 'epoch_4.pth' in line
    assert not (tmp_path / 'benchmark.json').exists()


def test_a_config_of_the_other_method_names_those_that_fit(checkpoint, mae_checkpoint, tmp_path, capsys):
    for method, other in (('mae', checkpoint), ('ldae', mae_checkpoint)):
        config = configs_root() / f'benchmarks/{method}_vit-b_linear.py'
        line = one_line([config, other, '--work-dir', tmp_path], capsys)
        fits = 'ldae_vit-b_linear' if method == 'mae' else 'mae_vit-b_linear'
        assert f'does not fit {other}' in line
        assert f'configs/benchmarks/{fits}.py' in line


def test_a_config_that_is_no_benchmark_names_those_that_fit(checkpoint, tmp_path, capsys):
    line = one_line(['ldae::ldae/vit-b_pca.py', checkpoint, '--work-dir', tmp_path], capsys)
    assert 'configs/benchmarks/ldae_vit-b_linear.py' in line


@pytest.mark.parametrize(
    ('content', 'says'),
    [(dict(state_dict={'head.fc.weight': torch.zeros(2, 2)}), 'config'), (dict(weights=1), 'state_dict')],
)
def test_a_file_that_is_no_pre_training_is_one_line(content, says, tmp_path, capsys):
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    assert says in one_line(['linear', path, '--work-dir', tmp_path / 'work'], capsys)


def test_weights_without_an_encoder_are_one_line(checkpoint, tmp_path, capsys):
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict'] = {'head.weight': torch.zeros(2)}
    torch.save(content, tmp_path / 'headless.pth')
    line = one_line(['linear', tmp_path / 'headless.pth', '--work-dir', tmp_path / 'work'], capsys)
    assert 'has no encoder' in line


NAMES = sorted(path.stem for path in (configs_root() / 'benchmarks').glob('*.py'))
PRETRAINING = sorted(
    f'{folder}/{path.name}'
    for folder in ('ldae', 'mae')
    for path in (configs_root() / folder).glob('*.py')
    if 'mnist' not in path.name
)


@pytest.mark.parametrize('name', PRETRAINING)
def test_each_pre_training_of_the_papers_sizes_has_benchmarks(name):
    stem = matching(load_config(f'ldae::{name}'))
    assert {f'{stem}_{kind}' for kind in KINDS} <= set(NAMES)
    benchmark_of = load_config(f'ldae::benchmarks/{stem}_linear.py')
    pretrained = MODELS.get('ldae.LDAEViT') if stem.startswith('ldae') else MODELS.get('mmpretrain.MAEViT')
    assert sizes(pretrained, load_config(f'ldae::{name}')) == sizes(pretrained, benchmark_of)


@pytest.mark.parametrize('method', ['mocov3', 'simclr', 'byol', 'simmim', 'dino'])
def test_each_pre_training_of_other_methods_has_benchmarks(method):
    for path in (configs_root() / method).glob('*.py'):
        stem = matching(load_config(path))
        assert {f'{stem}_{kind}' for kind in KINDS} <= set(NAMES)


def sizes(kind: type, cfg: Config) -> dict:
    arch = cfg.model.backbone.arch
    zoo = {key: value for key, value in kind.arch_zoo.items() if not isinstance(key, frozenset)}
    return dict(zoo.get(arch, {}) if isinstance(arch, str) else arch)


SMALL = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def of_any_size(method: str, folder: Path, images: Path, channels: int = 3) -> Path:
    """A checkpoint of two blocks of width 16, for 24 px in patches of 6, as a config of one's own gives it."""
    base = 'ldae::ldae/vit-b_pca.py' if method == 'ldae' else 'ldae::mae/vit-b_256_400e.py'
    cfg = load_config(base, data_root=str(images))
    cfg.model.backbone.arch = SMALL
    cfg.train_dataloader.num_workers = 0
    cfg.train_dataloader.persistent_workers = False
    if method == 'ldae':
        cfg.model.tokenizer.update(img_size=24, patch_size=6, latent_dim=4)
        cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    else:
        cfg.model.backbone.update(img_size=24, patch_size=6)
        cfg.model.neck.update(num_patches=16, patch_size=6, embed_dim=16, decoder_embed_dim=16, decoder_num_heads=2)
        cfg.model.head.patch_size = 6
    return keep(cfg, folder / 'epoch_1.pth', images=torch.randn(64, 3, 24, 24))


@pytest.mark.parametrize('method', ['ldae', 'mae'])
@pytest.mark.parametrize('kind', ['linear', 'finetune', 'linear_1pct', 'knn'])
def test_a_checkpoint_of_any_size_is_scored_on_its_own_folder(kind, method, tiny_image_folder, tmp_path):
    checkpoint = of_any_size(method, tmp_path, tiny_image_folder)
    epochs = [] if kind == 'knn' else ['--epochs', '2']
    assert run_tool('benchmark', [kind, str(checkpoint), '--work-dir', str(tmp_path / 'work'), *epochs]) == 0
    found = result(tmp_path / 'work')
    assert (found['classes'], found['epochs']) == (2, 0 if kind == 'knn' else 2)
    assert found['config'] == ('16-NN' if kind == 'knn' else kind)
    if kind == 'knn':
        assert found['protocol']['pooling'] == dict(ldae='mean', mae='cls')[method]  # of its linear probe
    else:
        cfg = Config.fromfile(tmp_path / 'work' / f'{kind}.py')
        assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 2
        assert cfg.train_dataloader.batch_size == 4
        assert cfg.val_evaluator.topk == (1,)


def test_images_that_the_checkpoint_names_are_said(tiny_image_folder, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr('ldae.apis.probing.print_log', lambda line, *_: lines.append(line))
    checkpoint = of_any_size('ldae', tmp_path, tiny_image_folder)
    named = ['--data-root', str(tiny_image_folder)]
    assert run_tool('benchmark', ['knn', str(checkpoint), '--work-dir', str(tmp_path / 'named'), *named]) == 0
    assert lines == []
    assert run_tool('benchmark', ['knn', str(checkpoint), '--work-dir', str(tmp_path / 'own')]) == 0
    assert lines == [f'Images are read where the checkpoint says: {tiny_image_folder}']


def test_its_classifier_sees_the_encoder_that_was_trained(tiny_image_folder, tmp_path):
    """Features in the benchmark's model are those of the checkpoint, with its time step and its PCA merged in."""
    checkpoint = of_any_size('ldae', tmp_path, tiny_image_folder)
    _, cfg = benchmark_config('linear', str(checkpoint))
    init_default_scope('mmpretrain')
    probe = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    probe.init_weights()
    trained = get_model(checkpoint=checkpoint, device='cpu')
    batch = dict(inputs=torch.rand(2, 3, 24, 24) * 255, data_samples=None)
    with torch.no_grad():
        found = probe.backbone(probe.data_preprocessor(dict(batch))['inputs'])[0]
        wanted = pooled_features(trained, trained.data_preprocessor(dict(batch))['inputs'])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_another_labelled_folder_is_named_by_data_root(tiny_image_folder, tmp_path):
    checkpoint = of_any_size('ldae', tmp_path, tmp_path / 'gone')
    for split in ('train', 'val'):
        shutil.copytree(tiny_image_folder / split / 'a', tiny_image_folder / split / 'c')
    _, cfg = benchmark_config('linear', str(checkpoint), data_root=str(tiny_image_folder))
    assert cfg.model.head.num_classes == 3
    assert cfg.test_dataloader.dataset.data_root == str(tiny_image_folder)


def test_the_demos_checkpoints_have_benchmarks_too(tmp_path):
    for method in ('ldae', 'mae'):
        cfg = load_config(f'ldae::{method}/demo_fashion-mnist.py')
        demo = keep(cfg, tmp_path / f'{method}.pth', images=torch.randn(64, 1, 28, 28))
        name, found = benchmark_config('linear', str(demo))
        assert (name, found.model.backbone.img_size, found.model.head.num_classes) == ('linear', 28, 10)
        assert (found.train_dataloader.batch_size, found.val_dataloader.dataset.split) == (1024, 'test')
        few = [
            'train_dataloader.dataset.indices=128',
            'val_dataloader.dataset.indices=64',
            'train_dataloader.batch_size=64',
        ]
        assert benchmark('linear', demo, '--work-dir', tmp_path / method, '--epochs', '2', few=few) == 0


def test_a_folder_takes_the_place_of_images_in_memory(tiny_image_folder, tmp_path):
    for method in ('ldae', 'mae'):
        cfg = load_config(f'ldae::{method}/demo_fashion-mnist.py')
        demo = keep(cfg, tmp_path / f'{method}.pth', images=torch.randn(64, 1, 28, 28))
        options = ['--data-root', str(tiny_image_folder), '--work-dir', str(tmp_path / method), '--epochs', '2']
        few = ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
        few += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
        assert benchmark('linear', demo, *options, few=few) == 0
        assert result(tmp_path / method)['classes'] == 2


def test_a_folder_at_scale_is_scored_with_its_labels(tiny_image_folder, tmp_path):
    cfg = load_config('ldae::ldae/vit-b_pca.py', scale='image-folder', data_root=str(tiny_image_folder))
    checkpoint = keep(cfg, tmp_path / 'epoch_1.pth', images=torch.randn(64, 3, 64, 64))
    few = ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    few += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False', 'train_cfg.max_epochs=1']
    options = ['--data-root', tiny_image_folder, '--work-dir', tmp_path / 'work']
    assert benchmark('linear', checkpoint, *options, few=[*few, 'train_cfg.val_interval=1']) == 0
    assert (result(tmp_path / 'work')['classes'], result(tmp_path / 'work')['scale']) == (2, 'image-folder')


def test_a_scale_of_ones_own_is_what_it_has_left_in_the_config(tiny_image_folder, tmp_path):
    checkpoint = of_any_size('ldae', tmp_path, tiny_image_folder)
    content = torch.load(checkpoint, weights_only=True)
    content['meta']['cfg'] += "\nscale = 'auto_scale'\n"
    torch.save(content, checkpoint)
    name, cfg = benchmark_config('linear', str(checkpoint))
    assert (name, cfg.model.backbone.img_size, cfg.model.head.num_classes) == ('linear', 24, 2)


def test_images_that_were_packed_for_pre_training_are_cropped_at_random(tiny_image_folder, tmp_path):
    for split in ('train', 'val'):
        size = ['--out', str(tmp_path / 'packed'), '--split', split, '--edge', '24', '--size', '24']
        assert run_tool('pack-dataset', [str(tiny_image_folder), *size]) == 0
    checkpoint = of_any_size('ldae', tmp_path, tmp_path / 'packed')
    for kind in ('linear', 'knn'):
        epochs = ['--epochs', '2'] if kind == 'linear' else []
        assert run_tool('benchmark', [kind, str(checkpoint), '--work-dir', str(tmp_path / kind), *epochs]) == 0
    cfg = Config.fromfile(tmp_path / 'linear' / 'linear.py')
    assert cfg.train_dataloader.dataset.type == cfg.val_dataloader.dataset.type == 'ldae.PackedImages'
    assert cfg.train_dataloader.dataset.pipeline[0].type == 'RandomResizedCrop'


def test_fewer_than_two_epochs_are_refused(checkpoint, tmp_path, capsys):
    assert '--epochs=1 is out of range' in one_line(['linear', checkpoint, '--epochs', '1'], capsys)


def test_labels_that_the_classifier_has_no_place_for_are_one_line(
    tiny_image_folder, tiny_annotated_folder, tmp_path, capsys
):
    checkpoint = of_any_size('ldae', tmp_path, tiny_image_folder)
    classes = ['model.head.num_classes=1', 'data_preprocessor.num_classes=1']
    for split, root in (('train', tiny_image_folder), ('val', tiny_annotated_folder)):
        if split == 'val':
            listed = root / 'meta' / 'train.txt'
            listed.write_text(listed.read_text().replace('jpg 1', 'jpg 0'))
        assert benchmark('linear', checkpoint, '--data-root', root, '--work-dir', tmp_path / split, few=classes) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert f'{split}_dataloader: the images have 2 classes, and the classifier 1' in line
        assert not list((tmp_path / split).glob('epoch_*.pth'))


def test_a_label_below_zero_is_one_line(tiny_annotated_folder, tmp_path, capsys):
    checkpoint = of_any_size('ldae', tmp_path, tiny_annotated_folder)
    listed = tiny_annotated_folder / 'meta' / 'train.txt'
    listed.write_text(listed.read_text().replace('jpg 1', 'jpg -1'))
    assert benchmark('linear', checkpoint, '--work-dir', tmp_path / 'work', few=['randomness.seed=0']) == 2
    assert 'label -1 of ImageFolder is not a class' in capsys.readouterr().err


def test_mixed_labels_need_one_number_of_classes(tiny_image_folder, tmp_path, capsys):
    checkpoint = of_any_size('ldae', tmp_path, tiny_image_folder)
    few = ['data_preprocessor.num_classes=3']
    assert benchmark('finetune', checkpoint, '--work-dir', tmp_path / 'work', few=few) == 2
    assert 'data_preprocessor.num_classes=3 and model.head.num_classes=2 must be the same' in capsys.readouterr().err


FRONTS = ('a_cut10', 'a_t0_noisy', 'basis_dct', 'f5_pixel_64', 'f5_pixel_256', 't1_1_dit-baseline', 't2_patch-ae_d16')


@pytest.mark.parametrize(
    'changes',
    [dict(reg_tokens=4), dict(final_norm=True), dict(timestep=30), dict(reg_tokens=2, final_norm=True, timestep=900)],
    ids=str,
)
def test_what_no_size_says_of_an_encoder_goes_along_with_the_benchmark_of_its_size(changes, tmp_path):
    cfg = load_config('ldae::ldae/vit-b_pca.py', scale=SUBSET)
    cfg.model.backbone.update(changes)
    assert matching(cfg) == 'ldae_vit-b'
    checkpoint = keep(cfg, tmp_path / 'epoch_1.pth')
    probe = MODELS.build(benchmark_config('linear', str(checkpoint))[1].model).eval()
    probe.init_weights()
    trained, images = get_model(checkpoint=checkpoint, device='cpu'), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        features, wanted = probe.backbone(images)[0], pooled_features(trained, images)
    torch.testing.assert_close(features, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('is_named', [False, True])
@pytest.mark.parametrize('row', FRONTS)
def test_each_kind_of_tokenizer_goes_along(row, is_named, tmp_path):
    """Folded into the weights where it can be, else in front: features are those of the pre-trained model."""
    cfg = load_config(f'ldae::deconstruction/{row}.py', scale=SUBSET)
    if not is_named:
        cfg.pop('scale')  # an encoder of a size of its own
    cfg.pop('timesteps', None)
    if cfg.model.tokenizer.get('checkpoint'):
        cfg.model.tokenizer.checkpoint = None
    checkpoint = keep(cfg, tmp_path / 'epoch_1.pth')
    _, found = benchmark_config('linear', str(checkpoint))
    found.work_dir = str(tmp_path)
    write_tokenizer(found, str(checkpoint))
    probe = MODELS.build(found.model).eval()
    probe.init_weights()
    trained, images = get_model(checkpoint=checkpoint, device='cpu'), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        features, wanted = probe.backbone(images)[0], pooled_features(trained, images)
    torch.testing.assert_close(features, wanted, rtol=1e-3, atol=1e-4)
