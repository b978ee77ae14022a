"""Peers in processes of their own, which work only when they are told to; what the benchmarks say of the machine."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class PeerError(Exception):
    """A peer could not do what it was asked for."""


class Peer:
    """A process with a worker, made by `make(*arguments)` when it is first asked for anything."""

    def __init__(self, make: Callable[..., object], name: str, *arguments: object) -> None:
        context = get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, (name, *arguments)), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, method: str, *arguments: object) -> Any:
        """What the worker's method gives.

        Raises:
            PeerError: it raised a RuntimeError, as PyTorch and others do where they cannot go on.
        """
        self.pipe.send((method, *arguments))
        try:
            result, error = self.pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.name} died; its traceback is above") from None
        if error:
            raise PeerError(f"{self.name}: {error}")
        return result

    def close(self) -> None:
        self.pipe.close()
        self.process.join()


def _serve(pipe: Connection, make: Callable[..., object], arguments: Sequence[object]) -> None:
    """Answer (method, arguments) with (result, None), or with (None, what went wrong), until the pipe is closed."""
    worker: object = None
    while True:
        try:
            method, *given = pipe.recv()
        except EOFError:
            return
        try:
            worker = worker or make(*arguments)
            result = getattr(worker, method)(*given)
        except RuntimeError as error:
            pipe.send((None, f"{type(error).__name__}: {str(error).splitlines()[0]}"))
        else:
            pipe.send((result, None))


def peak_memory() -> float:
    """Most memory this process ever held, in MB. (On Linux getrusage counts what the parent held, too.)"""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text().split()
        return int(status[status.index("VmHWM:") + 1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine(threads: int, packages: Sequence[str] = ("numpy", "llvmlite", "torch")) -> dict[str, str]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "cpu": names[0].partition(": ")[2] if names else platform.processor(),
        "system": platform.platform(),
        "threads": str(threads),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
