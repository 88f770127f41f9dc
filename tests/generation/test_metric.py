# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from mmengine.config import Config

import ldae
from ldae.config import load_config
from ldae.config.components import components_of
from ldae.generation import Extractor, FrechetMetric
from ldae.registry import METRICS
from ldae.utils import ConfigError

DEMO = 'ldae/demo_fashion-mnist'


def averages(images: list[np.ndarray]) -> torch.Tensor:
    """Features (b, 12)."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


AVERAGES = Extractor('averages', 'abc', averages)


@pytest.fixture
def pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and clean images (n, C, H, W) that are no whole numbers."""
    generator = torch.Generator().manual_seed(0)
    predicted, clean = (255 * torch.rand(150, 3, 6, 6, generator=generator) for _ in range(2))
    return predicted * 0.9, clean


def samples_of(pixels: tuple[torch.Tensor, torch.Tensor], **fields) -> list[dict]:
    pairs = enumerate(zip(*pixels, strict=True))
    return [dict(denoised_pixels=a, clean_pixels=b, sample_idx=number, **fields) for number, (a, b) in pairs]


@pytest.fixture
def expected(pixels) -> ldae.generation.Distances:
    arrays = [part.round().to(torch.uint8) for part in pixels]
    return ldae.frechet_distance(*arrays, features=AVERAGES)


@pytest.fixture
def metric(monkeypatch) -> FrechetMetric:
    monkeypatch.setattr('ldae.generation.metric.build_extractor', lambda *args: AVERAGES)
    return METRICS.build(dict(type='ldae.FrechetMetric', features='x'))


@pytest.mark.parametrize('batch', [1, 64, 150])
def test_figures_are_those_of_the_images(batch, metric, pixels, expected):
    samples = samples_of(pixels)
    for _ in range(2):  # as of a second validation
        for start in range(0, 150, batch):
            metric.process({}, samples[start : start + batch])
        found = metric.evaluate(150)
    names = ['distance', 'kernel_distance', 'precision', 'recall', 'images']
    assert list(found) == [f'frechet/{name}' for name in names]
    assert found['frechet/distance'] == pytest.approx(expected.frechet, rel=1e-9)
    assert found['frechet/kernel_distance'] == pytest.approx(expected.kernel)
    assert (found['frechet/precision'], found['frechet/recall']) == (expected.precision, expected.recall)
    assert found['frechet/images'] == 150


def test_processes_together_report_what_one_does(pixels, expected, monkeypatch):
    """149 images of 4 processes: a sampler gives the last three an image again that is another's."""
    module, world = 'ldae.generation.metric', 4
    monkeypatch.setattr(f'{module}.build_extractor', lambda *args: AVERAGES)
    monkeypatch.setattr(f'{module}.get_world_size', lambda: world)
    samples, states = samples_of(pixels)[:149], []
    for rank in range(world):
        monkeypatch.setattr(f'{module}.get_rank', lambda rank=rank: rank)
        metric = FrechetMetric(features='x')
        metric.process({}, (samples + samples)[rank:152:world])
        states.append([side.state() for side in metric.sides])
    assert [state[0][0] for state in states] == [38, 37, 37, 37]
    sides = iter([list(parts) for parts in zip(*states, strict=True)])
    monkeypatch.setattr(f'{module}.all_gather_object', lambda state: next(sides))
    found = metric.evaluate(149)
    arrays = [part[:149].round().to(torch.uint8) for part in pixels]
    alone = ldae.frechet_distance(*arrays, features=AVERAGES)
    assert found['frechet/images'] == 149
    assert found['frechet/distance'] == pytest.approx(alone.frechet, rel=1e-9)
    assert found['frechet/kernel_distance'] == pytest.approx(alone.kernel)


def test_few_images_are_told_in_the_log(metric, pixels, monkeypatch):
    logged = []
    monkeypatch.setattr('ldae.generation.metric.print_log', lambda text, *args: logged.append(text))
    metric.process({}, samples_of(pixels)[:20])
    metric.evaluate(20)
    assert 'Fréchet distance (averages): 20 images of denoised_pixels are fewer than 10 times the 12' in logged[0]
    assert logged[-1].startswith('Fréchet distance (averages), of 12 dimensions: ')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(), 'which features are compared'),
        (dict(inception='nowhere.pth'), 'nowhere.pth is not a file'),
        (dict(features='x.pth', subset=0), r'FrechetMetric\.subset=0 is out of range'),
    ],
)
def test_a_network_is_named_before_anything_is_computed(options, said):
    with pytest.raises(ConfigError, match=said):
        METRICS.build(dict(type='ldae.FrechetMetric', **options))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth'
    model = ldae.get_model(DEMO)
    model.tokenizer.fit([torch.randn(64, 1, 28, 28)])
    torch.save(dict(meta=dict(cfg=model._config.pretty_text), state_dict=model.state_dict()), path)
    return str(path)


def test_a_pre_training_is_tested_by_it(checkpoint, tmp_path):
    cfg = load_config(DEMO)
    cfg.work_dir = str(tmp_path)
    cfg.val_dataloader.dataset.indices = 60
    metric = dict(type='ldae.FrechetMetric', features=checkpoint)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator = cfg.test_evaluator = [dict(type='ldae.DenoisingMetric'), metric]
    list(components_of(cfg))
    found = ldae.evaluate(Config(cfg._cfg_dict.to_dict()), checkpoint, device='cpu')
    assert found['frechet/images'] == 60
    assert found['frechet/distance'] > 0
    assert 'frechet/fid' not in found
    assert found['denoising/psnr'] > 0


def test_predictions_are_pixels(checkpoint):
    model = ldae.get_model(checkpoint=checkpoint, device='cpu')
    images = 3 * torch.randn(2, 1, 28, 28)
    for sample in model.predict(images):
        assert torch.equal(sample.denoised_pixels, model.to_pixels(sample.denoised.unsqueeze(0))[0])
        assert 0 <= sample.clean_pixels.min() <= sample.clean_pixels.max() <= 255
