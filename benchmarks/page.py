# SPDX-License-Identifier: Apache-2.0
"""A slider's change on the page's tokenizer half, beside an event of Gradio's that does nothing.

    OMP_NUM_THREADS=1 python benchmarks/page.py

The page is open in headless Chromium. From the moment that the number beside the slider d is changed until the new image has been
decoded and a frame been drawn; in turn with a text box whose function returns what it is given, shown by the same kind of
component. The median of ``--rounds`` counts. Also printed: what of it is computing, and writing the images, beside one matrix
product, 256 patches by d dimensions by 768 pixels.
"""

import argparse
import shutil
import statistics
import time

import numpy as np
from _timing import machine, medians, times_in_turn

from ldae.page import Settings, Workbench
from ldae.page.app import gradio_for_page, panels, serving

CHANGE = """([place, value, seen]) => new Promise(done => {
    const input = document.querySelector(`${place} input`), start = performance.now()
    const watch = new MutationObserver(async () => {
        if (!document.querySelector(seen)?.textContent.includes(value)) return
        watch.disconnect()
        await Promise.all([...document.querySelectorAll(`${seen} img`)].map(image => image.decode()))
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)))
    })
    watch.observe(document.querySelector(seen), {childList: true, subtree: true, characterData: true})
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, value.match(/\\d+/)[0])
    input.dispatchEvent(new Event('input', {bubbles: true}))
    input.dispatchEvent(new Event('change', {bubbles: true}))
})"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--d', type=int, nargs='+', default=[8, 32, 256, 768])
    parser.add_argument('--no-browser', action='store_true', help='computing alone')
    return parser.parse_args()


def computing(bench: Workbench, d: int, rounds: int) -> dict[str, float]:
    """Seconds of the server's part."""
    picture = bench.pictures[0]
    shown = bench.tokens(picture, Settings(d=d))
    parts = {
        'computing': lambda: bench.tokens(picture, Settings(d=d)),
        'writing images': lambda: panels(shown),
        'bare product': lambda: np.ones((256, d), np.float32) @ np.ones((d, 768), np.float32),
    }
    return medians(times_in_turn(parts, rounds))


def identity(gr) -> tuple:
    """Gradio's own round trip: a number in, the same number out."""
    with gr.Blocks(analytics_enabled=False) as demo:
        given, shown = gr.Slider(0, 1000, 0, step=1, elem_id='given'), gr.HTML(elem_id='shown')
        options = dict(queue=False, show_progress='hidden', trigger_mode='always_last')
        given.change(lambda value: f'd = {value}:', given, shown, **options)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, theme=gr.themes.Default(font=['sans-serif']))
    return demo, url


def in_the_browser(bench: Workbench, dims: list[int], rounds: int) -> dict[str, float]:
    """Seconds from a change to its frame, by d, and of the identity."""
    from playwright.sync_api import sync_playwright

    gr = gradio_for_page()
    demo, peer_url = identity(gr)
    times: dict[str, list[float]] = {}
    with serving(bench) as (_, url), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
        page, peer = browser.new_page(), browser.new_page()
        page.goto(url)
        page.wait_for_selector('#tokens img')
        peer.goto(peer_url)
        peer.wait_for_selector('#given input')
        time.sleep(2)
        for i in range(rounds + 2):
            for d in dims:
                page.bring_to_front()
                one = page.evaluate(CHANGE, ['#d', f'd = {d - 1 - i % 2}:', '#tokens'])
                peer.bring_to_front()
                other = peer.evaluate(CHANGE, ['#given', f'd = {d - 1 - i % 2}:', '#shown'])
                if i >= 2:
                    times.setdefault(f'd = {d}', []).append(one / 1000)
                    times.setdefault('identity', []).append(other / 1000)
        browser.close()
    demo.close(verbose=False)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    bench = Workbench()
    print(machine('cpu'))
    print(f'start, with the fit of a PCA: {time.perf_counter() - start:.1f} s; picture: {bench.names[0]}')
    for d in args.d:
        parts = computing(bench, d, args.rounds)
        server = parts['computing'] + parts['writing images']
        told = ', '.join(f'{name} {1000 * value:.1f} ms' for name, value in parts.items())
        print(f'd = {d:3}: {told}; ldae / it = {server / parts["bare product"]:.1f}')
    if not args.no_browser:
        found = in_the_browser(bench, args.d, args.rounds)
        peer = found.pop('identity')
        print(f"on the screen: a function that does nothing, by Gradio's own round trip: {1000 * peer:.0f} ms")
        for name, value in found.items():
            print(
                f'on the screen, {name}: {1000 * value:.0f} ms, {value / peer:.1f} times that of a function that does nothing'
            )


if __name__ == '__main__':
    main()
