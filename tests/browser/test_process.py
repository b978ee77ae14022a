"""The page in processes of its own: how `convolve look` ends, and what a notebook shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from playwright.sync_api import expect

from convolve import Conv, Dense, Flatten, Model, Sequential
from convolve.cli.look import look


@contextmanager
def looking(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`convolve look` in a process, and the address it says."""
    command = [sys.executable, "-m", "convolve", "look", "lenet5", "--no-browser"]
    running = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BROWSER": "false"},
    )
    try:
        assert running.stdout is not None
        said = running.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", said)
        assert found, said
        yield running, found[0]
    finally:
        running.kill()
        running.communicate()


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and what it complained of."""
    _, complaint = running.communicate(timeout=120)
    return running.returncode, complaint


def test_control_c_ends_it_cleanly(tmp_path: Path) -> None:
    with looking(tmp_path) as (running, _):
        running.send_signal(signal.SIGINT)
        assert ended(running) == (0, "")


def test_control_c_ends_it_while_a_tab_is_open(tmp_path: Path, browser: Any) -> None:
    with looking(tmp_path) as (running, address):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#verdict-line")
        running.send_signal(signal.SIGINT)
        assert ended(running) == (0, "")
        expect(page.locator("#notice")).to_contain_text("The program behind this page has ended.")
        page.close()


def test_closing_the_tab_ends_it_cleanly(tmp_path: Path, browser: Any) -> None:
    with looking(tmp_path) as (running, address):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#verdict-line")
        page.close()
        assert ended(running) == (0, "")


CELLS = (
    "import numpy as np\nfrom convolve import Conv, Dense, Flatten, Model, ReLU, Sequential",
    "model = Model(Sequential(Conv(3, 3), ReLU(), Flatten(), Dense(2)), input_shape=(6, 6, 1))\nmodel",
    "model.look(np.arange(36).reshape(6, 6))",
)


def test_a_notebook_shows_the_table_and_the_page(tmp_path: Path, browser: Any) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    table, framed = (cell.outputs[-1]["data"]["text/html"] for cell in notebook.cells[1:])
    assert "<summary><strong>Model</strong>" in table
    (tmp_path / "output.html").write_text(f"<!doctype html>{table}{framed}", encoding="utf-8")
    page = browser.new_page(offline=True)
    complaints: list[str] = []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "output.html").as_uri())
    inner = page.frame_locator("iframe")
    expect(inner.locator("#verdict-line")).to_have_class("verdict-line equal")
    expect(inner.locator("#strip .card")).to_have_count(4)
    page.close()
    assert complaints == []


@pytest.mark.parametrize("rank", [1, 3])
def test_a_file_of_sound_or_volume_is_looked_at(rank: int, tmp_path: Path, visit: Callable[..., Any]) -> None:
    kind, shape = ("signal", (50, 1)) if rank == 1 else ("volume", (4, 5, 6, 1))
    Model(Sequential(Conv(2, 3), Flatten(), Dense(2)), shape).save(tmp_path / "net.safetensors")
    name = str(tmp_path / ("tone.wav" if rank == 1 else "scan.npy"))
    if rank == 1:
        with wave.open(name, "wb") as file:
            file.setparams((1, 2, 8000, 50, "NONE", ""))
            file.writeframes(np.arange(50, dtype="<i2").tobytes())
    else:
        np.save(name, np.arange(120).reshape(4, 5, 6))
    out = tmp_path / "out.html"
    look(str(tmp_path / "net.safetensors"), name, 0, str(out), browser=False, quiet=True, as_json=False)
    page = visit(out.as_uri(), offline=True)
    expect(page.locator("#total")).to_have_count(1)
    shown = page.evaluate("document.querySelector('#picture-canvas').getAttribute('aria-label')")
    assert shown == f"The {kind}, " + "\u2009\u00d7\u2009".join(map(str, shape))
