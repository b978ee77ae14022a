"""How quickly the page answers, on the screen: python benchmarks/page.py.

Three things, in Debian's chromium (pip install 'convolve[test-browser]'), each as the browser paints it:

first view    from resnet50 in memory to its layers with their maps for a picture of 224x224
stroke        from a stroke on lenet5's drawing board to the answer
frames        time between frames while resnet50's layers are scrolled through

A frame counts as painted when the browser begins the one after it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from convolve import Model, datasets, zoo
from convolve.page.server import Serving
from convolve.page.subject import Subject, subject

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SCREEN = {"width": 1360, "height": 1000}
PAINTED = """const painted = name => new Promise(done => {
    let marked = Infinity;
    new PerformanceObserver((list, observer) => {
        for (const entry of list.getEntriesByName(name)) marked = Math.min(marked, entry.startTime);
        if (marked < Infinity) observer.disconnect();
    }).observe({ type: "mark", buffered: name === "maps" });
    const begun = [];
    const frame = () => {
        begun.push(performance.now());
        const after = begun.filter(time => time > marked);
        if (after.length > 1) done(after[1]);
        else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
});"""
"""When what the page marked so was painted: when the second frame after the mark begins."""
DRAWN = f"""async () => {{
    {PAINTED}
    return performance.timeOrigin + (await painted("maps"));
}}"""
"""When the net's maps were painted, in milliseconds since 1970."""
STROKE = f"""async place => {{
    {PAINTED}
    const canvas = document.getElementById("picture-canvas");
    const box = canvas.getBoundingClientRect();
    const [x, y] = [box.left + place[0] * box.width, box.top + place[1] * box.height];
    const answered = painted("answer"), start = performance.now();
    const how = {{ clientX: x, clientY: y, pointerId: 1, bubbles: true, isPrimary: true }};
    canvas.dispatchEvent(new PointerEvent("pointerdown", how));
    return (await answered) - start;
}}"""
UNFOLD = """() => {
    for (let b; (b = document.querySelector("#strip .card.folded .fold")); ) b.click();
}"""
SCROLL = """() => new Promise(done => {
    const strip = document.getElementById("strip"), frames = [];
    let last = performance.now();
    strip.scrollLeft = 0;
    const step = now => {
        frames.push(now - last);
        last = now;
        strip.scrollLeft += 30;
        if (frames.length <= 120) requestAnimationFrame(step);
        else done(frames.slice(1));
    };
    requestAnimationFrame(step);
})"""
"""Thirty pixels a frame, for 120 frames."""


@contextmanager
def served(shown: Subject) -> Iterator[str]:
    """The page's address, while it is served."""
    serving, answers = Serving(shown, grace=600), threading.Event()
    thread = threading.Thread(target=serving.run, args=(lambda _: answers.set(),))
    thread.start()
    answers.wait()
    try:
        yield serving.address
    finally:
        serving.end()
        thread.join()


def first_view(browser: Any, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds to resnet50's first view, and milliseconds between its frames when it is scrolled."""
    seconds, frames = [], []
    for _ in range(rounds):
        network = Model(zoo.resnet50(), (224, 224, 3)).network
        page = browser.new_page(viewport=SCREEN)
        start = time.time()
        with served(subject(network, "resnet50")) as address:
            page.goto(address)
            seconds.append(page.evaluate(DRAWN) / 1000 - start)
            page.wait_for_selector("#verdict-line")
            page.evaluate(UNFOLD)
            frames += page.evaluate(SCROLL)
            page.close()
    return seconds, frames


def strokes(browser: Any, count: int) -> list[float]:
    """Milliseconds from a stroke on lenet5's board to its answer on the screen, all other views following."""
    digits = np.asarray(datasets.load("mnist").x_test)[:100]
    network = Model(zoo.lenet5(), (28, 28, 1)).network
    taken = []
    with served(subject(network, "lenet5", None, digits)) as address:
        page = browser.new_page(viewport=SCREEN)
        page.goto(address)
        page.wait_for_selector("#verdict-line")
        for i in range(count + 5):
            made = page.evaluate(STROKE, [0.2 + 0.6 * (i % 10) / 10, 0.2 + 0.6 * (i // 10 % 10) / 10])
            if i >= 5:  # the first ones warm up
                taken.append(float(made))
        page.close()
    return taken


def told(name: str, values: list[float], unit: str) -> str:
    """A line of a table: median, nine of ten, most."""
    ordered = sorted(values)
    nine = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return f"| {name} | {statistics.median(values):.3g} {unit} | {nine:.3g} {unit} | {ordered[-1]:.3g} {unit} |"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="first views")
    parser.add_argument("--strokes", type=int, default=100)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        print("| on the screen | median | nine of ten within | most |\n|---|---|---|---|")
        print(told("answer to a stroke, lenet5", strokes(browser, given.strokes), "ms"), flush=True)
        seconds, frames = first_view(browser, given.rounds)
        print(told("first view of resnet50 at 224x224", seconds, "s"))
        print(told("between frames, scrolling through resnet50 unfolded", frames, "ms"))
        browser.close()


if __name__ == "__main__":
    main()
