"""Training on the page: while it runs, from its folder, and in a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from convolve import Conv, Dense, Flatten, MaxPool, Model, Normalize, ReLU, Sequential, datasets, optim
from convolve.cli.look import worst_of
from convolve.cli.scores import KINDS, ClassScores
from convolve.data.dataset import Task
from convolve.errors import FileError
from convolve.layers import Layer
from convolve.page.opening import write_page
from convolve.page.subject import Subject, subject
from convolve.page.watch import FILE, Watch, Watched
from convolve.training.fit import Progress

NET = Sequential(Normalize(0.0, 255.0), Conv(4, 5), ReLU(), MaxPool(4), Flatten(), Dense(10))
EPOCHS = 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Path]:
    """A net that was watched for some epochs, and the file that this left."""
    mnist = datasets.load("mnist")
    x, y = mnist.x_train[:200], mnist.y_train[:200]
    model = Model(NET, (28, 28, 1))
    file = tmp_path_factory.mktemp("run") / FILE
    worst = partial(worst_of, lambda: ClassScores(tuple("0123456789")), model, x[:80], y[:80])
    watch = Watch(model.network, x[:80], worst, file)
    model.fit(x, y, EPOCHS, optimizer=optim.AdamW(3e-3), validation=(x[:80], y[:80]), callbacks=(watch,))
    return subject(model.network, "watched", None, x[:80], y[:80], watched=watch.watched), file


def test_what_is_watched_is_true(trained: tuple[Subject, Path]) -> None:
    shown, file = trained
    kept = Watched.load(file)
    assert shown.watched is not None
    assert kept.layer == "conv1"
    assert [m.metrics for m in kept.moments] == [m.metrics for m in shown.watched.moments]
    assert len(kept.losses) == 4 * EPOCHS
    last = kept.moments[-1]
    assert np.array_equal(last.filters, shown.network["parameter:conv1.weight"])
    taken = next(iter(shown.network.predict(shown.samples).values())).argmax(-1)
    wrong = np.flatnonzero(taken != shown.labels)
    assert len(last.mistakes) == min(16, len(wrong))
    assert shown.labels is not None
    assert {said.partition(":")[0] for said in last.mistakes} <= {
        f"{shown.labels[i]} taken for {taken[i]}" for i in wrong
    }
    assert last.metrics["validation_accuracy"] == pytest.approx(1 - len(wrong) / len(taken))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    Model(NET, (28, 28, 1)).save(tmp_path / FILE)
    with pytest.raises(FileError, match="is not what convolve train --look keeps"):
        Watched.load(tmp_path / FILE)


def test_the_page_goes_through_the_epochs(
    trained: tuple[Subject, Path], visit: Callable[..., Any], serve: Callable[[Subject], str], tmp_path: Path
) -> None:
    shown, _ = trained
    assert shown.watched is not None
    write_page(shown, tmp_path / "run.html")
    for address in serve(shown), (tmp_path / "run.html").as_uri():
        page = visit(address)
        expect(page.locator("#training .panel")).to_have_count(2)
        expect(page.locator("#training .forming canvas")).to_have_count(4)
        for epoch in (0, EPOCHS - 1):
            page.locator("#epoch").fill(str(epoch))
            expect(page.locator("#training output")).to_have_text(f"{epoch + 1} of {EPOCHS}")
            expect(page.locator(".mistake")).to_have_count(len(shown.watched.moments[epoch].mistakes))
        last = shown.watched.moments[-1].metrics["validation_accuracy"]
        told = page.locator("#training .panel svg").nth(1).get_attribute("aria-label").replace("\u2009", " ")
        assert float(told.split()[-2]) == pytest.approx(100 * last, abs=0.06)


BODY = (Normalize(0.0, 255.0), Conv(4, 3), ReLU())
ROW = (*BODY, MaxPool(4), Flatten(), Dense(2))
TASKS: dict[Task, tuple[tuple[Layer, ...], str, tuple[str, ...], str]] = {
    # task: net, loss, classes, what is drawn beside the loss
    "labels": (ROW, "binary_cross_entropy", ("small", "round"), "F1 of all labels"),
    "regress": (ROW, "mse", ("height", "width"), "R2"),
    "segment": ((*BODY, Conv(2, 1)), "cross_entropy", ("paper", "ink"), "Intersection over union"),
    "autoencode": ((*BODY, Conv(1, 1)), "mse", ("all",), "R2"),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_shows_its_metrics_and_mistakes(
    task: Task, visit: Callable[..., Any], serve: Callable[[Subject], str], tmp_path: Path
) -> None:
    layers, loss, classes, drawn = TASKS[task]
    mnist = datasets.load("mnist")
    x, digits = mnist.x_train[:40], mnist.y_train[:40]
    ink = (x[..., 0] > 100).astype(np.int32)
    y = {
        "labels": np.stack([digits < 5, digits % 2 == 0], 1).astype(np.float32),
        "regress": np.stack([ink.any(2).sum(1), ink.any(1).sum(1)], 1).astype(np.float32),
        "segment": ink,
        "autoencode": (x / 255).astype(np.float32),
    }[task]
    model = Model(Sequential(*layers), (28, 28, 1), classes=None if task == "autoencode" else classes)
    scores = partial(KINDS[task], classes)
    watch = Watch(model.network, x, partial(worst_of, scores, model, x, y), tmp_path / FILE, scores().shows)

    def measure(progress: Progress) -> None:
        counted = scores()
        counted.add(model.predict(x).astype(np.float64), y, 0)
        progress.metrics.update({f"validation_{name}": value for name, value in counted.metrics().items()})

    model.fit(x, y, 2, 8, optim.AdamW(1e-3), loss=loss, callbacks=(measure, watch))
    watched = Watched.load(tmp_path / FILE)
    made = scores()
    made.add(model.predict(x).astype(np.float64), y, 0)
    last = watched.moments[-1]
    assert last.mistakes == tuple(m.said for m in made.worst[:16])
    assert len(last.mistakes) > 3
    if task == "segment":
        seen = last.beside[0, 0].reshape(28, 28, 3).any(-1)  # class 0 is black
        assert np.array_equal(seen, y[made.worst[0].index] > 0)
    if task == "autoencode":
        given = model.predict(x[made.worst[0].index][None])[0]
        assert np.abs(last.beside[0, 0] / 255 - np.clip(given, 0, 1)).max() < 0.003

    page = visit(serve(subject(model.network, task, model.classes, x, watched=watched, task=task)))
    expect(page.locator(".mistake")).to_have_count(len(last.mistakes))
    expect(page.locator(".mistake figcaption").first).to_have_text(last.mistakes[0])
    expect(page.locator(".mistake canvas")).to_have_count(len(last.mistakes) * (1 + len(scores().shows)))
    expect(page.locator("#training .panel").filter(has_text=drawn)).to_have_count(1)
    expect(page.locator("#training .panel svg").last).to_have_attribute("aria-label", re.compile("validation from"))
    answers = {"labels": "#answer .bars li", "regress": "#answer .values dd"}
    if task in answers:
        expect(page.locator(answers[task])).to_have_count(2)


def test_training_is_looked_at(tmp_path: Path) -> None:
    mnist = datasets.load("mnist")
    parts = {"x_train": mnist.x_train[:200], "y_train": mnist.y_train[:200]}
    np.savez(tmp_path / "few.npz", **parts, x_test=mnist.x_train[200:260], y_test=mnist.y_train[200:260])
    command = [sys.executable, "-m", "convolve", "train", "few.npz", "--net", "lenet5", "--alone", "--epochs", "2"]
    done = subprocess.run(
        [*command, "--out", "run", "--look"],
        cwd=tmp_path,
        env=os.environ | {"BROWSER": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "run at http://127.0.0.1:" in done.stdout
    assert len(Watched.load(tmp_path / "run" / FILE).moments) == 2
