"""`convolve train --from`: a trained model made for other classes, its head alone first, then all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.conftest import Convolve, check_equal
from convolve import Conv, Model, Normalize, ReLU, Sequential, load, storage
from convolve.cli.run import Run


@pytest.fixture
def parity(here: Path, trained: Path) -> Path:
    """parity.npz, even and odd digits, and a model of the ten digits to start from, in `start`."""
    few = np.load(here / "few.npz")
    arrays = {key: value % 2 if key[0] == "y" else value for key, value in few.items()}
    np.savez(here / "parity.npz", **arrays, classes=np.array(["even", "odd"]))
    shutil.copytree(trained, here / "start")
    return here


SETTINGS = ("parity.npz", "--from", "start", "--epochs", "4", "--head-epochs", "2", "--alone", "--batch-size", "64")


def test_the_head_learns_first_and_then_all_at_falling_rates(convolve: Convolve, parity: Path) -> None:
    done = convolve("train", *SETTINGS, "--rate", "0.001", "--average", "0.001", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "start gets a new last layer, dense1, which learns alone for 2 epochs at first" in done.stdout
    assert "start: dense1 alone" in done.stdout
    assert "start: all layers, at rates from 5e-05 in the first to 0.0005 in the last" in done.stdout
    start, end = load(parity / "start" / "model.safetensors"), load(parity / "run" / "last.safetensors")
    assert end.output_shape == (2,)
    assert end.classes == ("even", "odd")
    kept, first = (storage.load(parity / "run" / "filters" / f"000{n}.safetensors")[0]["conv1.weight"] for n in (2, 3))
    np.testing.assert_array_equal(kept, start.parameters["conv1.weight"])
    assert 0 < np.abs(first - kept).max() < 5 * 5e-5 * 1.5  # five steps of Adam at the first layer's rate
    results = json.loads((parity / "run" / "results.json").read_text())
    assert results["net"]["epochs"] == 4


@pytest.mark.parametrize("saved", [3, 10, 12], ids=["within the head's part", "between", "within the whole's part"])
def test_a_stopped_run_goes_on_bit_for_bit(
    call: Convolve, parity: Path, monkeypatch: pytest.MonkeyPatch, saved: int
) -> None:
    """Five steps an epoch and a checkpoint after each, two epochs a part: stopped when so many are written."""
    assert call("train", *SETTINGS, "--save-every", "0", "--out", "whole", "--threads", "2").returncode == 0
    left, save = [saved], Run.save

    def stopping(run: Run, *arguments: Any) -> None:
        save(run, *arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stopping)
    assert call("train", *SETTINGS, "--save-every", "0", "--out", "stopped", "--threads", "2").returncode == 130
    _, header = storage.load(parity / "stopped" / "checkpoint.safetensors")
    assert 5 * len(header["epochs"]) + header["underway"]["batches"] == saved
    done = call("train", "parity.npz", "--out", "stopped", "--resume", "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    check_equal(parity / "stopped", parity / "whole")


def test_a_model_that_knows_the_classes_keeps_its_head(convolve: Convolve, parity: Path) -> None:
    done = convolve("train", "few.npz", "--from", "start", "--epochs", "1", "--alone", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "start knows these very classes and keeps its last layer" in done.stdout
    assert "alone" not in done.stdout
    assert load(parity / "run" / "model.safetensors").classes == tuple("0123456789")


@pytest.mark.onnx
def test_an_onnx_file_is_a_start(convolve: Convolve, parity: Path) -> None:
    pytest.importorskip("onnx.defs")  # the tests' own folder is called onnx
    load(parity / "start" / "model.safetensors").export_onnx(parity / "start.onnx")
    done = convolve("train", "parity.npz", "--from", "start.onnx", "--epochs", "2", "--alone", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "start.onnx gets a new last layer, dense1, which learns alone for 1 epoch at first" in done.stdout
    assert load(parity / "run" / "model.safetensors").output_shape == (2,)


@pytest.mark.onnx
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_an_onnx_file_that_gives_places_is_a_start_where_channels_come_last(
    call: Convolve, here: Path, layout: Any
) -> None:
    pytest.importorskip("onnx.defs")
    x = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 1), np.uint8)
    np.savez(here / "places.npz", x_train=x, y_train=x[..., 0] // 128)
    net = Sequential(Normalize(0.0, 255.0), Conv(4, 3), ReLU(), Conv(2, 1))
    Model(net, (8, 8, 1), classes=("0", "1")).export_onnx(here / "start.onnx", layout=layout)
    done = call("train", "places.npz", "--from", "start.onnx", "--epochs", "1", "--out", "run")
    if layout == "channels_last":
        assert (done.returncode, done.stderr) == (0, "")
        assert "start.onnx knows these very classes and keeps its last layer" in done.stdout
    else:
        assert done.returncode == 1
        assert "gives (2, 8, 8) for a sample; to segment needs (8, 8, 2), channels last, as `convolve" in done.stderr


def test_what_cannot_be_a_start(call: Convolve, parity: Path) -> None:
    few = np.load(parity / "few.npz")
    np.savez(parity / "cut.npz", **{k: v[:, 4:24, 4:24] if k[0] == "x" else v for k, v in few.items()})
    np.savez(parity / "floats.npz", **{k: v / 255 if k[0] == "x" else v for k, v in few.items()})
    for arguments, status, sentence in (
        (("few.npz", "--from", "none"), 1, "none: no such file, folder or net"),
        (("few.npz", "--from", "start", "--net", "digits"), 2, "give one of the two"),
        (("cut.npz", "--from", "start"), 1, "takes samples of shape (28, 28, 1). Received: (20, 20, 1)"),
        (("floats.npz", "--from", "start"), 1, "was trained on values of type uint8"),
    ):
        done = call("train", *arguments, "--quiet")
        assert (done.returncode, done.stdout) == (status, "")
        assert sentence in done.stderr


def test_a_run_goes_on_from_the_model_that_it_began_with(convolve: Convolve, call: Convolve, parity: Path) -> None:
    assert convolve("train", *SETTINGS, "--out", "run", "--quiet").returncode == 0
    shutil.copy(parity / "run" / "model.safetensors", parity / "start" / "model.safetensors")
    done = call("train", "parity.npz", "--out", "run", "--resume", "--quiet")
    assert done.returncode == 1
    assert "start: not the model that this run was begun with" in done.stderr
