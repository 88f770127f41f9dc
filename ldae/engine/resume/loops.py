# SPDX-License-Identifier: Apache-2.0
"""mmengine's training loops, which can be stopped and resumed at any step."""

from collections.abc import Iterator, Mapping, Sequence

from mmengine.dist import get_rank
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.utils import calc_dynamic_intervals
from torch import nn
from torch.utils.data import DataLoader

from ldae.engine.hook import call_hooks
from ldae.registry import LOOPS

from .data_order import DataOrder, install_order, order_of

#: When a checkpoint was written: after a step, at the end of an epoch, after a validation.
STEP, EPOCH, VALIDATION = 'step', 'epoch', 'validation'
#: The loops in the place of mmengine's.
RESUMABLE = dict(EpochBasedTrainLoop='ldae.ResumableEpochLoop', IterBasedTrainLoop='ldae.ResumableIterLoop')


def resumable(train_cfg: Mapping) -> dict:
    """A config's ``train_cfg`` with our loop in the place of mmengine's; loops of other types are left alone."""
    options = dict(train_cfg)
    kind = options.get('type')
    if kind is None:
        kind = 'EpochBasedTrainLoop' if options.pop('by_epoch', True) else 'IterBasedTrainLoop'
    return dict(options, type=RESUMABLE.get(str(kind).removeprefix('mmengine.'), kind))


class Resumable:
    """The part that both loops share: the place in the data, and what was still to come when a checkpoint was written."""

    runner: Runner
    dataloader: DataLoader
    order: DataOrder
    moment: str | None = None

    def run(self) -> nn.Module:
        """Train."""
        try:
            self.runner.call_hook('before_train')
            self._train()
            self.runner.call_hook('after_train')
        except SystemExit:  # the end of the process
            raise
        except BaseException:
            call_hooks(self.runner, 'after_failure')
            raise
        self._end_reading()
        return self.runner.model

    def _train(self) -> None:
        """Do what is left to do, from what :meth:`restore` has said."""
        raise NotImplementedError

    def progress(self, moment: str) -> dict:
        """For a checkpoint written at one of :data:`STEP`, :data:`EPOCH` and :data:`VALIDATION`."""
        return dict(moment=moment, data=self.order.position())

    def restore(self, progress: dict) -> None:
        """Go on after what a checkpoint's :meth:`progress` describes; say what can't be exact."""
        self.moment = progress['moment']
        notes = self.order.move_to(progress['data'])
        if notes:
            self.runner.logger.warning(f'Resumed, but not bit for bit: {"; ".join(notes)}')

    def _end_reading(self) -> None:
        """Let go of persistent workers: a loader that garbage collection has to find can't tell its own to stop."""
        for loop in (self, self.runner.val_loop):
            loader = getattr(loop, 'dataloader', None)
            if getattr(loader, '_iterator', None) is not None:
                loader._iterator._shutdown_workers()
                loader._iterator = None

    def _take_order(self) -> None:
        # The seed that all processes share: the runner's own has the rank in it where they differ.
        is_own = self.runner._randomness_cfg.get('diff_rank_seed')
        seed = self.runner.seed - (get_rank() if is_own else 0)
        self.order = order_of(self.dataloader) or install_order(self.dataloader, seed)

    def _repeat(self, stage: str, **arguments) -> None:
        """Run hooks that come after the checkpoint is written, and so aren't part of it."""
        for hook in self.runner.hooks:
            if getattr(hook, 'after_checkpoint', False):
                getattr(hook, stage)(self.runner, **arguments)

    def _repeat_step(self) -> None:
        self._iter -= 1
        self._repeat('after_train_iter', batch_idx=self._iter, data_batch=None, outputs=None)
        self._iter += 1

    def _validate_if_due(self, done: int, last: int) -> None:
        self._decide_current_val_interval()
        if self.runner.val_loop is None or done < self.val_begin:
            return
        if done % self.val_interval == 0 or done == last:
            self.runner.val_loop.run()


@LOOPS.register_module()
class ResumableEpochLoop(Resumable, EpochBasedTrainLoop):
    """mmengine's EpochBasedTrainLoop, which resumes in the middle of an epoch; options are mmengine's."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, max_epochs: int, **kwargs) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self._take_order()

    def _train(self) -> None:
        self._catch_up()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due(self._epoch, self._max_epochs)

    def _catch_up(self) -> None:
        moment, self.moment = self.moment, VALIDATION
        if moment is None:  # a new run, or a checkpoint without our notes
            self.order.epoch = self._epoch
            self.order.start = max(self._iter - self._epoch * len(self.order), 0) * self.order.batch_size
        elif moment == STEP:
            self._repeat_step()
        elif moment == EPOCH:
            self._epoch -= 1
            self._repeat('after_train_epoch')
            self._epoch += 1
            self._validate_if_due(self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        """The epoch, or what is left of it."""
        if self.order.epoch != self._epoch:
            self.order.epoch, self.order.start = self._epoch, 0
        self.order.taken, first = 0, self.order.first_batch()
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, batch in enumerate(self.dataloader if first < len(self.order) else (), first):
            self.order.taken += 1
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(Resumable, IterBasedTrainLoop):
    """mmengine's IterBasedTrainLoop, which doesn't read and throw away what it has trained on; options are mmengine's."""

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        # mmengine's own starts to read before it can know from where.
        BaseLoop.__init__(self, runner, dataloader)
        self._max_iters, self._max_epochs = int(max_iters), 1
        self._epoch = self._iter = 0
        self.val_begin, self.val_interval, self.stop_training = val_begin, val_interval, False
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        dynamic = calc_dynamic_intervals(val_interval, dynamic_intervals)
        self.dynamic_milestones, self.dynamic_intervals = dynamic
        self._take_order()

    def _train(self) -> None:
        self.runner.call_hook('before_train_epoch')  # the whole training is one
        self._catch_up()
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._validate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')

    def _catch_up(self) -> None:
        moment, self.moment = self.moment, VALIDATION
        if moment is None:
            passes, batches = (0, self._iter) if self.order.is_infinite else divmod(self._iter, len(self.order))
            self.order.epoch, self.order.start = passes, batches * self.order.batch_size
        elif moment == STEP:
            self._repeat_step()
            self._validate_if_due(self._iter, self._max_iters)

    def _batches(self) -> Iterator:
        while True:
            self.order.taken = 0
            for batch in self.dataloader:
                self.order.taken += 1
                yield batch
            self.order.epoch, self.order.start = self.order.epoch + 1, 0
