# SPDX-License-Identifier: Apache-2.0
import json
from copy import deepcopy
from functools import partial

import pytest
from made_up import make_row

from ldae.ablation import jobs as jobs_module
from ldae.ablation import plan_jobs
from ldae.ablation.jobs import fingerprint, run_config, training_part
from ldae.ablation.study import Study
from ldae.config import list_rows, load_config
from ldae.utils import ConfigError


def named(*names):
    return [make_row(name) for name in names]


def test_rows_that_differ_in_transfer_share_a_pretraining(load, tmp_path):
    jobs = plan_jobs(named('a_t10', 'a_t20', 'wide'), [0], tmp_path, load)
    assert [[m.row for m in job.members] for job in jobs] == [['a_t10', 'a_t20'], ['wide']]
    assert [m.transfer['timestep'] for m in jobs[0].members] == [10, 20]
    assert len({m.config for job in jobs for m in job.members}) == 3
    assert jobs[0].folder == tmp_path / 'a_t10' / 'seed0'


def test_the_first_seed_of_all_rows_comes_before_the_second_of_any(load, tmp_path):
    jobs = plan_jobs(named('a_t10', 'wide'), [3, 1], tmp_path, load)
    assert [(job.members[0].row, job.seed) for job in jobs] == [('a_t10', 3), ('wide', 3), ('a_t10', 1), ('wide', 1)]
    assert [job.cfg.randomness.seed for job in jobs] == [3, 3, 1, 1]
    assert jobs[0].key == jobs[2].key


@pytest.mark.parametrize(
    ('key', 'value', 'same'),
    [
        ('train_dataloader.num_workers', 0, True),
        ('randomness', dict(seed=5), True),
        ('log_level', 'ERROR', True),
        ('train_cfg.max_epochs', 5, False),
        ('model.backbone.width', 7, False),
        ('train_dataloader.dataset.crop_scale', 0.5, False),
        ('model.backbone.seed', 0, True),
        ('model.backbone.seed', 7, False),
        ('default_hooks', dict(fit_tokenizer=dict(seed=7)), False),
    ],
)
def test_the_hash_sees_what_changes_the_weights_and_nothing_else(load, key, value, same):
    cfg = load(make_row('wide').path)
    cfg.randomness = dict(seed=0)
    changed = deepcopy(cfg)
    changed.merge_from_dict({key: value})
    assert (fingerprint(training_part(cfg)) == fingerprint(training_part(changed))) is same


def test_a_row_whose_average_is_scored_is_trained_for_itself_and_leaves_the_hashes_of_others(tmp_path):
    rows = [row for row in list_rows() if row.name in ('t3_5_original-image', 'ema')]
    jobs = plan_jobs(rows, [0], tmp_path, partial(load_config, scale='fashion-mnist_subset'))
    (plain,), (ema,) = (job.members for job in jobs)
    assert 'ema' not in plain.transfer
    assert ema.transfer == dict(plain.transfer, ema=True)
    assert jobs[1].cfg.default_hooks.ema.momentum == 0.04
    part = training_part(jobs[0].cfg)
    assert 'ema' not in part
    assert training_part(jobs[1].cfg) == dict(part, ema=dict(jobs[1].cfg.default_hooks.ema))


def test_nothing_looks_at_a_run_while_it_trains_and_it_can_be_resumed(load, tmp_path):
    hooks = plan_jobs(named('wide'), [0], tmp_path, load)[0].cfg.default_hooks
    assert 'online_knn' not in hooks
    assert hooks.checkpoint.interval == 1
    assert hooks.checkpoint.max_keep_ckpts == 2
    cfg = load(named('wide')[0].path)
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1  # for curves over epochs
    assert run_config(cfg, 0).default_hooks.checkpoint.max_keep_ckpts == -1


def test_a_pretraining_is_found_under_whichever_row_began_it(load, tmp_path):
    plan_jobs(named('a_t10'), [0], tmp_path, load)[0].write()
    assert plan_jobs(named('a_t20'), [0], tmp_path, load)[0].folder == tmp_path / 'a_t10' / 'seed0'


def test_a_seed_is_not_found_under_another_that_begins_alike(load, tmp_path):
    plan_jobs(named('wide'), [10], tmp_path, load)[0].write()
    assert plan_jobs(named('wide'), [1], tmp_path, load)[0].folder == tmp_path / 'wide' / 'seed1'
    assert plan_jobs(named('wide'), [10], tmp_path, load)[0].folder == tmp_path / 'wide' / 'seed10'


def test_other_test_images_are_other_scores_of_the_same_training(load, tmp_path):
    def on_fewer(path):
        cfg = load(path)
        cfg.val_dataloader = dict(dataset=dict(indices=100))
        return cfg

    (job,), (other,) = (plan_jobs(named('wide'), [0], tmp_path, one) for one in (load, on_fewer))
    assert (job.key, job.folder) == (other.key, other.folder)
    assert job.members[0].config != other.members[0].config


def test_another_config_of_a_row_has_a_folder_of_its_own(load, tmp_path):
    first = plan_jobs(named('wide'), [0], tmp_path, load)[0]
    first.write()
    other = plan_jobs(named('wide'), [0], tmp_path, lambda path: load(make_row('a_t10').path))[0]
    assert other.folder.name == f'seed0-{other.key}'
    other.write()
    for job, name in ((first, 'wide'), (other, 'a_t10')):
        found = plan_jobs(named('wide'), [0], tmp_path, lambda path, name=name: load(make_row(name).path))
        assert found[0].folder == job.folder


@pytest.fixture
def tokenizer_configs(tmp_path, monkeypatch):
    root = tmp_path / 'configs'
    (root / 'tokenizers').mkdir(parents=True)
    monkeypatch.setattr(jobs_module, 'configs_root', lambda: root)
    return root / 'tokenizers'


def test_a_learned_tokenizer_is_trained_once_before_the_rows_that_name_it(load, tmp_path, tokenizer_configs):
    (tokenizer_configs / 'patch-ae_d8.py').write_text('')
    jobs = plan_jobs(named('learned', 'wide'), [0, 1], tmp_path / 'out', load)
    tokenizer, learned, wide, *_ = jobs
    assert tokenizer.name == 'tokenizer patch-ae_d8'
    assert not tokenizer.members
    assert learned.after is tokenizer
    assert jobs[3].after is tokenizer
    assert wide.after is None
    assert learned.cfg.model.tokenizer.checkpoint == str((tokenizer.folder / 'tokenizer.pth').resolve())
    moved = plan_jobs(named('learned'), [0], tmp_path / 'elsewhere', load)[1]
    assert moved.key == learned.key


def test_a_tokenizer_that_no_config_trains_is_named(load, tmp_path, tokenizer_configs):
    with pytest.raises(ConfigError, match=r'tokenizer patch-ae_d8: there is no .*patch-ae_d8.py'):
        plan_jobs(named('learned'), [0], tmp_path, load)


def test_a_job_is_written_with_all_that_its_process_needs(load, tmp_path):
    job = plan_jobs(named('a_t10'), [0], tmp_path, load, quick=True)[0]
    job.write()
    written = json.loads((job.folder / 'job.json').read_text())
    assert written['members'][0]['row'] == 'a_t10'
    assert written['scoring']['train_images'] == 400
    assert 'max_epochs=2' in (job.folder / 'config.py').read_text()


def test_the_precision_that_is_asked_for_is_part_of_what_weights_depend_on(load, tmp_path):
    keys = {}

    def with_optimizer(path):
        cfg = load(path)
        cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1))
        return cfg

    for precision in (None, 'fp32', 'bf16'):
        study = Study(tmp_path, 'tiny', precision=precision, device='cpu')

        def load_in_it(path, study=study):
            return study.in_precision(with_optimizer(path))

        (job,) = study.prepared(partial(plan_jobs, named('wide'), [0], tmp_path, load_in_it))
        job.write()
        assert json.loads((job.folder / 'job.json').read_text())['precision'] == precision
        keys[precision] = job.key
    assert keys[None] == keys['fp32'] != keys['bf16']


@pytest.mark.parametrize('options', [dict(device='tpu9'), dict(precision='half'), dict(precision='fp16', device='cpu')])
def test_what_the_machine_lacks_is_said_before_anything_runs(options, tmp_path):
    with pytest.raises(ConfigError, match='tpu9|half|fp16'):
        Study(tmp_path, 'tiny', **options)
