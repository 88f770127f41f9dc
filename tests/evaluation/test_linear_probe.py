# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from ldae.datasets import IDXDataset
from ldae.evaluation.feature_stack import FeatureStack
from ldae.evaluation.linear_probe import (
    Setting,
    fit_lbfgs,
    fit_sgd,
    linear_probe,
    linear_probes,
    settings_beyond,
    standardise,
    values_beyond,
)
from ldae.utils import ConfigError


@pytest.fixture(scope='module')
def pixels():
    """2000 + 1000 images of the shipped subset at 7 x 7 pixels: (train_x, train_y, test_x, test_y)."""

    def split(name, count):
        data = IDXDataset(split=name)
        rows = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[:count]
        return F.avg_pool2d(data.images[rows].float() / 255, 4).flatten(1), data.labels[rows]

    return *split('train', 2000), *split('test', 1000)


def fit(stack, labels, settings, epochs=2):
    batches = stack.batches(torch.arange(len(labels)), epochs, 128, torch.Generator().manual_seed(0), 10**6)
    return fit_sgd(((x, labels[numbers], progress) for numbers, x, progress in batches), 10, settings)


@pytest.mark.parametrize('weight_decay', [1e-3, 1e-2])
def test_lbfgs_agrees_with_scikit_learn_at_the_same_regularisation(pixels, weight_decay):
    train_x, train_y, test_x, test_y = pixels
    ours = linear_probe(*pixels, solver='lbfgs', weight_decays=[weight_decay])
    x, x_test = standardise(train_x, test_x)
    reference = LogisticRegression(C=1 / (len(x) * weight_decay), max_iter=2000, tol=1e-6).fit(x, train_y)
    assert ours.accuracy == pytest.approx(100 * reference.score(x_test, test_y), abs=0.3)
    weight, _ = fit_lbfgs(lambda: [(x[:900], train_y[:900]), (x[900:], train_y[900:])], 10, [weight_decay])
    torch.testing.assert_close(weight[:, 0], torch.tensor(reference.coef_).float(), atol=0.01, rtol=0.02)


def test_sgd_comes_close_to_the_exact_minimum(pixels):
    exact = linear_probe(*pixels, solver='lbfgs', weight_decays=[1e-2])
    sgd = linear_probe(*pixels, solver='sgd', lrs=[0.1], weight_decays=[1e-2], epochs=60)
    assert sgd.accuracy == pytest.approx(exact.accuracy, abs=1.0)


def test_heads_trained_together_equal_heads_trained_alone(pixels):
    settings = [Setting(0.0, 0.01), Setting(1e-2, 0.1), Setting(1e-3, 0.03)]

    stack = FeatureStack([pixels[0], pixels[0].flip(1).sqrt()])
    weight, bias = fit(stack, pixels[1], [settings, settings[::-1]])
    for i, setting in enumerate(settings):
        alone = fit(stack.only(1), pixels[1], [[setting]])
        torch.testing.assert_close(weight[1:, :, 2 - i : 3 - i], alone[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(bias[1:, :, 2 - i : 3 - i], alone[1], atol=1e-5, rtol=1e-4)


def test_one_sgd_step_follows_the_gradient_of_autograd(pixels):
    x, y = standardise(*pixels[::2])[0][:100], pixels[1][:100]
    weight = torch.zeros(x.shape[1], 10, requires_grad=True)
    F.cross_entropy(x @ weight, y).backward()
    ours, _ = fit_sgd([(x.unsqueeze(0), y, 0.0)], 10, [[Setting(0.0, 0.5)]])
    torch.testing.assert_close(ours[0, :, 0], -0.5 * weight.grad.t())


def test_the_seed_decides_the_result(pixels):
    a, b = (linear_probe(*pixels, epochs=3, seed=3) for _ in range(2))
    assert a == b
    assert a.held_out_accuracy != linear_probe(*pixels, epochs=3, seed=4).held_out_accuracy


def test_the_test_set_does_not_choose_the_setting(pixels):
    train_x, train_y, test_x, test_y = pixels
    honest = linear_probe(*pixels, epochs=3)
    other = linear_probe(train_x, train_y, test_x, test_y.flip(0), epochs=3)
    assert other.setting == honest.setting
    assert other.held_out_accuracy == honest.held_out_accuracy
    assert honest.held_out_accuracy[honest.setting] == max(honest.held_out_accuracy.values())


def test_a_constant_feature_is_dropped():
    train, test = standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[2.0, 6.0]]))
    assert train.tolist() == [[-1, 0], [1, 0]]
    assert test.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(solver='sdg'), "did you mean 'sgd'"),
        (dict(lrs=[]), 'at least one value'),
        (dict(held_out=0.0), 'held_out=0.0'),
        (dict(test_x=torch.full((1000, 49), float('inf'))), 'NaN or infinity'),
    ],
)
def test_bad_input_is_one_clear_line(pixels, change, message):
    arguments = dict(zip(('train_x', 'train_y', 'test_x', 'test_y'), pixels, strict=True)) | change
    with pytest.raises(ConfigError) as error:
        linear_probe(**arguments)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


@pytest.fixture(scope='module')
def sets(pixels):
    """Three sets of two widths: training, test."""

    def make(x):
        return dict(raw=x, root=x.sqrt(), half=x[:, ::2])

    return make(pixels[0]), make(pixels[2])


@pytest.mark.parametrize('solver', ['sgd', 'lbfgs'])
@pytest.mark.parametrize('memory', [4.0, 1e-3])
def test_a_set_has_the_result_that_it_has_alone(pixels, sets, solver, memory):
    options = dict(solver=solver, epochs=3, weight_decays=[1e-1, 3e-2], lrs=[0.03, 0.1])
    together = linear_probes(sets[0], pixels[1], sets[1], pixels[3], memory=memory, **options)
    assert list(together) == ['raw', 'root', 'half']
    for key, result in together.items():
        alone = linear_probe(sets[0][key], pixels[1], sets[1][key], pixels[3], **options)
        assert result.setting == alone.setting
        assert result.accuracy == pytest.approx(alone.accuracy, abs=0.11)  # one image, for rounding
        for setting, value in result.held_out_accuracy.items():
            assert value == pytest.approx(alone.held_out_accuracy[setting], abs=0.26)


def test_a_set_that_does_not_fit_is_streamed_and_scores_as_well(pixels, sets):
    options = dict(epochs=20, lrs=[0.03], weight_decays=[1e-2])
    one = {'raw': sets[0]['raw']}, {'raw': sets[1]['raw']}
    fits, streamed = (
        linear_probes(one[0], pixels[1], one[1], pixels[3], memory=memory, **options)['raw'].accuracy
        for memory in (4.0, 2e-4)
    )
    assert streamed == pytest.approx(fits, abs=1.0)


@pytest.mark.parametrize('memory', [4.0, 1e-5])
def test_lbfgs_of_many_sets_agrees_with_scikit_learn(pixels, sets, memory):
    found = linear_probes(sets[0], pixels[1], sets[1], pixels[3], solver='lbfgs', weight_decays=[3e-3], memory=memory)
    for key, result in found.items():
        x, x_test = standardise(sets[0][key], sets[1][key])
        reference = LogisticRegression(C=1 / (len(x) * 3e-3), max_iter=2000).fit(x, pixels[1])
        assert result.accuracy == pytest.approx(100 * reference.score(x_test, pixels[3]), abs=0.3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(test={}), 'same sets'),
        (dict(train={}, test={}), 'at least one'),
        (dict(memory=0), 'memory=0'),
        (dict(epochs=0), 'epochs=0'),
        (dict(test=dict(a=torch.zeros(1000, 3))), '3 test features a row, 49 in training'),
        (dict(train=dict(a=torch.full((2000, 49), float('nan')))), 'a: 2000 of 2000 feature rows hold NaN'),
        (dict(train_y=torch.zeros(2000).long()), 'no training image of class'),
    ],
)
def test_bad_input_of_many_sets_is_one_clear_line(pixels, change, message):
    given = dict(train=dict(a=pixels[0]), train_y=pixels[1], test=dict(a=pixels[2]), test_y=pixels[3])
    with pytest.raises(ConfigError) as error:
        linear_probes(**(given | change))
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_the_grid_goes_on_where_its_edge_is_best(pixels):
    narrow = dict(lrs=(1e-4, 1e-3), weight_decays=(0.0,), epochs=20)
    before = linear_probe(*pixels, **narrow, widen=0)
    assert before.setting == Setting(0.0, 1e-3)
    assert before.at_edge == ('lr',)
    after = linear_probe(*pixels, **narrow, widen=3)
    tried = after.held_out_accuracy
    assert {setting.lr for setting in tried} >= {1e-4, 1e-3, 1e-2}
    assert tried[after.setting] == max(tried.values()) > before.held_out_accuracy[before.setting]
    # What is tried later is what it would have been from the start.
    whole = linear_probe(*pixels, **dict(narrow, lrs=tuple(setting.lr for setting in tried), widen=0))
    for setting, value in tried.items():
        assert value == pytest.approx(whole.held_out_accuracy[setting], abs=0.26)


def test_a_wider_grid_leaves_a_best_inside_it_alone(pixels):
    options = dict(lrs=(1e-6, 0.1, 1e30), weight_decays=(0.0,), epochs=20)  # the last diverges
    a, b = linear_probe(*pixels, **options, widen=0), linear_probe(*pixels, **options)
    assert a == b
    assert a.at_edge == ()


def tried(best: Setting, lrs=(0.1, 0.3), decays=(0.0, 1e-3)) -> dict[Setting, float]:
    """Accuracies of a grid, of which one is the best."""
    grid = {Setting(decay, lr): 50.0 for lr in lrs for decay in decays}
    return grid | {best: 60.0}


@pytest.mark.parametrize(
    ('best', 'lrs', 'decays', 'beyond'),
    [
        (Setting(0.0, 0.3), (0.1, 0.3, 1.0), (0.0, 1e-3), {}),
        (Setting(0.0, 1.0), (0.1, 0.3, 1.0), (0.0, 1e-3), dict(lr=3.3)),
        (Setting(0.0, 0.1), (0.1, 0.3, 1.0), (0.0, 1e-3), dict(lr=0.033)),
        (Setting(1e-3, 0.3), (0.1, 0.3, 1.0), (0.0, 1e-3), dict(weight_decay=1e-2)),
        (Setting(1e-2, 1.0), (0.1, 1.0), (0.0, 1e-3, 1e-2), dict(lr=10.0, weight_decay=0.1)),
        (Setting(1e-3, 0.1), (0.1,), (1e-3,), {}),
        (Setting(1e-1, None), (None,), (1e-1, 1e-2), dict(weight_decay=1.0)),
    ],
)
def test_the_grid_goes_on_in_its_own_ratio(best, lrs, decays, beyond):
    assert values_beyond(tried(best, lrs, decays)) == {key: pytest.approx(v) for key, v in beyond.items()}


@pytest.mark.parametrize(('equals', 'beyond'), [((0.1, 0.3), {}), ((0.1, 1.0), dict(lr=3.3)), ((0.1,), dict(lr=0.033))])
def test_of_equal_rates_one_inside_the_grid_is_enough(equals, beyond):
    grid = {Setting(0.0, lr): 60.0 if lr in equals else 50.0 for lr in (0.1, 0.3, 1.0)}
    assert values_beyond(grid) == {key: pytest.approx(value) for key, value in beyond.items()}


def test_the_grid_stays_a_product():
    found = settings_beyond(tried(Setting(1e-3, 0.3)))
    assert set(found) == {Setting(wd, lr) for wd in (0.0, 1e-3, 1e-2) for lr in (0.1, 0.3, 0.9)} - set(
        tried(Setting(1e-3, 0.3))
    )


@pytest.mark.parametrize(('count', 'held_out'), [(2, 0.2), (20, 0.01), (2, 0.9)])
def test_of_few_images_one_at_least_is_held_out_and_one_trained_on(count, held_out):
    features, labels = torch.randn(count, 3), torch.arange(count) % 2
    found = linear_probe(features, labels, features, labels, lrs=(0.1, 1.0), epochs=1, held_out=held_out, widen=0)
    assert all(accuracy == accuracy for accuracy in found.held_out_accuracy.values())  # none is NaN


def test_one_image_leaves_none_to_choose_by():
    with pytest.raises(ConfigError, match='1 labelled image leaves none to choose by'):
        linear_probe(
            torch.randn(1, 3), torch.zeros(1, dtype=torch.long), torch.randn(1, 3), torch.zeros(1, dtype=torch.long)
        )
