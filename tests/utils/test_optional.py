# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

from ldae.evaluation import ReconstructionMetric
from ldae.models import ConvVAETokenizer
from ldae.models.tokenizer_training import PerceptualLoss
from ldae.utils import ConfigError


@pytest.mark.parametrize(
    ('make', 'library', 'extra'),
    [
        (ConvVAETokenizer, 'diffusers', 'vae'),
        (PerceptualLoss, 'lpips', 'perceptual'),
        (ReconstructionMetric, 'torchmetrics', 'metrics'),
    ],
)
def test_a_missing_library_is_one_line_that_names_the_extra(make, library, extra, monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [Hidden(library), *sys.meta_path])
    with pytest.raises(ConfigError, match=rf"needs the library {library}, .*: pip install 'ldae\[{extra}\]'"):
        make()


class Hidden:
    """A finder that finds that a library is not installed."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, path=None, target=None):
        if name.partition('.')[0] == self.library:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
