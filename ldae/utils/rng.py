# SPDX-License-Identifier: Apache-2.0
"""Leave the random streams alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give Python's, numpy's and torch's generators (CPU and all GPUs) back the states they had.

    What runs inside, such as an evaluation in the middle of training, then doesn't change what is drawn after it.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        # Without CUDA in use there is no state to keep, and asking would create a context on every GPU.
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
