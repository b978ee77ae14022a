"""From a kernel's spec to object code: written in LLVM's language, optimised, translated."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from convolve.native.target import Target, host

if TYPE_CHECKING:
    from convolve.native.builder import Kernel


class Spec(Protocol):
    """What a kernel is: a frozen dataclass whose `repr` says everything that its code depends on."""

    @property
    def arguments(self) -> tuple[str, ...]: ...

    def emit(self, k: Kernel) -> None: ...


def compile_object(spec: Spec, target: Target, symbol: str = "kernel") -> bytes:
    """Object code of one kernel."""
    return object_of(written(spec, target, symbol), target)


def assembly(spec: Spec) -> str:
    """The kernel's machine code as text, for people."""
    module, machine = _optimised(written(spec, host(), "kernel"), host())
    return str(machine.emit_assembly(module))


def object_of(text: str, target: Target) -> bytes:
    """Object code of what was written."""
    module, machine = _optimised(text, target)
    return bytes(machine.emit_object(module))


def written(spec: Spec, target: Target, symbol: str) -> str:
    """The kernel as LLVM reads it."""
    from convolve.native.builder import Kernel

    kernel = Kernel(target, symbol, spec.arguments)
    spec.emit(kernel)
    return kernel.finish()


def _optimised(text: str, target: Target) -> tuple[Any, Any]:
    import llvmlite.binding as llvm

    machine = machine_for(target)
    module = llvm.parse_assembly(text)
    module.verify()
    # Kernels are unrolled and vectorised by hand: LLVM's own unroller and vectorisers cost ten times the compile time.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


@cache
def machine_for(target: Target) -> Any:
    """LLVM's idea of a target."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    made = llvm.Target.from_triple(target.triple)
    return made.create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="jitdefault"
    )
