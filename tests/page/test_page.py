# SPDX-License-Identifier: Apache-2.0
"""The page as browsers meet it: friendly ones, in headless Chromium, and others, by plain requests."""

import io
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ldae.cli import page as tool
from ldae.datasets.idx import SUBSET_ROOT
from ldae.page import Workbench, app, open_page, serving
from ldae.utils import ConfigError

CHROMIUM = shutil.which('chromium')
#: A picture, None for the first that is offered, and settings.
GOOD = [None, 'PCA', 32, 'sigma', 0.5, 400, 'linear_sigma', 0]
HOSTILE = '<img src=x onerror=alert(1)>'
pytest.importorskip('gradio', reason='gradio (the extra page) is not installed')
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason='no chromium here')


@pytest.fixture(scope='module')
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Two pictures, one whose name is hostile."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp('pictures')
    for name in ('a.png', f'{HOSTILE}.png'.replace('/', '')):
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(folder / name)
    return Workbench(images=str(folder))


@pytest.fixture(scope='module')
def address(bench: Workbench) -> Iterator[str]:
    with serving(bench) as (_, url):
        yield url


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, {name.replace('_', '-'): value for name, value in headers.items()})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (ConnectionError, urllib.error.URLError) as error:
        return 0, str(error).encode()


def config_of(address: str) -> dict:
    return json.loads(ask(f'{address}config')[1])


def call(address: str, config: dict, number: int, *values: Any, **headers: str) -> tuple[int, str]:
    body = dict(fn_index=config['dependencies'][number]['id'], data=list(values), session_hash='a')
    headers |= dict(Content_Type='application/json')
    status, answer = ask(f'{address}gradio_api/run/predict', json.dumps(body).encode(), **headers)
    return status, answer.decode()


def event_of(config: dict, trigger: str) -> int:
    """The place among the page's events of the first with a trigger."""
    return next(
        i for i, one in enumerate(config['dependencies']) if trigger in [name for _, name in map(tuple, one['targets'])]
    )


def test_only_this_machines_own_page_is_answered(address: str):
    assert address.startswith('http://127.0.0.1:')
    assert ask(address)[0] == 200
    assert ask(address, Host='attacker.example')[0] == 400
    config, own = config_of(address), address.rstrip('/')
    show = event_of(config, 'load'), *GOOD
    assert call(address, config, *show, Origin=own)[0] == 200
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n\r\n--b--\r\n'
    kind = 'multipart/form-data; boundary=b'  # which a form of another page may send without asking first
    assert ask(f'{address}gradio_api/upload', form, Content_Type=kind, Origin=own)[0] == 200
    for origin in ('http://attacker.example', 'null', 'http://localhost:1', f'{own}.attacker.example', 'file://'):
        assert call(address, config, *show, Origin=origin)[0] == 403
        assert ask(f'{address}gradio_api/upload', form, Content_Type=kind, Origin=origin)[0] == 403


def test_no_path_reaches_the_file_system(address: str):
    here = Path(__file__).resolve()
    for path in (
        '/etc/passwd',
        str(here),
        f'{os.getcwd()}/setup.cfg',
        '../../../etc/passwd',
        '%2e%2e/%2e%2e/etc/passwd',
    ):
        for route in ('gradio_api/file=', 'file=', 'static/', 'assets/', 'gradio_api/file/'):
            status, answer = ask(f'{address}{route}{path}')
            assert status >= 400 or b'<!doctype html>' in answer.lower(), (route, path)
            assert b'root:' not in answer
            assert b'attacker' not in answer
    config = config_of(address)
    upload = event_of(config, 'upload')
    for path in ('/etc/passwd', str(here)):
        status, answer = call(address, config, upload, dict(path=path, meta=dict(_type='gradio.FileData')))
        assert status >= 400
        assert 'root:' not in answer


def test_settings_of_any_kind_are_refused_without_a_picture(address: str):
    config = config_of(address)
    show = event_of(config, 'load')
    good = GOOD
    status, answer = call(address, config, show, *good)
    assert status == 200
    assert 'data:image/' in answer
    wrong = {1: ['VAE', '../x', 5], 2: [0, -1, 'x', None, 1e300], 3: ['x'], 4: [float('nan'), float('inf'), -1, 'x']}
    wrong |= {5: [1000, -1, 0.5], 6: ['x', HOSTILE], 7: [-1, 2**40, float('nan')]}
    for place, values in wrong.items():
        for value in values:
            status, answer = call(address, config, show, *good[:place], value, *good[place + 1 :])
            assert 'data:image/' not in answer, (place, value)
    offered = event_of(config, 'click')
    for number in (-1, 2, 'x', None):
        assert call(address, config, offered, number)[0] >= 400


def test_a_request_is_bounded(address: str):
    boundary = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = boundary + bytes(app.MAX_BODY + 2**20) + b'\r\n--b--\r\n'
    before = {path for path in Path(os.environ['GRADIO_TEMP_DIR']).rglob('*') if path.is_file()}
    status, answer = ask(f'{address}gradio_api/upload', body, Content_Type='multipart/form-data; boundary=b')
    assert status == 0 or status >= 400
    status, answer = ask(
        f'{address}gradio_api/run/predict', b' ' * (app.MAX_BODY + 2**20), Content_Type='application/json'
    )
    assert status == 0 or status >= 400
    assert {path for path in Path(os.environ['GRADIO_TEMP_DIR']).rglob('*') if path.is_file()} == before


def test_what_the_environment_says_of_gradio_is_not_followed(monkeypatch):
    for name in ('SHARE', 'ALLOWED_PATHS', 'ANALYTICS_ENABLED', 'SERVER_NAME'):
        monkeypatch.setenv(f'GRADIO_{name}', 'True')
    app.gradio_for_page()
    assert {name for name in os.environ if name.startswith('GRADIO_')} <= {
        'GRADIO_ANALYTICS_ENABLED',
        'GRADIO_TEMP_DIR',
    }
    assert os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False'


def test_the_tool_opens_the_page_and_says_what_another_host_opens(monkeypatch, capsys, bench: Workbench):
    opened = {}

    class Demo:
        def block_thread(self) -> None:
            pass

    @app.contextmanager
    def served(made: Workbench, host: str, port: int | None):
        opened.update(host=host, port=port)
        yield Demo(), 'http://there/'

    monkeypatch.setattr(app, 'serving', served)
    monkeypatch.setattr(app, 'Workbench', lambda *args: bench)
    tool.main([])
    assert opened == dict(host='127.0.0.1', port=None)
    assert capsys.readouterr().out == 'The page is at http://there/, until Ctrl-C\n'
    tool.main(['--host', '0.0.0.0', '--port', '7999'])
    assert 'there is no password' in capsys.readouterr().out
    with pytest.raises(ConfigError, match='--port=0 is out of range'):
        open_page(port=0)


def test_an_address_that_cannot_be_had_is_one_line(address: str):
    port = int(address.rstrip('/').rpartition(':')[2])
    for options in (dict(port=port), dict(host='192.0.2.1'), dict(host='a' * 300)):
        with pytest.raises(ConfigError, match='cannot listen at .*: choose another --port or --host'):
            open_page(**options)


def png(size: int = 300) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(file, 'PNG')
    return file.getvalue()


@pytest.fixture
def visit() -> Iterator[Any]:
    """``visit(url)``: a page of a visitor of their own, which fails on a request to another host or an error."""
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        strange: list[str] = []

        def visit(url: str) -> Any:
            page = browser.new_context(viewport=dict(width=1280, height=900)).new_page()
            page.on('request', lambda one: one.url.startswith((url, 'data:', 'blob:')) or strange.append(one.url))
            page.on('pageerror', lambda error: strange.append(str(error)))
            page.on('dialog', lambda dialog: strange.append(dialog.message))
            page.set_default_timeout(60_000)
            page.goto(url)
            page.wait_for_selector('#tokens img')
            return page

        yield visit
        browser.close()
        assert strange == []


def source(page: Any, place: str = '#tokens', number: int = 0) -> str:
    return page.locator(f'{place} img').nth(number).get_attribute('src')


def changes(page: Any, act: Any, place: str = '#tokens', number: int = 0) -> None:
    """Wait until an act has changed an image."""
    before = source(page, place, number)
    act()
    script = '([place, number, before]) => document.querySelectorAll(`${place} img`)[number]?.src !== before'
    page.wait_for_function(script, arg=[place, number, before])


@in_a_browser
def test_a_visitor_moves_each_slider_and_uploads(visit: Any, address: str):
    page = visit(address)
    moved = dict(d='5', sigma='1.25', seed='7')
    for name, value in moved.items():
        changes(page, lambda: page.locator(f'#{name} input[type=number]').fill(value), number=4)  # noqa: B023
    assert page.get_by_text('decoded from d = 5:').count() == 1
    changes(page, lambda: page.locator('#d input[type=range]').press('ArrowRight'), number=2)
    page.get_by_text('decoded from d = 6:').wait_for()
    page.locator('#level input[value=t]').click()
    page.get_by_text('sigma = 0.57').first.wait_for()
    changes(page, lambda: page.locator('#t input[type=number]').fill('900'), number=4)
    page.get_by_text('sigma = 1.27').first.wait_for()
    page.locator('#tokenizer input').click()
    changes(page, lambda: page.get_by_role('option', name='DCT').click(), number=4)
    changes(page, lambda: page.locator('.gallery-item').nth(1).click())
    for name, data, says in (
        ('text.txt', b'hello', 'is not a readable image'),
        ('text.png', b'hello', 'is not a readable image'),
        ('empty.png', b'', 'is empty'),
        ('cut.png', png()[:500], 'is truncated'),
    ):
        page.locator('input[type=file]').set_input_files(dict(name=name, mimeType='image/png', buffer=data))
        page.locator('.toast-body', has_text=says).first.wait_for()
        page.locator('.toast-close').first.click()
        page.locator('.toast-body').first.wait_for(state='detached')
    upload = dict(name='a.png', mimeType='image/png', buffer=png())
    changes(page, lambda: page.locator('input[type=file]').set_input_files(upload))


@in_a_browser
def test_a_large_file_is_refused_and_the_page_goes_on(visit: Any, address: str, tmp_path: Path):
    page = visit(address)
    large = tmp_path / 'large.png'
    with large.open('wb') as file:
        file.truncate(200_000_000)
    page.locator('input[type=file]').set_input_files(str(large))
    page.locator('.toast-body', has_text='exceed').wait_for()
    changes(page, lambda: page.locator('#d input[type=number]').fill('9'), number=2)


@in_a_browser
def test_two_visitors_have_pictures_of_their_own(visit: Any, address: str):
    one, two = visit(address), visit(address)
    assert source(one) == source(two)
    upload = dict(name='a.png', mimeType='image/png', buffer=png())
    changes(one, lambda: one.locator('input[type=file]').set_input_files(upload))
    changes(two, lambda: two.locator('#d input[type=number]').fill('3'), number=2)
    changes(one, lambda: one.locator('#d input[type=number]').fill('11'), number=2)
    one.get_by_text('decoded from d = 11:').wait_for()
    assert two.get_by_text('decoded from d = 3:').count() == 1
    assert source(one) != source(two)


@in_a_browser
def test_a_checkpoint_is_seen_denoising_attending_and_sampled(visit: Any, small_checkpoint: Path):
    bench = Workbench(small_checkpoint, data_root=str(SUBSET_ROOT), device='cpu')
    with serving(bench) as (_, url):
        page = visit(url)
        page.wait_for_selector('#denoised img')
        changes(page, lambda: page.locator('#sigma input[type=number]').fill('1'), '#denoised')
        for title, button, place in (
            ('Attention and features', '#attention', '#drawn'),
            ('Nearest neighbours', '#neighbours', '#found'),
            ('Samples', '#sample', '#samples'),
        ):
            page.get_by_text(title).click()
            if button == '#sample':
                page.locator('#steps input[type=number]').fill('2')
            page.locator(button).click()
            page.wait_for_selector(f'{place} img')
        changes(page, lambda: page.locator('#features').click(), '#drawn')
        page.locator('.gallery-item').nth(1).click()
        page.locator('#drawn img').wait_for(state='detached')
