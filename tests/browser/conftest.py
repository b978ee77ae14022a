"""What the tests of the page share: one browser a session, and pages that fail on any error in their console."""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from convolve import Model, datasets, optim, zoo
from convolve.page.subject import Subject, subject

# Where CI sets this, a test that would be skipped fails.
NEEDED = os.environ.get("CONVOLVE_NEEDS_BROWSER") == "1"
CHROMIUM = os.environ.get("CONVOLVE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [
    name
    for name in ("playwright", "starlette", "uvicorn", "websockets", "onnx", "ipykernel", "nbclient")
    if not importlib.util.find_spec(name)
]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

collect_ignore_glob = ["test_*.py"] if MISSING and not NEEDED else []


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    if CHROMIUM is None:
        assert not NEEDED, "Chromium is not installed, and CONVOLVE_NEEDS_BROWSER asks for it"
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield made
        made.close()


@pytest.fixture
def console() -> list[str]:
    """What pages complained of: nothing, when a test ends."""
    return []


@pytest.fixture
def visit(browser: Any, console: list[str]) -> Iterator[Callable[..., Any]]:
    """Opens an address as a page, in a context of its own, and waits until everything is drawn."""
    contexts = []

    def opened(address: str, shows: str = "#verdict-line", **settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-ready]", timeout=20_000)
        page.wait_for_selector(shows, timeout=20_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert console == []


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Subject], str]]:
    """Serves a subject until the session ends; gives the address."""
    from convolve.page.server import Serving

    running: list[tuple[Serving, threading.Thread]] = []

    def begin(shown: Subject) -> str:
        serving = Serving(shown, grace=600)
        answers = threading.Event()
        thread = threading.Thread(target=serving.run, args=(lambda _: answers.set(),))
        thread.start()
        running.append((serving, thread))
        assert answers.wait(20)
        return serving.address

    yield begin
    for serving, thread in running:
        serving.end()
        thread.join()


@pytest.fixture(scope="session")
def lenet5() -> Subject:
    """LeNet-5, trained on a few digits, and fifty digits to look at."""
    mnist = datasets.load("mnist")
    model = Model(zoo.lenet5(), (28, 28, 1), classes=[str(i) for i in range(10)])
    model.fit(mnist.x_train[:4000], mnist.y_train[:4000], epochs=2, optimizer=optim.AdamW(2e-3))
    assert mnist.x_test is not None
    return subject(model.network, "lenet5", model.classes, mnist.x_test[:50], mnist.y_test[:50], "mnist")


@pytest.fixture(scope="session")
def lenet5_page(serve: Callable[[Subject], str], lenet5: Subject) -> str:
    """Its address."""
    return serve(lenet5)


def made_up(model: Model, title: str, seed: int = 0, count: int = 2, **more: Any) -> Subject:
    """A model with random samples of bytes."""
    samples = np.random.default_rng(seed).integers(0, 256, (count, *model.input_shape), dtype=np.uint8)
    return subject(model.network, title, model.classes, samples, **more)
