"""The kernel cache on disk: shared by processes, never trusted blindly, and never needed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convolve import ops
from convolve.errors import ConvolveError
from convolve.execution import Arena, Executable
from convolve.graph import Graph, leaf
from convolve.native import cache, disk
from convolve.native.compiling import compile_object
from convolve.native.job import Run
from convolve.native.linking import link
from convolve.native.target import host
from convolve.passes import compile_graph

PROGRAM = """
import json, sys, warnings
import numpy as np
from convolve import ops
from convolve.execution import Arena, Executable
from convolve.graph import Graph, leaf
from convolve.native.cache import statistics
from convolve.native.disk import KernelCacheWarning
from convolve.passes import compile_graph
x = leaf("input", "x", (20,))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    executable = Executable(compile_graph(Graph({"y": ops.relu(x) * 2.0})), Arena(), {})
    executable.run({"x": np.arange(-10, 10, dtype=np.float32)}, 2)
warned = [str(w.message) for w in caught if issubclass(w.category, KernelCacheWarning)]
json.dump([statistics.compiled, statistics.loaded, float(executable.output("y").sum()), warned], sys.stdout)
"""
KERNELS = 3
"""The program's own, and the two that threads run."""


@dataclass(frozen=True)
class Session:
    """What a process that used three kernels reports."""

    compiled: int
    loaded: int
    total: float
    warned: list[str]


def start(folder: Path, limit: Callable[[], None] | None = None, **more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"CONVOLVE_CACHE": str(folder)} | more
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=limit
    )


def finish(process: subprocess.Popen[str]) -> Session:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    session = Session(*json.loads(out))
    assert session.total == 90
    return session


def session(folder: Path, limit: Callable[[], None] | None = None, **more: str) -> Session:
    return finish(start(folder, limit, **more))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that processes have shared from its beginning."""
    folder = tmp_path_factory.mktemp("cache") / "made" / "here"
    first = [start(folder) for _ in range(2)]
    for process in first:
        made = finish(process)
        assert made.compiled + made.loaded == KERNELS
        assert not made.warned
    return folder


def kernels(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kernel"))


def test_two_processes_fill_one_folder(filled: Path) -> None:
    assert len(kernels(filled)) == KERNELS
    assert sorted(filled.iterdir()) == sorted([*kernels(filled), *filled.glob("*.fact")])


def test_what_is_kept_is_not_compiled_again(filled: Path) -> None:
    assert session(filled) == Session(0, KERNELS, 90, [])


def test_another_target_has_entries_of_its_own(filled: Path) -> None:
    if host().lanes == 4:
        pytest.skip("this CPU has 128-bit vectors only")
    assert session(filled, CONVOLVE_TARGET="128").compiled == KERNELS
    assert len(kernels(filled)) == 2 * KERNELS
    assert session(filled).compiled == 0


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_digest(path: Path) -> None:
    path.write_bytes(bytes(32) + path.read_bytes()[32:])


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


@pytest.mark.parametrize(
    "damage",
    [flip, flip_digest, *(partial(cut, length=n) for n in (0, 10, 32, 500))],
    ids=["flipped", "digest", "empty", "10 bytes", "32 bytes", "500 bytes"],
)
def test_a_damaged_entry_is_made_again(tmp_path: Path, filled: Path, damage: Callable[[Path], None]) -> None:
    for entry in kernels(filled):
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    whole = session(tmp_path)
    assert (whole.compiled, whole.loaded) == (0, KERNELS)
    used = max(kernels(tmp_path), key=lambda path: path.stat().st_atime_ns)
    sound = {path: path.read_bytes() for path in kernels(tmp_path)}
    for path in sound:
        damage(path)
    again = session(tmp_path)
    assert (again.compiled, again.loaded, again.warned) == (KERNELS, 0, [])
    assert session(tmp_path).loaded == KERNELS
    assert used.exists()


def test_an_entry_of_another_name_is_made_again(tmp_path: Path, filled: Path) -> None:
    names = kernels(filled)
    for entry, other in zip(names, [*names[1:], names[0]], strict=True):
        (tmp_path / entry.name).write_bytes(other.read_bytes())
    again = session(tmp_path)
    assert (again.compiled, again.loaded, again.warned) == (KERNELS, 0, [])
    assert session(tmp_path).loaded == KERNELS


def test_a_damaged_fact_is_found_out_again(tmp_path: Path, filled: Path) -> None:
    for entry in filled.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    facts = {path: path.read_bytes() for path in tmp_path.glob("*.fact")}
    for path in facts:
        path.write_bytes(path.read_bytes().replace(b"a", b"b"))
    assert session(tmp_path) == Session(0, KERNELS, 90, [])
    assert {path: path.read_bytes() for path in facts} == facts


def test_both_linkers_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours leaves to LLVM's what it does not know: code for another system, a function that is not there."""
    spec = Run()
    code = compile_object(spec, host(), "known")
    assert link(code, "unknown") is None
    assert link(b"\xcf\xfa\xed\xfe" + code[4:], "known") is None
    assert link(code[:18] + b"\x03" + code[19:], "known") is None
    monkeypatch.setattr(cache, "link", lambda code, symbol: None)
    monkeypatch.setattr(cache, "_addresses", {})
    assert session_total() == 90


def session_total() -> float:
    """What the program computes, in this process."""
    x = leaf("input", "x", (20,))
    executable = Executable(compile_graph(Graph({"y": ops.relu(x) * 2.0})), Arena(), {})
    executable.run({"x": np.arange(-10, 10, dtype=np.float32)}, 2)
    return float(executable.output("y").sum())


def test_a_folder_open_to_others_is_closed(tmp_path: Path, filled: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    assert session(folder).warned == []
    for path in (folder, filled):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in kernels(folder)} == {0o600}


def assert_works_without(folder: Path, part: str, limit: Callable[[], None] | None = None) -> None:
    made = session(folder, limit)
    assert (made.compiled, made.loaded) == (KERNELS, 0)
    assert made.warned
    assert all(part in text and str(folder) in text and "CONVOLVE_CACHE" in text for text in made.warned)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, filled: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for entry in kernels(filled):
        (folder / entry.name).write_bytes(b"their code")
    os.chown(folder, 12345, 12345)
    assert_works_without(folder, "belongs to another user")
    assert {path.read_bytes() for path in kernels(folder)} == {b"their code"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert_works_without(tmp_path / "file" / "kernels", "Not a directory")
    assert_works_without(tmp_path / "file", "exists")


def test_a_full_disk(tmp_path: Path) -> None:
    """No file may grow: entries cannot be written, and nothing half-written stays."""
    resource = pytest.importorskip("resource")

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    assert_works_without(tmp_path, "cannot be written", full)
    assert list(tmp_path.iterdir()) == []


def test_entries_are_listed_and_cleared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, filled: Path) -> None:
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    assert disk.directory() == tmp_path
    for entry in kernels(filled):
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    (tmp_path / "notes.txt").write_text("mine")
    assert [path.name for path in disk.entries()] == [path.name for path in kernels(filled)]
    assert disk.clear() == len(kernels(filled))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path / "none"))
    assert disk.entries() == []
    assert disk.clear() == 0


@pytest.mark.parametrize("value", ["", "64", "1024", "avx2", "-128", "128.0"])
def test_a_target_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CONVOLVE_TARGET", value)
    with pytest.raises(ConvolveError, match=f"CONVOLVE_TARGET='{value}'.*Set 128, 256 or 512"):
        host.__wrapped__()


def test_a_target_wider_than_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOLVE_TARGET", raising=False)
    widest: Any = host.__wrapped__()
    for width in (128, 256, 512):
        monkeypatch.setenv("CONVOLVE_TARGET", str(width))
        if width <= widest.lanes * 32:
            assert host.__wrapped__().lanes == width // 32
        else:
            with pytest.raises(ConvolveError, match=f"vectors have {widest.lanes * 32} bits"):
                host.__wrapped__()
