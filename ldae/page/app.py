# SPDX-License-Identifier: Apache-2.0
"""The page on a workbench: Gradio's blocks, served to this machine alone."""

import base64
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

from ldae.evaluation.features import num_blocks
from ldae.utils import ConfigError, check_range
from ldae.utils.errors import short
from ldae.utils.optional import import_extra

from .workbench import MAX_SIGMA, SCHEDULES, TIMESTEPS, Panel, Picture, Settings, Workbench

LOOPBACK = '127.0.0.1'
ANY_HOST = ('0.0.0.0', '::')
#: Of an upload, and of whatever else a browser sends.
MAX_UPLOAD, MAX_BODY = 16 * 2**20, 20 * 2**20
JPEG_444 = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444  # colours of each pixel
STYLE = (Path(__file__).parent / 'page.css').read_text()
FONTS = dict(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
#: Settings are checked as they come: Gradio would look at each in a thread of its own first.
QUICK = dict(queue=False, show_progress='hidden', preprocess=False, postprocess=False)
MODEL = dict(concurrency_limit=1, concurrency_id='model')  # two visitors take turns


def open_page(
    run: Any = None,
    images: Any = None,
    data_root: Any = None,
    device: Any = None,
    host: str = LOOPBACK,
    port: int | None = None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        run, images, data_root, device: Of :class:`ldae.page.Workbench`.
        host, port: To listen at; None takes a free port from 7860 on.
    """
    gradio_for_page()
    if port is not None:
        check_range('--port', port, 1, 65535, kind=int)
    check_address(host, port)
    with serving(Workbench(run, images, data_root, device), host, port) as (demo, url):
        print(f'The page is at {url}, until Ctrl-C', flush=True)
        if host != LOOPBACK:
            print(
                f'--host {host}: whoever reaches that address can open the page, upload pictures and let this machine compute; '
                'there is no password, and what is sent can be read on the way',
                flush=True,
            )
        demo.block_thread()


def check_address(host: str, port: int | None) -> None:
    """Raise ConfigError if nobody can listen there, before anything slow is done; Gradio would try a hundred ports."""
    try:
        with socket.create_server((host, port or 0), family=socket.AF_INET6 if ':' in host else socket.AF_INET):
            pass
    except (OSError, UnicodeError) as error:
        line = f'the page cannot listen at {host}{f", port {port}" if port else ""} ({short(error)})'
        raise ConfigError(f'{line}: choose another --port or --host') from error


def gradio_for_page() -> ModuleType:
    """Gradio, told to report to nobody; its own settings in the environment, such as to share a page, are not followed."""
    for name in [name for name in os.environ if name.startswith('GRADIO_') and name != 'GRADIO_TEMP_DIR']:
        del os.environ[name]
    os.environ |= dict(GRADIO_ANALYTICS_ENABLED='False', HF_HUB_DISABLE_TELEMETRY='1', DO_NOT_TRACK='1')
    return import_extra('gradio', 'page', 'ldae page')


@contextmanager
def serving(bench: Workbench, host: str = LOOPBACK, port: int | None = None) -> Iterator[tuple[Any, str]]:
    """Gradio's blocks and their address, while the context is open. What is uploaded lies in a folder that is removed with it."""
    gr = gradio_for_page()
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A page of another site whose name is made to lead here is not ours.
    hosts = ['*'] if host in ANY_HOST else [host, LOOPBACK, 'localhost']
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(of_its_own_origin)]
    middleware.append(Middleware(partial(bounded, limit=MAX_BODY)))
    with tempfile.TemporaryDirectory(prefix='ldae-page-') as folder, patch.dict(os.environ, GRADIO_TEMP_DIR=folder):
        demo = build(gr, bench)
        _, url, _ = demo.launch(
            server_name=host,
            server_port=port,
            share=False,
            strict_cors=True,
            max_file_size=MAX_UPLOAD,
            allowed_paths=[],
            state_session_capacity=64,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            quiet=True,
            inbrowser=False,
            prevent_thread_lock=True,
            theme=gr.themes.Default(**FONTS),
            css=STYLE,
            app_kwargs=dict(middleware=middleware, docs_url=None, redoc_url=None, openapi_url=None),
        )
        try:
            yield demo, url
        finally:
            demo.close(verbose=False)


def of_its_own_origin(app: Callable) -> Callable:
    """An ASGI app that refuses what pages of other origins send. Gradio answers them, and keeps only the answer from them."""
    from starlette.responses import PlainTextResponse

    async def call(scope: dict, receive: Callable, send: Callable) -> None:
        headers = {name: value.lower() for name, value in scope.get('headers', ())}
        origin, host = headers.get(b'origin', b''), headers.get(b'host', b'')
        answer = app
        if origin and origin.partition(b'://')[2] != host:
            answer = PlainTextResponse('a page of another origin cannot use this one', 403)
        await answer(scope, receive, send)

    return call


def bounded(app: Callable, limit: int) -> Callable:
    """An ASGI app that reads no more than so many bytes of a request."""

    async def call(scope: dict, receive: Callable, send: Callable) -> None:
        read = 0

        async def counted() -> dict:
            nonlocal read
            message = await receive()
            read += len(message.get('body', b''))
            return message if read <= limit else dict(type='http.disconnect')

        await app(scope, counted, send)

    return call


def build(gr: ModuleType, bench: Workbench) -> Any:
    """The blocks of the page."""
    with gr.Blocks(title='ldae page', analytics_enabled=False, delete_cache=(600, 600)) as demo:
        picture = gr.State(None, time_to_live=3600)
        gr.Markdown('## Latents, noise, and what is left of a picture')
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                offered = gr.Dataset(
                    components=[gr.HTML(visible=False)],
                    samples=[[thumbnail_tag(name, one)] for name, one in zip(bench.names, bench.pictures, strict=True)],
                    type='index',
                    label='Pictures',
                    samples_per_page=12,
                )
                upload = gr.UploadButton('Upload a picture', type='binary', elem_id='upload')
                settings = add_settings(gr, bench)
            with gr.Column(scale=3, min_width=320):
                views = [(gr.HTML(elem_id='tokens'), bench.tokens)]
                if bench.ldae is not None:
                    views.append((gr.HTML(elem_id='denoised'), bench.denoised))
                asked = [] if bench.model is None else add_model(gr, bench, picture)
        connect(gr, bench, demo, (picture, offered, upload, settings), (views, asked))
    return demo


def add_settings(gr: ModuleType, bench: Workbench) -> list[Any]:
    """Inputs in the order of the fields of :class:`Settings`."""
    first = next(iter(bench.coders))
    dims = bench.coders[first].dims
    start = Settings(tokenizer=first, d=min(32, dims))
    tokenizer = gr.Dropdown([*bench.coders], value=first, label='Tokenizer', elem_id='tokenizer')
    d = gr.Slider(1, dims, start.d, step=1, label='d, dimensions of a token', elem_id='d')
    level = gr.Radio(['sigma', 't'], value='sigma', label='Noise is set by', elem_id='level')
    sigma = gr.Slider(0, MAX_SIGMA, start.sigma, step=0.001, label='sigma', elem_id='sigma')
    t = gr.Slider(0, TIMESTEPS - 1, start.t, step=1, label='t', elem_id='t', visible=False)
    schedule = gr.Dropdown(SCHEDULES, value=start.schedule, label='Schedule', elem_id='schedule', visible=False)
    seed = gr.Slider(0, 999, 0, step=1, label='Seed of the noise', elem_id='seed')

    def limits(name: str, now: int) -> dict:
        most = bench.coders[name].dims if name in bench.coders else 1
        return gr.Slider(maximum=most, value=min(now, most))

    own = dict(queue=False, show_progress='hidden', api_visibility='private')
    tokenizer.change(limits, [tokenizer, d], d, **own)
    level.change(
        lambda by: [gr.update(visible=by == name) for name in ('sigma', 't', 't')], level, [sigma, t, schedule], **own
    )
    return [tokenizer, d, level, sigma, t, schedule, seed]


def add_model(gr: ModuleType, bench: Workbench, picture: Any) -> list[Any]:
    """Buttons for what asks a network; gives what they show of a picture."""
    depth = num_blocks(bench.model)
    own = dict(MODEL, api_visibility='private')
    with gr.Accordion('Attention and features', open=False):
        block = gr.Slider(1, depth, depth, step=1, label='block', elem_id='block')
        with gr.Row():
            buttons = {name: gr.Button(f'Draw {name}', elem_id=name) for name in ('attention', 'features')}
        drawn = gr.HTML(elem_id='drawn')
    asked = [drawn]
    for name, button in buttons.items():
        draw = explained(gr, lambda one, b, name=name: panels([Panel(name, bench.figure(name, chosen(bench, one), b))]))
        button.click(draw, [picture, block], drawn, **own)
    if bench.data_root is not None:
        with gr.Accordion('Nearest neighbours', open=False):
            find, found = gr.Button('Find', elem_id='neighbours'), gr.HTML(elem_id='found')
        find.click(explained(gr, lambda one: panels(bench.neighbours(chosen(bench, one)))), picture, found, **own)
        asked.append(found)
    if bench.ldae is not None:
        with gr.Accordion('Samples', open=False):
            seed = gr.Number(0, label='Seed', precision=0, minimum=0, elem_id='sample-seed')
            steps = gr.Slider(1, 250, 50, step=1, label='Steps', elem_id='steps')
            sample, samples = gr.Button('Sample', elem_id='sample'), gr.HTML(elem_id='samples')
        sample.click(explained(gr, lambda s, n: panels(bench.samples(s, n))), [seed, steps], samples, **own)
    return asked


def connect(gr: ModuleType, bench: Workbench, demo: Any, inputs: tuple, outputs: tuple) -> None:
    """Show the views again when what they depend on changes; what was asked of the picture before goes with it."""
    (picture, offered, upload, settings), (views, asked) = inputs, outputs
    names = ('tokenizer', 'd', 'level', 'sigma', 't', 'schedule', 'seed')
    own = dict(api_visibility='private')
    taken = [
        offered.click(explained(gr, bench.chosen), offered, picture, queue=False, show_progress='hidden', **own),
        upload.upload(explained(gr, bench.read), upload, picture, **own),
    ]
    for view, function in views:

        def show(one: Picture | None, *values: Any, function: Callable = function) -> str:
            return panels(function(chosen(bench, one), Settings(**dict(zip(names, values, strict=True)))))

        is_quick = function == bench.tokens
        options = QUICK if is_quick else dict(MODEL, show_progress='minimal')
        changes = [setting.change for setting in (settings if is_quick else settings[2:])]
        event = dict(fn=explained(gr, show), inputs=[picture, *settings], outputs=view, **own, **options)
        gr.on([demo.load, *changes], trigger_mode='always_last', **event)
        for one in taken:
            one.success(**event)
    for one in taken:
        one.success(lambda: [''] * len(asked), None, asked, queue=False, show_progress='hidden', **own)


def chosen(bench: Workbench, picture: Picture | None) -> Picture:
    """A visitor's picture; at first, the first that is offered."""
    return bench.pictures[0] if picture is None else picture


def explained(gr: ModuleType, function: Callable) -> Callable:
    """A function whose errors reach the visitor as one line, and as nothing but text."""

    @wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except (ConfigError, OSError, RuntimeError) as error:
            line = str(error) if isinstance(error, ConfigError) else short(error)
            raise gr.Error(escape(line), print_exception=False) from error

    return call


def panels(shown: Sequence[Panel]) -> str:
    """Images below their captions, which need no file and no request."""
    figures = (f'<figure><figcaption>{escape(one.caption)}</figcaption>{tag(one)}</figure>' for one in shown)
    return f'<div class="panels">{"".join(figures)}</div>'


def tag(panel: Panel) -> str:
    """An image within the page: a large one as JPEG, which takes a thirtieth of PNG's time for noise."""
    kind, options = 'png', [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if 128 <= max(panel.image.shape[:2]) <= 512:
        kind, options = 'jpeg', [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, JPEG_444]
    data = cv2.imencode(f'.{kind}', np.ascontiguousarray(panel.image[..., ::-1]), options)[1]
    source = base64.b64encode(data.tobytes()).decode()
    return f'<img alt="{escape(panel.caption)}" src="data:image/{kind};base64,{source}">'


def thumbnail_tag(name: str, picture: Picture) -> str:
    """A small image of a picture that is offered."""
    height, width = picture.bgr.shape[:2]
    size = (64, max(1, round(64 * height / width)))
    small = cv2.resize(picture.bgr, size, interpolation=cv2.INTER_AREA)
    return tag(Panel(name, small[..., ::-1]))
