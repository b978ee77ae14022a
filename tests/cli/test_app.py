"""The command line as such: help, wrong usage, what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import convolve as package
from cli.conftest import Convolve

COMMANDS = ("train", "evaluate", "predict", "summary", "look", "explain", "export", "doctor", "cache", "datasets")


def test_help_names_every_command_and_how_to_begin(convolve: Convolve) -> None:
    done = convolve("--help")
    assert done.returncode == 0
    assert "convolve train mnist" in done.stdout
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from convolve.cli.app import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {"numpy", "llvmlite", "rich", "PIL", "safetensors"} & set(loaded)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_common_options(call: Convolve, command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--quiet", "--json", "--version"))


def test_version(call: Convolve) -> None:
    assert call("--version").stdout == call("doctor", "--version").stdout == f"convolve {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("trian", "mnist"),
        ("train",),
        ("train", "mnist", "--epochs", "0"),
        ("train", "mnist", "--epochs", "many"),
        ("train", "mnist", "--seed", "-1"),
        ("train", "mnist", "--threads", "0"),
        ("train", "mnist", "--rate", "nan"),
        ("train", "mnist", "--resume"),
        ("predict", "model.safetensors"),
        ("cache", "clean"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(call: Convolve, arguments: tuple[str, ...]) -> None:
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error_to_talk_about(here: Path) -> None:
    line = f'"{sys.executable}" -m convolve summary resnet56 | head -n 1'
    done = subprocess.run(["sh", "-c", line], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("layer")
    assert done.stderr == ""


def test_a_closed_stdout_is_no_error(here: Path) -> None:
    line = f'"{sys.executable}" -m convolve datasets >&-'
    assert subprocess.run(["sh", "-c", line], cwd=here, capture_output=True, text=True, check=True).stderr == ""


def test_datasets_by_name(call: Convolve) -> None:
    assert json.loads(call("datasets", "--json").stdout)["mnist"] == "comes with convolve"
    assert call("datasets", "--quiet").stdout.split() == ["mnist", "fashion-mnist", "cifar10"]
    assert "fashion-mnist  " in call("datasets").stdout


def test_doctor_finds_that_all_is_well(convolve: Convolve) -> None:
    done = convolve("doctor")
    assert done.returncode == 0
    assert done.stdout.endswith("\nAll is well.\n")
    found = json.loads(convolve("doctor", "--json").stdout)
    assert found["check"]["passed"]
    assert found["cache"]["usable"]
    limits = [limit for limit in found["threads"]["limits"].values() if limit is not None]
    assert found["threads"]["default"] == min(limits)


def test_doctor_advises_where_kernels_cannot_be_kept(convolve: Convolve, here: Path) -> None:
    (here / "file").touch()
    done = convolve("doctor", CONVOLVE_CACHE=str(here / "file" / "cache"))
    assert done.returncode == 0
    assert "not usable" in done.stdout
    assert "Advice: kernel cache" in done.stdout
    assert "All is well" not in done.stdout


def test_cache_is_shown_and_emptied(convolve: Convolve, here: Path) -> None:
    folder = here / "kernels"
    elsewhere = {"CONVOLVE_CACHE": str(folder)}
    assert convolve("cache", "dir", **elsewhere).stdout == f"{folder}\n"
    assert json.loads(convolve("cache", "info", "--json", **elsewhere).stdout)["kernels"] == 0
    folder.mkdir()
    (folder / "0.kernel").write_bytes(bytes(2_000_000))
    assert convolve("cache", "info", **elsewhere).stdout == f"{folder}: 1 kernel, 2.0 MB\n"
    assert convolve("cache", "clear", **elsewhere).stdout == f"{folder}: deleted 1 kernel, 2.0 MB\n"
    assert not any(folder.iterdir())
