# SPDX-License-Identifier: Apache-2.0
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from ldae.config import load_config
from ldae.config.components import check_data_roots, check_weights
from ldae.launch import LaunchOptions, build, build_runner, prepare, scale_batch, world_size
from ldae.launch.batch import accumulation_for, check_size
from ldae.launch.prepare import set_precision
from ldae.utils import ConfigError


def make_config(batch_size: int = 256, base: int | None = 2048, enable: bool = True, lr: float = 8e-4) -> Config:
    cfg = Config(
        dict(
            launcher='none',
            train_dataloader=dict(batch_size=batch_size, num_workers=2, dataset=dict(type='X')),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=lr)),
        )
    )
    if base is not None:
        cfg.auto_scale_lr = dict(base_batch_size=base, enable=enable)
    return cfg


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WORLD_SIZE', '2')


@pytest.mark.usefixtures('two_processes')
def test_lr_is_scaled_by_the_effective_batch():
    cfg = prepare(make_config(), SimpleNamespace(launcher='pytorch'))
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2e-4)
    assert cfg.batch_arithmetic == 'batch 2 x 256 x 1 = 512 of 2048: lr 0.0008 -> 0.0002'


@pytest.mark.parametrize('cores', [1, 2, 64])
def test_there_are_no_more_workers_than_cores(cores: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda process: set(range(cores)))
    cfg = prepare(make_config())
    assert cfg.train_dataloader.num_workers == min(2, cores)
    line = 'num_workers 2 -> 1: this machine has no more cores' if cores == 1 else None
    assert cfg.get('fewer_workers') == line
    assert prepare(cfg).get('fewer_workers') is None  # as of a config that a run has dumped


def test_mmengine_does_not_scale_a_second_time():
    cfg = prepare(make_config())
    assert cfg.auto_scale_lr == dict(base_batch_size=256, enable=False)
    lr = cfg.optim_wrapper.optimizer.lr
    assert prepare(cfg, SimpleNamespace(auto_scale_lr=True)).optim_wrapper.optimizer.lr == lr


def test_accumulated_batches_count():
    cfg = make_config()
    cfg.optim_wrapper.accumulative_counts = 4
    scale_batch(cfg)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(4e-4)
    assert cfg.batch_arithmetic.startswith('batch 1 x 256 x 4 = 1024 of 2048')


def test_lr_stays_unless_asked_for():
    cfg = prepare(make_config(enable=False))
    assert cfg.optim_wrapper.optimizer.lr == 8e-4
    assert 'unchanged' in cfg.batch_arithmetic
    cfg = prepare(make_config(enable=False), SimpleNamespace(auto_scale_lr=True))
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4)


def test_the_whole_batch_leaves_lr():
    cfg = prepare(make_config(batch_size=2048))
    assert cfg.optim_wrapper.optimizer.lr == 8e-4
    assert cfg.batch_arithmetic == 'batch 1 x 2048 x 1 = 2048 of 2048: lr 0.0008'


@pytest.mark.usefixtures('two_processes')
def test_keep_batch_accumulates():
    cfg = prepare(make_config(), LaunchOptions(keep_batch=True, launcher='pytorch'))
    assert cfg.optim_wrapper.accumulative_counts == 4
    assert cfg.optim_wrapper.optimizer.lr == 8e-4
    assert cfg.batch_arithmetic == 'batch 2 x 256 x 4 = 2048 of 2048: lr 0.0008'


def test_keep_batch_must_divide():
    with pytest.raises(ConfigError, match='2048 is not a multiple of 3 processes x 256'):
        accumulation_for(2048, 3, 256)


@pytest.mark.parametrize('options', [dict(auto_scale_lr=True), dict(keep_batch=True)])
def test_scaling_needs_a_base_batch(options: dict):
    with pytest.raises(ConfigError, match='base_batch_size'):
        prepare(make_config(base=None), LaunchOptions(**options))


def test_world_size_comes_from_the_launcher(monkeypatch: pytest.MonkeyPatch):
    assert world_size('none') == 1
    monkeypatch.setenv('SLURM_NTASKS', '16')
    assert world_size('slurm') == 16
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    with pytest.raises(ConfigError, match=r'dist_train\.sh'):
        world_size('pytorch')


def test_work_dir_comes_from_option_config_or_file_name(tmp_path: Path):
    assert prepare(make_config(), LaunchOptions(work_dir='x')).work_dir == 'x'
    cfg = make_config()
    cfg.work_dir = 'y'
    assert prepare(cfg).work_dir == 'y'
    (tmp_path / 'some.py').touch()
    cfg = Config(make_config()._cfg_dict, filename=tmp_path / 'some.py')
    assert prepare(cfg).work_dir == './work_dirs/some'


def test_resume_and_amp_and_no_validate():
    cfg = make_config()
    cfg.val_dataloader, cfg.val_cfg, cfg.val_evaluator = dict(num_workers=0), dict(), dict()
    cfg.optim_wrapper.loss_scale = 'dynamic'
    prepare(cfg, LaunchOptions(resume='a.pth', amp=True, no_validate=True))
    assert (cfg.resume, cfg.load_from) == (True, 'a.pth')
    assert cfg.optim_wrapper.type == 'ldae.AutocastOptimWrapper'
    assert 'loss_scale' not in cfg.optim_wrapper
    assert cfg.val_dataloader is cfg.val_cfg is cfg.val_evaluator is None
    assert prepare(make_config(), LaunchOptions(resume='auto')).load_from is None


def test_paths_become_texts_which_a_config_can_hold(tmp_path: Path):
    cfg = make_config()
    cfg.train_dataloader.dataset.data_root = 'old'
    cfg = prepare(cfg, LaunchOptions(work_dir=tmp_path, data_root=tmp_path / 'data', resume=tmp_path / 'a.pth'))
    assert [cfg.work_dir, cfg.data_root, cfg.load_from] == [
        str(tmp_path / name).rstrip('/') for name in ('', 'data', 'a.pth')
    ]
    assert Config.fromstring(cfg.pretty_text, '.py').data_root == str(tmp_path / 'data')


def test_resume_takes_the_newest_checkpoint_of_a_folder(tmp_path: Path):
    with pytest.raises(ConfigError, match='this folder holds no checkpoints'):
        prepare(make_config(), LaunchOptions(resume=str(tmp_path)))
    for epoch in (1, 2):
        torch.save(dict(epoch=epoch), tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    cfg = prepare(make_config(), LaunchOptions(resume=str(tmp_path)))
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / 'epoch_2.pth'))


def test_paths_of_the_wrong_kind_are_one_line(tmp_path: Path):
    file = tmp_path / 'file'
    file.touch()
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ConfigError, match="file' of train_dataloader is a file, not a folder"):
        check_data_roots(Config(dict(train_dataloader=dict(dataset=dict(data_root=str(file))))))
    for path, line in (
        (tmp_path, 'is a folder: name a file'),
        (tmp_path / 'pipe', 'is not a file'),
        ('no', 'does not exist'),
    ):
        with pytest.raises(ConfigError, match=line):
            check_weights(Config(dict(load_from=str(path))))


@pytest.mark.parametrize(
    ('images', 'batch', 'drop_last', 'refused'),
    [(9, 4, False, True), (9, 4, True, False), (8, 4, False, False), (8, 1, False, True)],
)
def test_a_batch_of_one_before_batchnorm_is_one_line(images: int, batch: int, drop_last: bool, refused: bool):
    loader = torch.utils.data.DataLoader(range(images), batch_size=batch, drop_last=drop_last)
    for norm, fails in ((torch.nn.BatchNorm1d(2), refused), (torch.nn.BatchNorm2d(2), False)):
        runner = SimpleNamespace(world_size=1, model=torch.nn.Sequential(norm))
        with pytest.raises(ConfigError, match='has one image') if fails else nullcontext():
            build._check_last_batch(runner, loader)


def test_worker_options():
    cfg = prepare(make_config(), LaunchOptions(no_pin_memory=True, no_persistent_workers=True))
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.train_dataloader.persistent_workers is False
    assert prepare(make_config()).train_dataloader.persistent_workers is True
    assert prepare(make_config()).train_dataloader.pin_memory is torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
@pytest.mark.usefixtures('two_processes')
def test_without_a_gpu_processes_talk_through_gloo():
    cfg = prepare(make_config(), LaunchOptions(launcher='pytorch'))
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    assert cfg.model_wrapper_cfg.device_ids is None
    assert 'model_wrapper_cfg' not in prepare(make_config())
    cfg = make_config()
    cfg.model_wrapper_cfg = dict(type='ldae.FullyShardedModel')
    assert prepare(cfg, LaunchOptions(launcher='pytorch')).model_wrapper_cfg == dict(type='ldae.FullyShardedModel')


def test_hooks_can_be_left_out_and_gradients_clipped_by_value(tmp_path: Path):
    options = {'default_hooks.health': None, 'default_hooks.checkpoint': None, 'train_dataloader.num_workers': 0}
    options |= {'optim_wrapper.clip_grad': dict(type='value', clip_value=0.5)}
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py', options)
    runner = build_runner(prepare(cfg, LaunchOptions(work_dir=str(tmp_path))))
    kinds = {type(hook).__name__ for hook in runner.hooks}
    assert 'OnlineKNNHook' in kinds
    assert not kinds & {'HealthHook', 'SafeCheckpointHook'}
    with pytest.raises(ConfigError, match="health_=None leaves nothing out; did you mean 'health'"):
        load_config('ldae::ldae/demo_fashion-mnist.py', {'default_hooks.health_': None})


def test_two_runs_that_start_in_the_same_second_keep_a_log_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('mmengine.runner.runner.time.strftime', lambda *_: '20260102_030405')
    options = {'train_dataloader.num_workers': 0, 'experiment_name': 'twice'}
    cfg = load_config('ldae::ldae/demo_fashion-mnist.py', options)
    runs = [build_runner(prepare(cfg.copy(), LaunchOptions(work_dir=str(tmp_path / name)))) for name in 'ab']
    for run, name in zip(runs, 'ab', strict=True):
        run.logger.info(f'this is run {name}')
    logs = [''.join(path.read_text() for path in (tmp_path / name).rglob('*.log')) for name in 'ab']
    assert [[f'run {name}' in log for name in 'ab'] for log in logs] == [[True, False], [False, True]]
    assert runs[0].message_hub is not runs[1].message_hub


def test_a_process_without_a_gpu_of_its_own_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('mmengine.device.utils.DEVICE', 'cuda')
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(ConfigError, match='process 2 of this machine has no GPU of its own, since it has 2'):
        build._start_processes(Config(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict()))))


def test_data_root_option(tmp_path: Path):
    cfg = make_config()
    cfg.train_dataloader.dataset.data_root = 'old'
    assert prepare(cfg, LaunchOptions(data_root='new')).train_dataloader.dataset.data_root == 'new'


def test_there_must_be_an_image_for_each_process_and_a_step_for_each_epoch():
    check_size(8, 1, 8, 1)
    with pytest.raises(ConfigError, match='1 training images for 2 processes'):
        check_size(1, 1, 2, 1)
    with pytest.raises(ConfigError, match=r'no batch of 2 x 256: lower train_dataloader\.batch_size'):
        check_size(100, 0, 2, 256)


def test_without_a_gpu_mixed_precision_is_bfloat16(monkeypatch):
    monkeypatch.setattr('ldae.utils.device.has_bf16', lambda _: True)
    cfg = prepare(load_config('ldae::mae/vit-b_300e.py'), LaunchOptions())
    expected = 'AmpOptimWrapper' if torch.cuda.is_available() else 'ldae.AutocastOptimWrapper'
    assert cfg.optim_wrapper.type == expected
    assert torch.cuda.is_available() or 'loss_scale' not in cfg.optim_wrapper


@pytest.fixture
def has_bf16(request, monkeypatch):
    """Whether the device has instructions for it."""
    for module in ('ldae.launch.prepare', 'ldae.utils.device'):
        monkeypatch.setattr(sys.modules[module], 'has_bf16', lambda _: request.param)
    return request.param


FP32, BF16, FP16 = dict(type='OptimWrapper'), dict(type='ldae.AutocastOptimWrapper'), dict(type='AmpOptimWrapper')


@pytest.mark.parametrize(
    ('has_bf16', 'device', 'own', 'asked', 'chosen', 'why'),
    [
        (True, 'cpu', BF16, None, BF16, 'bf16'),
        (False, 'cpu', BF16, None, FP32, 'fp32: the config asks for bf16, for which this cpu has no instructions'),
        (False, 'cuda', BF16, None, FP32, 'fp32: the config asks for bf16, for which this cuda has no instructions'),
        (False, 'cpu', BF16, 'bf16', BF16, 'bf16, for which this cpu has no instructions'),
        (True, 'cpu', FP32, None, FP32, 'fp32'),
        (True, 'cpu', FP32, 'auto', BF16, 'bf16'),
        (False, 'cpu', FP32, 'auto', FP32, 'fp32'),
        (True, 'cpu', BF16, 'fp32', FP32, 'fp32'),
        (False, 'cpu', dict(BF16, dtype='float16'), None, FP32, 'fp32: the config asks for fp16'),
        (False, 'cpu', dict(FP16, loss_scale=512.0), None, FP32, 'fp32: the config asks for fp16'),
        (True, 'cpu', dict(FP16, dtype='bfloat16', loss_scale=512.0), None, BF16, 'bf16'),
        (False, 'cuda', dict(FP16, loss_scale=512.0), None, dict(FP16, loss_scale=512.0), 'fp16'),
        (False, 'cuda', BF16, 'fp16', dict(FP16, loss_scale='dynamic'), 'fp16'),
        (True, 'cuda', FP16, 'bf16', BF16, 'bf16'),
    ],
    indirect=['has_bf16'],
)
def test_precision_is_what_is_asked_for_else_what_the_config_and_the_device_have(
    has_bf16, device, own, asked, chosen, why
):
    cfg = Config(dict(optim_wrapper=own))
    set_precision(cfg, asked, device)
    assert cfg.optim_wrapper == chosen
    assert cfg.chosen_precision.startswith(f'precision {why}')
    set_precision(cfg, asked, device)  # as of a dumped config
    assert cfg.optim_wrapper == chosen


@pytest.mark.parametrize('has_bf16', [False], indirect=True)
def test_fast_is_bf16_only_where_the_device_has_it(has_bf16):
    cfg = prepare(load_config('ldae::ldae/vit-b_pca.py'), LaunchOptions(fast=True, device='cpu'))
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'matmul_precision' in cfg.default_hooks


def test_a_wrapper_of_ones_own_is_left_alone():
    cfg = Config(dict(optim_wrapper=dict(type='MyWrapper', dtype='bfloat16')))
    set_precision(cfg, None, 'cpu')
    assert cfg.to_dict() == dict(optim_wrapper=dict(type='MyWrapper', dtype='bfloat16'))


def test_options_that_contradict_each_other_or_the_machine_are_one_line():
    with pytest.raises(ConfigError, match='amp is precision bf16, which is not fp32'):
        LaunchOptions(amp=True, precision='fp32')
    with pytest.raises(ConfigError, match=r"LaunchOptions\.precision='half' is unknown"):
        LaunchOptions(precision='half')
    with pytest.raises(ConfigError, match="device 'tpu9' can't be used"):
        prepare(make_config(), LaunchOptions(device='tpu9'))


def test_a_job_that_its_launcher_started_again_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    options = LaunchOptions(work_dir=str(tmp_path), resume='first.pth')
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    assert prepare(make_config(), options).load_from == 'first.pth'  # there is nothing newer
    torch.save(dict(), tmp_path / 'iter_3.pth')
    cfg = prepare(make_config(), options)
    assert (cfg.resume, cfg.load_from) == (True, None)
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '0')
    assert prepare(make_config(), options).load_from == 'first.pth'


@pytest.mark.usefixtures('two_processes')
def test_nothing_is_waited_for_without_end():
    cfg = prepare(make_config(), LaunchOptions(launcher='pytorch'))
    assert cfg.env_cfg.dist_cfg.timeout == 1800
    assert cfg.train_dataloader.timeout == 600
    cfg = make_config()
    cfg.train_dataloader.num_workers = 0
    assert 'timeout' not in prepare(cfg).train_dataloader  # which a DataLoader would refuse
