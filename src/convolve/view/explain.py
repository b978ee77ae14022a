"""Where the time of a program goes: every kernel call, measured on this CPU, beside the most that the CPU can do."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from convolve.execution import Executable
from convolve.native.cache import dispatch
from convolve.native.job import LINE
from convolve.native.kernels.peak import Peak, flops
from convolve.native.target import host
from convolve.native.workers import Table, aligned, pool
from convolve.program import Call
from convolve.view.text import megabytes, table

LEAST_ROUNDS, MOST_ROUNDS = 3, 30
SECONDS = 0.5
"""How long to measure, unless the least number of rounds takes longer."""
PEAK_ROUNDS = 4000
PEAK_PIECES = 8
"""Shares of the peak's measurement a thread: a late one leaves some to the others."""


@dataclass(frozen=True)
class Row:
    """A kernel call: what it computes, how, and what it took."""

    label: str
    """The layer. `d x` is the derivative by x; a parameter's or statistic's name is its update."""
    kernel: str
    algorithm: str
    tile: str
    """Rows x vectors of the register tile, where the kernel has one."""
    pieces: int
    """Shares of the work that threads claim."""
    phase: int
    """Calls of one phase run beside each other; threads meet at its end."""
    seconds: float
    share: float
    """Part of the time that all calls take."""
    flops: int
    """Additions and multiplications that the definition takes; Winograd's transforms get by with fewer."""

    @property
    def gflops(self) -> float:
        """Billions of additions and multiplications a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0


@dataclass(frozen=True)
class Explanation:
    """A program's calls in order. Prints as a table.

    >>> from convolve import Dense, Model
    >>> found = Model(Dense(10), input_shape=(784,)).explain(batch_size=64)
    >>> [(row.label, row.kernel, row.flops) for row in found.rows if row.label == "dense1"]
    [('dense1', 'Gemm', 1003520)]
    """

    rows: tuple[Row, ...]
    seconds: float
    """A whole run: below the sum of its calls where calls of one phase run beside each other."""
    threads: int
    peak_gflops: float
    """Multiplications and additions a second, in billions, of these threads between registers, as measured here."""
    phases: int
    kernels: int
    arena_bytes: int
    waiting: float | None = None
    """The share of its time that training waits for data, where that was measured."""

    @property
    def gflops(self) -> float:
        return sum(row.flops for row in self.rows) / self.seconds / 1e9

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        rows = [asdict(row) | {"gflops": row.gflops, "share_of_peak": self._of_peak(row.gflops)} for row in self.rows]
        return asdict(self) | {"rows": rows, "gflops": self.gflops, "share_of_peak": self._of_peak(self.gflops)}

    def _of_peak(self, gflops: float) -> float:
        return gflops / self.peak_gflops

    def _cells(self, row: Row) -> tuple[str, ...]:
        speed = (f"{row.gflops:.1f}", f"{self._of_peak(row.gflops):.0%}") if row.gflops else ("", "")
        time = (f"{row.seconds * 1e3:.3f}", f"{row.share:.1%}")
        return (row.label, row.kernel, row.algorithm, row.tile, f"{row.pieces}", f"{row.phase}", *time, *speed)

    def __str__(self) -> str:
        heads = ("call", "kernel", "how", "tile", "pieces", "phase", "ms", "time", "GFLOP/s", "of peak")
        text = table(heads, [self._cells(row) for row in self.rows], left=3)
        rule = text.splitlines()[1]
        total = (
            f"{self.seconds * 1e3:.3f} ms a run on {self.threads} thread{'s' * (self.threads > 1)}: "
            f"{len(self.rows)} calls of {self.kernels} kernels in {self.phases} phases, "
            f"{megabytes(self.arena_bytes)} of working memory\n"
            f"{self.gflops:.1f} GFLOP/s, {self._of_peak(self.gflops):.0%} of the {self.peak_gflops:.0f} "
            "that these threads reach between registers"
        )
        if self.waiting is not None:
            total += f"\ntraining on these data waits for them {self.waiting:.1%} of the time"
        return f"{text}\n{rule}\n{total}"

    __repr__ = __str__


def explain(executable: Executable, inputs: Mapping[str, np.ndarray], threads: int) -> Explanation:
    """Run a program several times, call by call, and say what each call takes: medians, less what an empty call takes.

    The program really runs: what it updates (parameters, statistics) is updated.
    """
    program = executable.program
    executable.run(inputs, threads)
    peak = 0.0
    runs: list[float] = []
    empty: list[float] = []
    calls: list[list[float]] = []
    began = time.perf_counter()
    while len(runs) < LEAST_ROUNDS or (len(runs) < MOST_ROUNDS and time.perf_counter() - began < SECONDS):
        calls.append(executable.measure(inputs, threads))
        empty += _empty_calls(threads)
        runs.append(_seconds(lambda: executable.run(inputs, threads)))
        peak = max(peak, peak_flops(threads))
    nothing = median(empty)
    own = [max(0.0, median(times) - nothing) for times in zip(*calls, strict=True)]
    total = sum(own) or 1.0
    return Explanation(
        rows=tuple(_row(call, s, s / total) for call, s in zip(program.calls, own, strict=True)),
        seconds=median(runs),
        threads=threads,
        peak_gflops=peak / 1e9,
        phases=program.phases,
        kernels=len({call.spec for call in program.calls}),
        arena_bytes=program.arena_bytes,
    )


def _row(call: Call, seconds: float, share: float) -> Row:
    spec = call.spec
    tile = f"{spec.rows}x{spec.vectors}" if hasattr(spec, "rows") and hasattr(spec, "vectors") else ""
    how = call.algorithm.removesuffix(f", tile {tile}")
    kernel = type(spec).__name__
    return Row(_label(call), kernel, how, tile, call.pieces, call.phase, seconds, share, call.flops)


def _label(call: Call) -> str:
    """What a call without a name works on: the array it updates, the input it reads alone, or what it makes."""
    if not call.label.startswith("%"):
        return call.label
    kept = [memory for memory in call.writes if memory.home == "store"]
    given = call.reads if all(memory.home == "input" for memory in call.reads) else []
    return [*call.writes[:1], *given, *kept][-1].name


def peak_flops(threads: int) -> float:
    """Additions and multiplications a second that `threads` threads reach at best: the best of several short runs."""
    arguments = aligned(3, np.int64)
    arguments[:] = PEAK_ROUNDS, *(int.from_bytes(struct.pack("<f", v), "little") for v in (0.5, 1.0))
    pieces = PEAK_PIECES * threads
    measured = _table(dispatch(Peak()), int(arguments.ctypes.data), pieces)
    best = min(_seconds(lambda: pool().run(measured, threads)) for _ in range(5))
    return flops(host(), PEAK_ROUNDS) * pieces / best


def _empty_calls(threads: int) -> list[float]:
    """Seconds of calls in which there is nothing to do: waking the threads, meeting, coming back."""
    nothing = _table(0, 0, 0)
    return [_seconds(lambda: pool().run(nothing, threads)) for _ in range(10)]


def _table(kernel: int, arguments: int, pieces: int) -> Table:
    rows = aligned(4, np.int64).reshape(1, 4)
    rows[0] = kernel, arguments, pieces, 1
    return Table(rows, aligned(LINE, np.int64))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
