# SPDX-License-Identifier: Apache-2.0
"""Optimizers of models that are trained in more than one part."""

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapperDict
from torch import nn

from ldae.registry import OPTIM_WRAPPER_CONSTRUCTORS
from ldae.utils import ConfigError
from ldae.utils.models import unwrapped


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class AdversarialOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """One optimizer for a model's ``net`` and one, with the same options, for its ``adversarial`` loss, as LDM has them."""

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        model = unwrapped(model)
        if getattr(model, 'adversarial', None) is None:
            raise ConfigError(
                f'optim_wrapper: AdversarialOptimWrapperConstructor is for models with an adversarial loss, and this '
                f'{type(model).__name__} has none: set model.adversarial, or remove the constructor'
            )
        return OptimWrapperDict(**{name: self._part(getattr(model, name)) for name in ('net', 'adversarial')})

    def _part(self, module: nn.Module):
        # mmengine's constructor uses up the configs it is given.
        cfg = dict(self.optim_wrapper_cfg, optimizer=self.optimizer_cfg.copy())
        return DefaultOptimWrapperConstructor(cfg, self.paramwise_cfg)(module)
