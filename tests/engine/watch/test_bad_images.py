# SPDX-License-Identifier: Apache-2.0
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.utils.data import ConcatDataset

from ldae.datasets import ImageFolder
from ldae.engine import BadImagesHook
from ldae.engine.watch import bad_images
from ldae.engine.watch.bad_images import image_folders
from ldae.utils import ConfigError

PIPELINE = [dict(type='ldae.LoadImage'), dict(type='PackInputs')]


@pytest.fixture
def dataset(tiny_image_folder: Path) -> ImageFolder:
    """16 images: the second is empty, the last no image."""
    (tiny_image_folder / 'train' / 'a' / '1.jpg').write_bytes(b'')
    (tiny_image_folder / 'train' / 'b' / '7.jpg').write_text('no image')
    return ImageFolder(str(tiny_image_folder), pipeline=PIPELINE, max_bad=0.5)


def runner_of(dataset: object, tmp_path: Path) -> SimpleNamespace:
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(
        iter=7,
        train_dataloader=loader,
        val_dataloader=loader,
        log_dir=str(tmp_path / 'log'),
        logger=logging.getLogger('test'),
    )


def test_an_epoch_ends_with_one_line_and_a_run_with_the_paths(
    dataset: ImageFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    hook, runner = BadImagesHook(), runner_of(dataset, tmp_path)
    for i in range(len(dataset)):
        dataset[i]
    hook.after_train_epoch(runner)
    hook.after_val_epoch(runner, {})
    counts = '2 of 16 images (1 is empty, 1 is not a readable image) cannot be read; the next good one stood in'
    assert [record.getMessage() for record in caplog.records] == [
        f'training, step 7: {counts}',
        f'validation, step 7: {counts}',
    ]
    caplog.clear()
    hook.after_run(runner)
    report = caplog.records[0].getMessage().splitlines()
    assert report[0] == '2 training images could not be read:'
    assert [line.rpartition('/')[2] for line in report[1:]] == ['1.jpg is empty', '7.jpg is not a readable image']
    listed = (tmp_path / 'log' / 'bad_images.txt').read_text().splitlines()
    assert listed[0].endswith('a/1.jpg\tis empty')
    assert len(listed) == 4


def test_good_data_are_not_talked_about(tiny_image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    hook, runner = (BadImagesHook(), runner_of(ImageFolder(str(tiny_image_folder), pipeline=PIPELINE), tmp_path))
    runner.train_dataloader.dataset[0]
    hook.after_train_epoch(runner)
    hook.after_run(runner)
    assert not caplog.records
    assert not (tmp_path / 'log').exists()


def test_what_other_processes_found_counts_too(dataset: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset[1]
    others = dict.fromkeys(range(2, 10), 'is truncated')
    monkeypatch.setattr(bad_images, 'all_gather_object', lambda mine: [mine, others])
    with pytest.raises(ConfigError, match=r'1\.jpg is empty and so are 8 more; of 16 images, max_bad=0.5 may be so'):
        BadImagesHook().after_train_epoch(runner_of(dataset, tmp_path))


def test_folders_are_found_inside_other_data_sets(dataset: ImageFolder):
    wrapped = SimpleNamespace(dataset=ConcatDataset([dataset, [1, 2]]))
    assert list(image_folders(wrapped)) == [dataset]
    assert list(image_folders([1, 2])) == []
