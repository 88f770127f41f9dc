# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from ldae.datasets import IDXDataset
from ldae.evaluation.linear_probe import ProbeResult, Setting, linear_probe, standardise
from ldae.evaluation.protocol import PROTOCOL, Protocol, Score, choose, score, score_sets
from ldae.utils import ConfigError


@pytest.fixture(scope='module')
def rows():
    """Features of 4 classes that overlap: (train_x, train_y, test_x, test_y)."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 8, generator=generator)

    def split(count):
        y = torch.arange(count) % 4
        return centres[y] + 1.2 * torch.randn(count, 8, generator=generator), y

    return *split(400), *split(200)


QUICK = PROTOCOL.replace(epochs=3, lrs=(0.01, 0.1), weight_decays=(0.0,), widen=0, precision='float32')


def test_one_set_scores_alone_what_it_scores_beside_others(rows):
    train_x, train_y, test_x, test_y = rows
    alone = score(QUICK, *rows)
    both = score_sets(QUICK, dict(a=train_x, b=train_x.flip(1)), train_y, dict(a=test_x, b=test_x.flip(1)), test_y)
    assert both['a'] == alone
    assert alone.linear == linear_probe(*rows, lrs=(0.01, 0.1), weight_decays=(0.0,), epochs=3, widen=0)


def test_knn_with_one_vote_each_agrees_with_scikit_learn(rows):
    train_x, train_y, test_x, test_y = rows
    found = score(QUICK.replace(metric='euclidean', temperature=None, k=5), *rows, ks=(5, 9)).knn
    for k, ours in found.items():
        theirs = KNeighborsClassifier(k, algorithm='brute').fit(train_x, train_y).score(test_x, test_y)
        assert ours == pytest.approx(100 * theirs)


def test_standardised_neighbours_do_not_see_the_scale_of_a_feature(rows):
    train_x, train_y, test_x, test_y = rows
    scale = 2.0 ** torch.arange(-8, 8, 2)  # exact in floating point
    scores = [score(QUICK.replace(standardised_knn=on), *rows).knn for on in (False, True)]
    scaled = [
        score(QUICK.replace(standardised_knn=on), train_x * scale, train_y, test_x * scale, test_y).knn
        for on in (False, True)
    ]
    assert scaled[1] == scores[1]
    assert scaled[0] != scores[0]


def test_what_is_overridden_is_said_and_comes_back_from_a_file():
    assert str(PROTOCOL) == PROTOCOL.name
    assert PROTOCOL.overrides() == {}
    changed = PROTOCOL.replace(k=5, lrs=[0.1, 1.0], temperature=None)
    assert str(changed) == 'ldae-1 (lrs=(0.1, 1.0), k=5, temperature=None)'
    values = json.loads(json.dumps(changed.as_dict()))
    assert values['overrides'] == ['k', 'lrs', 'temperature']
    assert Protocol.of_dict(values) == changed


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(name='mine'), "Protocol.name='mine' is unknown"),
        (dict(lrs=[]), 'at least one value'),
        (dict(k=0), 'Protocol.k=0 is out of range'),
        (dict(metric='cosinus'), "did you mean 'cosine'"),
        (dict(lrs=(0.1, -1.0)), 'lrs'),
        (dict(epochs=1.5), 'Protocol.epochs must be an integer, got 1.5'),
    ],
)
def test_a_wrong_value_is_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        Protocol(**options)


def made_up(held_out, test):
    setting = Setting(0.0, 0.1)
    return Score({20: test}, ProbeResult(test, setting, {setting: held_out}))


def test_held_out_images_choose_and_test_images_do_not():
    assert choose({10: made_up(70.0, 60.0), 300: made_up(71.0, 50.0), 600: made_up(71.0, 90.0)}) == 300


def test_nothing_is_chosen_where_nothing_was_held_out():
    alone = Score({20: 50.0}, ProbeResult(50.0, Setting(0.0, 0.1), {}))
    assert choose(dict(one=alone)) == 'one'
    with pytest.raises(ConfigError, match='several rates'):
        choose(dict(one=alone, two=alone))


@pytest.fixture(scope='module')
def pixels():
    """2000 + 1000 images of the shipped subset at 7 x 7 pixels: (train_x, train_y, test_x, test_y)."""

    def split(name, count):
        data = IDXDataset(split=name)
        rows = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[:count]
        return F.avg_pool2d(data.images[rows].float() / 255, 4).flatten(1), data.labels[rows]

    return *split('train', 2000), *split('test', 1000)


@pytest.mark.parametrize(
    ('options', 'accuracy', 'setting', 'held_out'),
    [
        (
            dict(lrs=(0.003, 0.01, 0.03, 0.1, 0.3), weight_decays=(0.0, 1e-3, 1e-2)),
            75.1,
            Setting(0.01, 0.3),
            [*[64.25] * 3, *[64.75] * 3, *[66.0] * 3, *[67.75] * 3, 71.75, 72.0, 72.25],
        ),
        (
            dict(lrs=(0.01, 0.03, 0.1, 0.3), weight_decays=(0.0,), seed=5),
            74.4,
            Setting(0.0, 0.3),
            [67.0, 67.0, 70.25, 73.75],
        ),
    ],
)
def test_settings_of_before_give_the_figures_of_before(pixels, options, accuracy, setting, held_out):
    """Measured by the code that had five protocols."""
    found = linear_probe(*pixels, epochs=3, widen=0, **options)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.setting == setting
    assert list(found.held_out_accuracy.values()) == pytest.approx(held_out)


def test_neighbours_of_before_vote_as_before(pixels):
    """As above: by the cosine of features as they are, and standardised, as the ablation had them."""
    assert score(QUICK, *pixels).knn == {20: pytest.approx(76.5)}
    assert score(QUICK.replace(standardised_knn=True), *pixels).knn == {20: pytest.approx(79.3)}
    changed = QUICK.replace(k=5, temperature=None, metric='euclidean')
    assert score(changed, *pixels).knn == {5: pytest.approx(77.8)}


def test_the_exact_solver_of_a_protocol_agrees_with_scikit_learn(pixels):
    found = score(PROTOCOL.replace(solver='lbfgs', weight_decays=(1e-2,)), *pixels)
    x, x_test = standardise(pixels[0], pixels[2])
    reference = LogisticRegression(C=1 / (len(x) * 1e-2), max_iter=2000, tol=1e-6).fit(x, pixels[1])
    assert found.linear.accuracy == pytest.approx(100 * reference.score(x_test, pixels[3]), abs=0.3)
    assert found.held_out is None


def test_a_choice_at_the_end_of_the_grid_is_said(pixels, monkeypatch):
    lines = []
    monkeypatch.setattr('ldae.evaluation.protocol.print_log', lambda line, *where: lines.append(line))
    found = score(QUICK.replace(lrs=(0.001, 0.003)), *pixels)
    assert found.linear.at_edge == ('lr',)
    assert found.as_dict()['at_edge'] == ['lr']
    assert 'end of what was tried for 1 of 1 sets of features (lr=0.003)' in lines[0]
    assert len(lines) == 1


def test_features_in_memory_score_as_those_of_a_cache(pixels):
    train_x, train_y, test_x, test_y = pixels
    kept = (train_x.half().float(), train_y, test_x.half().float(), test_y)
    short = QUICK.replace(precision='float16')
    assert score(short, *pixels) == score(QUICK, *kept)
    assert not torch.equal(kept[0], train_x)
