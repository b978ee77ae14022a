"""Training on the page: while it runs, from its folder, and in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from convolve import Conv, Dense, Flatten, MaxPool, Model, Normalize, ReLU, Sequential, datasets, optim
from convolve.errors import FileError
from convolve.page.opening import write_page
from convolve.page.subject import Subject, subject
from convolve.page.watch import FILE, Watch, Watched

NET = Sequential(Normalize(0.0, 255.0), Conv(4, 5), ReLU(), MaxPool(4), Flatten(), Dense(10))
EPOCHS = 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Path]:
    """A net that was watched for some epochs, and the file that this left."""
    mnist = datasets.load("mnist")
    x, y = mnist.x_train[:200], mnist.y_train[:200]
    model = Model(NET, (28, 28, 1))
    file = tmp_path_factory.mktemp("run") / FILE
    watch = Watch(model.network, x[:80], y[:80], file)
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
    assert set(last.mistakes) <= {(int(shown.labels[i]), int(taken[i])) for i in wrong}
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
