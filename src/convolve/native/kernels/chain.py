"""Kernels one behind the other on one thread: what one hands to the next stays in the thread's cache."""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ir

from convolve.native.builder import I64, POINTER, Kernel

SPARE = 64
"""Floats at the beginning of scratch that are left to what the stages' kernels throw away."""


@dataclass(frozen=True)
class Chain:
    """A piece runs each stage whole, with the piece's own block of arguments for it.

    A stage is (kernel, blocks of arguments, their size, and which argument is an offset in scratch, in bytes).
    """

    stages: int

    @property
    def arguments(self) -> tuple[str, ...]:
        names = ("kernel{}:int", "blocks{}:i8", "size{}:int", "slot{}:int")
        return tuple(name.format(i) for i in range(self.stages) for name in names)

    def emit(self, k: Kernel) -> None:
        kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, POINTER]).as_pointer()
        for i in range(self.stages):
            kernel, blocks, size, slot = (k.args[f"{name}{i}"] for name in ("kernel", "blocks", "size", "slot"))
            block, own = blocks + k.piece * size, k.words(size)
            with k.range(size) as index:
                (own + index).store((block + index).load())
            local = own + slot
            local.store(local.load() + k.address(k.scratch + SPARE))
            k.ir.call(k.ir.inttoptr(kernel.value, kind), [own.value, I64(0), k.scratch.value])
