# SPDX-License-Identifier: Apache-2.0
"""Figures by name: what is drawn agrees with what it is drawn from, and what can't be drawn is one line."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

import ldae
from ldae.cli import figures as tool
from ldae.cli import run_tool
from ldae.config.rows import list_rows
from ldae.evaluation.protocol import PROTOCOL
from ldae.models.tokenizers.base import Geometry, save_tokenizer
from ldae.reports import FIGURES, Options, Source, draw_figures
from ldae.reports.figures import principal_colours
from ldae.reports.sources import normalised
from ldae.utils import ConfigError
from ldae.utils.optional import import_extra
from ldae.visualization import save_figure


class FirstTwo:
    """In the place of UMAP."""

    def __init__(self, random_state: int, n_neighbors: int, n_jobs: int) -> None:
        assert n_neighbors > 1

    def fit_transform(self, rows: np.ndarray) -> np.ndarray:
        return rows[:, :2]


OF_A_MODEL = {
    'filters',
    'variance',
    'noise',
    'denoised',
    'bound',
    'reconstruction',
    'attention',
    'features',
    'neighbours',
    'embedding',
}


@pytest.fixture(scope='module')
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an ablation: two seeds of two rows, one of others."""
    folder = tmp_path_factory.mktemp('study')
    rows = [
        ('t2_pca_d32', 0, 80.0, 8),
        ('t2_pca_d32', 1, 82.0, 8),
        ('t2_pca_d8', 0, 70.0, 2),
        ('t1_5_linear-schedule', 0, 79.0, 4),
    ]
    base = dict(config='c', knn=50.0, protocol=PROTOCOL.as_dict(), tokenizer='PatchPCATokenizer', scale='tiny')
    about = dict(name='FD', sampler='ddim', steps=2, samples=9, reference=9)
    lines = [
        base
        | dict(
            row=row,
            seed=seed,
            linear=linear,
            latent_dim=dim,
            pretraining=row,
            generation=dict(about, frechet=100 - linear),
        )
        for row, seed, linear, dim in rows
    ]
    (folder / 'results.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return folder


@pytest.fixture(scope='module')
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('probe')
    row = dict(input='clean', knn={'20': 60.0}, lr=0.1, weight_decay=0.0)
    results = [row | dict(block=block, timestep=t, linear=50.0 + block + t) for block in (1, 2) for t in (10, 20)]
    (folder / 'probe.json').write_text(json.dumps(dict(results=results)))
    return folder


def drawn(*runs: Path, **options) -> dict[str, object]:
    return dict(draw_figures(Source(runs, **options)))


def test_the_table_of_figures_is_that_of_the_tool():
    assert tuple(FIGURES) == tool.NAMES
    assert all(hasattr(Source, need) for figure in FIGURES.values() for need in figure.needs)
    assert all('win' in figure.caption for figure in FIGURES.values()), 'a caption names the twin in the paper'


def test_all_that_a_checkpoint_allows_is_drawn_and_the_rest_has_a_reason(small_checkpoint, tiny_image_folder, tmp_path):
    found = drawn(small_checkpoint, images=tiny_image_folder, count=2)
    assert {name for name, figure in found.items() if not isinstance(figure, str)} == {'schedules', *OF_A_MODEL}
    assert found['timesteps'] == f'no probe.json in {small_checkpoint}'
    assert [axes.get_title() for axes in found['attention'].axes] == [
        'picture',
        'block 3, mean',
        'head 1',
        'head 2',
        'head 3',
    ]
    for name in OF_A_MODEL:
        array = np.asarray(Image.open(save_figure(found[name], tmp_path / f'{name}.png')))
        assert array.std() > 0
        # Nothing is cut off: the edges are white.
        assert all((edge == 255).all() for edge in (array[0], array[-1], array[:, 0], array[:, -1])), name


def test_each_query_is_another_picture(small_checkpoint, tiny_image_folder):
    [(_, figure)] = draw_figures(Source([small_checkpoint], tiny_image_folder / 'val/a'), ['neighbours'])
    first = [axes.images[0].get_array() for axes in figure.axes[::4]]
    assert len(first) == 4
    assert len({image.tobytes() for image in first}) == 4
    assert all(axes.get_title() == '' for axes in figure.axes), 'one folder is no class'


@pytest.mark.parametrize('umap', [None, SimpleNamespace(UMAP=FirstTwo), ImportError])
def test_features_are_embedded_by_what_is_installed(umap, small_ldae, tiny_image_folder, monkeypatch):
    def imported(module: str, extra: str, user: str):
        if module == 'umap' and umap is ImportError:
            raise ImportError('numba needs another numpy')
        return import_extra(module, extra, user)

    monkeypatch.setitem(sys.modules, 'umap', umap)
    monkeypatch.setattr(sys.modules['ldae.reports.figures'], 'import_extra', imported)
    source = Source([small_ldae], tiny_image_folder)
    [(_, figure)] = draw_figures(source, ['embedding'])
    method = 'UMAP' if isinstance(umap, SimpleNamespace) else 't-SNE'
    assert figure.axes[0].get_title().startswith(f'{method} of ')
    if umap is None:
        monkeypatch.setitem(sys.modules, 'sklearn.manifold', None)
        with pytest.raises(ConfigError, match='the figure embedding needs the library sklearn.*pip install'):
            list(draw_figures(source, ['embedding']))


def test_noise_of_sigma_0_leaves_pixels_and_what_latents_keep(small_ldae, rgb):
    [(_, figure)] = draw_figures(Source([small_ldae], [rgb]), ['noise'], Options(sigma=0.0))
    clean, pixels, latents = (axes.images[0].get_array() for axes in figure.axes)
    np.testing.assert_array_equal(clean, pixels)
    images = Source([small_ldae], [rgb]).images
    kept = small_ldae.to_pixels(small_ldae.tokenizer.decode(small_ldae.tokenizer.encode(images)))[0, 0]
    np.testing.assert_allclose(latents[..., 0], kept, atol=0.51)


def test_a_reconstruction_by_all_dimensions_is_the_last(small_ldae, rgb):
    [(_, figure)] = draw_figures(Source([small_ldae], [rgb]), ['reconstruction'])
    titles = [axes.get_title().split('\n') for axes in figure.axes[1:]]
    assert [title[1] for title in titles] == [f'd = {d}' for d in (1, 2, 4, 8)]
    psnr = [float(title[2].removesuffix(' dB')) for title in titles]
    assert psnr == sorted(psnr)


def test_colours_are_principal_components():
    tokens = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 2, 1, 1, 1]) + 7
    expected = PCA(3).fit_transform(tokens.flatten(0, 1).double().numpy())
    found = principal_colours(tokens).flatten(0, 1).numpy()
    for mine, theirs in zip(found.T, expected.T, strict=True):
        inside = (mine > 0) & (mine < 255)
        assert inside.mean() > 0.95
        assert abs(np.corrcoef(mine[inside], theirs[inside])[0, 1]) == pytest.approx(1, abs=1e-6)


def test_results_stand_beside_the_papers_own(study):
    found = drawn(study)
    assert {name for name in found if not isinstance(found[name], str)} == {
        'schedules',
        'dimension',
        'road',
        'rows',
        'distance',
    }
    ours, papers = found['road'].axes
    assert papers.get_title() == "the paper's: ImageNet"
    widths = {
        label.get_text(): bar.get_width() for label, bar in zip(ours.get_yticklabels(), ours.patches, strict=True)
    }
    assert {label: width for label, width in widths.items() if width} == {
        '+ replace noise schedule': 79.0,
        'patch-wise PCA, d = 32': 81.0,
    }
    # Tables 1 to 3 of the paper, in its order.
    steps = [57.5, 62.5, 58.4, 59.0, 63.4, 64.9, 64.7, 65.1, 62.4, 63.6, 63.6, 63.9, 64.5]
    assert [bar.get_width() for bar in papers.patches] == steps
    ours, papers = found['dimension'].axes
    assert list(zip(*ours.lines[0].get_data(), strict=True)) == [(2, 70.0), (8, 81.0)]
    curves = {
        text.get_text(): line for text, line in zip(papers.get_legend().get_texts(), papers.lines[::3], strict=True)
    }
    assert list(curves) == ['ConvVAE', 'PatchVAE', 'PatchAE', 'PatchPCA']
    assert {row.paper_linear for row in list_rows('table2')} >= set(curves['PatchAE'].get_ydata())
    ours, _ = found['distance'].axes
    assert sorted(ours.lines[0].get_ydata()) == [70.0, 79.0, 81.0]


def test_the_axis_runs_from_mae_to_ldae_with_the_spread_over_seeds(tmp_path):
    scores = {
        'axis_mae': (60.0, 62.0),
        'axis_share75_t999': (63.0, 63.0),
        'axis_share75_t500': (64.0, 66.0),
        'axis_share75': (70.0, 74.0),
        'axis_share25': (50.0, 54.0),
        'axis_ldae': (77.0, 79.0),
        't3_5_original-image': (10.0, 11.0),
    }
    base = dict(
        config='c', knn=50.0, protocol=PROTOCOL.as_dict(), tokenizer='PatchPCATokenizer', scale='tiny', latent_dim=8
    )
    lines = [
        base | dict(row=row, seed=i, linear=x, pretraining=row) for row, xs in scores.items() for i, x in enumerate(xs)
    ]
    (tmp_path / 'results.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    [axes] = drawn(tmp_path)['axis'].axes
    curves = dict(zip((text.get_text() for text in axes.get_legend().get_texts()), axes.containers, strict=True))
    found = {}
    for name, (line, _, [bars]) in curves.items():
        low, high = np.array(bars.get_segments())[:, :, 1].T
        found[name] = [*zip(*line.get_data(), ((high - low) / 2).round(3), strict=True)]
    deviation = round(2**0.5, 3)  # of two values that are 2 apart
    assert found == {
        'hidden': [(75, 61.0, deviation)],
        't = 999': [(75, 63.0, 0)],
        't = 500': [(75, 65.0, deviation)],
        'a level that is drawn': [(25, 52.0, 2 * deviation), (75, 72.0, 2 * deviation), (100, 78.0, deviation)],
    }
    assert {text.get_text(): text.xy for text in axes.texts} == {'MAE': (75, 61.0), 'l-DAE': (100, 78.0)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('share of the tokens noised (%)', 'linear probe, top-1 (%)')


def test_a_probe_is_drawn_by_time_step_and_block(probe):
    found = drawn(probe)
    assert {name for name in found if not isinstance(found[name], str)} == {'schedules', 'timesteps', 'blocks'}
    np.testing.assert_array_equal(found['timesteps'].axes[0].lines[0].get_data(), [(10, 20), (62.0, 72.0)])
    assert ldae.Run(probe).figures(['blocks']).keys() == {'blocks'}


def test_the_levels_of_a_log_are_its_curves(tmp_path):
    log = tmp_path / 'part/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [{'step': epoch, 'denoising/psnr_t100': 20.0 + epoch, 'denoising/psnr_t1000': 10.0} for epoch in (1, 2)]
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines) + '{"step": 3, "denois')
    axes = ldae.figures(tmp_path, ['levels'])['levels'].axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['t = 100', 't = 1000']
    np.testing.assert_array_equal(axes.lines[0].get_data(), [(1, 2), (21.0, 22.0)])


def test_a_tokenizers_file_says_its_shapes_itself(small_ldae, tmp_path):
    save_tokenizer(small_ldae.tokenizer, tmp_path / 'tokenizer_1.pth')
    figure = ldae.figures(tmp_path / 'tokenizer_1.pth', ['filters'])['filters']
    assert [axes.get_title() for axes in figure.axes] == ['PCA, d = 8', 'DCT, d = 8']
    assert ldae.figures(tmp_path, ['filters']).keys() == {'filters'}, 'of a training that has no checkpoint yet'


def test_pictures_for_a_tokenizer_of_bands_are_one_line(rgb):
    with pytest.raises(ConfigError, match='4 bands does not say how they are normalised: name the checkpoint'):
        normalised([rgb], Geometry(16, 8, 4, 6))


def test_a_pca_of_ones_own_pictures_needs_no_run(rgb, tmp_path):
    Image.fromarray(np.kron(rgb, np.ones((8, 8, 1), np.uint8))).save(tmp_path / 'a.png')
    figure = ldae.figures(names=['noise'], images=tmp_path / 'a.png')['noise']
    assert figure.axes[-1].get_title() == 'noise in latents\nPCA, d = 32'


def broken(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ('kind', 'names', 'part'),
    [
        ('empty', ['loss'], 'holds nothing that figures are drawn from'),
        ('absent', ['loss'], 'absent does not exist: name a work dir'),
        ('foreign', ['loss'], 'holds nothing'),
        ('probe', ['timesteps'], 'probe.json is not a result of ldae probe'),
        ('words', ['timesteps'], 'linear must be'),
        ('checkpoint', ['attention'], 'is not a checkpoint file'),
        ('study', ['road'], "no row of the paper's tables in"),
        ('comparison', ['encoders'], 'comparison.json is not a result of ldae compare'),
        ('empty', ['rode'], "did you mean 'road'"),
    ],
)
def test_a_run_that_is_none_is_one_clear_line(kind, names, part, tmp_path, capsys):
    folder = tmp_path / kind
    row = dict(input='clean', knn={'20': 60.0}, lr=0.1, weight_decay=0.0, block=1, timestep=1, linear='<b>')
    if kind != 'absent':
        folder.mkdir()
    files = dict(foreign=('notes.txt', 'x'), probe=('probe.json', '{"results": 3}'), checkpoint=('epoch_1.pth', 'x'))
    files |= dict(words=('probe.json', json.dumps(dict(results=[row]))), study=('results.jsonl', '{"row"'))
    files |= dict(comparison=('comparison.json', '{"encoders": {"a": {"label": 3}}}'))
    if kind in files:
        broken(folder, *files[kind])
    assert run_tool('figures', [*names, '--run', str(folder), '--out', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert part in error


def test_a_program_is_not_run(tmp_path):
    (tmp_path / 'config.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")\nmodel = dict()')
    with pytest.raises(ConfigError, match='config.py is neither a work dir nor a checkpoint'):
        ldae.figures(tmp_path / 'config.py', ['filters'])
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('words', ['--count 0', '--sigma -1', '--seed -3'])
def test_numbers_out_of_range_are_one_line(words, capsys):
    assert run_tool('figures', ['schedules', *words.split()]) == 2
    assert f'error: {words.replace(" ", "=").removesuffix(".0")}' in capsys.readouterr().err.replace('-1.0', '-1')


def test_the_tool_writes_each_format_and_replaces_nothing(study, tmp_path, capsys):
    argv = ['--all', str(study), '--out', str(tmp_path), '--format', 'png', 'svg']
    assert run_tool('figures', argv) == 0
    out = capsys.readouterr().out
    assert f'written: {tmp_path}/road.svg' in out
    assert f'left out: timesteps: no probe.json in {study}' in out
    assert (tmp_path / 'road.svg').read_text().startswith('<?xml')
    assert Image.open(tmp_path / 'road.png').size[0] > 1000
    assert run_tool('figures', argv) == 2
    assert re.search(r'schedules.png exists: .*--force', capsys.readouterr().err)
    with pytest.raises(ConfigError, match='name a run'):
        ldae.figures(names=['road'])
