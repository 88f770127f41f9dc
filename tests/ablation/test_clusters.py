# SPDX-License-Identifier: Apache-2.0
"""Jobs handed over by submitit: to this machine's processes, and to stubs of Slurm's commands. Jobs are small scripts."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from made_up import make_row
from mmengine.config import Config

from ldae.ablation import Scheduler, plan_jobs
from ldae.ablation.clusters import SlurmExecutor, SubmititExecutor, minutes_of, parse_options, sbatch_options
from ldae.ablation.cost import estimate, sizes_of_views, stored_operations, training_cost
from ldae.ablation.scheduler import in_processes, worker_environment
from ldae.ablation.study import Study
from ldae.apis import get_model
from ldae.cli import run_tool
from ldae.config import load_config
from ldae.launch.batch import share_batch, whole_batch
from ldae.utils import ConfigError
from ldae.utils.commands import Command

SCORE = '[{"row": "r", "config": "c", "knn": 1, "linear": 1}]'
DONE = """
open(f + '/done.json', 'w').write('{"checkpoint": null, "seconds": 1.0}')
"""
TOKENIZER = f'{DONE}\nopen(f + "/tokenizer.pth", "w").write("fitted")'
ROW = f"{DONE}\nassert open(t).read() == 'fitted'\nopen(f + '/scores.json', 'w').write('{SCORE}')"
BAD = 'print("noise"); print("error: no such patch"); raise SystemExit(2)'

STUBS = {
    'sbatch': """
echo "$*" >> calls
case "$*" in *--account=nobody*) echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1;; esac
[ "$1" = --test-only ] && exit 0
number=$(($(cat number) + 1)); echo $number > number
cp "$1" $number.sh; echo $number >> queue
echo "Submitted batch job $number"
""",
    # Each look at the queue runs the job at its head: the clock of this cluster.
    'squeue': """
number=$(head -n 1 queue)
if [ -n "$number" ] && [ ! -e stopped ]; then
    sed -i 1d queue
    after=$(sed -n 's/^#SBATCH --dependency=afterok://p' $number.sh)
    if [ -n "$after" ] && [ "$(cat $after.status)" != 0 ]; then
        echo CANCELLED > $number.state
    else
        SLURM_JOB_ID=$number SLURM_CPUS_PER_TASK=1 bash $number.sh > $number.out 2>&1
        echo $? > $number.status
    fi
fi
cat queue
""",
    'srun': """
while [ "$1" != "${1#--}" ]; do case $1 in --output | --error) shift 2 ;; *) shift ;; esac; done
cd "$WHERE" && SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 exec "$@"
""",
    'scancel': 'echo "$*" >> cancelled; sed -i "/^$2$/d" queue',
    'sacct': 'case "$*" in *jobs=*) cat ${4#--jobs=}.state 2>/dev/null || echo COMPLETED;; esac',
    'sinfo': 'case "$*" in *%R*) printf "gpu\\ncpu\\n";; *partition=cpu*) echo "(null)";; *) echo "gpu:8";; esac',
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Slurm's commands, as scripts of this folder."""
    folder = tmp_path / 'cluster'
    folder.mkdir()
    for name, text in STUBS.items():
        (folder / name).write_text(f'#!/bin/bash\nWHERE=$PWD\nexport WHERE\ncd {folder}\n{text}')
        (folder / name).chmod(0o755)
    (folder / 'number').write_text('0')
    (folder / 'queue').touch()
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    monkeypatch.setattr(SlurmExecutor, 'seconds', 0.0)
    return folder


@pytest.fixture
def make(load, tmp_path, monkeypatch):
    """Jobs that run these scripts, the others after the first, a tokenizer; ``f`` is a job's folder, ``t`` that one's file."""
    pytest.importorskip('submitit')
    monkeypatch.setattr(SubmititExecutor, 'seconds', 0.0)

    def make(*scripts):
        jobs = [plan_jobs([make_row(f'row{i}')], [0], tmp_path / 'runs' / str(i), load)[0] for i in range(len(scripts))]
        jobs[0].members = []
        for job in jobs[1:]:
            job.after = jobs[0]
        named = {str(job.folder): script for job, script in zip(jobs, scripts, strict=True)}
        start = f't = {str(jobs[0].folder / "tokenizer.pth")!r}'
        monkeypatch.setattr(
            'ldae.ablation.clusters.worker_command',
            lambda folder: [sys.executable, '-c', f'f = {str(folder)!r}\n{start}\n{named[str(folder)]}'],
        )
        return jobs

    return make


def run(jobs, executor, num_parallel=2):
    done = []
    return done, Scheduler(jobs, num_parallel, lambda job, scores: done.append((job.name, len(scores))), executor).run()


def test_submitit_runs_a_tokenizer_and_then_the_rows_that_wait_for_it(make, tmp_path):
    done, failures = run(make(TOKENIZER, ROW, ROW), SubmititExecutor(tmp_path / 'runs', 2))
    assert not failures
    assert done[0] == ('row0 seed 0', 0)
    assert sorted(done[1:]) == [('row1 seed 0', 1), ('row2 seed 0', 1)]


def test_rows_fail_with_their_tokenizer_and_the_log_says_why(make, tmp_path):
    done, failures = run(make(BAD, ROW), SubmititExecutor(tmp_path / 'runs'))
    assert not done
    assert [(f.name, f.reason) for f in failures] == [
        ('row0 seed 0', 'no such patch'),
        ('row1 seed 0', 'row0 seed 0 failed'),
    ]


def fifo(path):
    os.mkfifo(path)
    return str(path)


def test_a_job_that_outlived_a_killed_study_is_found_again(make, tmp_path):
    gate = fifo(tmp_path / 'gate')
    jobs = make(f'open({gate!r}).read()\n{TOKENIZER}', ROW)
    started = SubmititExecutor(tmp_path / 'runs').start(jobs[0], 0)
    again = SubmititExecutor(tmp_path / 'runs')
    assert again.start(jobs[0], 0).number == started.number
    jobs[0].seed = 7  # of which that one knows nothing
    with pytest.raises(ConfigError, match=f'job {started.number} is at it with other settings'):
        again.start(jobs[0], 0)
    jobs[0].seed = 0
    threading.Thread(target=lambda: Path(gate).write_text(''), daemon=True).start()
    done, failures = run(jobs, again)
    assert (done, failures) == ([('row0 seed 0', 0), ('row1 seed 0', 1)], [])
    assert not (jobs[0].folder / 'submitted.json').exists()


def test_a_stopped_job_saves_and_the_next_one_goes_on(make, tmp_path):
    gate = fifo(tmp_path / 'gate')
    script = f"""
import os, signal, sys
if not os.path.exists(f + '/saved'):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    open({gate!r}, 'w').close()
    signal.sigwait([signal.SIGTERM])
    open(f + '/saved', 'w')
    sys.exit(75)
"""
    jobs = make(script + TOKENIZER, ROW)
    executor = SubmititExecutor(tmp_path / 'runs')
    started = executor.start(jobs[0], 0)
    Path(gate).read_text()
    started.terminate()
    started.wait()
    assert started.returncode == 1
    assert (jobs[0].folder / 'saved').exists()
    done, failures = run(jobs, SubmititExecutor(tmp_path / 'runs'))
    assert (done, failures) == ([('row0 seed 0', 0), ('row1 seed 0', 1)], [])


def test_slurm_is_handed_rows_with_the_tokenizer_that_they_wait_for(make, cluster, tmp_path):
    jobs = make(TOKENIZER, ROW, ROW)
    for job in jobs:
        job.processes = 8
    executor = SlurmExecutor(
        tmp_path / 'runs', 8, 'gpu', parse_options(['account=vision', 'time=2-00', 'exclusive=true'])
    )
    commands = [executor.start(jobs[0], 0)]
    commands += [executor.start(job, 1, commands[0]) for job in jobs[1:]]
    assert [command.number for command in commands] == ['1', '2', '3']
    first, second = ((cluster / f'{number}.sh').read_text() for number in (1, 2))
    flags = {line.removeprefix('#SBATCH ') for line in first.splitlines() if line.startswith('#SBATCH')}
    assert {'--partition=gpu', '--gpus-per-node=8', '--account=vision', '--exclusive', '--time=2880'} <= flags
    assert {'--cpus-per-task=40', '--nodes=1', '--signal=USR2@120'} <= flags
    assert 'dependency' not in first
    assert '#SBATCH --dependency=afterok:1' in second
    assert '#SBATCH --kill-on-invalid-dep=yes' in second


def test_slurm_runs_what_it_was_handed(make, cluster, tmp_path):
    done, failures = run(make(TOKENIZER, ROW, ROW), SlurmExecutor(tmp_path / 'runs'), 100)
    assert not failures, [(cluster / f'{n}.out').read_text() for n in (1, 2, 3)]
    assert done == [('row0 seed 0', 0), ('row1 seed 0', 1), ('row2 seed 0', 1)]


def test_slurm_cancels_rows_whose_tokenizer_fails(make, cluster, tmp_path):
    done, failures = run(make(BAD, ROW), SlurmExecutor(tmp_path / 'runs'), 100)
    assert not done
    assert [f.reason for f in failures] == ['no such patch', 'row0 seed 0 failed']


def test_what_slurm_has_ended_is_said(make, cluster, tmp_path):
    (cluster / '1.state').write_text('OUT_OF_MEMORY')
    failures = run(make('import os; os.kill(os.getpid(), 9)'), SlurmExecutor(tmp_path / 'runs'))[1]
    assert [f.reason for f in failures] == ['OUT_OF_MEMORY of Slurm job 1; last: ended without a word as job 1']


def test_jobs_in_the_queue_are_found_again_and_an_interrupt_takes_them_out(make, cluster, tmp_path):
    (cluster / 'stopped').touch()
    jobs = make(TOKENIZER, ROW)
    handed = SlurmExecutor(tmp_path / 'runs').start(jobs[0], 0)
    again = SlurmExecutor(tmp_path / 'runs').start(jobs[0], 0)
    assert (again.number, (cluster / 'number').read_text().strip()) == (handed.number, '1')
    again.terminate()
    again.wait()
    assert (cluster / 'cancelled').read_text().split() == ['--state=PENDING', '1', '--signal=TERM', '1']
    assert again.returncode == 1


def test_what_sbatch_refuses_is_the_failure_of_that_job_alone(make, cluster, tmp_path):
    (cluster / 'sbatch').write_text('#!/bin/sh\necho "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1')
    failures = run(make(TOKENIZER), SlurmExecutor(tmp_path / 'runs'))[1]
    assert [(f.name, f.reason) for f in failures] == [('row0 seed 0', 'sbatch: QOSMaxSubmitJobPerUserLimit')]


def test_before_its_time_limit_a_job_saves_and_is_queued_anew(tmp_path):
    submitit = pytest.importorskip('submitit')
    gate = fifo(tmp_path / 'gate')
    script = f"""
import os, signal, sys
os.kill(os.getpid(), signal.SIGUSR2)  # as Slurm may send it to the whole job
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
open({gate!r}, 'w').close()
signal.sigwait([signal.SIGTERM])
open({str(tmp_path / 'saved')!r}, 'w')
sys.exit(75)
"""
    command, anew = Command([sys.executable, '-c', script], tmp_path / 'log.txt'), []

    def answer(*_):
        anew.append(command.checkpoint())
        raise SystemExit

    before = signal.signal(signal.SIGUSR2, answer)
    threading.Thread(target=lambda: (Path(gate).read_text(), os.kill(os.getpid(), signal.SIGUSR2)), daemon=True).start()
    with pytest.raises(SystemExit):
        command()
    signal.signal(signal.SIGUSR2, before)
    assert (tmp_path / 'saved').exists()
    anew[0].dump(tmp_path / 'anew.pkl')
    assert submitit.helpers.DelayedSubmission.load(tmp_path / 'anew.pkl').function.command == command.command


@pytest.mark.parametrize(
    ('text', 'minutes'),
    [('90', 90), ('90:30', 91), ('1:30:00', 90), ('2-12', 3600), ('1-00:30', 1470), ('1-01:02:03', 1503), ('0:45', 1)],
)
def test_times_are_read_as_slurm_reads_them(text, minutes):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ('words', 'part'),
    [
        (['account'], 'must read KEY=VALUE'),
        (['=x'], 'must read KEY=VALUE'),
        (['qos='], 'must read KEY=VALUE'),
        (['time=soon'], 'give minutes'),
        (['time=0'], 'give minutes'),
        (['nodes=2'], 'a job is one node'),
        (['--gpus_per_node=4'], '--gpus-per-job'),
    ],
)
def test_a_wrong_option_of_slurm_is_one_line(words, part):
    with pytest.raises(ConfigError, match=part):
        parse_options(words)
    assert parse_options(['--mail-type=END', 'cpus_per_task=4']) == {'mail-type': 'END', 'cpus-per-task': '4'}
    assert sbatch_options(2, None, 0, {}) == {'time': 1440, 'cpus-per-task': 10}


ROWS = ['ablate', 't3_5*', '--scale', 'fashion-mnist_subset']


@pytest.mark.parametrize(
    ('options', 'part'),
    [
        (['--executor', 'slurm', '--partition', 'gpus'], "--partition gpus: Slurm has cpu, gpu; did you mean 'gpu'?"),
        (['--executor', 'slurm', '--partition', 'cpu', '--gpus-per-job', '8'], 'partition cpu has no GPUs'),
        (['--executor', 'slurm', '--slurm', 'account=nobody'], 'Slurm refuses such jobs: Batch job submission failed'),
        (['--executor', 'slurm', '--gpus-per-job', '8', '--processes-per-job', '4'], 'a GPU of its own'),
        (['--executor', 'slurm', '--jobs', '0'], '--jobs=0 is out of range'),
        (['--partition', 'gpu'], '--partition gpu is for --executor slurm'),
        (['--slurm', 'qos=long'], '--slurm qos=... is for --executor slurm'),
        (['--gpus-per-job', '2', '--device', 'cpu'], 'this machine has 0 to use'),
        (['--processes-per-job', '999'], '--processes-per-job 999: this machine has'),
        (['--processes-per-job', '0'], '--processes-per-job=0 is out of range'),
        (['--tflops', '0'], '--tflops=0.0 is out of range'),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_handed_over(options, part, cluster, tmp_path, capsys):
    if '--executor' in options:
        pytest.importorskip('submitit')
    assert run_tool(ROWS[0], [*ROWS[1:], '--work-dir', str(tmp_path / 'runs'), *options]) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count('\n') == 1
    assert not (tmp_path / 'runs').exists()
    assert (cluster / 'number').read_text() == '0'


@pytest.mark.parametrize('executor', ['slurm', 'submitit-local'])
def test_a_missing_submitit_is_one_line(executor, monkeypatch, tmp_path, cluster):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(ConfigError, match=f'--executor {executor} needs the library submitit, which is not installed'):
        Study(tmp_path, 'tiny', executor=executor)


def test_missing_commands_of_slurm_are_one_line(monkeypatch, tmp_path):
    pytest.importorskip('submitit')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(ConfigError, match='there is no sbatch here'):
        Study(tmp_path, 'tiny', executor='slurm')
    Study(tmp_path, 'tiny', executor='slurm', dry_run=True)


def test_cores_and_gpus_are_shared_out_and_the_users_threads_are_obeyed(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(16)))
    monkeypatch.setattr('ldae.ablation.scheduler.num_gpus', lambda: 8)
    for name in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    env = worker_environment(1, 2, processes=4, gpus=4)
    assert (env['OMP_NUM_THREADS'], env['CUDA_VISIBLE_DEVICES']) == ('2', '4,5,6,7')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5,6,7')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    env = worker_environment(1, 2, processes=2, gpus=2)
    assert (env['OMP_NUM_THREADS'], env['CUDA_VISIBLE_DEVICES']) == ('1', '6,7')


def test_a_group_of_processes_is_one_command():
    assert in_processes(['python', '-m', 'a.b', 'folder'], 1) == ['python', '-m', 'a.b', 'folder']
    command = in_processes([sys.executable, '-m', 'a.b', 'folder'], 2)
    assert command[:3] == [sys.executable, '-m', 'ldae.cli.torchrun']
    assert command[-4:] == ['--module', '--', 'a.b', 'folder']


def batch_of(cfg):
    return cfg.train_dataloader.batch_size, cfg.optim_wrapper.accumulative_counts


@pytest.mark.parametrize(
    ('batch', 'base', 'processes', 'shared'),
    [
        (128, 2048, 1, (128, 16)),
        (128, 2048, 8, (128, 2)),
        (128, 2048, 32, (64, 1)),
        (12, 96, 2, (12, 4)),
        (512, 4096, 3, None),
    ],
)
def test_the_batch_of_a_row_is_the_same_whatever_the_processes(batch, base, processes, shared):
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=batch),
            optim_wrapper=dict(accumulative_counts=2),
            auto_scale_lr=dict(base_batch_size=base),
        )
    )
    whole_batch(cfg)
    if shared is None:
        with pytest.raises(ConfigError, match='3 does not divide the batch of 4096 images'):
            share_batch(cfg, processes)
    else:
        share_batch(cfg, processes)
        assert batch_of(cfg) == shared
        assert batch_of(cfg)[0] * batch_of(cfg)[1] * processes == base


def test_iterations_that_count_accumulated_batches_are_not_shared_out():
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=64), optim_wrapper=dict(accumulative_counts=4), train_cfg=dict(max_iters=9)
        )
    )
    with pytest.raises(ConfigError, match='which max_iters counts one by one: give the length in epochs'):
        share_batch(cfg, 2)
    cfg.optim_wrapper.accumulative_counts = 1
    share_batch(cfg, 2)
    assert cfg.train_dataloader.batch_size == 32


def test_a_dry_run_of_the_papers_rows_says_what_they_cost_and_leaves_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('ldae.ablation.cost._count', lambda *args: 480.0)
    rows = ['t3_*', 't2_pca_*', 'epochs_*', 'size_vit-b', 't2_patch-ae_d8']
    options = ['--scale', 'paper', '--processes-per-job', '2', '--dry-run', '--tflops', '200']
    assert run_tool('ablate', [*rows, *options, '--work-dir', str(tmp_path / 'runs'), '--data-root', 'nowhere']) == 0
    out = capsys.readouterr().out
    assert not (tmp_path / 'runs').exists()
    lines = {line.split(' seed ')[0]: line for line in out.splitlines() if ' seed 0 ' in line}
    assert len(lines) == 16
    # 480e9 operations x 400 epochs x 1 281 152 images in whole batches of 128, at 200e12 a second.
    hours = 480e9 * 400 * (1_281_167 // 128 * 128) / 200e12 / 3600
    assert f' {hours / 2:.0f} ' in lines['t2_pca_d8']
    assert f' {hours:.0f}  3,072 TPU v3 core-hours' in lines['t2_pca_d8']
    assert lines['size_vit-b'].rstrip().endswith(' -')
    assert 'tokenizer patch-ae_d8 ' in lines['t2_patch-ae_d8']
    assert 'that is assumed (--tflops), not measured' in out
    assert 'nowhere cannot be read here' in out
    assert '--nproc-per-node=2' in out


def test_operations_are_of_all_views_in_their_sizes():
    cfg = load_config('ldae::dino/vit-b_400e.py')
    assert sizes_of_views(cfg, 224) == ((224, 224),) * 2 + ((96, 96),) * 10
    assert sizes_of_views(load_config('ldae::simclr/vit-b_300e.py'), 224) == ((224, 224),) * 2
    assert sizes_of_views(load_config('ldae::ldae/vit-b_pca.py'), 256) == ((256, 256),)
    cfg = load_config('ldae::dino/vit-b_400e.py', scale='fashion-mnist_subset')
    assert estimate(cfg).gflop == pytest.approx(training_cost(get_model(cfg), cfg)['gflop'], rel=0.01)


def test_a_stored_model_that_would_take_all_memory_is_not_built_to_be_counted():
    cfg = load_config('ldae::byol/vit-b_300e.py', scale='fashion-mnist_subset')
    assert stored_operations(cfg.pretty_text) > 0
    cfg.model.backbone.arch.embed_dims = 1 << 23
    assert stored_operations(cfg.pretty_text) is None


def test_operations_are_counted_without_images_and_weights_as_with_them():
    cfg = load_config('ldae::deconstruction/t3_5_original-image.py', scale='fashion-mnist_subset')
    model = get_model(cfg)
    model.tokenizer.take_as_fitted()
    found = estimate(cfg)
    cost = training_cost(model, cfg)
    assert (found.images, found.why, found.is_here) == (cost['images'], '', True)
    assert found.gflop == pytest.approx(
        cost['gflop'], rel=0.01
    )  # of the images' normalisation, and who draws the noise
