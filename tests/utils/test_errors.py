# SPDX-License-Identifier: Apache-2.0
import pytest

from ldae.utils import ConfigError, check_choice, check_range


def test_a_misspelt_choice_names_the_nearest_and_all_choices():
    with pytest.raises(
        ConfigError, match=r"norm='whit' is unknown: choose one of \['none', 'whiten'\]; did you mean 'wh"
    ):
        check_choice('norm', 'whit', ('whiten', 'none'))


def test_a_known_choice_passes():
    assert check_choice('norm', 'none', ('whiten', 'none')) is None


@pytest.mark.parametrize(
    ('value', 'kind', 'message'),
    [
        (0, int, 'must be an integer of at least 1'),
        (True, int, 'must be an integer'),
        (1.5, int, 'must be an integer'),
        ('3', int, 'must be an integer'),
        (None, float, 'must be a number of at least 1'),
        (float('nan'), float, 'must be a number'),
    ],
)
def test_values_of_another_kind_or_out_of_range_are_refused(value, kind, message):
    with pytest.raises(ConfigError, match=message):
        check_range('x', value, 1, kind=kind)


@pytest.mark.parametrize(('value', 'kind'), [(1, int), (7, int), (1.0, float), (2, float)])
def test_values_in_range_pass(value, kind):
    assert check_range('x', value, 1, kind=kind) is None
