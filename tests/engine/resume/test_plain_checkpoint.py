# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from ldae.engine.resume.plain_checkpoint import PlainCheckpointHook, to_plain


def test_a_checkpoint_opens_with_safe_loading_and_its_history_comes_back(tmp_path):
    buffer = HistoryBuffer(max_length=100)
    for i in range(5):
        buffer.update(i / 2, count=2)
    checkpoint = dict(
        state_dict=dict(weight=torch.ones(2)),
        message_hub=dict(log_scalars={'train/loss': buffer}, runtime_info=dict(lr=np.float64(0.1), obj=object())),
        param_schedulers=[dict(base=np.arange(3))],
        optimizer=dict(param_groups=[ConfigDict(lr=0.1, betas=(0.9, 0.95))]),
    )
    hook = PlainCheckpointHook()
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'x.pth')
    loaded = torch.load(tmp_path / 'x.pth', weights_only=True)
    hook.after_load_checkpoint(None, loaded)
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    for old, new in zip(buffer.data, history.data, strict=True):
        np.testing.assert_array_equal(old, new)
    assert history.mean(3) == buffer.mean(3)
    assert loaded['message_hub']['runtime_info'] == dict(lr=0.1, obj=None)
    assert loaded['optimizer']['param_groups'] == [dict(lr=0.1, betas=(0.9, 0.95))]


def test_plain_values_stay_as_they_are():
    value = dict(a=[1, 2.5, 'x', None, True], b=(torch.ones(2),))
    plain = to_plain(value)
    assert plain['a'] == value['a']
    assert plain['b'][0] is value['b'][0]


def test_a_foreign_checkpoint_without_history_passes():
    checkpoint = dict(state_dict={})
    PlainCheckpointHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint == dict(state_dict={})
