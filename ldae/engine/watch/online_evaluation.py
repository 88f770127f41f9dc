# SPDX-License-Identifier: Apache-2.0
"""Score the features while pre-training runs."""

import time
from collections.abc import Sequence
from functools import partial

import torch
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldae.engine.hook import NO_DATA, Batch, LDAEHook
from ldae.evaluation.features import extract_features, pooled_features
from ldae.evaluation.knn import check_classes
from ldae.evaluation.probe_data import build_bounded_dataloader, labelled_dataset
from ldae.evaluation.protocol import PROTOCOL, Temperature, score_knn, score_linear
from ldae.registry import HOOKS
from ldae.utils import ConfigError, PositiveInt, checked
from ldae.utils.models import evaluating, unwrapped
from ldae.utils.rng import preserved_rng

Labelled = tuple[Tensor, Tensor]


@HOOKS.register_module()
class OnlineEvaluationHook(LDAEHook):
    """k-NN and linear accuracy of the average-pooled encoder features, from one pass over the images, after every
    ``interval`` epochs or steps and after the last.

    Logs ``knn/top1`` and ``linear/top1`` in percent, and what it costs: ``online/seconds``, and ``online/share``, the
    percentage of the training time so far that all evaluations took. Neither the random streams nor the model's mode
    are any different afterwards, so training goes the same way with and without the hook. In a distributed run the
    ranks share the images. Raises ConfigError for an option out of range, or more neighbours than images; without
    images or labels the hook is left out.

    Args:
        train_dataloader: Config of the labelled images that vote and that the linear layer learns from; the training
            pipeline's augmentation has no place here. A sampler that doesn't shuffle is the default.
        test_dataloader: Config of the labelled images to classify.
        k: Number of neighbours; None for no k-NN.
        linear_epochs: Epochs that linear layers are trained for; None for no linear probe.
        temperature, lrs, weight_decays: As of :class:`ldae.evaluation.protocol.Protocol`, of which these are overrides.
        interval: Epochs or steps between evaluations.
        by_epoch: Whether ``interval`` counts epochs; False for steps, as a loop by iterations needs.
        max_train_images, max_test_images: Upper bounds, for a bounded cost; a fixed choice of that many, by class.
    """

    # After the checkpoint hooks, so that a failure here costs no checkpoint.
    priority = 'LOWEST'
    after_checkpoint = True
    #: What the cost is logged under.
    name = 'online'

    @checked
    def __init__(
        self,
        train_dataloader: dict | None,
        test_dataloader: dict | None,
        k: PositiveInt | None = PROTOCOL.k,
        temperature: Temperature = PROTOCOL.temperature,
        linear_epochs: PositiveInt | None = PROTOCOL.epochs,
        lrs: Sequence[float] = PROTOCOL.lrs,
        interval: PositiveInt = 1,
        by_epoch: bool = True,
        max_train_images: PositiveInt = 50_000,
        max_test_images: PositiveInt = 10_000,
        weight_decays: Sequence[float] = PROTOCOL.weight_decays,
    ) -> None:
        me = type(self).__name__
        if k is None and linear_epochs is None:
            raise ConfigError(f'{me}: k=None and linear_epochs=None leave nothing to evaluate: set one')
        if k is not None and k > max_train_images:
            raise ConfigError(f'{me}.k={k} exceeds max_train_images={max_train_images}: lower k')
        self.configs = (train_dataloader, max_train_images), (test_dataloader, max_test_images)
        self.with_knn, self.with_linear = k is not None, linear_epochs is not None
        chosen = dict(k=k or PROTOCOL.k, temperature=temperature, epochs=linear_epochs or PROTOCOL.epochs)
        self.protocol = PROTOCOL.replace(**chosen, lrs=lrs, weight_decays=weight_decays)
        self.interval, self.by_epoch = interval, by_epoch
        self.dataloaders: list[DataLoader] | None = None
        self._start = self._spent = 0.0

    def before_train(self, runner: Runner) -> None:
        """Build the data now: a missing folder is better found before the first step than after an epoch."""
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            runner.logger.warning(
                f'{type(self).__name__}: a loop by iterations has one epoch, at whose end the evaluation comes: set '
                'by_epoch=False, and interval in steps, for more'
            )
        if self.dataloaders is None:
            with preserved_rng():
                self._build_data(runner)
        self._start, self._spent = time.perf_counter(), 0.0

    def _build_data(self, runner: Runner) -> None:
        try:
            datasets = [labelled_dataset(cfg) for cfg, _ in self.configs]
        except NO_DATA as error:
            self.leave_out(runner, error)
            return
        self.dataloaders = [
            build_bounded_dataloader(dict(cfg, dataset=dataset), limit)
            for dataset, (cfg, limit) in zip(datasets, self.configs, strict=True)
        ]

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and self.is_due(runner, self.interval):
            self._evaluate_and_log(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, **step: Batch) -> None:
        if not self.by_epoch and self.is_due(runner, self.interval, by_epoch=False):
            self._evaluate_and_log(runner)

    def _evaluate_and_log(self, runner: Runner) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # steps that the device still works on are not this hook's cost
        start = time.perf_counter()
        scores = self.evaluate(runner)
        now = time.perf_counter()
        self._spent += now - start
        share = 100 * self._spent / max(now - self._start, self._spent)
        self._log(runner, scores, {f'{self.name}/seconds': now - start, f'{self.name}/share': share})

    @torch.no_grad()
    def evaluate(self, runner: Runner) -> dict[str, float]:
        """Accuracies in percent of the model as it is: ``knn/top1`` and ``linear/top1``, those that are asked for."""
        model = unwrapped(runner.model)
        with evaluating(model), preserved_rng():
            train, test = [self._features(model, loader) for loader in self.dataloaders]
        check_classes(train[1], test[1])
        scores = {}
        if self.with_knn:
            scores['knn/top1'] = score_knn(self.protocol, *train, *test)[self.protocol.k]
        if self.with_linear:
            sets = {'': train[0]}, train[1], {'': test[0]}, test[1]
            scores['linear/top1'] = score_linear(self.protocol, *sets)[''].accuracy
        return scores

    def _features(self, model: nn.Module, dataloader: DataLoader) -> Labelled:
        preprocess = partial(model.data_preprocessor, training=False)
        encode = partial(pooled_features, model)
        rows, labels = extract_features(encode, dataloader, preprocess, desc='online evaluation')
        device = next(model.parameters()).device
        return rows.to(device), labels.to(device)

    def _log(self, runner: Runner, scores: dict[str, float], cost: dict[str, float]) -> None:
        done, total = (runner.epoch + 1, runner.max_epochs) if self.by_epoch else (runner.iter + 1, runner.max_iters)
        runner.message_hub.update_scalars(scores | cost)
        runner.visualizer.add_scalars(scores | cost, step=done)
        names = {'knn/top1': f'{self.protocol.k}-NN', 'linear/top1': 'linear'}
        found = ', '.join(f'{names[key]} top-1: {score:.2f}%' for key, score in scores.items())
        seconds, share = cost.values()
        unit = 'Epoch' if self.by_epoch else 'Iter'
        runner.logger.info(
            f'{unit} [{done}/{total}]  online {found}  ({seconds:.1f} s; {share:.1f}% of the time so far; {self.protocol})'
        )


@HOOKS.register_module()
class OnlineKNNHook(OnlineEvaluationHook):
    """:class:`OnlineEvaluationHook` without the linear probe; logs ``knn/top1``, ``knn/seconds`` and ``knn/share``.
    Raises ConfigError for an option out of range, data without labels, or more neighbours than images.

    Args:
        train_dataloader, test_dataloader, k, temperature, interval, by_epoch, max_train_images, max_test_images: As there.
    """

    name = 'knn'

    def __init__(
        self,
        train_dataloader: dict,
        test_dataloader: dict,
        k: int = PROTOCOL.k,
        temperature: float | None = PROTOCOL.temperature,
        interval: int = 1,
        by_epoch: bool = True,
        max_train_images: int = 50_000,
        max_test_images: int = 10_000,
    ) -> None:
        limits = dict(max_train_images=max_train_images, max_test_images=max_test_images)
        when = dict(interval=interval, by_epoch=by_epoch)
        super().__init__(train_dataloader, test_dataloader, k, temperature, linear_epochs=None, **when, **limits)
