"""What a core can do at best: fused multiply-adds between registers, nothing read and nothing written on the way."""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Kernel
from convolve.native.target import Target


def accumulators(target: Target) -> int:
    """Chains that run beside each other: as many as a register tile has, enough to hide the latency."""
    return target.tile_rows(target.panel_vectors) * target.panel_vectors


def flops(target: Target, rounds: int) -> int:
    """Additions and multiplications of one piece."""
    return 2 * target.lanes * accumulators(target) * rounds


@dataclass(frozen=True)
class Peak:
    """Each chain s = a * s + b, `rounds` times."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("rounds:int", "a:float", "b:float")

    def emit(self, k: Kernel) -> None:
        a, b = k.splat(k.a), k.splat(k.b)
        sums = [k.variable(k.constant(float(i))) for i in range(accumulators(k.target))]
        with k.range(k.rounds):
            for s in sums:
                s.set(k.fma(a, s.get(), b))
        for i, s in enumerate(sums):
            (k.scratch + i * k.target.lanes).store_vector(s.get())
