# SPDX-License-Identifier: Apache-2.0
"""Score the features by k-NN alone while pre-training runs."""

from ldae.evaluation.protocol import PROTOCOL
from ldae.registry import HOOKS

from .online_evaluation import OnlineEvaluationHook


@HOOKS.register_module()
class OnlineKNNHook(OnlineEvaluationHook):
    """:class:`OnlineEvaluationHook` without the linear probe; logs ``knn/top1``, ``knn/seconds`` and ``knn/share``.

    Args:
        train_dataloader, test_dataloader, k, temperature, interval, by_epoch, max_train_images, max_test_images: As there.

    Raises:
        ConfigError: For an option out of range, data without labels, or more neighbours than images.
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
        super().__init__(
            train_dataloader,
            test_dataloader,
            k,
            temperature,
            linear_epochs=None,
            interval=interval,
            by_epoch=by_epoch,
            max_train_images=max_train_images,
            max_test_images=max_test_images,
        )
