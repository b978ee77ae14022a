"""Dispatch, then invoke: a frozen kernel spec goes in, a function's address comes out.

From memory, from disk, or fresh from LLVM.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from convolve.native import disk
from convolve.native.linking import link
from convolve.native.target import Target, host

if TYPE_CHECKING:
    from convolve.native.builder import Kernel


class Spec(Protocol):
    """What a kernel is: a frozen dataclass whose `repr` says everything that its code depends on."""

    @property
    def arguments(self) -> tuple[str, ...]: ...

    def emit(self, k: Kernel) -> None: ...


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
            code = compile_object(spec, target, _symbol(name))
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


def compile_object(spec: Spec, target: Target, symbol: str = "kernel") -> bytes:
    """Object code of one kernel."""
    module, machine = _optimised(spec, target, symbol)
    return bytes(machine.emit_object(module))


def assembly(spec: Spec) -> str:
    """The kernel's machine code as text, for people."""
    module, machine = _optimised(spec, host(), "kernel")
    return str(machine.emit_assembly(module))


def _optimised(spec: Spec, target: Target, symbol: str) -> tuple[Any, Any]:
    import llvmlite.binding as llvm

    from convolve.native.builder import Kernel

    kernel = Kernel(target, symbol, spec.arguments)
    spec.emit(kernel)
    machine = _machine(target)
    module = llvm.parse_assembly(kernel.finish())
    module.verify()
    # Kernels are unrolled and vectorised by hand: LLVM's own unroller and vectorisers cost ten times the compile time.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


@cache
def _machine(target: Target) -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    made = llvm.Target.from_triple(target.triple)
    return made.create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="jitdefault"
    )


@cache
def _linker() -> Any:
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(_machine(host()), use_jit_link=False, suppress_errors=False)


@cache
def generators() -> str:
    """A hash of everything that writes kernel code, and of the LLVM that compiles it."""
    import llvmlite

    folder = Path(__file__).parent
    writers = [folder / name for name in ("builder.py", "cache.py", "job.py", "target.py", "waiting.py")]
    paths = [*writers, *sorted((folder / "kernels").rglob("*.py"))]

    def digest() -> str:
        made = hashlib.sha256(llvmlite.__version__.encode())
        for path in paths:
            made.update(path.read_bytes())
        return made.hexdigest()

    return disk.recall(f"generators|{llvmlite.__version__}|{disk.stamps(paths)}", digest)
