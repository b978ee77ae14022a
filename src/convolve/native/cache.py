"""Dispatch, then invoke: a frozen kernel spec goes in, a function's address comes out.

From memory, from the disk cache, or fresh from LLVM. A disk entry is the SHA-256 of the object code followed by the
code; it is written to a temporary file and renamed, and dropped and made again where it is damaged. The folder holds
code that will run, so it must belong to the user and be closed to everybody else.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from convolve.native.builder import Kernel
from convolve.native.target import Target, host


class KernelCacheWarning(UserWarning):
    """Kernels cannot be kept on disk; they are compiled anew in each process."""


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
_known: dict[tuple[Spec, Target], int] = {}
_libraries: list[Any] = []


def dispatch(spec: Spec, target: Target | None = None) -> int:
    """The address of the kernel that `spec` describes, for this CPU or for a target that it covers."""
    target = target or host()
    with _lock:
        address = _known.get((spec, target))
        if address is None:
            address = _known[(spec, target)] = _load(spec, target)
        return address


def directory() -> Path:
    """Where kernels are kept: `$CONVOLVE_CACHE`, or `kernels` in the user's cache folder."""
    chosen = os.environ.get("CONVOLVE_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("convolve", appauthor=False)) / "kernels"


def entries() -> list[Path]:
    """The kernels on disk."""
    folder = directory()
    return sorted(folder.glob("*.kernel")) if folder.is_dir() else []


def clear() -> int:
    """Delete the kernels on disk; returns how many there were."""
    found = entries()
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _load(spec: Spec, target: Target) -> int:
    key = hashlib.sha256(f"{spec!r}|{target!r}|{_generators()}".encode()).hexdigest()[:40]
    symbol = f"convolve_{key}"
    folder = _usable_directory()
    code = _read(folder / f"{key}.kernel") if folder else None
    if code is None:
        code = compile_object(spec, target, symbol)
        statistics.compiled += 1
        if folder:
            _write(folder / f"{key}.kernel", code)
    else:
        statistics.loaded += 1
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
def _generators() -> str:
    """A hash of everything that writes kernel code, and of the LLVM that compiles it."""
    import llvmlite

    digest = hashlib.sha256(llvmlite.__version__.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _checked(folder: Path) -> Path | None:
    """The folder, made if need be, if code in it can be trusted and kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if hasattr(os, "getuid"):
            if status.st_uid != os.getuid():
                raise PermissionError("it belongs to another user")
            if stat.S_IMODE(status.st_mode) & 0o077:
                folder.chmod(0o700)
    except OSError as error:
        warnings.warn(
            f"kernel cache {folder} is not used: {error}. Kernels are compiled anew in each process; "
            "set CONVOLVE_CACHE to a folder of your own.",
            KernelCacheWarning,
            stacklevel=2,
        )
        return None
    return folder


def _usable_directory() -> Path | None:
    return _checked(directory())


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    if hashlib.sha256(code).digest() != digest:
        path.unlink(missing_ok=True)
        return None
    return code


def _write(path: Path, code: bytes) -> None:
    handle, temporary = -1, ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        warnings.warn(
            f"kernel cache {path.parent} cannot be written: {error}. Free some space or set CONVOLVE_CACHE.",
            KernelCacheWarning,
            stacklevel=2,
        )
