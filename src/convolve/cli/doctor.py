"""`convolve doctor`: what this computer offers, and whether convolve works on it."""

from __future__ import annotations

import os
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from convolve import __version__
from convolve.cli.output import Output, count
from convolve.errors import ConvolveError
from convolve.graph import evaluate
from convolve.layers import Conv, Dense, Flatten, MaxPool, ReLU, Sequential
from convolve.model import Model
from convolve.native import disk, workers
from convolve.native.target import host

TOLERANCE = 1e-5
"""Of the self-check: the largest difference between a result and its definition, relative to the largest value."""


def doctor(quiet: bool, as_json: bool) -> None:
    """Print what was found.

    Raises:
        ConvolveError: something is wrong; the message says what to do.
    """
    output = Output(quiet, as_json)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", disk.KernelCacheWarning)
        difference = self_check()
    advice = [str(w.message) for w in caught if issubclass(w.category, disk.KernelCacheWarning)][:1]
    found: dict[str, Any] = {
        "versions": versions(),
        "cpu": cpu(),
        "threads": threads(),
        "cache": kernel_cache(usable=not advice),
        "check": {"largest_difference": difference, "passed": difference <= TOLERANCE},
        "advice": advice,
    }
    if as_json:
        output.give(found)
    else:
        _print(found, output)
    if not found["check"]["passed"]:
        raise ConvolveError(
            f"a small net computes other numbers than its definition (largest difference {difference:.1e}), so its "
            "results cannot be trusted here. Run `convolve cache clear` and try again; if it stays, please report "
            "it with what `convolve doctor --json` prints"
        )


def versions() -> dict[str, str]:
    """Of convolve and what it stands on."""
    import llvmlite
    import llvmlite.binding as llvm

    return {
        "convolve": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "llvmlite": llvmlite.__version__,
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def cpu() -> dict[str, Any]:
    """The CPU and what of it kernels use."""
    target = host()
    return {
        "name": _cpu_name(),
        "llvm_name": target.cpu,
        "vector_bits": 32 * target.lanes,
        "registers": target.registers,
        "fused_multiply_add": target.fma,
        "pinned_by": "CONVOLVE_TARGET" if "CONVOLVE_TARGET" in os.environ else None,
    }


def threads() -> dict[str, Any]:
    """How many threads compute by default, and the limits that number is the least of."""
    default = workers.default_threads()
    known = {name: None if limit == workers.UNLIMITED else limit for name, limit in workers.limits().items()}
    return {"default": default, "limits": known}


def kernel_cache(usable: bool) -> dict[str, Any]:
    """The folder of compiled kernels."""
    entries = disk.entries()
    return {
        "folder": str(disk.directory()),
        "usable": usable,
        "kernels": len(entries),
        "bytes": sum(path.stat().st_size for path in entries),
    }


def self_check() -> float:
    """Run a small net by kernels and by the plain definitions of its ops; the largest relative difference."""
    net = Sequential(Conv(20, 3), ReLU(), MaxPool(2), Conv(8, 3, stride=2), Flatten(), Dense(10))
    model = Model(net, (13, 11, 3), seed=1)
    x = np.random.Generator(np.random.Philox(0)).standard_normal((3, 13, 11, 3), np.float32)
    built = model.network.forward(3)
    feeds = {name: np.asarray(array, np.float64) for name, array in model.parameters.items()}
    [wanted] = evaluate([built.output], {"x": x.astype(np.float64), **feeds})
    return float(np.abs(model.predict(x) - wanted).max() / np.abs(wanted).max())


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _print(found: dict[str, Any], output: Output) -> None:
    version, processor, cached = found["versions"], found["cpu"], found["cache"]
    limits = [f"{name}: {number}" for name, number in found["threads"]["limits"].items() if number is not None]
    fma = "fused multiply-add" if processor["fused_multiply_add"] else "no fused multiply-add"
    pinned = ", set by CONVOLVE_TARGET" if processor["pinned_by"] else ""
    size = f"{count(cached['kernels'], 'kernel')}, {cached['bytes'] / 1e6:.1f} MB"
    rows = {
        "convolve": version["convolve"],
        "Python": f"{version['python']}, NumPy {version['numpy']}",
        "LLVM": f"{version['llvm']}, llvmlite {version['llvmlite']}",
        "system": version["system"],
        "CPU": f"{processor['name']} ({processor['llvm_name']})",
        "vectors": f"{processor['vector_bits']} bits, {processor['registers']} registers, {fma}{pinned}",
        "threads": f"{found['threads']['default']} ({', '.join(limits)})",
        "kernel cache": f"{cached['folder']}, {size if cached['usable'] else 'not usable'}",
        "check": f"a small net differs from its definition by at most {found['check']['largest_difference']:.1e}",
    }
    for name, value in rows.items():
        output.say(f"{name:12}  {value}")
    for line in found["advice"]:
        output.result(f"\nAdvice: {line}")
    if not found["advice"] and found["check"]["passed"]:
        output.say("\nAll is well.")
