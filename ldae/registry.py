# SPDX-License-Identifier: Apache-2.0
"""The ``ldae`` scope: child registries of mmpretrain's.

``type='ldae.X'`` resolves in any mmpretrain config once this package is installed, because mmengine imports
``<scope>.registry`` by itself and each registry names the modules (``locations``) that fill it."""

from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from mmpretrain.registry import HOOKS as MMPRETRAIN_HOOKS
from mmpretrain.registry import METRICS as MMPRETRAIN_METRICS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.registry import TRANSFORMS as MMPRETRAIN_TRANSFORMS

MODELS = Registry('model', parent=MMPRETRAIN_MODELS, scope='ldae', locations=['ldae.models'])
MODEL_WRAPPERS = Registry('model_wrapper', parent=MMENGINE_MODEL_WRAPPERS, scope='ldae', locations=['ldae.engine'])
DATASETS = Registry('dataset', parent=MMPRETRAIN_DATASETS, scope='ldae', locations=['ldae.datasets'])
TRANSFORMS = Registry('transform', parent=MMPRETRAIN_TRANSFORMS, scope='ldae', locations=['ldae.datasets'])
HOOKS = Registry('hook', parent=MMPRETRAIN_HOOKS, scope='ldae', locations=['ldae.engine'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='ldae', locations=['ldae.engine'])
METRICS = Registry('metric', parent=MMPRETRAIN_METRICS, scope='ldae', locations=['ldae.evaluation', 'ldae.generation'])
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='ldae', locations=['ldae.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, scope='ldae', locations=['ldae.engine']
)
FUNCTIONS = Registry('function', parent=MMENGINE_FUNCTIONS, scope='ldae', locations=['ldae.datasets'])

# A noise schedule is a function `(num_timesteps, **options) -> (gamma, sigma)`, see ldae/models/noisers/schedules.py.
NOISE_SCHEDULES = Registry('noise schedule', scope='ldae', locations=['ldae.models.noisers'])
