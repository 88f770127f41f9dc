# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, tokenizer files, packed images, configs and commands of earlier versions keep working.

The files of ``tests/data/before_the_move`` were written by ldae 0.1.0, and all numbers here were computed by it.
"""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from safetensors.torch import load_file

import ldae
from ldae import registry
from ldae.ablation.study import Study
from ldae.cli import run_tool
from ldae.config import configs_root, find_config, load_config
from ldae.datasets import LatentDataset, PackedImages
from ldae.launch import LaunchOptions, build_runner, prepare
from ldae.registry import MODELS
from ldae.utils import ConfigError

HELD = Path(__file__).parent / 'data' / 'before_the_move'
GEOMETRY = dict(img_size=32, patch_size=8, in_channels=3)
# Sums of absolute values: of what the resumed run ends with, of latents and of what is decoded from them, ...
SUMS = dict(state_dict=2435.9771106527187, ema_state_dict=2435.993046068899)
TOKENIZERS = dict(
    PatchPCATokenizer=(41.54217912, 397.09054389),
    DCTTokenizer=(355.45957942, 2826.55963826),
    RandomProjectionTokenizer=(36.38635506, 287.36112203),
    PixelTokenizer=(2824.76456418, 2824.76456418),
    PatchAETokenizer=(56.80217991, 443.25382148),
    PatchVAETokenizer=(29.99035382, 267.22854666),
    ConvVAETokenizer=(254.47566817, 1019.52579785),
)
#: ... and of features, with their spread over images.
FEATURES = {'ldae/iter_3.pth': (42.12428284, 5.50757599), 'mae/epoch_1.pth': (27.21560287, 4.05292368)}
#: Means of clean, noisy and denoised pixels.
DENOISED = (115.7727051, 117.3228353, 114.6666667)
METRICS = dict(weighted_error=0.86676469, psnr=11.98169804, psnr_t100=12.35180950, psnr_t700=11.41681767)
#: Sums of all pixels; decoders of JPEG differ by a rounding.
PIXELS = dict(uint8=dict(train=2893247, val=1423119), jpeg=dict(train=2894248, val=1422913))


def read_lists(name: str) -> dict[str, list[str]]:
    """Lines of 'key: name name ...'."""
    lines = (line.split(':') for line in (HELD / f'{name}.txt').read_text().splitlines())
    return {key: names.split() for key, names in lines}


OPTIONS, REGISTERED = read_lists('options'), read_lists('registered')


@pytest.fixture(scope='module')
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('held')
    with tarfile.open(HELD / 'files.tar.xz') as archive:
        archive.extractall(folder, filter='data')
    return folder


@pytest.fixture(autouse=True)
def _scope(monkeypatch, tmp_path):
    init_default_scope('mmpretrain')
    # What the log says about compilers and drivers takes a second to find out.
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.chdir(tmp_path)


def sums(folder: Path) -> dict[Path, str]:
    """What all files of a folder, or the file, hold."""
    files = [path for path in [folder, *folder.rglob('*')] if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(held: Path, config: str, work_dir: Path, **options) -> Runner:
    """A runner of a config that an earlier run has dumped."""
    options = LaunchOptions(work_dir=str(work_dir), data_root=str(held / 'images'), **options)
    return build_runner(prepare(load_config(held / config), options))


@pytest.mark.parametrize('kind', REGISTERED)
def test_registered_names_resolve(kind):
    for name in REGISTERED[kind]:
        assert getattr(registry, kind).get(f'ldae.{name}') is not None, name


@pytest.mark.parametrize('tool', OPTIONS)
def test_commands_keep_their_options(tool, capsys):
    with pytest.raises(SystemExit):
        run_tool(tool, ['--help'])
    shown = capsys.readouterr().out
    hidden = {'--local-rank', '--local_rank'}  # which torch's launchers pass
    assert [name for name in OPTIONS[tool] if name not in hidden and name not in shown] == []


def test_configs_and_tools_keep_their_names():
    for name in (HELD / 'configs.txt').read_text().split():
        assert Path(find_config(f'ldae::{name}')).is_file()
    tools = configs_root().parent / 'tools'
    assert all((tools / name).is_file() for name in (HELD / 'tools.txt').read_text().split())


@pytest.mark.parametrize('config', ['every_hook', 'latents', 'tokenizer_gan'])
def test_dumped_configs_build_a_runner(held, tmp_path, config):
    runner = run(held, f'configs/{config}.py', tmp_path)
    built = {type(hook).__name__ for hook in runner.hooks}
    hooks = [*runner.cfg.default_hooks.values(), *(runner.cfg.get('custom_hooks') or ())]
    for hook in filter(None, hooks):
        if hook.type.startswith('ldae.'):
            assert registry.HOOKS.get(hook.type).__name__ in built


def test_dumped_configs_name_every_hook(held):
    texts = ''.join(path.read_text() for path in (held / 'configs').iterdir())
    assert [name for name in REGISTERED['HOOKS'] if f"'ldae.{name}'" not in texts] == []


def test_a_checkpoint_resumes_in_the_middle_of_an_epoch(held, tmp_path):
    runner = run(held, 'ldae/config.py', tmp_path, resume=str(held / 'ldae' / 'iter_3.pth'))
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert losses.tolist() == pytest.approx([0.81602919, 0.87083286, 0.66891879, 0.81875360], rel=1e-5)
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    for key, expected in SUMS.items():
        values = [value for value in state[key].values() if value.is_floating_point()]
        assert sum(float(value.double().abs().sum()) for value in values) == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_is_tested(held, tmp_path):
    arguments = ['ldae/config.py', 'ldae/iter_3.pth', '--data-root', 'images']
    arguments = [argument if argument[0] == '-' else held / argument for argument in arguments]
    run_tool('test', [*map(str, arguments), '--out', 'metrics.json', '--out-item', 'metrics'])
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert {key: metrics[f'denoising/{key}'] for key in METRICS} == pytest.approx(METRICS, rel=1e-4)


@pytest.mark.parametrize('name', ['ldae/iter_3.pth', 'mae/epoch_1.pth'])
def test_checkpoints_give_the_features_they_gave(held, name):
    features = ldae.FeatureExtractor(checkpoint=held / name, device='cpu')(held / 'images' / 'val')
    found = [float(features.abs().sum()), float(features.std(dim=0).sum())]
    assert found == pytest.approx(FEATURES[name], rel=1e-4)


def test_a_checkpoint_denoises(held):
    images = held / 'images' / 'val'
    found = ldae.denoise(None, images, 300, checkpoint=held / 'ldae' / 'iter_3.pth', device='cpu')
    assert [float(part.mean()) for part in found] == pytest.approx(DENOISED, abs=0.05)


@pytest.mark.parametrize('library', ['timm', 'hf'])
def test_an_export_is_what_it_was(held, library, tmp_path):
    if library == 'hf':
        pytest.importorskip('transformers')
    run_tool('export', [str(held / 'ldae' / 'iter_3.pth'), '--to', library, '--out', 'out'])
    name = f'exported_{library}'
    found, expected = (load_file(path / 'model.safetensors') for path in (tmp_path / 'out', held / name))
    torch.testing.assert_close(found, expected)
    configs = [json.loads((path / 'config.json').read_text()) for path in (tmp_path / 'out', held / name)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize('kind', [name for name in REGISTERED['MODELS'] if name.endswith('Tokenizer')])
def test_tokenizer_files_load(held, kind):
    options = dict(GEOMETRY, checkpoint=str(held / 'tokenizers' / f'{kind}.pth'))
    if kind == 'PixelTokenizer':
        options.pop('checkpoint')  # it has nothing to fit; a file of it is loaded as a state
    else:
        options['latent_dim'] = 4
    if kind == 'ConvVAETokenizer':
        options |= dict(downsample=4, base_channels=8, layers_per_block=1)
    tokenizer = MODELS.build(dict(type=f'ldae.{kind}', **options)).eval()
    if kind == 'PixelTokenizer':
        content = torch.load(held / 'tokenizers' / f'{kind}.pth', weights_only=True)
        tokenizer.load_state_dict(content['state_dict'])
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32).sin()
    latents = tokenizer.encode(images)
    found = [float(latents.double().abs().sum()), float(tokenizer.decode(latents).double().abs().sum())]
    assert found == pytest.approx(TOKENIZERS[kind], rel=1e-4)


@pytest.mark.parametrize('stored', ['uint8', 'jpeg'])
def test_packed_images_read_as_they_did(held, stored, capsys):
    folder = held / f'packed_{stored}'
    before = sums(folder)
    for split in ('train', 'val'):
        dataset = PackedImages(str(folder), split=split, with_label=True)
        batch = dataset.__getitems__(list(range(len(dataset))))
        assert batch['inputs'].shape == (dict(train=8, val=4)[split], 3, 32, 32)
        total = int(batch['inputs'].long().sum())
        assert total == pytest.approx(PIXELS[stored][split], rel=1e-3 if stored == 'jpeg' else 0, abs=0)
        labels = [int(sample.gt_label) for sample in batch['data_samples']]
        assert labels == sorted([0, 1] * (len(dataset) // 2))
        assert run_tool('pack-dataset', ['--out', str(folder), '--split', split, '--verify']) == 0
    assert sums(folder) == before


def test_packing_goes_on_where_it_was_stopped(held, tmp_path):
    before = sums(held / 'packed_uint8' / 'train')
    shutil.copytree(held / 'packed_uint8', tmp_path / 'packed')
    folder = tmp_path / 'packed' / 'train'
    (folder / 'packed.json').unlink()
    shutil.rmtree(folder / 'shard-00001')
    options = ['--edge', '32', '--shard-size', '4', '--workers', '1', '--format', 'uint8']
    assert run_tool('pack-dataset', [str(held / 'images'), '--out', str(folder.parent), *options]) == 0
    after = {path.relative_to(folder): digest for path, digest in sums(folder).items()}
    for path, digest in before.items():
        if path.suffix == '.npy':
            assert after[path.relative_to(held / 'packed_uint8' / 'train')] == digest


def test_a_feature_cache_is_computed_anew(held, tmp_path, capfd):
    cache = shutil.copytree(held / 'features', tmp_path / 'features')
    before = sums(cache)
    options = [
        '--blocks',
        '1',
        '2',
        '--timesteps',
        '10',
        '--k',
        '1',
        '--lrs',
        '0.1',
        '--weight-decays',
        '0',
        '--epochs',
        '2',
        '--seed',
        '0',
    ]
    data = ['--data-root', str(held / 'images'), '--cache', str(cache), '--work-dir', str(tmp_path / 'out')]
    run_tool('probe', [str(held / 'ldae' / 'iter_3.pth'), *options, *data])
    printed = ''.join(capfd.readouterr())
    assert printed.count('an earlier version of ldae wrote, which are not read') == 1
    assert before.items() <= sums(cache).items()
    results = json.loads((tmp_path / 'out' / 'probe.json').read_text())['results']
    assert [row['knn']['1'] for row in results] == [25.0, 25.0]


def test_latents_are_computed_anew(held, tmp_path):
    earlier = Path(shutil.copy(held / 'latents.safetensors', tmp_path))
    before = sums(earlier)
    with pytest.raises(ConfigError, match='latents.safetensors is a file'):
        LatentDataset(earlier)
    runner = run(held, 'configs/latents.py', tmp_path)
    runner.train()
    (log,) = tmp_path.rglob('*.log')
    assert log.read_text().count('earlier version of ldae') == 1
    assert sums(earlier) == before
    assert len(runner.train_dataloader.dataset) == 8


def test_a_skipped_step_is_reproduced(held, capsys):
    assert run_tool('reproduce', [str(held / 'non_finite' / 'iter_2'), '--device', 'cpu']) == 0
    printed = capsys.readouterr().out
    assert 'images: 1 not finite: 3 (images/train/b/5.png)\n' in printed
    assert 'images with such a loss: 1 not finite: 3 (t = 880)\n' in printed
    assert 'another device' not in printed


def test_results_stay_and_are_told_to_be_older(held, tmp_path, capsys):
    shutil.copy(held / 'results.jsonl', tmp_path)
    study = Study(tmp_path, 'fashion-mnist_subset-quick')
    (entry,) = study.results.read()
    assert (entry['row'], entry['knn'], entry['linear']) == ('t2_pca_d32', 50.5, 47.0)
    assert study.entries() == []  # it doesn't say by which protocol
    assert capsys.readouterr().out.count('of an older version') == 1
    assert sums(tmp_path / 'results.jsonl')[tmp_path / 'results.jsonl'] == sums(held)[held / 'results.jsonl']
