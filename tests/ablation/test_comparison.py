# SPDX-License-Identifier: Apache-2.0
"""Which runs a comparison needs, what it chooses, and its table of made-up results."""

import json
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from ldae.ablation import Study, comparison
from ldae.ablation.comparison import (
    SCORING,
    Method,
    check_same_images,
    choose_methods,
    choose_rates,
    named_sources,
    plan_comparison,
    scale_for,
)
from ldae.ablation.comparison_report import (
    Entry,
    comparison_page,
    comparison_table,
    losses_of,
    summarise_comparison,
    write_comparison,
)
from ldae.ablation.jobs import QUICK, check_candidates, read_json
from ldae.ablation.scheduler import Failure
from ldae.config import load_config
from ldae.evaluation.protocol import PROTOCOL
from ldae.launch.auto import LEAST_IMAGES
from ldae.utils import ConfigError

ROWS = [Entry('ldae_untrained', 'untrained', 'ldae'), Entry('ldae', 'trained', 'ldae'), Entry('mae', 'trained', 'mae')]


def load_methods(**checkpoints) -> list[Method]:
    configs = {name: load_config(f'ldae::{name}/demo_fashion-mnist.py') for name in ('ldae', 'mae')}
    return [Method(name, cfg, checkpoints.get(name)) for name, cfg in configs.items()]


def make_entry(row: str, seed: int, linear: float, config: str = 'now', **more) -> dict:
    made_with = dict(protocol=PROTOCOL.as_dict(), versions=dict(torch='2'), device='a machine', commit='abc')
    return (
        dict(row=row, seed=seed, config=config, knn=linear - 5, linear=linear, timestep=9, epochs=2) | made_with | more
    )


def sources_of(methods=None, seeds=(0,), **given) -> dict:
    given = dict.fromkeys(('ldae', 'mae', 'ldae_checkpoints', 'mae_checkpoints')) | given
    return named_sources(methods, *given.values(), list(seeds))


def read(config) -> Config:
    return config if isinstance(config, Config) else load_config(config)


def test_each_pretraining_is_run_once_a_seed_and_gives_all_its_rows(tmp_path):
    jobs = plan_comparison(load_methods(), [0, 4], tmp_path)
    assert [job.name for job in jobs] == ['ldae seed 0', 'mae seed 0', 'ldae seed 4', 'mae seed 4']
    assert [job.cfg.randomness.seed for job in jobs] == [0, 0, 4, 4]
    rows = [[member.row for member in job.members] for job in jobs]
    assert rows[0] == ['pixels', *rows[2]] == ['pixels', 'latents', 'ldae_untrained', 'ldae']
    assert rows[1] == rows[3] == ['mae_untrained', 'mae']
    hashes = {member.config for job in jobs[:2] for member in job.members}
    assert len(hashes) == 6
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_takes_the_place_of_training(tmp_path):
    path = tmp_path / 'epoch_10.pth'
    torch.save(dict(state_dict={}), path)
    plain = plan_comparison(load_methods(), [0], tmp_path / 'runs')
    given = plan_comparison(load_methods(mae=[path]), [0, 1], tmp_path / 'runs')
    assert [job.name for job in given] == ['ldae seed 0', 'mae seed 0', 'ldae seed 1']  # there is one checkpoint
    assert read_json(given[1].folder / 'done.json')['checkpoint'] == str(path)
    assert given[1].key != plain[1].key
    assert given[0].key == plain[0].key


def test_there_must_be_a_readable_checkpoint_for_each_seed(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('nothing')
    with pytest.raises(ConfigError, match='1 checkpoints for 2 seeds'):
        sources_of(seeds=(0, 1), mae_checkpoints=[path])
    with pytest.raises(ConfigError, match=r'a\.pth'):
        sources_of(mae_checkpoints=[path])
    with pytest.raises(ConfigError, match=r'a\.pth'):
        sources_of(dict(mine=str(path)))


@pytest.mark.parametrize(
    ('methods', 'given', 'says'),
    [
        (dict(moco=None), {}, 'moco: not one of ldae, mae'),
        ({'a b': 'x.py'}, {}, 'needs a name of letters'),
        (dict(pixels=None), {}, 'of its own'),
        ({'comparison.json': None}, {}, 'of its own'),
        (dict(mae='a.py'), dict(mae='b.py'), 'mae is named twice'),
        (dict(mine=['a.py', 'b.py']), {}, 'several configs'),
        (dict(mine='ldae::tokenizers/patch-ae_d32.py'), {}, 'mine: .*patch-ae_d32.py is not a pre-training'),
        (dict(mine='ldae::benchmarks/mae_vit-b_linear.py'), {}, 'mine: .* is not a pre-training: its model is a Im'),
        (dict(mine='gone.pth'), {}, r'gone\.pth'),
        (dict(mine='gone.py'), {}, r'gone\.py'),
    ],
)
def test_a_method_that_cannot_be_is_one_line(methods, given, says):
    with pytest.raises(ConfigError, match=says):
        choose_methods(sources_of(methods, **given), read)


def test_the_table_holds_mean_and_deviation_of_what_the_configs_give_now(tmp_path):
    values = [70.0, 72.0, 77.0]
    spent = dict(cost=dict(images=1000, gflop=2.0), seconds=dict(train=30.0, scoring=10.0), pooling='cls')
    entries = [make_entry('ldae', seed, value, **spent) for seed, value in enumerate(values)]
    entries += [make_entry('ldae', 0, 1.0, config='old'), make_entry('mae', 0, 60.0)]
    rows = summarise_comparison(entries, ROWS, dict(ldae={'now'}, mae={'now'}))
    assert list(rows) == ['ldae', 'mae']
    sampled = [make_entry('mae', 0, 60.0, config='with samples', without_samples='now')]
    assert list(summarise_comparison(sampled, ROWS, dict(mae={'now'}))) == ['mae']
    linear = f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
    page = comparison_page(rows, 'command')
    assert (
        f'| l-DAE encoder, pre-trained | 3 | 9 | 68.0 ± 3.6 | {linear} | class token | 1,000 | 2.0e+12 | 30 |' in page
    )
    assert 'Training took 90 s, scoring 30 s, 25% of both' in page
    assert 'untrained twin' not in page
    one = [make_entry(row, 0, 60.0, pretraining='key', **spent) for row in ('ldae', 'mae')]
    shared = summarise_comparison(one, ROWS, dict(ldae={'now'}, mae={'now'}))
    assert 'Training took 30 s, scoring 20 s, 40% of both' in comparison_page(shared, 'command')
    assert linear in comparison_table(rows)
    files = write_comparison(tmp_path, rows, 'command', dict(ldae='a', mae='b'))
    assert all(path.stat().st_size for path in files)
    found = json.loads(files[0].read_text())['encoders']
    assert found['ldae']['linear'] == dict(mean=73.0, std=3.61)
    assert found['ldae']['seeds']['2'] == dict(knn=72.0, linear=77.0)
    assert found['mae']['linear'] == dict(mean=60.0, std=None)


def test_a_method_that_learned_nothing_is_named_with_its_loss(tmp_path):
    entries = [make_entry('ldae', seed, 70.0 + seed) for seed in (0, 1)]
    entries += [make_entry('ldae_untrained', seed, 69.0 + seed, knn=50.0) for seed in (0, 1)]
    rows = summarise_comparison(entries, ROWS, {row: {'now'} for row in ('ldae', 'ldae_untrained')})
    scalars = tmp_path / 'run' / '2026' / 'vis_data' / 'scalars.json'
    scalars.parent.mkdir(parents=True)
    scalars.write_text('{"loss": 2.0, "step": 1}\n{"acc": 2.0, "step": 1}\n{"loss": 1.5, "step": 2}\n{"lo')
    assert losses_of(tmp_path / 'run') == [(1, 2.0), (2, 1.5)]
    files = write_comparison(tmp_path, rows, 'command', {}, runs={'ldae seed 1': tmp_path / 'run'})
    assert (tmp_path / 'loss_ldae.png') in files
    says = 'l-DAE does not beat its untrained twin: linear 70.5 ± 0.7 against 69.5 ± 0.7'
    assert f'* {says}; its loss: ![loss](loss_ldae.png)' in (tmp_path / 'comparison.md').read_text()
    assert says in comparison_table(rows)


def test_pixels_are_scored_once_whatever_is_trained_or_not_at_all(tmp_path):
    def pixels(methods, **options):
        jobs = plan_comparison(methods, [3, 4], tmp_path, **options)
        return [member.config for job in jobs for member in job.members if member.row == 'pixels']

    methods = load_methods()
    (before,) = pixels(methods)
    methods[0].cfg.optim_wrapper.optimizer.lr = 1.0
    assert pixels(methods) == [before]
    methods[0].cfg.data_preprocessor.std = [1.0]
    assert pixels(methods) != [before]
    assert pixels(methods, pixels=False) == []


def test_a_learned_tokenizer_is_trained_before_the_comparison(tmp_path):
    scale = 'fashion-mnist_subset'
    cfg = load_config('ldae::deconstruction/t2_patch-ae_d32.py', scale=scale)
    load = partial(load_config, scale=scale)
    tokenizer, ldae = plan_comparison([Method('ldae', cfg)], [0], tmp_path, load=load)
    assert tokenizer.name.startswith('tokenizer patch-ae')
    assert ldae.after is tokenizer


def test_configs_that_are_not_given_are_those_of_the_checkpoints_or_of_the_same_size(tmp_path):
    def names(methods=None, **given):
        found = choose_methods(sources_of(methods, **given), read)
        return {
            one.name: (one.cfg.filename and Path(one.cfg.filename).stem, one.cfg.model.backbone.arch) for one in found
        }

    demo = ('demo_fashion-mnist', load_methods()[1].cfg.model.backbone.arch)
    assert names() == dict(ldae=demo, mae=demo)
    mine = load_config('ldae::ldae/fashion-mnist_pca.py')
    derived = names(ldae=mine)['mae']
    assert derived == (None, mine.model.backbone.arch)
    assert names(dict(mine=mine, mae=None))['mae'] == derived
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict={}, meta=dict(cfg=mine.pretty_text)), path)
    assert names(ldae_checkpoints=[path]) == dict(ldae=derived, mae=derived)
    assert names(dict(mine=str(path), mae=None)) == dict(mine=derived, mae=derived)
    mine.train_dataloader.dataset.type = 'ldae.LatentDataset'
    assert set(names(ldae=mine)) == {'ldae'}


def test_results_name_a_config_of_ours_as_the_command_does(tmp_path):
    found = choose_methods(sources_of(dict(ldae=None, mine='ldae::mae/demo_fashion-mnist.py')), read)
    names = {method.name: method.source for method in found}
    assert names == dict(ldae='of the size of the first', mine='ldae::mae/demo_fashion-mnist.py')
    own = tmp_path / 'own.py'
    own.write_text("_base_ = 'ldae::mae/demo_fashion-mnist.py'\n")
    assert choose_methods(sources_of(dict(mine=str(own))), read)[0].source == str(own)


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path):
    methods = load_methods(mae=[tmp_path / 'mine.pth'])
    torch.save(dict(state_dict={'backbone.pos_embed': torch.ones(1, 2, 3)}), tmp_path / 'mine.pth')
    with pytest.raises(ConfigError, match=r'mae: .*mine\.pth'):
        check_same_images(methods, SCORING)


def test_of_methods_with_one_config_each_has_its_loss(tmp_path, monkeypatch):
    def written(folder, rows, command, configs, tried, folders):
        assert {name: folders[f'{name} seed 0'] for name in 'ab'} == dict.fromkeys('ab', tmp_path / 'a/seed0')
        return []

    def run_jobs(self, jobs, *_):
        for job in jobs:
            for member in job.members:
                self.results.append(make_entry(member.row, job.seed, 50.0, member.config))
        return []

    monkeypatch.setattr(Study, '_run_jobs', run_jobs)
    monkeypatch.setattr(comparison, 'write_comparison', written)
    sources = dict.fromkeys('ab', 'ldae::mae/demo_fashion-mnist.py')
    assert len(comparison.compare(methods=sources, seeds=[0], work_dir=tmp_path).rows) == 5


def test_a_single_rate_is_not_said_to_be_chosen():
    rows = summarise_comparison([make_entry('mae', 0, 70.0)], ROWS, dict(mae={'now'}))
    assert 'MAE: learning rate x 0.5; no other was tried' in comparison_table(rows, dict(mae={0.5: 60.0}))
    says = 'x 1, by held-out training images of the first seed (x 0.5: 60.0, x 1: 61.0, x 2: failed)'
    assert f'{says}\n' in comparison_table(rows, dict(mae={1: 61.0, 2: None, 0.5: 60.0})) + '\n'
    assert 'learning rate' not in comparison_table(rows, dict(mae={1: None, 2: None}))


def test_rates_are_not_chosen_where_nothing_is_held_out(tmp_path):
    scoring = replace(SCORING, protocol=SCORING.protocol.replace(lrs=(0.1,), weight_decays=(0.0,)))
    with pytest.raises(ConfigError, match='--rates are chosen by held-out images'):
        comparison.compare(rates=(0.5, 1.0), scoring=scoring, seeds=[0], work_dir=tmp_path / 'none')
    assert not (tmp_path / 'none').exists()


def test_methods_must_be_scored_on_the_same_images():
    methods = load_methods()
    check_same_images(methods, SCORING)
    with pytest.raises(ConfigError, match='ldae: blocks: 9 is not one'):
        check_same_images(methods, replace(SCORING, blocks=(-1, 9)))
    methods[0].cfg.timesteps = [300, 1000]
    with pytest.raises(ConfigError, match='ldae: --timesteps=1000 is out of range'):
        check_same_images(methods, SCORING)
    methods[0].cfg.pop('timesteps')
    one_setting = SCORING.protocol.replace(lrs=(0.1,), weight_decays=(0.0,))
    with pytest.raises(ConfigError, match='mae: .*holds none out'):
        check_same_images(methods[1:], replace(SCORING, protocol=one_setting, poolings=('mean', 'cls')))
    methods[1].cfg.model.backbone.with_cls_token = False  # one pooling, and so nothing to choose
    check_candidates(methods[1].cfg, replace(SCORING, protocol=one_setting, poolings=('mean', 'cls')))
    methods[1].cfg.model.backbone.pop('with_cls_token')
    swin = Config(
        dict(model=dict(type='SimMIM', backbone=dict(type='SimMIMSwinTransformer', arch='base', img_size=192)))
    )
    check_candidates(swin, SCORING)
    swin.model = dict(type='BYOL', backbone=dict(type='ResNet', depth=50))
    check_candidates(swin, SCORING)
    methods[1].cfg.test_dataloader.dataset.indices = 50
    with pytest.raises(ConfigError, match='mae would be scored on other images than ldae'):
        check_same_images(methods, SCORING)
    methods[1].cfg.test_dataloader = None
    with pytest.raises(ConfigError, match='mae: .*names no test images'):
        check_same_images(methods, SCORING)


def test_the_learning_rate_that_does_best_on_held_out_images_is_taken(tmp_path, monkeypatch):
    held_out = {0.5: 61.0, 1.0: 63.0, 2.0: 62.0}
    own = {one.name: one.cfg.optim_wrapper.optimizer.lr for one in load_methods()}
    runs = []

    def run(self, plan, report):
        for job in plan():
            runs.append((job.name, job.folder))
            for member in job.members:
                score = held_out[job.cfg.optim_wrapper.optimizer.lr / own[member.row]]
                self.results.append(make_entry(member.row, job.seed, 50.0, member.config, held_out=score))

    monkeypatch.setattr(Study, 'run', run)
    methods = load_methods()
    place = [5, 6], tmp_path, False, SCORING, True, False, load_config
    tried = choose_rates(methods, [0.5, 1, 2], Study(tmp_path, 'a scale'), place)
    assert len({folder for _, folder in runs}) == len(runs) == 6
    assert {name for name, _ in runs} == {f'{name} x {rate} seed 5' for name in ('ldae', 'mae') for rate in (0.5, 1, 2)}
    assert tried == {name: {0.5: 61.0, 1: 63.0, 2: 62.0} for name in ('ldae', 'mae')}
    assert {one.name: one.cfg.optim_wrapper.optimizer.lr for one in methods} == own
    held_out[2.0] = 70.0
    choose_rates(methods, [0.5, 1, 2], Study(tmp_path / 'b', 'a scale'), (place[0], tmp_path / 'b', *place[2:]))
    assert {one.name: one.cfg.optim_wrapper.optimizer.lr / own[one.name] for one in methods} == dict(ldae=2, mae=2)

    twins, tried = [Method(name, load_config('ldae::mae/demo_fashion-mnist.py')) for name in ('one', 'two')], []
    own |= dict(one=own['mae'], two=own['mae'])
    for rates in ([2, 0.5, 1], [3]):  # of the last nothing comes
        if rates == [3]:
            monkeypatch.setattr(Study, 'run', lambda *_: None)
        folder = tmp_path / str(rates[0])
        tried.append(choose_rates(twins, rates, Study(folder, 'a scale'), (place[0], folder, *place[2:])))
    assert tried[0] == {name: {2: 70.0, 0.5: 61.0, 1: 63.0} for name in ('one', 'two')}
    assert tried[1] == {name: {3: None} for name in ('one', 'two')}
    assert [one.cfg.optim_wrapper.optimizer.lr for one in twins] == [own['mae'] * 2 * 3] * 2


def test_forced_runs_are_run_anew_once_and_earlier_failures_count(tmp_path, monkeypatch):
    failure, found = Failure('mae seed 0', 'diverged', tmp_path / 'log.txt'), []

    def run_jobs(self, jobs, *_) -> list[Failure]:
        found.append([path.name for job in jobs for path in job.folder.glob('*')])
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / 'new').touch()
        return [failure] if len(found) == 1 else []

    monkeypatch.setattr(Study, '_run_jobs', run_jobs)
    study = Study(tmp_path, 'a scale', force=True)
    (tmp_path / 'mae/seed0').mkdir(parents=True)
    (tmp_path / 'mae/seed0/old').touch()
    outcomes = [study.run(lambda: plan_comparison(load_methods()[1:], [0], tmp_path), dict) for _ in range(2)]
    assert found == [[], ['new']]
    assert [outcome.failures for outcome in outcomes] == [[failure]] * 2


def test_options_are_for_configs_from_python_too(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(comparison, 'check_same_images', lambda methods, scoring: seen.append((methods, scoring)))
    monkeypatch.setattr(Study, 'run', lambda *_: None)
    cfg = load_config('ldae::mae/demo_fashion-mnist.py')
    options = {'train_cfg.max_epochs': 3}
    comparison.compare(methods=dict(mine=cfg), work_dir=tmp_path, cfg_options=options, quick=True)
    ((method,), scoring), *_ = seen
    assert (method.cfg.train_cfg.max_epochs, cfg.train_cfg.max_epochs == 3) == (3, False)
    assert scoring.protocol.k == QUICK.protocol.k  # as its runs will be scored


def test_a_budget_belongs_to_the_scale_that_is_chosen_by_it():
    assert scale_for('cifar10', None, None, 'x') == 'cifar10'
    with pytest.raises(ConfigError, match='belongs to --scale auto'):
        scale_for('cifar10', '5m', None, 'x')
    with pytest.raises(ConfigError, match='pass --data-root'):
        scale_for('auto', '5m', None, 'x')


def test_a_scale_that_was_chosen_for_other_images_is_not_taken(tmp_path):
    photographs = tmp_path / 'photographs'
    (tmp_path / 'auto_scale.py').write_text(
        f"_base_ = 'ldae::scales/image-folder.py'\ndata_root = {str(photographs)!r}\n"
    )
    assert scale_for('auto', '5m', str(photographs), tmp_path) == str(tmp_path / 'auto_scale.py')
    with pytest.raises(
        ConfigError, match='auto_scale.py was chosen for .*photographs, not /elsewhere: take another --work-dir'
    ):
        scale_for('auto', '5m', '/elsewhere', tmp_path)


def test_images_without_classes_are_refused_before_anything_is_timed(tmp_path):
    for i in range(LEAST_IMAGES):
        Image.new('RGB', (8, 8), (i % 256, 0, 0)).save(tmp_path / f'{i}.png')
    with pytest.raises(ConfigError, match='has no classes, by which encoders are scored'):
        scale_for('auto', '5m', str(tmp_path), 'x')


def test_a_method_does_not_carry_the_name_of_another():
    with pytest.raises(ConfigError, match='--method ldae: .*demo_fashion-mnist.py is a pre-training by mae'):
        choose_methods(sources_of(dict(ldae='ldae::mae/demo_fashion-mnist.py')), read)


def test_one_config_is_not_shown_under_two_names():
    with pytest.raises(ConfigError, match='--method ldae: mine is ldae too.*ldae=CONFIG'):
        choose_methods(sources_of(dict(ldae=None, mine='ldae::ldae/demo_fashion-mnist.py')), read)
    found = choose_methods(sources_of(dict(mae=None, mine='ldae::ldae/demo_fashion-mnist.py')), read)
    assert [one.name for one in found] == ['mae', 'mine']
