# SPDX-License-Identifier: Apache-2.0
"""How good are the features so far? Asked while pre-training runs."""

import time
from functools import partial

import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ldae.evaluation.features import extract_features, pooled_features
from ldae.evaluation.knn import check_classes, knn_classify
from ldae.registry import DATASETS, HOOKS
from ldae.utils import ConfigError, check_range
from ldae.utils.models import unwrapped
from ldae.utils.rng import preserved_rng


@HOOKS.register_module()
class OnlineKNNHook(Hook):
    """k-NN accuracy of the average-pooled encoder features after every ``interval`` epochs and after the last.

    Logs ``knn/top1`` in percent and ``knn/seconds``, its own cost. Neither the random streams nor the model's mode are
    any different afterwards, so training goes the same way with and without the hook. In a distributed run the ranks
    share the images.

    Args:
        train_dataloader: Config of the labelled images that vote; the training pipeline's augmentation has no place
            here. A sampler that doesn't shuffle is the default.
        test_dataloader: Config of the labelled images to classify.
        k: Number of neighbours.
        temperature: Of the weighted vote; None gives each neighbour one vote.
        interval: Epochs between evaluations.
        max_train_images, max_test_images: Upper bounds, for a bounded cost; a fixed random choice of that many is taken.

    Raises:
        ConfigError: For an option out of range, data without labels, or more neighbours than images.
    """

    # After the checkpoint hooks, so that a failure here costs no checkpoint.
    priority = 'LOWEST'

    def __init__(
        self,
        train_dataloader: dict,
        test_dataloader: dict,
        k: int = 20,
        temperature: float | None = 0.07,
        interval: int = 1,
        max_train_images: int = 50_000,
        max_test_images: int = 10_000,
    ) -> None:
        bounds = dict(
            k=k, interval=interval, max_train_images=max_train_images, max_test_images=max_test_images
        )
        for name, value in bounds.items():
            check_range(f'OnlineKNNHook.{name}', value, 1, kind=int)
        if k > max_train_images:
            raise ConfigError(f'OnlineKNNHook.k={k} exceeds max_train_images={max_train_images}: lower k')
        self.configs = (train_dataloader, max_train_images), (test_dataloader, max_test_images)
        self.k, self.temperature, self.interval = k, temperature, interval
        self.dataloaders: list[DataLoader] | None = None

    def before_train(self, runner: Runner) -> None:
        """Build the data now: a missing folder is better found before the first epoch than after it."""
        if self.dataloaders is None:
            with preserved_rng():
                self.dataloaders = [build_bounded_dataloader(cfg, limit) for cfg, limit in self.configs]

    def after_train_epoch(self, runner: Runner) -> None:
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            start = time.perf_counter()
            top1 = self.evaluate(runner)
            self._log(runner, top1, time.perf_counter() - start)

    @torch.no_grad()
    def evaluate(self, runner: Runner) -> float:
        """k-NN accuracy in percent of the model as it is."""
        model = unwrapped(runner.model)
        training = model.training
        model.eval()
        with preserved_rng():
            (train_x, train_y), (test_x, test_y) = [
                self._features(model, loader) for loader in self.dataloaders
            ]
        model.train(training)
        check_classes(train_y, test_y)
        device = next(model.parameters()).device
        return self._shared_accuracy(
            train_x.to(device), train_y.to(device), test_x.to(device), test_y.to(device)
        )

    def _features(self, model: nn.Module, dataloader: DataLoader) -> tuple[Tensor, Tensor]:
        preprocess = partial(model.data_preprocessor, training=False)
        return extract_features(partial(pooled_features, model), dataloader, preprocess, desc='online k-NN')

    def _shared_accuracy(self, train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> float:
        """Each rank classifies every W-th test image."""
        rank, world = get_dist_info()
        test_x, mine = test_x[rank::world], test_y[rank::world]
        correct = (
            knn_classify(train_x, train_y, test_x, self.k, self.temperature) == mine if len(mine) else mine
        )
        counts = correct.sum()
        all_reduce(counts)
        return 100 * counts.item() / len(test_y)

    def _log(self, runner: Runner, top1: float, seconds: float) -> None:
        scalars = {'knn/top1': top1, 'knn/seconds': seconds}
        runner.message_hub.update_scalars(scalars)
        runner.visualizer.add_scalars(scalars, step=runner.epoch + 1)
        runner.logger.info(
            f'Epoch [{runner.epoch + 1}/{runner.max_epochs}]  online {self.k}-NN top-1: {top1:.2f}%  ({seconds:.1f} s)'
        )


def build_bounded_dataloader(cfg: dict, max_images: int) -> DataLoader:
    """Build a data loader of at most ``max_images`` images, a random choice that is the same each time."""
    dataset = cfg['dataset']
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dataset)
    if len(dataset) > max_images:
        chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:max_images]
        dataset = Subset(dataset, chosen.sort().values.tolist())
    sampler = cfg.get('sampler', dict(type='DefaultSampler', shuffle=False))
    return Runner.build_dataloader(dict(cfg, dataset=dataset, sampler=sampler), seed=0)
