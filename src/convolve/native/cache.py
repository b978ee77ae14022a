"""Dispatch, then invoke: a frozen kernel spec goes in, a function's address comes out.

From memory, from disk, or fresh from LLVM.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from convolve.native import disk
from convolve.native.compiling import Spec, compile_object, machine_for, object_of, written
from convolve.native.linking import link
from convolve.native.target import Target, host


@dataclass
class Statistics:
    """How kernels were come by in this process."""

    compiled: int = 0
    loaded: int = 0


statistics = Statistics()
_lock = threading.RLock()
_names: dict[tuple[Spec, Target], str] = {}
_addresses: dict[str, int] = {}
_libraries: list[Any] = []


class MissingKernel(Exception):
    """A kernel of this name is neither in memory nor on disk."""


def dispatch(spec: Spec, target: Target | None = None) -> int:
    """The address of the kernel that `spec` describes, for this CPU or for a target that it covers."""
    target = target or host()
    with _lock:
        name = name_of(spec, target)
        try:
            return address_of(name)
        except MissingKernel:
            return _keep(name, compile_object(spec, target, _symbol(name)))


def dispatch_all(specs: Iterable[Spec]) -> None:
    """Have many kernels in memory, for this CPU: while LLVM compiles one, the code of the next is written."""
    target, missing = host(), dict[str, Spec]()
    with _lock:
        for spec in dict.fromkeys(specs):
            name = name_of(spec, target)
            try:
                address_of(name)
            except MissingKernel:
                missing[name] = spec
        if not missing:
            return
        from concurrent.futures import ThreadPoolExecutor

        compiler = ThreadPoolExecutor(1)
        try:
            made = {
                name: compiler.submit(object_of, written(spec, target, _symbol(name)), target)
                for name, spec in missing.items()
            }
            for name, code in made.items():
                _keep(name, code.result())
        finally:
            compiler.shutdown(cancel_futures=True)


def _keep(name: str, code: bytes) -> int:
    """Enter fresh code, and let others find it."""
    statistics.compiled += 1
    disk.write(f"{name}.kernel", code)
    return _enter(name, code)


def name_of(spec: Spec, target: Target | None = None) -> str:
    """What a kernel is called on disk: a digest of all that its code depends on."""
    target = target or host()
    name = _names.get((spec, target))
    if name is None:
        text = f"{spec!r}|{target!r}|{generators()}"
        name = _names[(spec, target)] = hashlib.sha256(text.encode()).hexdigest()[:40]
    return name


def address_of(name: str) -> int:
    """The address of a kernel by its name.

    Raises:
        MissingKernel: there is none, in memory or on disk.
    """
    with _lock:
        address = _addresses.get(name)
        if address is not None:
            return address
        code = disk.read(f"{name}.kernel")
        if code is None:
            raise MissingKernel(name)
        statistics.loaded += 1
        return _enter(name, code)


def _enter(name: str, code: bytes) -> int:
    address = link(code, _symbol(name))
    address = _addresses[name] = _linked(code, _symbol(name)) if address is None else address
    return address


def _symbol(name: str) -> str:
    return f"convolve_{name}"


def _linked(code: bytes, symbol: str) -> int:
    """The same by LLVM's linker, which knows every system."""
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(symbol)
    library = builder.link(_linker(), symbol)
    _libraries.append(library)
    return int(library[symbol])


@cache
def _linker() -> Any:
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(machine_for(host()), use_jit_link=False, suppress_errors=False)


@cache
def generators() -> str:
    """A hash of everything that writes kernel code, and of the LLVM that compiles it."""
    import llvmlite

    folder = Path(__file__).parent
    writers = [folder / name for name in ("builder.py", "compiling.py", "job.py", "target.py", "waiting.py")]
    paths = [*writers, *sorted((folder / "kernels").rglob("*.py"))]

    def digest() -> str:
        made = hashlib.sha256(llvmlite.__version__.encode())
        for path in paths:
            made.update(path.read_bytes())
        return made.hexdigest()

    return disk.recall(f"generators|{llvmlite.__version__}|{disk.stamps(paths)}", digest)
