# SPDX-License-Identifier: Apache-2.0
"""Report images that could not be read."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ldae.datasets.image_folder import ImageFolder, check_share, describe_bad
from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS
from ldae.utils.files import atomic_write_text

FILENAME = 'bad_images.txt'
SHOWN = 20


@HOOKS.register_module()
class BadImagesHook(LDAEHook):
    """Count the images that were replaced because they can't be read, over workers and processes.

    After each epoch, and after each validation or test, one line says how many; their paths go to ``bad_images.txt``
    beside the log, and into the log after the run. Raises ConfigError if, over all processes, more images are bad than
    ``max_bad`` of the data set allows."""

    priority = 'BELOW_NORMAL'

    def __init__(self) -> None:
        self._found: dict[str, dict[str, str]] = {}

    def after_train_epoch(self, runner: Runner) -> None:
        self._collect(runner, 'training', runner.train_dataloader.dataset)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._collect(runner, 'validation', runner.val_dataloader.dataset)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._collect(runner, 'test', runner.test_dataloader.dataset)

    def _collect(self, runner: Runner, what: str, dataset: Dataset) -> None:
        for folder in image_folders(dataset):
            bad = dict(pair for found in all_gather_object(folder.bad_images()) for pair in found.items())
            if not bad:
                continue
            runner.logger.warning(
                # The step's number also keeps mmengine's logger from taking the line for a repetition.
                f'{what}, step {runner.iter}: {describe_bad(bad, len(folder))} cannot be read; the next good one stood in'
            )
            paths = {folder.get_data_info(i)['img_path']: bad[i] for i in sorted(bad)}
            self._found.setdefault(what, {}).update(paths)
            self._write(Path(runner.log_dir))
            check_share(folder, bad)

    def _write(self, folder: Path) -> None:
        if is_main_process():
            found = [pair for paths in self._found.values() for pair in paths.items()]
            lines = [f'{path}\t{reason}\n' for path, reason in found]
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write_text(folder / FILENAME, ''.join(lines))

    def after_run(self, runner: Runner) -> None:
        """The report: how many, and which."""
        for what, paths in self._found.items():
            listed = [f'  {path} {reason}' for path, reason in list(paths.items())[:SHOWN]]
            more = [f'  ... all in {Path(runner.log_dir) / FILENAME}'] if len(paths) > SHOWN else []
            head = f'{len(paths):,} {what} images could not be read:'
            runner.logger.warning('\n'.join([head, *listed, *more]))


def image_folders(dataset: Dataset) -> Iterator[ImageFolder]:
    """The folders of images in a data set, which others may wrap or join."""
    if isinstance(dataset, ImageFolder):
        yield dataset
    inner = [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())]
    for child in inner:
        if child is not None and child is not dataset:
            yield from image_folders(child)
