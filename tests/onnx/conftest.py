"""ONNX tests need the onnx package; comparisons need ONNX Runtime."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

# A part of the package, because without it this very folder goes for a package of that name.
collect_ignore_glob = [] if importlib.util.find_spec("onnx.defs") else ["test_*.py"]
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many of ONNX's own tests passed."""

    def count(outcome: str) -> int:
        reports = terminalreporter.stats.get(outcome, [])
        return sum("test_suite.py" in r.nodeid and getattr(r, "when", "call") in ("call", "setup") for r in reports)

    if passed := count("passed"):
        terminalreporter.write_line(f"ONNX's own tests: {passed} passed, {count('failed')} failed")
