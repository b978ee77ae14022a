"""What the CPU offers. The only place that knows instruction sets apart.

`CONVOLVE_TARGET` (128, 256 or 512) pins narrower vectors than the CPU has, to compare bits between targets.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

from convolve.errors import ConvolveError
from convolve.native import disk

PANEL = 16
"""Columns of a filter panel. The same on every target, so that packed parameters and sums do not depend on it."""


@dataclass(frozen=True)
class Target:
    """Vector lanes, registers and the names LLVM knows the CPU by."""

    lanes: int
    registers: int
    triple: str
    cpu: str
    features: str
    fma: bool

    @property
    def panel_vectors(self) -> int:
        """Vectors that make one panel of `PANEL` columns."""
        return PANEL // self.lanes

    def tile_rows(self, vectors: int) -> int:
        """Rows of a register tile `vectors` wide: accumulators fill the registers but for operands and a broadcast."""
        return max(1, min(8, (self.registers - vectors - 1) // vectors))


@cache
def host() -> Target:
    """The CPU this process runs on, or the narrower one `CONVOLVE_TARGET` asks for.

    Raises:
        ConvolveError: `CONVOLVE_TARGET` is not a width this CPU has.
    """
    told = json.loads(disk.recall(f"host|{_processor()}", _asked) if _processor() else _asked())
    triple, flags = told["triple"], told["features"]
    arm = triple.startswith(("aarch64", "arm64"))
    if arm:
        widest, registers, fma = 128, 32, True
    elif flags.get("avx512f") and flags.get("avx512vl"):
        widest, registers, fma = 512, 32, True
    elif flags.get("avx2") and flags.get("fma"):
        widest, registers, fma = 256, 16, True
    else:
        widest, registers, fma = 128, 16, bool(flags.get("fma"))
    asked = os.environ.get("CONVOLVE_TARGET", str(widest))
    if asked not in {"128", "256", "512"} or int(asked) > widest:
        raise ConvolveError(
            f"CONVOLVE_TARGET={asked!r}: this CPU's vectors have {widest} bits. Set 128, 256 or 512, at most {widest}."
        )
    features = ",".join(("+" if on else "-") + name for name, on in sorted(flags.items()))
    return Target(int(asked) // 32, registers, triple, told["cpu"], features, fma)


def _asked() -> str:
    """What LLVM says of this CPU, as JSON."""
    import llvmlite.binding as llvm

    told = {"triple": llvm.get_process_triple(), "cpu": llvm.get_host_cpu_name()}
    return json.dumps(told | {"features": dict(llvm.get_host_cpu_features())})


def _processor() -> str:
    """What LLVM's answers depend on, where the system tells as much without it; else nothing."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return ""
    import llvmlite

    try:
        with Path("/proc/cpuinfo").open() as file:
            first = takewhile(str.strip, file)
            known = ("vendor_id", "cpu family", "model", "stepping", "flags")
            return "|".join([llvmlite.__version__, *(line.strip() for line in first if line.startswith(known))])
    except OSError:
        return ""
