"""A job as the threads see it: the words they share, and the two kernels that stand at its ends.

How these are written stands in `kernels.runtime`: a process that finds them on disk does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convolve.native.builder import Kernel

LINE = 8
"""64-bit slots in a cache line."""


class Word(IntEnum):
    """Slots of the shared words: those that threads change have a cache line each, a job's description shares one."""

    JOB = 0  # its number above the bits of MOST_THREADS, its threads in them
    JOB_SLEEPERS = 8
    QUIT = 16
    CALLS = 24
    COUNT = 25
    THREADS = 26
    COUNTERS = 27
    SCRATCH = 28
    SCRATCH_SIZE = 29
    ARRIVED = 32
    BARRIER = 40
    BARRIER_SLEEPERS = 48
    WORDS = 56


@dataclass(frozen=True)
class Run:
    """The calling thread publishes a job, takes part in it as thread 0 and returns when it is done."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("shared:i8",)

    def emit(self, k: Kernel) -> None:
        from convolve.native.kernels.runtime import Runtime

        Runtime(k).run()


@dataclass(frozen=True)
class Serve:
    """A worker's life: wait for a job after `seen`, take part in it, until told to quit. `piece` is its number."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("shared:i8", "seen:int")

    def emit(self, k: Kernel) -> None:
        from convolve.native.kernels.runtime import Runtime

        Runtime(k).serve()
