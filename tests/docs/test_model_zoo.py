# SPDX-License-Identifier: Apache-2.0
"""The committed model zoo is what the configs say."""

import runpy
from pathlib import Path

from pages import files_of, not_stale

SCRIPT = Path(__file__).resolve().parents[2] / 'docs' / 'make_model_zoo.py'


def test_the_page_is_up_to_date():
    made = files_of(SCRIPT)
    assert list(made) == [SCRIPT.with_name('model_zoo.md')]
    not_stale(made)


def test_a_field_goes_on_in_indented_lines(tmp_path: Path):
    zoo = runpy.run_path(str(SCRIPT))
    config = tmp_path / 'config.py'
    config.write_text(
        '"""What it is.\n\nRun:   tools/train.py a.py \\\\\n           --amp\n       prose (more)\n'
        'Batch: 2 processes x 4 images = 8; lr = 1\nPaper: 12.5 linear\n\nNot a field.\n"""\n'
    )
    fields = zoo['describe'](config)
    assert zoo['commands'](fields) == ['tools/train.py a.py --amp']
    assert zoo['batch'](fields) == '2 processes x 4 images = 8'
    assert zoo['published'](fields) == 'paper: 12.5 linear'
