# SPDX-License-Identifier: Apache-2.0
"""What a report finds in the folders of runs, also where they are broken, foreign or hostile, and what its page asks for."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ldae
from ldae.ablation.cost import training_cost
from ldae.ablation.report import MeanScore, Summary
from ldae.ablation.scheduler import Failure
from ldae.ablation.study import Outcome
from ldae.apis.models import get_model
from ldae.cli import report as tool
from ldae.config import load_config
from ldae.config.rows import list_rows
from ldae.evaluation.protocol import PROTOCOL
from ldae.reports import reporting
from ldae.reports.document import markdown, table
from ldae.utils import ConfigError
from ldae.visualization.figures import new_figure

HOSTILE = '<script>alert(1)</script>"\'&'
CHROMIUM = shutil.which('chromium')


class Reader(HTMLParser):
    """Tags, their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'img', 'link', 'br'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('script', 'style'):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return '\n'.join(self.texts)


def make_training(folder: Path, losses=(3.0, 2.0, 1.0), epochs: int = 3, name: str = 'vit-b_pca', **options) -> Path:
    data = folder / '20260101_000000/vis_data'
    data.mkdir(parents=True)
    lines = [
        json.dumps(dict(step=10 * i, epoch=i, iter=10 * i, loss=loss, time=0.5, lr=0.1))
        for i, loss in enumerate(losses, 1)
    ]
    (data / 'scalars.json').write_text('\n'.join(lines) + '\n')
    cfg = dict(model=dict(type='ldae.LDAE'), train_cfg=dict(max_epochs=epochs)) | options
    cfg |= dict(batch_arithmetic='batch 1 x 8 x 1 = 8 of 8', made_with=dict(device='a device', commit='abc'))
    (folder / f'{name}.py').write_text(''.join(f'{key} = {value!r}\n' for key, value in cfg.items()))
    torch.save({}, folder / 'epoch_3.pth')
    return folder


def make_study(folder: Path, *entries: dict) -> Path:
    folder.mkdir(parents=True)
    base = dict(seed=0, config='c', knn=50.0, linear=60.5, protocol=PROTOCOL.as_dict(), device='a device')
    lines = [json.dumps(base | entry) for entry in entries]
    (folder / 'results.jsonl').write_text('\n'.join(lines) + '\n')
    return folder


def page_of(*folders: Path, **options) -> Reader:
    out = folders[0].parent / 'report.html'
    ldae.report(folders, out, **options)
    return Reader(out.read_text())


def test_seconds_of_a_training_are_not_those_of_what_was_only_scored_beside_it(tmp_path):
    entries = [
        dict(row=name, epochs=epochs, seconds=dict(train=584.5)) for name, epochs in [('ldae', 4), ('pixels', None)]
    ]
    page = page_of(make_study(tmp_path / 'study', *entries)).text
    assert re.search(r'seconds.*\nldae\n.*\n584.5\npixels\n[^l]*\n-\n', page, re.DOTALL), page
    assert page.count('584.5') == 1


def test_a_training_tells_how_far_it_came_and_by_which_options(tmp_path):
    run = ldae.Run(make_training(tmp_path / 'one', train_cfg=dict(max_epochs=3)))
    assert (run.kind, run.name, run.notes) == ('training', f'{tmp_path.name}/one', [])
    assert run.curves()['loss'] == [(10, 3.0), (20, 2.0), (30, 1.0)]
    expected = {
        'reached': 'epoch 3 of 3, step 30',
        'images seen': '240',
        'hours': f'{30 * 0.5 / 3600:.2f}',
        'device': 'a device',
    }
    assert expected.items() <= run.facts.items()
    assert run.changes['train_cfg.max_epochs'] == (400, 3)
    assert not any(key.startswith(('made_with', 'batch_arithmetic')) for key in run.changes)
    shown = Reader(run._repr_html_())
    assert 'a device' in shown.text
    assert [attributes['alt'] for tag, attributes in shown.tags if tag == 'img'] == ['loss']


def test_images_of_accumulated_batches_are_counted_once(tmp_path):
    run = make_training(tmp_path / 'one')
    config = run / 'vit-b_pca.py'
    config.write_text(config.read_text().replace('1 x 8 x 1 = 8 of 8', '2 x 8 x 4 = 64 of 64: lr 0.1'))
    assert ldae.Run(run).facts['images seen'] == str(30 * 2 * 8)
    config.write_text(config.read_text().replace('64 of 64: lr 0.1', '64 of 64: lr 0.1, but 5 a process'))
    assert ldae.Run(run).facts['images seen'] == str(30 * 2 * 5)


def test_validations_are_counted_by_epochs_and_their_time_is_not_trainings(tmp_path):
    run = make_training(tmp_path / 'run')
    with next(run.rglob('scalars.json')).open('a') as log:
        log.writelines(f'{{"denoising/psnr": {10 * epoch}, "time": 99, "step": {epoch}}}\n' for epoch in (1, 2, 10))
        log.write('{"health/grad_norm": 1, "step": 10}\n')
    found = ldae.Run(run)
    assert found.facts['hours'] == f'{30 * 0.5 / 3600:.2f}'
    assert found.curves()['time'] == [(10, 0.5), (20, 0.5), (30, 0.5)]
    assert found.curves()['denoising/psnr'] == [(1, 10), (2, 20), (10, 100)]
    assert [found.axis_of(name) for name in ('loss', 'denoising/psnr', 'health/grad_norm')] == ['step', 'epoch', 'step']
    assert '"title": "denoising/psnr", "xlabel": "epoch"' in found._repr_html_()


def test_numbers_that_no_training_has_are_not_drawn(tmp_path):
    run = make_training(tmp_path / 'run')
    with next(run.rglob('scalars.json')).open('a') as log:
        log.write('{"grad_norm": 3.4e38, "loss": -1e308, "lr": 1e308, "iter": 40, "step": 40}\n')
        log.write('{"loss": 1, "iter": 50, "step": 1e39}\n')
    found = ldae.Run(run).curves()
    assert found['grad_norm'] == [(40, 3.4e38)]
    assert [step for step, _ in found['loss']] == [10, 20, 30]
    assert all(step < 40 for step, _ in found.get('lr', ()))


def test_a_training_by_iterations_and_settings_that_are_none_are_told(tmp_path):
    run = make_training(tmp_path / 'run', train_cfg=dict(max_iters=100))
    log = next(run.rglob('scalars.json'))
    log.write_text(re.sub('"epoch": ., ', '', log.read_text()))
    os.utime(log, (0, 0))
    found = ldae.Run(run)
    assert found.facts['reached'] == 'step 30 of 100'
    assert found.notes == ['stopped at step 30 of 100: the same command with --resume goes on']
    odd = make_training(tmp_path / 'odd', train_cfg=dict(max_epochs='<b>'))
    assert ldae.Run(odd).facts['reached'] == 'epoch 3, step 30'


def test_operations_are_those_of_the_stored_config_and_a_dash_for_one_that_is_not_ours(tmp_path):
    cfg = load_config('ldae::ldae/vit-b_pca.py', scale='fashion-mnist_subset')
    model = get_model(cfg)
    model.tokenizer.take_as_fitted()
    expected = 240 * 1e9 * training_cost(model, cfg)['gflop']
    options = {name: cfg[name].to_dict() for name in ('model', 'train_dataloader')}
    facts = ldae.Run(make_training(tmp_path / 'ours', **options)).facts
    assert (facts['images seen'], float(facts['FLOP'])) == ('240', pytest.approx(expected, rel=0.05))
    for name, model in dict(foreign=dict(type='Foreign'), sized=dict(type='ImageClassifier', backbone=5)).items():
        assert ldae.Run(make_training(tmp_path / name, model=model)).facts['FLOP'] == '-'
    assert facts['FLOP'] in page_of(tmp_path).texts


def test_operations_of_few_models_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, 'MOST_COUNTED', 2)
    monkeypatch.setattr('ldae.reports.runs.stored_operations', lambda text: 1.0)
    for i, width in enumerate((1, 2, 1, 3)):
        make_training(tmp_path / str(i), model=dict(type='ldae.LDAE', width=width))
    found = [run.facts['FLOP'] for run in ldae.report([tmp_path], tmp_path / 'report.html')]
    assert found == ['2.4e+11', '2.4e+11', '2.4e+11', '-']


def test_the_config_is_that_of_the_training_though_it_was_tested_later(tmp_path):
    run = make_training(tmp_path / 'run')
    (run / '20260101_000000/vis_data/config.py').write_text('train_dataloader = dict(batch_size=8)\nseed = 5\n')
    (run / 'vit-b_pca.py').write_text('train_dataloader = None\nseed = 6\n')
    found = ldae.Run(run)
    assert (found.options['seed'], found.config_name) == (5, 'vit-b_pca')
    assert found.changes['train_dataloader.batch_size'][1] == 8


def test_a_name_that_is_not_utf8_is_shown_as_far_as_it_is(tmp_path, capsys):
    run = make_training(tmp_path / os.fsdecode(b'a\xff'))
    tool.main([str(run), '--out', str(tmp_path / 'report.html')])
    assert '/a? (training)' in capsys.readouterr().out
    assert '/a?' in Reader((tmp_path / 'report.html').read_text()).text
    ldae.Run(run)._repr_html_().encode()


def test_a_study_says_what_its_trainings_lack(tmp_path):
    study = make_study(tmp_path / 'study', dict(row='mine'))
    (make_training(study / 'mine/seed0') / 'epoch_3.pth').unlink()
    assert 'mine/seed0: no checkpoint here' in page_of(study).texts


def test_a_benchmark_that_trains_has_its_curves(tmp_path):
    run = make_training(tmp_path / 'run')
    (run / 'benchmark.json').write_text('{"top1": 79.5, "scale": null}')
    page = page_of(run)
    assert {'top1', '79.5', 'epoch 3 of 3, step 30'} <= set(page.texts)
    assert 'scale' not in page.texts
    assert '"title": "loss"' in (tmp_path / 'report.html').read_text()


def test_options_in_which_runs_differ_stand_side_by_side(tmp_path):
    make_training(tmp_path / 'a', model=dict(type='ldae.LDAE', weight=1))
    make_training(tmp_path / 'b', model=dict(type='ldae.LDAE', weight=2), losses=(3.0, 0.25))
    page = page_of(tmp_path)
    head = [text for text in page.texts if text.startswith(('model.', 'train_cfg.'))]
    assert head[0] == 'model.weight'
    assert {'0.25', '1', '2'} <= set(page.texts)
    assert 'model.type' not in page.texts


def test_results_of_a_study_stand_beside_the_papers_and_its_trainings_are_its_own(tmp_path):
    study = make_study(tmp_path / 'study', dict(row='t2_pca_d32', timestep=10), dict(row='mine', linear=70.25))
    run = make_training(study / 't2_pca_d32/seed0', name='config')
    (run / 'job.json').write_text('{}')
    (run / 'scores.json').write_text(json.dumps([dict(row='t2_pca_d32', config='c', knn=50.0, linear=60.5)]))
    make_training(tmp_path / 'other')
    page = page_of(tmp_path)
    assert {'mine', '70.25', '65.1', "the paper's linear, ImageNet"} <= set(page.texts)
    sections = [attributes['id'] for tag, attributes in page.tags if tag == 'section']
    links = [attributes['href'] for tag, attributes in page.tags if tag == 'a']
    assert len(sections) == 2
    assert links == [f'#{name}' for name in sections]


@pytest.mark.parametrize(
    ('spoil', 'says'),
    [
        (lambda run: next(run.glob('*.py')).write_text('import os\nos.system("x")\n'), 'cannot be read as data'),
        (lambda run: next(run.glob('*.py')).write_text('a = [' * 5000), 'cannot be read as data'),
        (lambda run: next(run.glob('*.pth')).unlink(), 'no checkpoint here'),
        (lambda run: os.truncate(run / 'epoch_3.pth', 200), 'epoch_3.pth is damaged, or cut short'),
        (lambda run: next(run.glob('*.py')).unlink(), 'no config: what it was trained by'),
        (
            lambda run: next(run.rglob('scalars.json')).write_text('{"step": "x"}\nnull\n[1]\n{"loss"'),
            'nothing was logged',
        ),
        (lambda run: next(run.rglob('scalars.json')).write_bytes(b'\xff\xfe\n{"step": 1e400}\n'), 'nothing was logged'),
        (
            lambda run: next(run.rglob('scalars.json')).write_text('{"step": 1' + 300 * '0' + '}\n'),
            'nothing was logged',
        ),
    ],
)
def test_a_broken_run_is_shown_with_what_is_missing(tmp_path, spoil, says):
    run = make_training(tmp_path / 'run')
    spoil(run)
    assert says in page_of(run).text


def test_a_run_that_stopped_and_results_that_are_not_are_said(tmp_path):
    run = make_training(tmp_path / 'run', epochs=10)
    os.utime(next(run.rglob('scalars.json')), (0, 0))
    study = make_study(tmp_path / 'study', dict(row='a'), dict(row='b', knn=1e9), dict(row=5))
    (study / 'table.md').write_text('# A table\n')
    os.utime(study / 'table.md', (0, 0))
    (tmp_path / 'probe').mkdir()
    (tmp_path / 'probe/probe.json').write_text('{')
    text = page_of(tmp_path).text
    assert 'stopped at epoch 3 of 10' in text
    assert '2 lines of results.jsonl are not results' in text
    assert 'table.md is older than results.jsonl' in text
    assert 'probe.json is damaged' in text


def test_figures_are_drawn_into_the_page_and_a_broken_run_has_none(tmp_path, monkeypatch):
    found = [('noise', new_figure(1, 1)), ('schedules', new_figure(1, 1)), ('levels', 'nothing to draw')]
    monkeypatch.setattr(reporting, 'draw_figures', lambda source, captions: found)
    page = page_of(make_training(tmp_path / 'run'), with_figures=True)
    assert [attributes['alt'] for tag, attributes in page.tags if tag == 'img'] == ['noise']
    monkeypatch.undo()
    run = make_training(tmp_path / 'broken')
    assert 'vit-b_pca' in page_of(run, with_figures=True).text  # a checkpoint that holds nothing


def test_a_folder_can_put_text_and_pictures_on_the_page_only(tmp_path):
    folder = tmp_path / 'x<b>y'
    run = make_training(folder, model={'type': HOSTILE, HOSTILE: HOSTILE}, name='m<i>')
    make_study(folder / 'study', dict(row=HOSTILE, device=HOSTILE))
    (folder / 'study/table.md').write_text(
        f'# {HOSTILE}\n\n| a |\n|---|\n| {HOSTILE} |\n\n* `{HOSTILE}` [x](javascript:1) ![y](http://z)\n'
    )
    (run / 'probe.json').write_text(json.dumps({HOSTILE: HOSTILE, 'a': [HOSTILE]}))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(run / 'p"onerror=.png')
    (run / 'elsewhere.png').symlink_to('/etc/passwd')
    page = page_of(tmp_path)
    assert page.text.count('alert(1)') > 5
    scripts = [attributes for tag, attributes in page.tags if tag == 'script']
    assert sum('type' not in attributes for attributes in scripts) == 1  # our own
    assert {tag for tag, _ in page.tags}.isdisjoint(('iframe', 'object', 'embed', 'form', 'link', 'i', 'base', 'svg'))
    for tag, attributes in page.tags:
        assert not any(name.startswith('on') for name in attributes)
        assert attributes.get('src', 'data:image/png;base64,').startswith('data:image/png;base64,')
        assert tag != 'a' or re.fullmatch('#run\\d+', attributes['href'])
    assert sum(tag == 'img' for tag, _ in page.tags) == 2  # of the training, and of the probe in its folder
    (rules,) = (a['content'] for _, a in page.tags if a.get('http-equiv') == 'Content-Security-Policy')
    assert rules.startswith("default-src 'none'; img-src data:;")


def test_pages_of_ldae_are_shown_as_they_read():
    text = '# A **title**\n\nTwo\nlines, `x < 1`.\n\n| a | b |\n|---|---:|\n| `c` | 1 |\n\n* one\n* two\n'
    assert list(markdown(text)) == [
        '<h3>A <b>title</b></h3>',
        '<p>Two lines, <code>x &lt; 1</code>.</p>',
        table([['a', 'b'], ['c', '1']]),
        '<ul><li>one</li><li>two</li></ul>',
    ]
    assert list(markdown('Its loss: ![l](loss.png)\n\n![alone](x.png)')) == ['<p>Its loss: <code>loss.png</code></p>']


@pytest.mark.parametrize('make', [lambda folder: None, Path.mkdir, Path.touch])
def test_a_folder_without_runs_is_one_line(tmp_path, make):
    folder = tmp_path / 'folder'
    make(folder)
    with pytest.raises(ConfigError, match='is not a folder: name the work dir|no run is there'):
        ldae.report([folder], tmp_path / 'report.html')
    assert not (tmp_path / 'report.html').exists()


def test_pictures_that_cannot_be_read_are_said_and_unfinished_ones_are_none(tmp_path, monkeypatch):
    run = make_training(tmp_path / 'run')
    for name in ('good.png', 'other.png', '.good.png.host-1.unfinished.png'):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(run / name)
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == 'other.png':
            raise PermissionError(13, 'Permission denied', str(path))
        return read(path)

    monkeypatch.setattr(Path, 'read_bytes', refused)
    page = page_of(run)
    assert [attributes['alt'] for tag, attributes in page.tags if tag == 'img'] == ['good.png']
    assert 'other.png cannot be read (Permission denied)' in page.text


def test_samples_are_shown_but_not_those_of_a_studys_row(tmp_path):
    for folder in (tmp_path / 'samples', tmp_path / 'run' / 'samples'):
        folder.mkdir(parents=True)
        (folder / 'sampling.json').write_text('{}')
    found = [run.path for run in ldae.report([tmp_path], tmp_path / 'report.html')]
    assert found == [tmp_path / 'run' / 'samples', tmp_path / 'samples']
    (tmp_path / 'run' / 'job.json').write_text('{}')
    assert [run.path for run in ldae.report([tmp_path], tmp_path / 'report.html')] == [tmp_path / 'samples']


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    run = make_training(tmp_path / 'run')
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match='cannot be written'):
        ldae.report([run], tmp_path / 'file/report.html')


def test_the_tool_writes_the_page_and_watches(tmp_path, monkeypatch, capsys):
    make_training(tmp_path / 'run')
    monkeypatch.chdir(tmp_path)
    tool.main(['run'])
    assert capsys.readouterr().out == f'Wrote report.html: {tmp_path.name}/run (training)\n'
    assert 'http-equiv="refresh"' not in Path('report.html').read_text()

    def interrupted(seconds: float) -> None:
        assert seconds == 20
        raise KeyboardInterrupt

    monkeypatch.setattr(reporting.time, 'sleep', interrupted)
    asked = []
    monkeypatch.setattr(reporting, '_drawn', lambda run: asked.append(run.name) or {})
    with pytest.raises(KeyboardInterrupt):
        tool.main(['run', '--watch', '20'])
    assert not asked
    with pytest.raises(KeyboardInterrupt):
        tool.main(['run', '--watch', '20', '--figures'])
    assert asked
    assert '<meta http-equiv="refresh" content="20">' in Path('report.html').read_text()
    with pytest.raises(ConfigError, match='--watch=0 is out of range'):
        tool.main(['run', '--watch', '0'])


def test_what_a_study_returns_shows_itself_as_a_table():
    score, failure = MeanScore(81.25, 0.5), Failure('mae seed 0', '<b>diverged', Path('log.txt'))
    (row,) = (row for row in list_rows() if row.name == 't2_pca_d32')
    for rows, label in (
        ({'ldae': dict(label='l-DAE <i>', knn=MeanScore(70.0, None), linear=score)}, 'l-DAE <i>'),
        ([Summary(row, MeanScore(70.0, None), score, (0,), ())], 't2_pca_d32'),
    ):
        page = Reader(Outcome(rows, [failure], {})._repr_html_())
        assert page.texts == ['k-NN', 'linear', label, '70.0', '81.2 ± 0.5', 'FAILED mae seed 0: <b>diverged']
    assert Reader(Outcome(None, [], {})._repr_html_()).texts == ['k-NN', 'linear']


def test_a_run_draws_its_figures(tmp_path):
    run = ldae.Run(make_training(tmp_path / 'run'))
    assert list(run.figures(['schedules'])) == ['schedules']


@pytest.mark.skipif(CHROMIUM is None, reason='no chromium here')
def test_a_browser_draws_sorts_and_asks_for_nothing(tmp_path):
    sync_api = pytest.importorskip('playwright.sync_api')
    make_training(tmp_path / 'a', model=dict(type='ldae.LDAE', weight=10))
    make_training(tmp_path / 'b', model=dict(type='ldae.LDAE', weight=9), losses=(3.0, 0.25))
    make_training(tmp_path / 'c', model=dict(type='ldae.LDAE', weight=100), losses=(3.0, 2.5, 2.0, 1.5))
    ldae.report([tmp_path], tmp_path / 'report.html')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        for scheme, width in (('light', 1200), ('dark', 400)):
            page, errors, requests = browser.new_context(color_scheme=scheme).new_page(), [], []
            page.set_viewport_size(dict(width=width, height=800))
            page.on('console', lambda message, errors=errors: errors.append(message.text))
            page.on('pageerror', lambda error, errors=errors: errors.append(str(error)))
            page.on('request', lambda request, requests=requests: requests.append(request.url))
            page.goto(f'file://{tmp_path}/report.html')
            assert errors == []
            assert [url for url in requests if not url.startswith(('data:', 'file:'))] == []
            assert page.evaluate('document.documentElement.scrollWidth') <= width
            assert page.locator('.chart svg').count() >= 4
            page.get_by_text('model.weight', exact=True).first.click()
            names = page.locator('table.scatter tbody tr td:first-child').all_text_contents()
            assert [name[-1] for name in names] == ['b', 'a', 'c']
            page.locator('.chart select').first.select_option(label='model.weight')
            assert 'over model.weight' in page.locator('.chart svg').first.text_content()
            page.emulate_media(media='print', color_scheme='dark')
            assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)'
            assert page.locator('details table').first.is_visible()
            page.emulate_media(media='screen')
            page.locator('.chart svg').last.hover()
            assert ':' in page.locator('.chart svg text').last.text_content()
        browser.close()
