# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ldae.evaluation.linear_probe import ProbeResult, Setting, linear_probe
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


QUICK = PROTOCOL.replace(epochs=3, lrs=(0.01, 0.1), weight_decays=(0.0,), widen=0)


def test_one_set_scores_alone_what_it_scores_beside_others(rows):
    train_x, train_y, test_x, test_y = rows
    alone = score(QUICK, *rows)
    both = score_sets(
        QUICK, dict(a=train_x, b=train_x.flip(1)), train_y, dict(a=test_x, b=test_x.flip(1)), test_y
    )
    assert both['a'] == alone
    assert alone.linear == linear_probe(*rows, lrs=(0.01, 0.1), weight_decays=(0.0,), epochs=3)


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
    assert str(changed) == 'ldae-1 (k=5, temperature=None, lrs=(0.1, 1.0))'
    values = json.loads(json.dumps(changed.as_dict()))
    assert values['overrides'] == ['k', 'lrs', 'temperature']
    assert Protocol.of_dict(values) == changed


@pytest.mark.parametrize(
    ('options', 'message'),
    [
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
