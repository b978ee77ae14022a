"""The README's pictures of the page, made by a browser: python docs/screenshots.py MODEL.

MODEL is a net for digits, as `convolve train mnist --net lenet5` leaves it. Needs Debian's chromium and
pip install 'convolve[test-browser]'.
"""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from convolve import Model, datasets, load, zoo
from convolve.page.server import Serving
from convolve.page.subject import subject

IMAGES = Path(__file__).parent / "pictures"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SAMPLES = 1000


def net(page: Any) -> None:
    """The picture, the answer and the whole net."""
    page.select_option("#heat", "occlusion")
    page.wait_for_selector("canvas.heat:visible")


def value(page: Any) -> None:
    """A value, number by number, in the dark."""
    page.click('[data-node="4"] .open')
    page.locator('.map-card[data-channel="3"]').click(position={"x": 60, "y": 40})
    page.wait_for_selector("#pixel-head:has-text('conv2, map 3')")
    page.locator("#pixel").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#pixel').scrollIntoView()")


def filters(page: Any) -> None:
    """A layer, and what its filters look for."""
    page.click('[data-node="4"] .open')
    page.click("#measure")
    page.wait_for_selector("#excitation progress", state="hidden", timeout=120_000)
    page.evaluate("document.querySelector('#layer').scrollIntoView()")


SHOTS = {
    "look-net": (net, "light", 1360, 1130),
    "look-value": (value, "dark", 1360, 1000),
    "look-filters": (filters, "light", 1360, 1050),
}


def main(model: Model) -> None:
    """Make all pictures of a model for digits."""
    mnist = datasets.load("mnist")
    assert mnist.x_test is not None
    classes = model.classes or tuple(map(str, range(10)))
    shown = subject(
        model.network, "lenet5", classes, mnist.x_test[:SAMPLES], mnist.y_test[:SAMPLES], "mnist, test images"
    )
    serving = Serving(shown, grace=600)
    answers = threading.Event()
    thread = threading.Thread(target=serving.run, args=(lambda _: answers.set(),))
    thread.start()
    answers.wait()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for name, (prepare, scheme, width, height) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(serving.address)
            page.wait_for_selector("#verdict-line")
            prepare(page)
            page.wait_for_timeout(1000)
            page.screenshot(path=IMAGES / f"{name}.png")
            page.close()
        browser.close()
    serving.end()
    thread.join()


if __name__ == "__main__":
    main(load(sys.argv[1]) if len(sys.argv) > 1 else Model(zoo.lenet5(), (28, 28, 1)))
