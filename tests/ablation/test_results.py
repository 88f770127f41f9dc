# SPDX-License-Identifier: Apache-2.0
from made_up import make_entry

from ldae.ablation import ResultsFile, Study


def test_what_was_appended_is_found_by_row_seed_and_config(tmp_path):
    results = ResultsFile(tmp_path / 'new' / 'results.jsonl')
    assert results.read() == []
    for linear in (50.0, 51.0):
        results.append(make_entry('a', 0, linear))
    assert results.find('a', 0, 'c')['linear'] == 51.0
    for other in (('b', 0, 'c'), ('a', 1, 'c'), ('a', 0, 'd')):
        assert results.find(*other) is None


def test_a_line_that_was_cut_short_costs_no_other(tmp_path):
    results = ResultsFile(tmp_path / 'results.jsonl')
    results.append(make_entry('a', 0, 50.0))
    with results.path.open('a') as file:
        file.write('{"row": "b", "se')
    results.append(make_entry('c', 0, 52.0))
    assert [entry['row'] for entry in results.read()] == ['a', 'c']


def test_results_of_another_layout_are_left_out_and_kept(tmp_path, capsys):
    study = Study(tmp_path, 'tiny')
    old = make_entry('a', 0, 50.0)
    del old['protocol']
    study.results.append(old)
    study.results.append(make_entry('b', 0, 51.0))
    assert [entry['row'] for entry in study.entries()] == ['b']
    assert '1 results of an older version are left out' in capsys.readouterr().out
    assert len(study.results.read()) == 2
