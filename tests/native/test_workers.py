"""The pool of threads: after a fork, from many threads at once, at the interpreter's end, and with denormal numbers."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import Array, Machine, normal

from convolve import ops
from convolve.errors import ConvolveError
from convolve.graph import Graph, apply, leaf
from convolve.native.cache import dispatch
from convolve.native.job import LINE, Run, Serve, Word
from convolve.native.workers import Table, aligned, default_threads, pool
from convolve.ops.convolution import Convolution
from convolve.window import resolve


def machine(seed: int = 0, images: int = 8) -> Machine:
    """Several phases of several pieces."""
    x, w = leaf("input", "x", (images, 24, 24, 8)), leaf("parameter", "w", (8, 3, 3, 8))
    y = ops.cast(x)
    for _ in range(3):
        y = ops.tanh(apply(Convolution(resolve(3, 1, 1, "same", (24, 24))), y, w))
    feeds = {"x": normal(x.shape, seed), "w": normal(w.shape, seed)}
    return Machine(Graph({"y": y, "norm": ops.sum(ops.square(y))}), feeds)


def bits(m: Machine, threads: int = 2) -> bytes:
    return b"".join(array.tobytes() for array in m.run(threads).values())


# many callers


def test_calls_from_many_threads_at_once_are_all_right() -> None:
    machines = [machine(seed) for seed in range(4)]
    expected = [bits(m, 1) for m in machines]

    def work(job: int) -> bool:
        return all(bits(machines[job % 4], 1 + (job + turn) % 3) == expected[job % 4] for turn in range(1, 11))

    locks = [threading.Lock() for _ in machines]

    def one_at_a_time(job: int) -> bool:
        with locks[job % 4]:
            return work(job)

    with ThreadPoolExecutor(6) as callers:
        assert all(callers.map(one_at_a_time, range(12)))


def test_any_change_of_the_number_of_threads_is_followed() -> None:
    """Threads that sit out a job must not take part in half of the next."""
    m = machine(images=1)
    expected = bits(m, 1)
    for turn in range(300):
        assert bits(m, (3, 2, 5, 1, 2)[turn % 5]) == expected


@dataclass(frozen=True)
class Count:
    """Adds one to a number of this piece's own, so that a piece done twice or never shows."""

    arguments: tuple[str, ...] = ("y:i8",)

    def emit(self, k: object) -> None:
        at = k.y + k.piece  # type: ignore[attr-defined]
        at.store(at.load() + 1)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_piece_of_every_call_is_done_once(threads: int) -> None:
    calls, pieces = 7, 50
    counts = aligned(calls * pieces, np.int64)
    arguments = [np.array([counts[i * pieces :].ctypes.data], np.int64) for i in range(calls)]
    rows = aligned(4 * calls, np.int64).reshape(calls, 4)
    for i in range(calls):
        rows[i] = dispatch(Count()), arguments[i].ctypes.data, pieces, i % 3 == 0 or i == calls - 1
    table = Table(rows, aligned(LINE * calls, np.int64))
    for turn in range(1, 201):
        pool().run(table, threads)
        assert (counts == turn).all()


def test_a_late_worker_goes_by_the_number_of_threads_of_its_own_job() -> None:
    """Thread 2 sits out a job of two; before it looks, most of the next job's words have been written."""
    shared, counts = aligned(Word.WORDS, np.int64, 4096), aligned(1, np.int64)
    address, arguments = np.array([shared.ctypes.data], np.int64), np.array([counts.ctypes.data], np.int64)
    row = np.array([dispatch(Count()), arguments.ctypes.data, 1, 0], np.int64)
    counter = np.zeros(LINE, np.int64)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    publish, serve = function(dispatch(Run())), function(dispatch(Serve()))

    def write(threads: int, calls: int) -> None:
        shared[Word.THREADS], shared[Word.COUNT] = threads, calls
        shared[Word.CALLS], shared[Word.COUNTERS] = row.ctypes.data, counter.ctypes.data

    write(threads=2, calls=0)
    publish(address.ctypes.data, 0, None)
    write(threads=3, calls=1)
    born = np.array([shared.ctypes.data, 0], np.int64)
    late = threading.Thread(target=serve, args=(born.ctypes.data, 2, None), daemon=True)
    late.start()
    looks = 0
    while not shared[Word.JOB_SLEEPERS]:
        looks += 1
        assert looks < 10_000_000, "the worker never waits for another job"
    shared[Word.QUIT] = 1
    write(threads=2, calls=0)
    publish(address.ctypes.data, 0, None)
    late.join(20)
    assert not late.is_alive()
    assert counts[0] == 0


# life and death


def child_digest(m: Machine) -> bytes:
    """The bits a forked child computes, which must end without an error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(30)  # better killed than waiting forever
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(bits(m))
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_the_same() -> None:
    m = machine()
    expected = bits(m)
    for _ in range(3):
        assert child_digest(m) == expected
        assert bits(m) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_computes_is_free_to_compute() -> None:
    busy, m = machine(1), machine()
    expected, stop = bits(m), threading.Event()

    def compute() -> None:
        while not stop.is_set():
            busy.run()

    worker = threading.Thread(target=compute)
    worker.start()
    try:
        assert [child_digest(m) for _ in range(5)] == [expected] * 5
    finally:
        stop.set()
        worker.join()


PROGRAM = """
import threading, numpy as np
from convolve import ops
from convolve.graph import Graph, leaf
from convolve.passes import compile_graph
from convolve.execution import Arena, Executable
x = leaf("input", "x", (40000,))
executable = Executable(compile_graph(Graph({"y": x * 2.0})), Arena(), {})
def run():
    executable.run({"x": np.ones(40000, np.float32)}, 3)
"""


def ends(program: str) -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM + program], timeout=20, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "done\n", "")


def test_an_interpreter_with_a_pool_ends() -> None:
    ends("run(); print('done')")


def test_an_interpreter_ends_after_calls_from_other_threads() -> None:
    start = "callers = [threading.Thread(target=run) for _ in range(3)]; [t.start() for t in callers]; "
    ends(start + "[t.join() for t in callers]; print('done')")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_parent_and_forked_child_both_end() -> None:
    ends("import os; run(); child = os.fork(); run(); child and os.waitpid(child, 0); child and print('done')")


def test_an_interpreter_ends_while_a_daemon_computes() -> None:
    program = """
def forever():
    while True:
        run()
        started.set()
started = threading.Event()
threading.Thread(target=forever, daemon=True).start()
started.wait()
print('done')
"""
    for _ in range(3):
        ends(program)


def test_a_pool_that_was_stopped_starts_again() -> None:
    ends("from convolve.native.workers import pool; run(); pool().stop(); run(); print('done')")


# floating-point mode


def tiny() -> Array:
    return np.array([1e-40], np.float32) * np.float32(1)


def test_denormals_are_zero_in_kernels_and_nowhere_else() -> None:
    x = leaf("input", "x", (30_000,))
    feeds = {"x": np.full(30_000, 1e-40, np.float32)}
    m = Machine(Graph({"read": x * 1e30, "made": x * 0.0 + 1e-30 * (ops.cast(x) * 0.0 + 1e-10)}), feeds)
    assert tiny()[0] > 0
    for threads in (1, 2, 3):
        got = m.run(threads)
        assert not got["read"].any()
        assert not got["made"].any()
        assert tiny()[0] > 0


def test_denormals_are_left_to_threads_that_only_call() -> None:
    m, after = machine(), []

    def call() -> None:
        m.run()
        after.append(tiny()[0])

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert after[0] > 0


# how many threads


def test_threads_are_bounded_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLVE_THREADS", "1")
    assert default_threads() == 1
    monkeypatch.setenv("CONVOLVE_THREADS", "10000")
    most = default_threads()
    monkeypatch.delenv("CONVOLVE_THREADS")
    assert 1 <= default_threads() == most <= (os.cpu_count() or 1)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " "])
def test_a_number_of_threads_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CONVOLVE_THREADS", value)
    with pytest.raises(ConvolveError, match="CONVOLVE_THREADS="):
        default_threads()
