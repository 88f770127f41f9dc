# SPDX-License-Identifier: Apache-2.0
"""Attentive probes against modules that are written down here, and trained by a loop of their own."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from ldae.evaluation import AttentiveOptions, attentive_probes
from ldae.evaluation.attentive_probe import KINDS, AttentiveProbe, Heads, factor, fit_adamw
from ldae.evaluation.linear_probe import LinearProbe, Setting
from ldae.utils import ConfigError

B, N, C, K, PARTS = 7, 5, 12, 3, 4


class Aim(nn.Module):
    """The probe of AIM as an attention layer with a single query, in float64."""

    def __init__(self, heads: Heads, number: int) -> None:
        super().__init__()
        size = C // PARTS
        self.query, self.weight, self.bias = (
            nn.Parameter(getattr(heads, name)[number].detach().clone()) for name in ('query', 'weight', 'bias')
        )
        self.attention = nn.MultiheadAttention(C, PARTS, bias=False, batch_first=True, dtype=torch.float64)
        with torch.no_grad():
            key, value = (getattr(heads, name)[number].reshape(C, C) for name in ('key', 'value'))
            self.attention.in_proj_weight.copy_(torch.cat([torch.eye(C, dtype=torch.float64), key, value]))
            self.attention.out_proj.weight.copy_(torch.eye(C))
        assert self.query.shape == (PARTS, size)

    def forward(self, x):
        found = self.attention(self.query.reshape(1, 1, C).expand(len(x), -1, -1), x, x)[0]
        return found[:, 0] @ self.weight.t() + self.bias


class Efficient(nn.Module):
    """Equations of arXiv 2506.10178, query by query."""

    def __init__(self, heads: Heads, number: int) -> None:
        super().__init__()
        self.query, self.value, self.weight, self.bias = (
            nn.Parameter(getattr(heads, name)[number].detach().clone()) for name in ('query', 'value', 'weight', 'bias')
        )
        self.norm = nn.BatchNorm1d(C, eps=1e-6, affine=False, dtype=torch.float64)

    def forward(self, x):
        values, parts = x @ self.value.reshape(C, C).t(), []
        size = C // PARTS
        for j in range(PARTS):
            attention = torch.stack([(tokens @ self.query[j] / math.sqrt(C)).softmax(0) for tokens in x])
            parts.append(torch.stack([attention[b] @ values[b, :, j * size : (j + 1) * size] for b in range(len(x))]))
        return self.norm(torch.cat(parts, dim=1)) @ self.weight.t() + self.bias


def starting_heads(kind, settings, double=True):
    heads = Heads.start(kind, PARTS, C, K, settings, torch.Generator().manual_seed(0))
    return Heads(*(part.double() if double else part for part in heads))


def tokens(count=B, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, N, C, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(('kind', 'module'), [('aim', Aim), ('efficient', Efficient)])
def test_heads_are_those_of_the_papers(kind, module):
    heads = starting_heads(kind, 2)
    for part in heads[:5]:
        part.add_(torch.randn(part.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    x = tokens()
    for number in range(2):
        reference = module(heads, number)
        mean, variance = heads.mean.clone(), heads.variance.clone()
        expected = reference.train()(x)
        torch.testing.assert_close(heads.logits(x, training=True)[number].t(), expected.detach())
        if kind == 'efficient':  # in testing, by what training has noted
            torch.testing.assert_close(heads.mean[number], reference.norm.running_mean)
            torch.testing.assert_close(heads.variance[number], reference.norm.running_var)
            torch.testing.assert_close(heads.logits(x)[number].t(), reference.eval()(x).detach())
        heads.mean.copy_(mean)
        heads.variance.copy_(variance)


@pytest.mark.parametrize(('kind', 'module'), [('aim', Aim), ('efficient', Efficient)])
def test_training_is_that_of_a_plain_loop_for_each_setting(kind, module):
    settings = [Setting(0.0, 0.03), Setting(0.1, 0.01), Setting(1.0, 0.1)]
    batches = [(tokens(seed=i), torch.arange(B) % K, i / 20) for i in range(20)]
    start = starting_heads(kind, 3)
    references = [module(start, number).train() for number in range(3)]
    trained = fit_adamw(start, batches, settings)
    for number, (reference, setting) in enumerate(zip(references, settings, strict=True)):
        if kind == 'aim':  # the query's projection and that of the output are not AIM's
            reference.attention.out_proj.requires_grad_(False)
            reference.attention.in_proj_weight.register_hook(lambda grad: torch.cat([0 * grad[:C], grad[C:]]))
        plain = [reference.query, reference.bias]
        matrices = [p for p in reference.parameters() if p.requires_grad and all(p is not one for one in plain)]
        groups = [dict(params=matrices, weight_decay=setting.weight_decay), dict(params=plain, weight_decay=0.0)]
        optimizer = torch.optim.AdamW(groups, lr=setting.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step / 20))
        for x, y, _ in batches:
            optimizer.zero_grad()
            F.cross_entropy(reference(x), y).backward()
            optimizer.step()
            schedule.step()
            if kind == 'aim' and setting.weight_decay:  # which decays what isn't trained
                with torch.no_grad():
                    reference.attention.in_proj_weight[:C] = torch.eye(C)
        x = tokens(seed=99)
        torch.testing.assert_close(trained.logits(x)[number].t(), reference.eval()(x).detach(), rtol=1e-6, atol=1e-8)


def test_the_rate_warms_up_and_follows_a_cosine():
    assert [factor(share) for share in (0.0, 0.05, 0.1, 0.55, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.fixture(scope='module')
def spotted():
    """Images whose class is in one of six tokens, where a mark says so: the others' average hides it."""
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        x, y = torch.randn(count, 6, 16, generator=generator), torch.randint(4, (count,), generator=generator)
        place = torch.randint(6, (count,), generator=generator)
        signs = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
        x[:, :, :5] *= 4
        x[torch.arange(count), place, :5] = 2 * F.one_hot(y, 5).float() + 0.5 * signs.unsqueeze(1)
        x[torch.arange(count), place, 5] = 6
        return x, y

    return *draw(1200), *draw(600)


FAST = dict(epochs=12, batch_size=64, lrs=(0.003, 0.03), widen=0, queries=4, heads=4)


def fast(**options):
    return [AttentiveOptions(kind=kind, **FAST | options) for kind in KINDS]


def test_queries_find_what_the_average_hides(spotted):
    train_x, train_y, test_x, test_y = spotted
    averaged = LogisticRegression(max_iter=500).fit(train_x.mean(1), train_y).score(test_x.mean(1), test_y)
    found = attentive_probes(*spotted, options=fast())
    assert averaged < 0.6
    assert min(result.accuracy for result in found.values()) > 85


def test_the_seed_decides_the_result_and_the_test_set_chooses_nothing(spotted):
    train_x, train_y, test_x, test_y = spotted
    one, same = (attentive_probes(*spotted, options=fast(epochs=2), seed=3) for _ in range(2))
    assert one == same
    swapped = attentive_probes(train_x, train_y, test_x, test_y.flip(0), options=fast(epochs=2), seed=3)
    for kind in KINDS:
        assert swapped[kind].held_out_accuracy == one[kind].held_out_accuracy
        assert swapped[kind].setting == one[kind].setting
        assert swapped[kind].accuracy != one[kind].accuracy
        best = one[kind].held_out_accuracy
        assert best[one[kind].setting] == max(best.values())


def test_the_same_images_are_held_out_as_of_linear_layers(monkeypatch, spotted):
    seen = {}
    for probe in (AttentiveProbe, LinearProbe):

        def fit(self, stack, numbers, *args, _fit=probe._fit):
            seen.setdefault(type(self), numbers)
            return _fit(self, stack, numbers, *args)

        monkeypatch.setattr(probe, '_fit', fit)
    train_x, train_y, test_x, test_y = spotted
    attentive_probes(*spotted, options=fast(epochs=1)[:1], seed=5)
    options = dict(train_y=train_y, test_y=test_y, epochs=1, seed=5)
    LinearProbe(**options).score([train_x.mean(1)], [test_x.mean(1)])
    assert torch.equal(seen[AttentiveProbe], seen[LinearProbe])


def test_tokens_of_half_precision_or_that_do_not_fit_into_memory_score_alike(spotted):
    train_x, train_y, test_x, test_y = spotted
    options = fast(lrs=(0.03,))[:1]
    whole, streamed = (attentive_probes(*spotted, options=options, memory=memory)['aim'] for memory in (4.0, 4e-4))
    half = attentive_probes(train_x.half(), train_y, test_x.half(), test_y, options=options)['aim']
    assert abs(half.accuracy - whole.accuracy) < 2
    assert abs(streamed.accuracy - whole.accuracy) < 5


def test_scale_and_shift_of_the_tokens_do_not_matter(spotted):
    train_x, train_y, test_x, test_y = (part.double() if part.dim() == 3 else part for part in spotted)
    scale, shift = torch.logspace(-3, 3, 16).double(), torch.linspace(-50, 50, 16).double()
    moved = attentive_probes(train_x * scale + shift, train_y, test_x * scale + shift, test_y, options=fast(epochs=3))
    whole = attentive_probes(*spotted, options=fast(epochs=3))
    for kind in KINDS:
        assert abs(moved[kind].accuracy - whole[kind].accuracy) < 1.5


def test_odd_data_are_scored(spotted):
    train_x, train_y, test_x, test_y = spotted
    constant = torch.ones_like(train_x[:65]), train_y[:65], torch.ones_like(test_x), test_y
    for result in attentive_probes(*constant, options=fast(epochs=1)).values():  # with a last batch of one image
        assert 0 < result.accuracy < 60
    one_class = train_x[:80], torch.zeros(80).long(), test_x[:9], torch.zeros(9).long()
    assert {result.accuracy for result in attentive_probes(*one_class, options=fast(epochs=1)).values()} == {100.0}
    gap = train_x, torch.where(train_y == 1, 9, train_y), test_x, torch.where(test_y == 1, 9, test_y)
    assert attentive_probes(*gap, options=fast(epochs=12)[:1])['aim'].accuracy > 80


def test_a_width_takes_as_many_heads_as_divide_it():
    assert [AttentiveOptions(kind=kind).parts_of(100) for kind in KINDS] == [10, 25]
    assert [AttentiveOptions(kind=kind).parts_of(768) for kind in KINDS] == [12, 32]


def test_the_efficient_probe_has_the_weights_that_its_paper_counts():
    heads = Heads.start('efficient', 32, 768, 1000, 1, torch.Generator())
    assert sum(part.numel() for part in heads[:5]) == 1_383_400


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(train=torch.full((1200, 6, 16), float('nan'))), '1200 of 1200 feature rows hold NaN or infinity'),
        (dict(train=torch.zeros(1200, 16)), 'expected (n, N, C)'),
        (dict(test=torch.zeros(600, 6, 8)), '6x8 test features a row, 6x16 in training'),
        (dict(test_y=torch.full((600,), 7)), 'no training image of class [7]'),
        (dict(train_y=torch.zeros(3).long()), 'labels (3,)'),
    ],
)
def test_bad_input_is_one_clear_line(spotted, change, message):
    arguments = dict(zip(('train', 'train_y', 'test', 'test_y'), spotted, strict=True)) | change
    with pytest.raises(ConfigError) as error:
        attentive_probes(**arguments, options=fast())
    assert message in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [(dict(kind='aimm'), "did you mean 'aim'"), (dict(heads=0), 'heads=0'), (dict(lrs=()), 'at least one value')],
)
def test_bad_options_are_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=message):
        AttentiveOptions(**options)


def test_options_name_what_differs_from_the_defaults():
    assert str(AttentiveOptions()) == 'aim'
    assert str(AttentiveOptions(kind='efficient', epochs=3)) == 'efficient (epochs=3)'
    assert AttentiveOptions(**AttentiveOptions(epochs=3, lrs=[0.1]).as_dict()) == AttentiveOptions(epochs=3, lrs=(0.1,))
