"""`convolve runs`, and `--tensorboard`."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path

import pytest

from cli.conftest import Convolve

SMALL = ("few.npz", "--net", "small.py:net", "--alone", "--quiet")


def test_runs_side_by_side(call: Convolve, here: Path, trained: Path) -> None:
    shutil.copytree(trained, here / "runs" / "long")
    assert call("train", *SMALL, "--epochs", "1", "--seed", "3", "--out", "runs/short").returncode == 0
    shutil.copytree(here / "runs" / "short", here / "runs" / "stopped")
    (here / "runs" / "stopped" / "results.json").unlink()
    found = {row["run"]: row for row in json.loads(call("runs", "--json").stdout)}
    assert set(found) == {"runs/long", "runs/short", "runs/stopped"}
    results = json.loads((here / "runs" / "long" / "results.json").read_text())
    row = found["runs/long"]
    assert (row["data"], row["net"], row["epochs"], row["planned"]) == ("few.npz", "small.py:net", 4, 4)
    assert (row["metric"], row["test"]) == ("accuracy", results["test"]["accuracy"])
    assert found["runs/stopped"]["test"] is None
    assert next(iter(found)) == max(found, key=lambda run: found[run]["validation"])
    lines = call("runs", "runs").stdout.splitlines()
    assert lines[0].split() == ["run", "data", "net", "epochs", "metric", "validation", "test", "time"]
    assert f"{results['test']['accuracy']:.2%}" in next(line for line in lines if line.startswith("runs/long"))
    below = lines[lines.index("") + 1 :]
    assert below[0].split() == ["on", "few.npz", "epochs", "seed"]
    assert {tuple(line.split()) for line in below[2:]} == {
        ("runs/long", "4", "0"),
        ("runs/short", "1", "3"),
        ("runs/stopped", "1", "3"),
    }
    assert call("runs", "runs/short", "--quiet").stdout == "runs/short\n"


def test_folders_without_runs(call: Convolve, here: Path, trained: Path) -> None:
    for name in ("runs", "small.py"):
        done = call("runs", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{name}: holds no runs" in done.stderr
    shutil.copytree(trained, here / "run")
    (here / "run" / "results.json").write_text("{")
    assert "run/results.json: cannot be read" in call("runs", "run").stderr


@pytest.mark.extras
def test_curves_for_tensorboard(call: Convolve, here: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    done = call("train", *SMALL, "--epochs", "2", "--tensorboard", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    [file] = (here / "run" / "tensorboard").iterdir()
    data, place, scalars = file.read_bytes(), 0, {}
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        event = Event.FromString(data[place + 12 : place + 12 + size])
        scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        place += size + 16
    results = json.loads((here / "run" / "results.json").read_text())
    rows = (here / "run" / "metrics.csv").read_text().splitlines()
    loss = float(rows[2].split(",")[rows[0].split(",").index("validation_loss")])
    assert scalars["epoch/validation_loss", 2] == pytest.approx(loss)
    assert sum(tag == "step/loss" for tag, _ in scalars) == 2 * 5
    assert results["net"]["epochs"] == 2


def test_without_tensorboardx(call: Convolve, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    done = call("train", *SMALL, "--tensorboard", "--out", "run")
    assert done.returncode == 1
    assert "pip install 'convolve[tensorboard]'" in done.stderr
    assert not (here / "run").exists()
