# SPDX-License-Identifier: Apache-2.0
"""Random numbers of a step that follow from the seed and the step's number, so that nothing has to be restored."""

from mmengine.dist import get_rank
from mmengine.runner import Runner

from ldae.engine.hook import Batch, LDAEHook
from ldae.registry import HOOKS
from ldae.utils.rng import seed_everything, seed_of


@HOOKS.register_module()
class StepSeedHook(LDAEHook):
    """Seed torch, numpy and Python before each training epoch and step, from the run's seed, the epoch's or step's number
    and, where ``randomness.diff_rank_seed`` is set, the rank.

    mmengine restores a resumed run's seed but not how far its random streams had got: noise that was drawn already
    would be drawn again. Here step i draws the same numbers whether or not the run was interrupted before it. What is
    drawn while data are read is seeded by sample (:class:`ldae.engine.resume.data_order.DataOrder`)."""

    # Before anything that may draw.
    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        self._seed(runner, f'epoch {runner.epoch}')  # of the first batch, where no worker reads it

    def before_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        self._seed(runner, f'step {runner.iter}')

    def _seed(self, runner: Runner, moment: str) -> None:
        rank = get_rank() if runner._randomness_cfg.get('diff_rank_seed') else 0
        seed_everything(seed_of(runner.seed, moment, rank))
