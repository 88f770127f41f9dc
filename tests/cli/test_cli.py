# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ldae.cli import TOOLS, main, run_tool
from ldae.version import __version__

ROOT = Path(__file__).parents[2]
CONFIG = 'ldae::ldae/vit-b_pca.py'


@pytest.mark.parametrize('tool', [tool for tool in TOOLS if tool != 'demo'])
def test_help_shows_an_example(tool: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught:
        main([tool, '--help'])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert 'example:\n  tools/' in out or 'example:\n  ldae ' in out


def test_ldae_lists_its_tools(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(['--help'])
    out = capsys.readouterr().out
    assert all(tool in out for tool in TOOLS)


def test_a_bare_ldae_lists_its_tools(capsys: pytest.CaptureFixture):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f'\n  {tool} ' in out for tool in TOOLS)


def test_an_unknown_tool_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(['trian'])
    assert capsys.readouterr().err.endswith("ldae: error: there is no tool 'trian'; did you mean 'train'?\n")


def test_the_package_is_the_command():
    run = subprocess.run([sys.executable, '-m', 'ldae', '--version'], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == f'ldae {__version__}\n'


def test_every_tool_has_a_file_in_tools():
    for tool in TOOLS:
        name = tool.replace('-', '_')
        assert (ROOT / 'tools' / f'{name}.py').is_file()
        assert callable(import_module(f'ldae.cli.{name}').main)


def test_a_tool_is_a_program():
    run = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'print_config.py', 'nowhere.py'],
        env=dict(PYTHONPATH=str(ROOT), PATH='/usr/bin:/bin'),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr == 'error: config nowhere.py does not exist\n'


@pytest.mark.parametrize(
    ('options', 'part'),
    [
        (['--data-root', 'nowhere'], "data folder 'nowhere' of train_dataloader does not exist"),
        (['--cfg-options', 'model.type=LDEA'], "did you mean 'ldae.LDAE'?"),
        (['--cfg-options', 'data_root=.', '--resume', 'none.pth'], "checkpoint 'none.pth'"),
        (['--keep-batch', '--cfg-options', 'train_dataloader.batch_size=100'], 'not a multiple of 1 processes x 100'),
    ],
)
def test_wrong_input_ends_in_one_line(options: list[str], part: str, capsys: pytest.CaptureFixture, tmp_path: Path):
    assert run_tool('train', [CONFIG, '--work-dir', str(tmp_path), *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith('error: ')
    assert part in err
    assert err.count('\n') == 1


def test_print_config(capsys: pytest.CaptureFixture):
    assert run_tool('print-config', [CONFIG, '--data-root', 'here', '--cfg-options', 'randomness.seed=3']) == 0
    out = capsys.readouterr().out
    assert "data_root='here'" in out
    assert 'seed=3' in out
    assert 'ldae.PatchPCATokenizer' in out


def test_print_config_diff(capsys: pytest.CaptureFixture):
    assert run_tool('print-config', [CONFIG, '--diff', CONFIG, '--cfg-options', 'model.tokenizer.latent_dim=16']) == 0
    changed = [
        line for line in capsys.readouterr().out.splitlines() if line[0] in '+-' and line[:3] not in ('+++', '---')
    ]
    assert [line.split()[-1] for line in changed] == ['latent_dim=32,', 'latent_dim=16,']


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'dist_probe.sh', 'benchmark.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_launchers_explain_themselves(script: str):
    path = ROOT / 'tools' / script
    run = subprocess.run([path, '--help'], capture_output=True, text=True)
    assert run.returncode == 0
    assert 'example:' in run.stdout
    run = subprocess.run([path, 'one'], capture_output=True, text=True)
    assert run.returncode == 2
    assert 'usage: tools/' in run.stderr


def stub(folder: Path, name: str) -> Path:
    """A program that prints its arguments, one a line."""
    path = folder / name
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho "threads $OMP_NUM_THREADS"\n')
    path.chmod(0o755)
    return path


def test_dist_train_passes_everything_on(tmp_path: Path):
    env = dict(PATH='/usr/bin:/bin', PYTHON=str(stub(tmp_path, 'python')), NNODES='2', NODE_RANK='1', PORT='7')
    env['MASTER_ADDR'] = 'host'
    command = [ROOT / 'tools' / 'dist_train.sh', 'my config.py', '1', '--cfg-options', 'a=[1, 2]']
    lines = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    for part in ('--nnodes=2', '--node-rank=1', '--master-addr=host', '--master-port=7', '--nproc-per-node=1'):
        assert part in lines
    after = lines[lines.index(str(ROOT / 'tools' / 'train.py')) + 1 :]
    assert after[:5] == ['my config.py', '--cfg-options', 'a=[1, 2]', '--launcher', 'pytorch']
    assert after[5].startswith('threads ')
    assert int(after[5].split()[1]) >= 1


def test_threads_of_the_user_are_kept(tmp_path: Path):
    env = dict(PATH='/usr/bin:/bin', PYTHON=str(stub(tmp_path, 'python')), OMP_NUM_THREADS='3')
    run = subprocess.run(
        [ROOT / 'tools' / 'dist_test.sh', 'c.py', 'a.pth', '2'], env=env, capture_output=True, text=True, check=True
    )
    assert 'threads 3' in run.stdout
    assert 'a.pth' in run.stdout


def test_slurm_train_passes_everything_on(tmp_path: Path):
    stub(tmp_path, 'srun')
    env = dict(PATH=f'{tmp_path}:/usr/bin:/bin', GPUS='16', SRUN_ARGS='--time 1:00 --exclusive')
    command = [ROOT / 'tools' / 'slurm_train.sh', 'part', 'job', 'my config.py', '--amp']
    lines = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    for part in ('part', '--ntasks=16', '--ntasks-per-node=8', '--gres=gpu:8', '--exclusive', '1:00'):
        assert part in lines
    after = lines[lines.index(str(ROOT / 'tools' / 'train.py')) + 1 :]
    assert after[:4] == ['my config.py', '--amp', '--launcher', 'slurm']


def fake_slurm(folder: Path, *statuses: int) -> None:
    """srun that ends with one status after the other, and an scontrol; both note their last arguments."""
    folder.joinpath('statuses').write_text('\n'.join(map(str, statuses)))
    for name, end in (('srun', 'S=$(head -n1 statuses); sed -i 1d statuses; exit $S'), ('scontrol', 'exit 0')):
        path = folder / name
        path.write_text(f'#!/bin/bash\ncd {folder}\necho {name} "${{@: -3}}" >> calls\n{end}\n')
        path.chmod(0o755)


@pytest.mark.parametrize(
    ('env', 'statuses', 'end', 'calls'),
    [
        ({}, (75, 75, 0), 0, ['c.py', '--resume', '--resume']),
        ({}, (75, 1), 1, ['c.py', '--resume']),
        (dict(REQUEUE='0'), (75,), 75, ['c.py']),
        (dict(SLURM_JOB_ID='7'), (75,), 75, ['c.py', 'requeue']),
    ],
)
def test_a_job_that_saved_before_its_end_is_started_again(tmp_path: Path, env, statuses, end, calls):
    fake_slurm(tmp_path, *statuses)
    command = [ROOT / 'tools' / 'slurm_train.sh', 'part', 'job', 'c.py']
    env = dict(env, PATH=f'{tmp_path}:/usr/bin:/bin')
    assert subprocess.run(command, env=env, capture_output=True, check=False).returncode == end
    found = tmp_path.joinpath('calls').read_text().splitlines()
    assert len(found) == len(calls)
    for line, call in zip(found, calls, strict=True):
        assert call in line


def test_slurm_without_gpus_asks_for_none(tmp_path: Path):
    stub(tmp_path, 'srun')
    env = dict(PATH=f'{tmp_path}:/usr/bin:/bin', GPUS='2', GPUS_PER_NODE='0')
    command = [ROOT / 'tools' / 'slurm_test.sh', 'part', 'job', 'c.py', 'a.pth']
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert '--ntasks=2\n--ntasks-per-node=2' in out
    assert 'gres' not in out


@pytest.mark.parametrize('own', [None, 'ACTIVE'])
def test_threads_wait_without_taking_a_core_unless_the_user_says_so(own, monkeypatch):
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    if own:
        monkeypatch.setenv('OMP_WAIT_POLICY', own)
    with pytest.raises(SystemExit):
        run_tool('train', ['--help'])
    assert os.environ['OMP_WAIT_POLICY'] == (own or 'PASSIVE')
