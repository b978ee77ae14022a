"""ONNX tests need the onnx package; comparisons need ONNX Runtime."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

collect_ignore_glob = [] if importlib.util.find_spec("onnx") else ["test_*.py"]
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
