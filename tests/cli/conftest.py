"""What the tests of the command line share: a small real data set, a small net, and `convolve` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from convolve import datasets, storage
from convolve.cli import app

Convolve = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]

NET = """\
from convolve import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Normalize, ReLU, Sequential

net = Sequential(
    *(Normalize(0.0, 255.0), Conv(8, 3), BatchNorm(), ReLU(), MaxPool(4), Dropout(0.2), Flatten(), Dense(10)),
)


def of(classes):
    return Sequential(Flatten(), Dense(classes))
"""


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """few.npz (the first 300 and 100 images of MNIST) and small.py (a net with everything that is random)."""
    folder = tmp_path_factory.mktemp("material")
    mnist = datasets.load("mnist")
    assert mnist.x_test is not None
    assert mnist.y_test is not None
    parts = {"x_train": mnist.x_train[:300], "y_train": mnist.y_train[:300]}
    parts |= {"x_test": mnist.x_test[:100], "y_test": mnist.y_test[:100]}
    np.savez(folder / "few.npz", **parts)
    (folder / "small.py").write_text(NET)
    return folder


@pytest.fixture
def here(material: Path, tmp_path: Path) -> Path:
    """A folder to work in, with the material in it."""
    for path in material.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.fixture
def start(here: Path) -> Start:
    """Starts `convolve` there; `prepare` is called in the new process, `environment` added to its own."""

    def begin(*arguments: object, prepare: Callable[[], object] = int, **environment: str) -> subprocess.Popen[str]:
        def first() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it
            prepare()

        return subprocess.Popen(
            [sys.executable, "-m", "convolve", *map(str, arguments)],
            cwd=here,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={key: value for key, value in os.environ.items() if not key.startswith("CONVOLVE_T")} | environment,
            preexec_fn=first,
        )

    return begin


@pytest.fixture
def convolve(start: Start) -> Convolve:
    """Runs `convolve` to its end."""

    def run(
        *arguments: object, prepare: Callable[[], object] = int, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, prepare=prepare, **environment)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def call(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Convolve]:
    """Runs `convolve` within this process, which is quicker: for what ends before anything is computed."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        status = app.run(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, out, err)

    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def trained(material: Path) -> Path:
    """The folder of a finished run of the small net."""
    folder = material.parent / "trained"
    command = [
        sys.executable,
        "-m",
        "convolve",
        "train",
        "few.npz",
        "--net",
        "small.py:net",
        "--alone",
        "--epochs",
        "4",
    ]
    subprocess.run([*command, "--out", str(folder), "--quiet"], cwd=material, check=True)
    return folder


def check_equal(one: Path, two: Path) -> None:
    """Two runs that came to the same bits."""
    for name in ("model.safetensors", "last.safetensors", "filters/0001.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    arrays, header = storage.load(one / "checkpoint.safetensors")
    others, other = storage.load(two / "checkpoint.safetensors")
    assert all(np.array_equal(array, others[key]) for key, array in arrays.items())
    assert header["steps"] == other["steps"]
    for a, b in zip(header["epochs"], other["epochs"], strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}
