# SPDX-License-Identifier: Apache-2.0
"""Which runs a comparison needs, and its table of made-up results."""

import json
import statistics
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from ldae.ablation.comparison import (
    ENTRIES,
    check_one_a_seed,
    choose_configs,
    comparison_page,
    comparison_table,
    plan_comparison,
    summarise_comparison,
    write_comparison,
)
from ldae.ablation.jobs import read_json
from ldae.config import load_config
from ldae.evaluation.protocol import PROTOCOL
from ldae.utils import ConfigError


def load_configs() -> dict:
    return {name: load_config(f'ldae::{name}/demo_fashion-mnist.py') for name in ('ldae', 'mae')}


def make_entry(row: str, seed: int, linear: float, config: str = 'now') -> dict:
    made_with = dict(protocol=PROTOCOL.as_dict(), versions=dict(torch='2'), device='a machine', commit='abc')
    return dict(row=row, seed=seed, config=config, knn=linear - 5, linear=linear, timestep=9, epochs=2) | made_with


def test_each_pretraining_is_run_once_a_seed_and_gives_all_its_rows(tmp_path):
    jobs = plan_comparison(load_configs(), [0, 4], tmp_path)
    assert [job.name for job in jobs] == ['ldae seed 0', 'mae seed 0', 'ldae seed 4', 'mae seed 4']
    assert [job.cfg.randomness.seed for job in jobs] == [0, 0, 4, 4]
    rows = [[member.row for member in job.members] for job in jobs]
    assert rows[0] == ['pixels', *rows[2]] == ['pixels', 'latents', 'ldae_untrained', 'ldae']
    assert rows[1] == rows[3] == ['mae_untrained', 'mae']
    hashes = {member.config for job in jobs[:2] for member in job.members}
    assert len(hashes) == len(ENTRIES)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_takes_the_place_of_training(tmp_path):
    path = tmp_path / 'epoch_10.pth'
    torch.save(dict(state_dict={}), path)
    plain = plan_comparison(load_configs(), [0], tmp_path / 'runs')
    given = plan_comparison(load_configs(), [0], tmp_path / 'runs', dict(mae=[path]))
    assert read_json(given[1].folder / 'done.json')['checkpoint'] == str(path)
    assert given[1].key != plain[1].key
    assert given[0].key == plain[0].key


def test_there_must_be_a_readable_checkpoint_for_each_seed(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('nothing')
    with pytest.raises(ConfigError, match='1 checkpoints for 2 seeds'):
        check_one_a_seed('--mae-checkpoints', [path], [0, 1])
    with pytest.raises(ConfigError, match=r'a\.pth'):
        check_one_a_seed('--mae-checkpoints', [path], [0])
    check_one_a_seed('--mae-checkpoints', None, [0, 1])


def test_the_table_holds_mean_and_deviation_of_what_the_configs_give_now(tmp_path):
    values = [70.0, 72.0, 77.0]
    entries = [make_entry('ldae', seed, value) for seed, value in enumerate(values)]
    entries += [make_entry('ldae', 0, 1.0, config='old'), make_entry('mae', 0, 60.0)]
    rows = summarise_comparison(entries, dict(ldae={'now'}, mae={'now'}))
    assert list(rows) == ['ldae', 'mae']
    linear = f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
    assert f'| l-DAE encoder, pre-trained | 3 | 9 | 68.0 ± 3.6 | {linear} |' in comparison_page(rows, 'command')
    assert linear in comparison_table(rows)
    files = write_comparison(tmp_path, rows, 'command', dict(ldae='a', mae='b'))
    assert all(path.stat().st_size for path in files)
    found = json.loads(files[0].read_text())['encoders']
    assert found['ldae']['linear'] == dict(mean=73.0, std=3.61)
    assert found['ldae']['seeds']['2'] == dict(knn=72.0, linear=77.0)
    assert found['mae']['linear'] == dict(mean=60.0, std=None)


def test_pixels_are_scored_once_whatever_is_trained_or_not_at_all(tmp_path):
    def pixels(configs, **options):
        jobs = plan_comparison(configs, [3, 4], tmp_path, **options)
        return [member.config for job in jobs for member in job.members if member.row == 'pixels']

    configs = load_configs()
    (before,) = pixels(configs)
    configs['ldae'].optim_wrapper.optimizer.lr = 1.0
    assert pixels(configs) == [before]
    configs['ldae'].data_preprocessor.std = [1.0]
    assert pixels(configs) != [before]
    assert pixels(configs, pixels=False) == []


def test_a_learned_tokenizer_is_trained_before_the_comparison(tmp_path):
    scale = 'fashion-mnist_subset'
    cfg = load_config('ldae::deconstruction/t2_patch-ae_d32.py', scale=scale)
    load = partial(load_config, scale=scale)
    tokenizer, ldae = plan_comparison(dict(ldae=cfg), [0], tmp_path, load=load)
    assert tokenizer.name.startswith('tokenizer patch-ae')
    assert ldae.after is tokenizer


def test_configs_that_are_not_given_are_those_of_the_checkpoints_or_of_the_same_size(tmp_path):
    def names(**options):
        given = dict.fromkeys(('ldae', 'mae', 'ldae_checkpoints', 'mae_checkpoints')) | options
        found = choose_configs(**given, load=lambda c: c if isinstance(c, Config) else load_config(c))
        return {
            name: (cfg.filename and Path(cfg.filename).stem, cfg.model.backbone.arch) for name, cfg in found.items()
        }

    demo = ('demo_fashion-mnist', load_configs()['mae'].model.backbone.arch)
    assert names() == dict(ldae=demo, mae=demo)
    mine = load_config('ldae::ldae/fashion-mnist_pca.py')
    derived = names(ldae=mine)['mae']
    assert derived == (None, mine.model.backbone.arch)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict={}, meta=dict(cfg=mine.pretty_text)), path)
    assert names(ldae_checkpoints=[path]) == dict(ldae=derived, mae=derived)
    mine.train_dataloader.dataset.type = 'ldae.LatentDataset'
    assert set(names(ldae=mine)) == {'ldae'}
