"""What every test shares: its group, one kernel cache a session, hypothesis without chance, NumPy in the doctests."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

GROUPS = {
    "pure": "pure",
    "data": "pure",
    "native": "native",
    "cli": "native",
    "peers": "peers",
    "onnx": "onnx",
    "browser": "browser",
    "extras": "extras",
}
TESTS = Path(__file__).parent

settings.register_profile(
    "convolve",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("convolve")


def pytest_configure(config: pytest.Config) -> None:
    """Give the session, and every process it starts, a kernel cache of its own: $CONVOLVE_TEST_CACHE keeps one."""
    if hasattr(config, "workerinput"):  # a process of `pytest -n`, which has its cache from the session
        return
    folder = os.environ.get("CONVOLVE_TEST_CACHE")
    if folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="convolve-tests-")
        config.add_cleanup(temporary.cleanup)
        folder = temporary.name
    os.environ["CONVOLVE_CACHE"] = folder
    os.environ["CONVOLVE_COPIES"] = str(Path(folder) / "copies")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder; the package's doctests may compile, so they are native."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.dtest is not None:
            item.dtest.globs["np"] = np
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else "native"
        if folder in GROUPS:
            item.add_marker(GROUPS[folder])
