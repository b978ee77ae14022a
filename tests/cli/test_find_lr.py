"""`convolve train --find-lr`: the loss as the rate grows, and nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cli.conftest import Convolve
from convolve import Conv, Dense, Flatten, Model, ReLU, Sequential, optim
from convolve.errors import ConvolveError
from convolve.training.feed import Feed
from convolve.training.range_test import range_test
from convolve.training.trainer import Trainer

SMALL = ("few.npz", "--net", "small.py:net", "--alone")


def test_the_curve_is_shown_and_written_and_no_run_begins(convolve: Convolve, here: Path) -> None:
    done = convolve("train", *SMALL, "--find-lr", "--out", "found")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (here / "found").iterdir()} == {"few-small-rates.svg", "few-small-rates.csv"}
    assert not (here / "runs").exists()
    with (here / "found" / "few-small-rates.csv").open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    rates, smoothed = ([row[key] for row in rows] for key in ("rate", "smoothed"))
    assert 20 < len(rows) <= 200
    np.testing.assert_allclose(np.diff(np.log(rates)), np.log(1e7) / 199, rtol=1e-6)
    mean = 0.0
    for step, row in enumerate(rows, 1):
        mean = 0.9 * mean + 0.1 * row["loss"]
        assert row["smoothed"] == pytest.approx(mean / (1 - 0.9**step))
    assert all(loss <= 4 * min(smoothed[: i + 1]) for i, loss in enumerate(smoothed[:-1]) if i >= 10)
    reached = np.array(smoothed) <= smoothed[0] - 0.9 * (smoothed[0] - min(smoothed))
    suggested = float(f"{rates[int(reached.argmax())] / 3:.2g}")
    assert f"suggested: --rate {suggested:g}  (without --rate, training takes 0.00354)" in done.stdout
    assert f"suggested: {suggested:g}" in (here / "found" / "few-small-rates.svg").read_text()
    ElementTree.parse(here / "found" / "few-small-rates.svg")
    again = convolve("train", *SMALL, "--find-lr", "--json", "--threads", "1")
    assert json.loads(again.stdout)["suggested"] == suggested
    assert json.loads(again.stdout)["smoothed"] == smoothed  # the same bits
    assert (here / "few-small-rates.csv").exists()


def test_it_tests_rates_for_runs_that_have_yet_to_begin(call: Convolve) -> None:
    done = call("train", *SMALL, "--find-lr", "--resume", "--out", "run")
    assert done.returncode == 2
    assert "leave out --resume" in done.stderr


def test_the_net_is_as_it_was() -> None:
    model = Model(Sequential(Conv(4, 3), ReLU(), Flatten(), Dense(3)), (6, 6, 1), seed=1)
    x, y = np.random.default_rng(0).standard_normal((12, 6, 6, 1), np.float32), np.arange(12, dtype=np.int32) % 3
    before = model.network.arrays()
    trainer = Trainer(model.network, "cross_entropy", optim.AdamW())
    feed = Feed(x, y, 4)
    seen: list[int] = []
    found = range_test(trainer, feed, steps=30, done=seen.append)
    assert seen == list(range(1, len(seen) + 1))
    assert found.losses == range_test(trainer, feed, steps=30).losses
    assert trainer.steps == 0
    assert not any(array.any() for array in trainer.state.values())
    for key, array in model.network.arrays().items():
        np.testing.assert_array_equal(array, before[key], key)
    with pytest.raises(ConvolveError, match="needs growing rates"):
        range_test(trainer, feed, lowest=1.0, highest=0.1)
