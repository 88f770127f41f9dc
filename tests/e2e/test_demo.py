# SPDX-License-Identifier: Apache-2.0
"""The demo, from its command line to its table, on a few hundred images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldae.ablation.comparison import LDAE_CONFIG, MAE_CONFIG
from ldae.ablation.demo import ROWS, set_epochs
from ldae.cli.demo import main
from ldae.config import load_config
from ldae.utils import ConfigError

TOOL = Path(__file__).parents[2] / 'tools' / 'demo.py'
ENCODERS = ['pixels', 'pca', 'untrained', 'ldae', 'mae']


@pytest.fixture(scope='module')
def quick_demo(tmp_path_factory):
    """Work dir and output of ``tools/demo.py --quick``."""
    work_dir = tmp_path_factory.mktemp('demo')
    command = [sys.executable, TOOL, '--quick', '--seed', '1', '--work-dir', work_dir]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    return work_dir, process.stdout


def test_results_hold_both_scores_of_all_encoders_in_percent(quick_demo):
    results = json.loads((quick_demo[0] / 'results.json').read_text())
    assert list(results['encoders']) == ENCODERS
    for row in results['encoders'].values():
        assert list(row) == ['knn', 'linear']
        assert all(10 <= value <= 100 for value in row.values())
    assert results['seed'] == 1
    assert results['epochs'] == 2
    assert results['timestep'] == load_config(LDAE_CONFIG).model.backbone.timestep


def test_the_table_shows_what_results_json_holds(quick_demo):
    work_dir, output = quick_demo
    results = json.loads((work_dir / 'results.json').read_text())
    labels = {
        name: row['label'] for name, row in json.loads((work_dir / 'comparison.json').read_text())['encoders'].items()
    }
    for key, row in results['encoders'].items():
        line = next(line for line in output.splitlines() if line.startswith(labels[ROWS[key]]))
        assert f' {row["knn"]:.1f} {row["linear"]:.1f} ' in ' '.join(line.split())


def test_online_accuracy_and_time_left_are_logged_while_training(quick_demo):
    assert quick_demo[1].count('online 20-NN top-1:') == 2
    assert 'eta:' in quick_demo[1]


def test_pictures_are_there(quick_demo):
    for name in ('denoising.png', 'pca_filters.png', 'ldae/seed1/pictures/epoch_2.png'):
        image = Image.open(quick_demo[0] / name).convert('L')
        assert min(image.size) > 100
        assert image.getextrema()[1] > image.getextrema()[0]


def test_the_encoder_is_kept_as_a_checkpoint_that_loads_safely(quick_demo):
    for name in ('ldae', 'mae'):
        checkpoint = torch.load(quick_demo[0] / name / 'seed1' / 'epoch_2.pth', weights_only=True)
        assert any(key.startswith('backbone.') for key in checkpoint['state_dict'])


def test_both_sides_have_the_same_data_budget_and_size():
    ldae, mae = load_config(LDAE_CONFIG), load_config(MAE_CONFIG)
    for key in ('train_dataloader', 'param_scheduler', 'data_preprocessor'):
        assert ldae[key] == mae[key]
    assert ldae.train_cfg.max_epochs == mae.train_cfg.max_epochs
    arch = mae.model.backbone.arch
    assert ldae.model.backbone.arch == arch
    assert mae.model.neck.decoder_embed_dim == arch.embed_dims
    assert mae.model.neck.decoder_depth == arch.num_layers
    assert ldae.model.tokenizer.patch_size == mae.model.backbone.patch_size


@pytest.mark.parametrize('epochs', [2, 5, 50])
def test_epochs_stretch_the_schedule(epochs):
    cfg = load_config(LDAE_CONFIG)
    set_epochs(cfg, epochs)
    warmup, cosine = cfg.param_scheduler
    assert warmup.end == cosine.begin == 1
    assert cosine.begin + cosine.T_max == cosine.end == cfg.train_cfg.max_epochs == epochs


@pytest.mark.parametrize('arguments', [['--epochs', '1'], ['--seed', '-1']])
def test_bad_options_are_one_clear_line(arguments):
    with pytest.raises(ConfigError, match=f'{arguments[0]}={arguments[1]}'):
        main(arguments)


def test_a_page_shows_all_of_it(quick_demo):
    work_dir, output = quick_demo
    page = (work_dir / 'report.html').read_text()
    assert (work_dir / 'report.html').resolve().as_uri() in output
    assert page.count('data:image/png;base64,') >= 3
    assert '2 trainings, and the options in which they differ' in page
