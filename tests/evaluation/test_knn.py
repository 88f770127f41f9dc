# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ldae.evaluation.knn import knn_accuracies, knn_accuracy, knn_classify, nearest_neighbours
from ldae.utils import ConfigError


@pytest.fixture
def blobs():
    """Overlapping classes far from the origin: (train_x, train_y, test_x, test_y), float64."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 12, generator=g, dtype=torch.float64)
    train_y, test_y = torch.randint(5, (400,), generator=g), torch.randint(5, (150,), generator=g)

    def sample(y):
        return centres[y] + 1.5 * torch.randn(len(y), 12, generator=g, dtype=torch.float64) + 3

    return sample(train_y), train_y, sample(test_y), test_y


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('k', [1, 4, 20, 400])
def test_majority_votes_equal_scikit_learn(blobs, metric, k):
    train_x, train_y, test_x, _ = blobs
    reference = KNeighborsClassifier(k, metric=metric, algorithm='brute').fit(train_x, train_y).predict(test_x)
    predicted = knn_classify(train_x, train_y, test_x, k=k, temperature=None, metric=metric)
    assert predicted.tolist() == reference.tolist()


def test_weighted_votes_equal_a_loop_in_float64(blobs):
    train_x, train_y, test_x, _ = blobs
    expected = []
    for row in test_x:
        cosine = (train_x @ row) / (train_x.norm(dim=1) * row.norm())
        votes = torch.zeros(5, dtype=torch.float64)
        for i in cosine.argsort(descending=True)[:20].tolist():
            votes[train_y[i]] += (cosine[i] / 0.07).exp()
        expected.append(int(votes.argmax()))
    assert knn_classify(train_x, train_y, test_x).tolist() == expected
    assert knn_classify(train_x.float(), train_y, test_x.float()).tolist() == expected


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_blocks_change_nothing(blobs, metric):
    train_x, _, test_x, _ = blobs
    whole = nearest_neighbours(train_x, test_x, 300, metric)
    # Two training blocks, the first of 256 rows, fewer than k.
    blocks = nearest_neighbours(train_x, test_x, 300, metric, block_size=1)
    torch.testing.assert_close(blocks[0], whole[0])
    assert torch.equal(blocks[1], whole[1])


def test_a_small_temperature_is_the_nearest_neighbour_and_does_not_overflow(blobs):
    train_x, train_y, test_x, _ = blobs
    cold = knn_classify(train_x.float(), train_y, test_x.float(), temperature=1e-4)
    assert torch.equal(cold, knn_classify(train_x.float(), train_y, test_x.float(), k=1))


def test_accuracy_is_a_percentage(blobs):
    train_x, train_y, test_x, test_y = blobs
    predicted = knn_classify(train_x, train_y, test_x)
    assert knn_accuracy(train_x, train_y, test_x, test_y) == pytest.approx(100 * (predicted == test_y).float().mean())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(k=401), 'k=401: there are only 400 training samples'),
        (dict(k=0), 'k=0'),
        (dict(metric='cosin'), "did you mean 'cosine'"),
        (dict(metric='euclidean'), "weighted votes need metric='cosine'"),
        (dict(train_x=torch.full((400, 12), float('nan'))), '400 of 400 feature rows hold NaN'),
        (dict(test_x=torch.zeros(3, 11, dtype=torch.float64)), '11 features a row'),
        (dict(train_y=torch.zeros(7).long()), 'expected'),
    ],
)
def test_bad_input_is_one_clear_line(blobs, change, message):
    arguments = dict(zip(('train_x', 'train_y', 'test_x'), blobs, strict=False)) | change
    with pytest.raises(ConfigError) as error:
        knn_classify(**arguments)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_a_class_that_only_the_test_set_has_is_an_error(blobs):
    train_x, train_y, test_x, test_y = blobs
    with pytest.raises(ConfigError, match=r'no training image of class \[3\]'):
        knn_accuracy(train_x[train_y != 3], train_y[train_y != 3], test_x, test_y)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('block_size', [1, 256])
def test_several_k_from_one_search_equal_scikit_learn(blobs, metric, block_size):
    train_x, train_y, test_x, test_y = blobs
    ks = (1, 10, 20, 100, 200, 400)
    found = knn_accuracies(*blobs, ks, temperature=None, metric=metric, block_size=block_size)
    for k in ks:
        reference = KNeighborsClassifier(k, metric=metric, algorithm='brute').fit(train_x, train_y)
        assert found[k] == pytest.approx(100 * reference.score(test_x, test_y))


def test_several_k_vote_by_weight_as_one_does(blobs):
    found = knn_accuracies(*blobs, (200, 10))
    assert found == {k: pytest.approx(knn_accuracy(*blobs, k=k)) for k in (200, 10)}
    assert list(found) == [200, 10]


def test_half_precision_features_are_searched_in_float32(blobs):
    train_x, train_y, test_x, test_y = blobs
    halves = train_x.half(), train_y, test_x.half(), test_y
    floats = train_x.half().float(), train_y, test_x.half().float(), test_y
    assert knn_accuracies(*halves, (10,)) == knn_accuracies(*floats, (10,))


@pytest.mark.parametrize(
    ('ks', 'message'), [((), 'at least one'), ((5, 0), r'ks\[1\]=0'), ((5, 401), 'k=401: there are only 400')]
)
def test_bad_numbers_of_neighbours_are_one_clear_line(blobs, ks, message):
    with pytest.raises(ConfigError, match=message):
        knn_accuracies(*blobs, ks)
