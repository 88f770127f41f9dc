# SPDX-License-Identifier: Apache-2.0
"""Attentive probes, neighbours and corrupted images of the features that a probe has chosen, from the command line."""

import json

import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from ldae.cli import run_tool
from ldae.datasets import IDXDataset
from ldae.evaluation import AttentiveOptions, FeatureCache, attentive_probes, linear_probe
from ldae.evaluation import corruptions as corruptions_module
from ldae.evaluation.further import Further, mean_by_severity
from ldae.evaluation.probe_data import build_bounded_dataloader
from ldae.utils import ConfigError

FEW = ['--max-train-images', '200', '--max-test-images', '60', '--epochs', '3', '--k', '5']


@pytest.fixture(scope='module')
def patched():
    """Corruptions by a function of their own, so that no library is needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('ldae.evaluation.further.resolve_corruptions', list)
        patch.setattr(corruptions_module, 'corrupt', lambda image, name, severity, **how: darker(image, name, severity))
        yield


def darker(image, name, severity):
    return image if name == 'fog' else (image.float() * (1 - severity / 5)).byte()


@pytest.fixture(scope='module')
def probed(small_checkpoint, tmp_path_factory, patched):
    folder = tmp_path_factory.mktemp('further')
    options = [
        '--attentive',
        'aim',
        'efficient',
        '--neighbours',
        '3',
        '--corruptions',
        'fog',
        'contrast',
        '--severities',
        '1',
        '5',
    ]
    assert run_tool('probe', [str(small_checkpoint), *FEW, *options, '--work-dir', str(folder)]) == 0
    return folder


def read(folder, name='probe.json'):
    return json.loads((folder / name).read_text())


def caches(folder):
    return sorted((FeatureCache(path) for path in (folder / 'features').iterdir()), key=lambda c: -c.num_images)


def test_attentive_probes_are_those_of_the_cached_tokens(probed):
    train, test = caches(probed)
    [setting] = train.settings
    found = read(probed)['attentive']
    assert list(found) == ['aim', 'efficient']
    options = [AttentiveOptions(kind='efficient')]
    result = attentive_probes(train.tokens(setting), train.labels, test.tokens(setting), test.labels, options)
    expected = dict(result['efficient'].as_dict(), options=options[0].as_dict())
    assert found['efficient'] == json.loads(json.dumps(expected))
    assert 'attentive (aim) | attentive (efficient) |' in (probed / 'probe.md').read_text()


def test_neighbours_are_those_of_a_search_by_scikit_learn(probed):
    train, test = caches(probed)
    [setting] = train.settings
    content = read(probed, 'neighbours.json')
    assert content['of'] == str(setting)
    assert len(content['images']) == 10
    assert sorted(entry['query']['label'] for entry in content['images']) == list(range(10))
    search = NearestNeighbors(n_neighbors=3, metric='cosine').fit(train[setting][:])
    images, labels = IDXDataset(split='test'), IDXDataset(split='train').labels
    tested = build_bounded_dataloader(dict(dataset=images, batch_size=8), 60).dataset.indices
    for entry in content['images']:
        row = tested.index(entry['query']['image'])
        distances, rows = search.kneighbors(test[setting][row : row + 1])
        assert [one['similarity'] for one in entry['neighbours']] == pytest.approx(1 - distances[0], abs=1e-3)
        assert [one['label'] for one in entry['neighbours']] == train.labels[rows[0]].tolist()
        assert all(labels[one['image']] == one['label'] for one in entry['neighbours'])
        assert images.labels[entry['query']['image']] == entry['query']['label'] == test.labels[row]
        assert images.metainfo['classes'][entry['query']['label']] == entry['query']['class']
    assert min(Image.open(probed / 'neighbours.png').size) > 200


def test_corrupted_images_meet_what_was_trained_on_clean_ones(probed):
    content = read(probed)
    rows = {(row['corruption'], row['severity']): row for row in content['robustness']}
    assert list(rows) == [('fog', 1), ('fog', 5), ('contrast', 1), ('contrast', 5)]
    [clean] = content['results']
    for severity in (1, 5):  # the fog that changes nothing
        assert rows['fog', severity]['linear'] == clean['linear']
        assert rows['fog', severity]['knn'] == clean['knn']['5']
    assert rows['contrast', 5]['linear'] <= 20  # all images are black
    assert len(list((probed / 'features').iterdir())) == 2
    assert '| mean |' in (probed / 'probe.md').read_text()
    assert min(Image.open(probed / 'robustness.png').size) > 100


def test_the_mean_is_that_over_corruptions():
    rows = [dict(corruption=c, severity=s, knn=s, linear=10 * s + i) for i, c in enumerate('ab') for s in (1, 5)]
    assert mean_by_severity(rows) == {1: dict(knn=1, linear=10.5), 5: dict(knn=5, linear=50.5)}


def test_a_head_predicts_what_it_was_scored_on():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    x = torch.randn(90, 6, generator=generator) + torch.nn.functional.one_hot(y, 6) * 2
    for solver in ('sgd', 'lbfgs'):
        result = linear_probe(x[:60], y[:60], x[60:], y[60:], epochs=5, solver=solver)
        found = 100 * (result.head.predict(x[60:]) == y[60:]).double().mean()
        assert found == pytest.approx(result.accuracy)


def test_of_several_features_the_chosen_are_looked_at(small_checkpoint, tmp_path):
    options = ['--blocks', 'all', '--attentive', '--neighbours', '2', '--work-dir', str(tmp_path)]
    assert run_tool('probe', [str(small_checkpoint), *FEW, *options]) == 0
    content = read(tmp_path)
    chosen = content['chosen']
    assert read(tmp_path, 'neighbours.json')['of'] == f'block {chosen["block"]}, t = {chosen["timestep"]}'
    lines = [line for line in (tmp_path / 'probe.md').read_text().splitlines() if line.startswith('| ')]
    cells = {line.split(' | ')[0].strip('| '): line.split(' | ')[6] for line in lines[1:]}
    assert cells == {
        b: (f'{content["attentive"]["aim"]["accuracy"]:.1f}' if b == str(chosen['block']) else '-') for b in '123'
    }


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(attentive=['aimm']), "did you mean 'aim'"),
        (dict(neighbours=-1), 'neighbours=-1'),
        (dict(corruptions=['fogg']), "did you mean 'fog'"),
        (dict(severities=[0]), 'severities'),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message):
        Further(**options)


def test_nothing_to_choose_by_is_said_before_the_pass(small_checkpoint, tmp_path, capsys):
    options = [
        '--blocks',
        'all',
        '--attentive',
        '--lrs',
        '0.1',
        '--weight-decays',
        '0',
        '--work-dir',
        str(tmp_path / 'p'),
    ]
    assert run_tool('probe', [str(small_checkpoint), *FEW, *options]) == 2
    assert 'give several learning rates' in capsys.readouterr().err
    assert not (tmp_path / 'p' / 'features').exists()
