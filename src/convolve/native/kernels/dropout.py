"""Dropout by counter-based random numbers: an element's fate depends on (seed, step, image, layer, element) alone.

The mixing steps are those of SplitMix64 (Steele et al., 2014) for the row's key and of MurmurHash3's finaliser for
the element.
"""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ir

from convolve.native.builder import I32, Expr, Kernel
from convolve.native.kernels.gemm import share


def mix(z: Expr, k: Kernel) -> Expr:
    """SplitMix64's output function."""
    z = (z ^ _logical(k, z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ _logical(k, z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ _logical(k, z, 31)


def _logical(k: Kernel, z: Expr, bits: int) -> Expr:
    return Expr(k, k.ir.lshr(z.value, k.lift(bits, z.type).value))


@dataclass(frozen=True)
class Dropout:
    """y = x * scale where a random number reaches `threshold` (of 2**24), else 0. A piece is a part of one image."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "y:f4", "random:i8", "layer:int", "threshold:int", "scale:float"),
            *("inner:int", "parts:int"),
        )

    def emit(self, k: Kernel) -> None:
        lanes = k.target.lanes
        kind = ir.VectorType(I32, lanes)

        def splat(number: Expr) -> Expr:
            return k.splat(k.narrow(number))

        image, part = k.piece // k.parts, k.piece % k.parts
        key = mix(mix(k.random.load(), k) + (k.random + 1).load(), k)
        row = mix(mix(key + k.layer, k) + image, k)
        low, high, threshold = splat(row), splat(_logical(k, row, 32)), splat(k.threshold)
        zero, scale = k.constant(0.0), k.splat(k.scale)
        counter = Expr(k, ir.Constant(kind, list(range(lanes))))
        x, y = k.x + image * k.inner, k.y + image * k.inner
        first, last = share(part, k.parts, k.inner)
        with k.range(last, first, step=lanes) as index:
            mask = k.lane_mask(last - index)
            h = ((counter + splat(index)) * -0x61C88647) ^ low
            h = (h ^ _logical(k, h, 16)) * -0x7A143593
            h = ((h ^ _logical(k, h, 13)) ^ high) * -0x3D4D51CB
            h = h ^ _logical(k, h, 16)
            kept = _logical(k, h, 8) >= threshold
            (y + index).store_vector(k.select(kept, (x + index).vector(mask) * scale, zero), mask)
