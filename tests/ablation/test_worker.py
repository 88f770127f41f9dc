# SPDX-License-Identifier: Apache-2.0
"""One job with real rows on a few images, in this process."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from PIL import Image

from ldae.ablation import plan_jobs, worker
from ldae.ablation.comparison import Method, check_same_images, plan_comparison
from ldae.ablation.cost import training_cost
from ldae.ablation.jobs import QUICK, SCORING, Pretraining, plan, read_json
from ldae.ablation.results import read_scores
from ldae.apis import get_model
from ldae.cli import run_tool
from ldae.config import load_config
from ldae.config.rows import list_rows
from ldae.evaluation import block_features
from ldae.evaluation.probe_data import labels_of_dataset, probe_dataloaders
from ldae.evaluation.protocol import PROTOCOL
from ldae.utils import ConfigError

TINY = dict(embed_dims=24, num_layers=1, num_heads=1, feedforward_channels=24)


def load(path):
    cfg = load_config(path, scale='fashion-mnist_subset')
    cfg.model.backbone.arch = TINY
    return cfg


def plan_rows(names, root):
    rows = [row for row in list_rows() if row.name in names]
    jobs = plan_jobs(rows, [1], root, load, quick=True)
    for job in jobs:
        job.write()
    return jobs


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    """Two rows of appendix A, run."""
    (job,) = plan_rows(['a_t10_clean', 'a_t80_noisy'], tmp_path_factory.mktemp('job'))
    worker.main([str(job.folder)])
    return job


def test_each_row_is_scored_with_its_own_transfer_settings(job):
    scores = json.loads((job.folder / 'scores.json').read_text())
    assert [(s['row'], s['timestep'], s['transfer_noise']) for s in scores] == [
        ('a_t10_clean', 10, False),
        ('a_t80_noisy', 80, True),
    ]
    for score in scores:
        assert 10 < score['knn'] <= 100
        assert 10 < score['linear'] <= 100
        assert (score['tokenizer'], score['latent_dim'], score['epochs']) == ('PatchPCATokenizer', 8, 2)
        assert score['seconds']['train'] > 0
    found = [[score[key] for key in ('knn', 'linear', 'held_out')] for score in scores]
    assert found[0] != found[1]


def test_of_a_row_with_an_average_that_is_scored(tmp_path):
    (job,) = plan_rows(['ema'], tmp_path)
    worker.main([str(job.folder)])
    (score,) = json.loads((job.folder / 'scores.json').read_text())
    assert (score['row'], score['epochs']) == ('ema', 2)
    checkpoint = job.folder / 'epoch_2.pth'
    average = {
        key.removeprefix('module.'): value
        for key, value in torch.load(checkpoint)['ema_state_dict'].items()
        if key.startswith('module.')
    }
    transfer = json.loads((job.folder / 'job.json').read_text())['members'][0]['transfer']
    scored = worker.model_for_transfer(job.cfg, transfer, checkpoint).state_dict()
    assert all(torch.equal(scored[key], value) for key, value in average.items())
    plain = get_model(job.cfg, checkpoint).state_dict()
    assert not all(torch.equal(plain[key], value) for key, value in average.items())


def test_a_row_is_scored_on_the_images_of_validation_after_training_too(tmp_path):
    def on_few(path):
        cfg = load(path)
        cfg.val_dataloader.dataset.indices = 150
        cfg.test_dataloader.dataset.indices = 120
        return cfg

    rows = [row for row in list_rows() if row.name == 'a_t10_clean']
    (job,) = plan_jobs(rows, [1], tmp_path, on_few, quick=True)
    job.write()
    worker.main([str(job.folder)])
    (score,) = json.loads((job.folder / 'scores.json').read_text())
    assert score['images']['test_images'] == 150
    assert Config.fromfile(job.folder / 'config.py').val_dataloader is None  # as training left it


def test_a_second_call_scores_again_without_training_and_finds_the_same(job):
    before, checkpoint = (job.folder / 'scores.json').read_text(), job.folder / 'epoch_2.pth'
    stamp = checkpoint.stat().st_mtime_ns
    worker.main([str(job.folder)])
    assert checkpoint.stat().st_mtime_ns == stamp
    again = json.loads((job.folder / 'scores.json').read_text())
    for old, new in zip(json.loads(before), again, strict=True):
        assert {k: v for k, v in old.items() if k != 'seconds'} == {k: v for k, v in new.items() if k != 'seconds'}


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(job, tmp_path):
    whole_run, (job,) = job, plan_rows(['a_t10_clean'], tmp_path)
    config = job.folder / 'config.py'
    whole = config.read_text()
    assert 'max_epochs=2' in whole
    # Runs of one name that start in the same second of one process would share a log.
    config.write_text(whole.replace('max_epochs=2', 'max_epochs=1') + "\nexperiment_name = 'interrupted'\n")
    worker.train(job.folder)
    (job.folder / 'done.json').unlink()
    config.write_text(whole + "\nexperiment_name = 'resumed'\n")
    assert worker.train(job.folder)['checkpoint'] == 'epoch_2.pth'
    assert 'resumed epoch: 1' in ''.join(path.read_text() for path in job.folder.glob('*/*.log'))
    ended, expected = (
        torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict'] for folder in (job.folder, whole_run.folder)
    )
    assert all(torch.equal(ended[name], value) for name, value in expected.items())


def test_a_row_that_cannot_be_scored_is_explained_and_takes_none_along(job, monkeypatch):
    extract = worker.extract

    def spoil(model, *args):
        features, labels = extract(model, *args)
        return features * float('nan' if model.transfer_noise else '1'), labels

    monkeypatch.setattr(worker, 'extract', spoil)
    worker.main([str(job.folder)])
    good, bad = json.loads((job.folder / 'scores.json').read_text())
    assert good['knn'] > 10
    assert 'pre-training has diverged' in bad['error']


def test_a_run_whose_checkpoint_is_damaged_is_trained_from_the_one_before(tmp_path):
    done, ours = dict(checkpoint='epoch_2.pth', seconds=1.0), dict(members=[dict(encoder='trained')])
    (tmp_path / 'done.json').write_text(json.dumps(done))
    assert worker.finished(tmp_path, ours) == {}
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), tmp_path / 'epoch_2.pth')
    assert worker.finished(tmp_path, ours) == done
    (tmp_path / 'epoch_2.pth').write_bytes((tmp_path / 'epoch_2.pth').read_bytes()[:99])
    assert worker.finished(tmp_path, ours) == {}
    given = done | dict(checkpoint=str(tmp_path / 'epoch_2.pth'))
    (tmp_path / 'done.json').write_text(json.dumps(given))
    assert worker.finished(tmp_path, ours) == given  # not ours to train again
    (tmp_path / 'done.json').write_text(json.dumps(done))
    assert worker.finished(tmp_path, dict(members=[dict(encoder='foreign')])) == done


def test_rows_that_need_no_training_are_scored_where_it_fails(tmp_path, monkeypatch):
    method = Method('ldae', load('ldae::ldae/vit-b_pca_rrc.py'))
    (job,) = plan_comparison([method], [1], tmp_path, quick=True)
    job.write()
    run = worker.build_runner

    def failing(cfg):
        runner = run(cfg)
        runner.register_hook(FailingHook())
        return runner

    monkeypatch.setattr(worker, 'build_runner', failing)
    worker.main([str(job.folder)])
    *scored, (row, _, error) = [
        tuple(score.values())[:3] for score in json.loads((job.folder / 'scores.json').read_text())
    ]
    assert [one[0] for one in scored] == ['pixels', 'latents', 'ldae_untrained']
    assert (row, error) == ('ldae', 'the loss is not finite')
    assert all(score.get('error') or score['knn'] > 10 for score in read_scores(job.folder / 'scores.json'))
    assert not (job.folder / 'done.json').exists()
    job.members = job.members[-1:]
    job.write()
    with pytest.raises(ConfigError, match='the loss is not finite'):
        worker.main([str(job.folder)])


class FailingHook(Hook):
    def after_train_iter(self, *_, **__):
        raise ConfigError('the loss is not finite')


def test_training_images_are_probed_without_augmentation():
    row = next(row for row in list_rows() if row.name == 'aug_random-crop')
    for cfg in (load_config(row.path, scale='fashion-mnist_subset'), load_config(row.path)):
        train, test = probe_dataloaders(cfg)
        assert train['dataset']['with_label']
        assert test['dataset']['with_label']
        assert not train['dataset'].get('crop_scale')
        assert train['dataset'].get('pipeline') == test['dataset'].get('pipeline')
        assert train['dataset']['split'] == 'train'


def entry_of(job, row='a_t10_clean', encoder='trained', **transfer) -> dict:
    """The scores of one row, with other candidates than its own, or of another encoder."""
    described = read_json(job.folder / 'job.json')
    member = next(member for member in described['members'] if member['row'] == row)
    member['transfer'] |= transfer
    member['encoder'] = encoder
    return worker.score(job.folder, described, member, read_json(job.folder / 'done.json'), job.cfg)


def test_the_time_step_is_the_one_that_does_best_on_held_out_training_images(job):
    alone = {t: entry_of(job, timesteps=[t]) for t in (10, 900)}
    chosen = entry_of(job, timesteps=[10, 900])
    assert {c['timestep']: c['held_out'] for c in chosen['candidates']} == {
        t: entry['held_out'] for t, entry in alone.items()
    }
    best = max(alone, key=lambda t: alone[t]['held_out'])
    for key in ('timestep', 'knn', 'linear', 'lr', 'weight_decay', 'held_out'):
        assert chosen[key] == alone[best][key]


def test_labels_of_test_images_choose_nothing(job, monkeypatch):
    read = worker.extract
    before = entry_of(job, timesteps=[10, 900])
    calls = []

    def swapped(*args):
        features, labels = read(*args)
        calls.append(len(labels))
        # The second pass of two is that over test images.
        return (features, labels.roll(1)) if len(calls) == 2 else (features, labels)

    monkeypatch.setattr(worker, 'extract', swapped)
    after = entry_of(job, timesteps=[10, 900])
    assert calls == [400, 200]
    for key in ('timestep', 'block', 'pooling', 'lr', 'weight_decay', 'held_out', 'at_edge', 'candidates'):
        assert after[key] == before[key]
    assert after['linear'] != before['linear']
    assert after['knn'] != before['knn']


def test_a_time_step_that_the_encoder_does_not_know_is_one_line(job):
    with pytest.raises(ConfigError, match=r'timesteps=1000 is out of range'):
        entry_of(job, timesteps=[10, 1000])


def test_the_same_encoder_has_the_same_score_from_every_tool(job, tmp_path):
    row = next(row for row in list_rows() if row.name == 'a_t10_clean')
    checkpoint = job.folder / 'epoch_2.pth'
    expected = {key: entry_of(job)[key] for key in ('knn', 'linear', 'lr', 'weight_decay')}
    method = Method('ldae', load(row.path), [checkpoint])
    (compared,) = plan_comparison([method], [1], tmp_path / 'compare', quick=True)
    compared.members = [member for member in compared.members if member.row == 'ldae']
    compared.write()
    worker.main([str(compared.folder)])
    (entry,) = json.loads((compared.folder / 'scores.json').read_text())
    assert {key: entry[key] for key in expected} == expected
    probed = probe(tmp_path / 'probe', str(checkpoint))
    assert {key: probed[key] for key in expected} == expected


def probe(work_dir, *arguments) -> dict:
    """The row that ``ldae probe`` finds, of the images and by the protocol of a quick run."""
    limits = ['--max-train-images', '400', '--max-test-images', '200']
    protocol = ['--k', '5', '--epochs', '3', '--seed', '1']
    assert run_tool('probe', [*arguments, *limits, *protocol, '--work-dir', str(work_dir)]) == 0
    (row,) = json.loads((work_dir / 'probe.json').read_text())['results']
    return row | dict(knn=row['knn']['5'])


def test_an_untrained_encoder_needs_no_file_and_has_the_score_of_the_untrained_twin(job, tmp_path):
    expected = entry_of(job, encoder='untrained')
    probed = probe(tmp_path / 'probe', '--config', str(job.folder / 'config.py'))
    assert all(probed[key] == expected[key] for key in ('knn', 'linear', 'lr', 'weight_decay'))


def test_an_untrained_twin_takes_the_tokenizer_of_the_trained_run(tmp_path):
    row = next(row for row in list_rows() if row.name == 't2_patch-ae_d32')
    cfg = load(row.path)
    assert 'tokenizer.pth' in cfg.model.tokenizer.checkpoint  # which nobody has trained here
    model = get_model(cfg, cfg_options={'model.tokenizer.checkpoint': None})
    net = model.tokenizer.training_net()
    torch.nn.init.normal_(net.encoder)
    model.tokenizer.take(net)
    model.tokenizer.fit([torch.randn(64, 1, 32, 32)])
    path = tmp_path / 'epoch_4.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text)), path)
    (job,) = plan_comparison([Method('ldae', cfg, [path])], [0], tmp_path, quick=True)
    job.members = [member for member in job.members if member.row == 'ldae_untrained']
    job.write()
    worker.main([str(job.folder)])
    (entry,) = json.loads((job.folder / 'scores.json').read_text())
    assert (entry['tokenizer'], 'error' in entry) == ('PatchAETokenizer', False)
    assert entry['seconds']['train'] is None


def test_an_encoder_trained_elsewhere_is_scored_once_on_the_images_of_the_others(job, tmp_path):
    path = tmp_path / 'vit.pth'
    torch.manual_seed(0)
    options = dict(img_size=32, patch_size=8, embed_dim=64, depth=1, num_heads=1, num_classes=0)
    torch.save(timm.models.VisionTransformer(**options).state_dict(), path)
    cfg = load_config('ldae::deconstruction/t3_5_original-image.py', scale='fashion-mnist_subset')
    scoring = replace(SCORING, poolings=('mean', 'cls'), attentive=('aim',))
    jobs = plan_comparison([Method('theirs', cfg, foreign=str(path))], [0, 1], tmp_path / 'runs', True, scoring)
    assert [member.row for job in jobs for member in job.members] == ['theirs']
    jobs[0].write()
    (jobs[0].folder / 'tokens_left').mkdir()  # by a process that was killed
    worker.main([str(jobs[0].folder)])
    (entry,) = json.loads((jobs[0].folder / 'scores.json').read_text())
    assert 'error' not in entry
    assert {one['pooling'] for one in entry['candidates']} == {'mean', 'cls'}
    best = max(entry['candidates'], key=lambda one: one['held_out'])
    assert (entry['pooling'], entry['held_out']) == (best['pooling'], best['held_out'])
    assert (entry['timestep'], entry['tokenizer'], entry['epochs']) == (None, None, None)
    assert 10 < entry['attentive']['aim']['accuracy'] <= 100
    assert read_scores(jobs[0].folder / 'scores.json') == [entry]
    assert sorted(path.name for path in jobs[0].folder.iterdir()) == [
        'config.py',
        'done.json',
        'job.json',
        'scores.json',
    ]
    with pytest.raises(ConfigError, match='theirs: blocks: -2 is not one'):
        check_same_images([Method('theirs', cfg, foreign=str(path))], replace(scoring, blocks=(-2,)))
    # Another file of the same name is another encoder.
    key = jobs[0].key
    torch.save(timm.models.VisionTransformer(**options).state_dict(), path)
    (job, *_) = plan_comparison([Method('theirs', cfg, foreign=str(path))], [0], tmp_path / 'runs', True, scoring)
    assert job.key != key


def test_the_cost_of_a_training_is_that_of_its_images_and_of_a_step(job):
    cost = entry_of(job)['cost']
    assert cost['images'] == 512 // 64 * 64 * 2  # of two epochs, without what fills no batch
    # By hand: 16 tokens, 1 + 1 blocks of width 24, projections, attention of one head, twice as much in the backward pass.
    tokens, width, hidden, patch = 16, 24, 24, 64
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    assert cost['gflop'] > 3 * 2 * 2 * block / 1e9
    assert cost['gflop'] < 3 * 2 * (2 * block + 40 * tokens * patch * width) / 1e9


def test_the_cost_of_a_momentum_encoder_needs_no_training_before(monkeypatch):
    cfg = load_config('ldae::mocov3/vit-b_300e.py', scale='fashion-mnist_subset')
    cfg.model.backbone.arch = TINY
    cfg.model.neck.in_channels = TINY['embed_dims']
    hub = MessageHub.get_current_instance()
    monkeypatch.setattr(hub, '_runtime_info', type(hub._runtime_info)())
    model = get_model(cfg)
    model.momentum_encoder.steps += 1  # the first one only copies
    assert training_cost(model, cfg)['gflop'] > 0


@pytest.fixture(scope='module')
def many_classes(tmp_path_factory) -> dict:
    """Data loaders of 200 classes, of three training images each."""
    root = tmp_path_factory.mktemp('classes')
    for split, count in (('train', 3), ('val', 1)):
        for name in range(200):
            folder = root / split / f'{name:03d}'
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new('L', (4, 4)).save(folder / f'{i}.png')
    loaders = {}
    for split, name in (('train', 'train_dataloader'), ('val', 'val_dataloader')):
        dataset = dict(type='ldae.ImageFolder', data_root=str(root), split=split, pipeline=[])
        loaders[name] = dict(batch_size=8, num_workers=0, dataset=dataset)
    return loaders


def test_a_quick_run_has_images_of_all_classes(many_classes):
    scoring = SCORING.quick(QUICK).as_dict()
    loaders = worker.labelled_images(Config(deepcopy(many_classes)), scoring)
    assert [len(loader.dataset) for loader in loaders] == [400, 200]
    for loader in loaders:
        assert len(labels_of_dataset(loader.dataset).unique()) == 200


def test_what_the_images_lack_is_said_before_training(many_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, 'train', None)
    cfg = Config(dict(model=dict(backbone=dict()), train_cfg=dict(max_epochs=1), **deepcopy(many_classes)))
    cfg.train_dataloader.dataset.split = 'val'
    scoring = replace(SCORING, train_images=50)
    for changes, says in (
        (scoring, 'number of classes|200 classes'),
        (replace(SCORING, protocol=PROTOCOL.replace(k=999)), 'k=999'),
    ):
        job = plan([Pretraining('a', cfg, [('a', 'trained')])], [0], tmp_path, None, scoring=changes)[0]
        job.write()
        with pytest.raises(ConfigError, match=says):
            worker.main([str(job.folder)])


def test_candidates_are_chunks_of_one_pass():
    model = get_model('ldae/demo_fashion-mnist')
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    for parameter in model.backbone.parameters():  # which are zero where the time step comes in
        torch.nn.init.normal_(parameter, std=0.1)
    images = torch.randn(3, 1, 28, 28)
    candidates = [worker.Candidate(t, block) for t in (300, 10) for block in (-1, 1)]
    with torch.no_grad():
        together = worker.encode_candidates(model, images, model, candidates).chunk(4, dim=1)
        for candidate, features in zip(candidates, together, strict=True):
            model.backbone.timestep = candidate.timestep
            torch.testing.assert_close(features, block_features(model, images, [candidate.block])[:, 0])
    assert not any(torch.allclose(together[0], other) for other in together[1:])


def test_a_cut_of_one_model_is_scored_after_its_own_block(tmp_path, monkeypatch):
    monkeypatch.setitem(TINY, 'num_layers', 3)
    (job,) = plan_rows(['one_cut9', 'one_cut15', 't3_5_original-image'], tmp_path)
    worker.main([str(job.folder)])
    scores = json.loads((job.folder / 'scores.json').read_text())
    assert [(score['row'], score['block']) for score in scores] == [
        ('t3_5_original-image', -1),
        ('one_cut9', 2),
        ('one_cut15', 4),
    ]
    assert len({score['held_out'] for score in scores}) > 1


def test_clean_or_noisy_is_chosen_on_held_out_training_images(tmp_path):
    (job,) = plan_rows(['table4_vit-b'], tmp_path)
    assert job.content['members'][0]['transfer']['inputs'] == ['clean', 'noisy']
    worker.main([str(job.folder)])
    (score,) = json.loads((job.folder / 'scores.json').read_text())
    held_out = {(one['timestep'], one['noisy']): one['held_out'] for one in score['candidates']}
    assert list(held_out) == [(t, noisy) for noisy in (False, True) for t in (600, 10, 100, 300)]
    assert held_out[score['timestep'], score['transfer_noise']] == max(held_out.values())
    # Each is what that row of its own scores.
    model = worker.model_for_transfer(job.cfg, dict(timestep=600, transfer_noise=True), job.folder / 'epoch_2.pth')
    images = torch.randn(4, 1, 32, 32)
    both = [worker.Candidate(600, -1, 'mean', noisy) for noisy in (False, True)]
    found = worker.encode_candidates(
        model,
        images,
        worker.model_for_transfer(job.cfg, dict(timestep=600, transfer_noise=False), job.folder / 'epoch_2.pth'),
        both,
    )
    torch.testing.assert_close(found[:, found.shape[1] // 2 :], block_features(model, images)[:, 0])
