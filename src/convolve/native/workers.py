"""The pool of threads that run programs in lock step: one for all models, made when first needed, anew after a fork."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from convolve.errors import ConvolveError
from convolve.native.cache import dispatch
from convolve.native.job import LINE, Run, Serve, Word

SCRATCH_BYTES = 1 << 12
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)


def aligned(count: int, dtype: type = np.uint8, alignment: int = 64) -> np.ndarray:
    """Zeroed memory that begins at a multiple of `alignment` bytes."""
    raw = np.zeros(count * np.dtype(dtype).itemsize + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + count * np.dtype(dtype).itemsize].view(dtype)


@dataclass(frozen=True)
class Table:
    """A program bound to addresses: rows (kernel, arguments, pieces, phase ends), their counters, scratch a thread."""

    rows: np.ndarray
    counters: np.ndarray
    scratch: int = SCRATCH_BYTES

    @cached_property
    def addresses(self) -> tuple[int, int, int]:
        """Where the rows begin, how many they are, where the counters begin."""
        return self.rows.ctypes.data, len(self.rows), self.counters.ctypes.data


class Pool:
    """Threads that sleep until there is a job. Use `pool()`; one job runs at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._shared = aligned(Word.WORDS, np.int64, 4096)
        self._arguments = [np.array([self._shared.ctypes.data], np.int64)]
        self._argument = self._arguments[0].ctypes.data
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._scratch, self._scratch_address = aligned(0), 0
        self._run = _FUNCTION(dispatch(Run()))
        self._serve = _FUNCTION(dispatch(Serve()))

    def _grow(self, threads: int) -> None:
        while len(self._threads) < threads - 1:
            number = len(self._threads) + 1
            argument = np.array([self._shared.ctypes.data, self._shared[Word.JOB]], np.int64)
            self._arguments.append(argument)
            call = (argument.ctypes.data, number, 0)
            thread = threading.Thread(target=self._serve, args=call, daemon=True, name=f"convolve-{number}")
            thread.start()
            self._threads.append(thread)

    def run(self, table: Table, threads: int) -> None:
        """Run a table to its end on `threads` threads, the caller among them."""
        if self._closed:
            if threading.current_thread().daemon:
                threading.Event().wait()  # the interpreter ends without it
            raise ConvolveError("the interpreter is ending: nothing can be computed any more")
        with self.lock:
            if len(self._threads) < threads - 1:
                self._grow(threads)
            if self._scratch.size < threads * table.scratch:
                self._scratch = aligned(threads * table.scratch, alignment=4096)
                self._scratch_address = self._scratch.ctypes.data
            self._publish(table, threads)

    def _publish(self, table: Table, threads: int) -> None:
        self._shared[Word.CALLS : Word.SCRATCH_SIZE + 1] = (
            *table.addresses[:2],
            threads,
            table.addresses[2],
            self._scratch_address,
            table.scratch,
        )
        self._run(self._argument, 0, 0)

    def stop(self) -> None:
        """Let the workers end; the next job starts new ones."""
        with self.lock:
            if self._threads:
                self._shared[Word.QUIT] = 1
                self._publish(Table(np.zeros((0, 4), np.int64), np.zeros(LINE, np.int64)), len(self._threads) + 1)
                for thread in self._threads:
                    thread.join()
                self._threads, self._shared[Word.QUIT] = [], 0

    def close(self) -> None:
        """End for good, with the interpreter: daemon threads that still compute get no further job."""
        self._closed = True
        self.stop()


_pool: Pool | None = None
_making = threading.Lock()


def pool() -> Pool:
    """The process's pool."""
    global _pool
    with _making:
        if _pool is None:
            _pool = Pool()
            atexit.register(_pool.close)
        return _pool


def _after_fork() -> None:
    """A child has none of its parent's threads: it makes a pool of its own when it needs one."""
    global _pool, _making
    if _pool is not None:
        atexit.unregister(_pool.close)
    _pool, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


UNLIMITED = 1 << 16
"""More threads than anybody has."""


def default_threads() -> int:
    """The least of `limits()`.

    Raises:
        ConvolveError: `CONVOLVE_THREADS` is not a positive number.
    """
    return max(1, min(limits().values()))


def limits() -> dict[str, int]:
    """What bounds the number of threads, by name; `UNLIMITED` where something does not.

    Raises:
        ConvolveError: `CONVOLVE_THREADS` is not a positive number.
    """
    asked = os.environ.get("CONVOLVE_THREADS") or str(UNLIMITED)
    if not asked.isdigit() or int(asked) < 1:
        raise ConvolveError(f"CONVOLVE_THREADS={asked!r}: give a number of threads, 1 or more")
    return {
        "CPUs this process may use": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ),
        "the container's quota": _quota(),
        "physical cores": _physical_cores(),
        "CONVOLVE_THREADS": int(asked),
    }


def _quota() -> int:
    """CPUs the control group grants, rounded up."""
    groups = Path("/sys/fs/cgroup")
    try:
        quota, period = (groups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (groups / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (groups / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return UNLIMITED
    if quota in ("max", "-1"):
        return UNLIMITED
    return max(1, -(-int(quota) // int(period)))


def _physical_cores() -> int:
    """Cores that are not the second thread of another."""
    cores = set()
    try:
        for cpu in os.sched_getaffinity(0):
            cores.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
    except (OSError, AttributeError):
        return UNLIMITED
    return len(cores)
