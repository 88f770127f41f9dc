# SPDX-License-Identifier: Apache-2.0
import configparser
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from ldae.evaluation import ReconstructionMetric
from ldae.models import ConvVAETokenizer
from ldae.models.tokenizer_training import PerceptualLoss
from ldae.utils import ConfigError
from ldae.utils.optional import requirements_of


@pytest.mark.parametrize(
    ('make', 'library'),
    [(ConvVAETokenizer, 'diffusers'), (PerceptualLoss, 'lpips'), (ReconstructionMetric, 'torchmetrics')],
)
def test_a_missing_library_is_one_line_with_the_command_that_installs_it(make, library, monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [Hidden(library), *sys.meta_path])
    with pytest.raises(ConfigError, match=rf"needs the library {library}, .*: pip install '{library}>=[\d.]+'$"):
        make()


def test_what_an_extra_consists_of_is_what_the_package_says(monkeypatch):
    options = configparser.ConfigParser()
    options.read(Path(__file__).parents[2] / 'setup.cfg')
    expected = options['options.extras_require']['onnx'].split()
    assert sorted(requirements_of('onnx')) == sorted(expected)
    assert requirements_of('no such extra') == []
    monkeypatch.setattr('ldae.utils.optional.metadata.requires', missing)
    assert requirements_of('onnx') == []


def missing(name: str) -> list[str]:
    raise PackageNotFoundError(name)


class Hidden:
    """A finder that finds that a library is not installed."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, path=None, target=None):
        if name.partition('.')[0] == self.library:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
