# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ldae.engine import OnlineKNNHook
from ldae.utils import ConfigError


def test_it_is_the_online_evaluation_without_linear_layers(make_runner, make_dataloader, tmp_path):
    make_runner([OnlineKNNHook(make_dataloader(100), make_dataloader(50, 'test'), k=5)], epochs=1).train()
    lines = [json.loads(line) for line in next(tmp_path.rglob('scalars.json')).read_text().splitlines()]
    (line,) = [line for line in lines if 'knn/top1' in line]
    assert set(line) == {'knn/top1', 'knn/seconds', 'knn/share', 'step'}


def test_bad_options_name_it(make_dataloader):
    with pytest.raises(ConfigError, match='OnlineKNNHook.k=0'):
        OnlineKNNHook(make_dataloader(10), make_dataloader(10), k=0)
