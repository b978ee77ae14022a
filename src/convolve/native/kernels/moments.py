"""Mean and variance of each column, in one pass.

Each slice of rows sums distances from its own first row (shifted variance); slices are joined in order of their index
with the formula of Chan, Golub and LeVeque (1983), so that no large sums cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask
from convolve.native.kernels.gemm import share
from convolve.native.kernels.pointwise import SPACE, segment_start


@dataclass(frozen=True)
class Moments:
    """Piece `slice` writes mean and summed squared distance of its rows to `out[slice, 0 and 1, column]`."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*SPACE, "slices:int", "in0:f4", "in0_table:i4", "in0_row:int", "count:i4", "out:f4")

    def emit(self, k: Kernel) -> None:
        lanes = k.target.lanes
        first, last = share(k.piece, k.slices, k.segments)
        out = k.out + k.piece * k.inner * 2
        origin = k.in0 + (k.in0_table + first).load()

        def columns(index: Expr, width: int, mask: Mask | None) -> None:
            """All the slice's rows of a few columns."""
            zero = k.constant(0.0)
            shifts = [(origin + (index + v * lanes)).vector(mask) for v in range(width)]
            sums = [k.variable(zero) for _ in range(width)]
            squares = [k.variable(zero) for _ in range(width)]
            with k.range(last, first) as segment:
                starts, mid, _ = segment_start(k, segment, ("in0",))
                with k.range(mid) as row:
                    at = starts["in0"] + (row * k.in0_row + index)
                    for v in range(width):
                        distance = (at + v * lanes).vector(mask) - shifts[v]
                        sums[v].set(sums[v].get() + distance)
                        squares[v].set(k.fma(distance, distance, squares[v].get()))
            n = k.splat(k.to_float((k.count + k.piece).load()))
            for v in range(width):
                mean = sums[v].get() / n
                spread = squares[v].get() - mean * sums[v].get()
                (out + (index + v * lanes)).store_vector(shifts[v] + mean, mask)
                (out + (k.inner + index + v * lanes)).store_vector(k.select(spread > 0.0, spread, zero), mask)

        block = 2
        wide = k.inner - k.inner % (block * lanes)
        with k.range(wide, step=block * lanes) as index:
            columns(index, block, None)
        with k.range(k.inner, wide, step=lanes) as index:
            columns(index, 1, k.lane_mask(k.inner - index))


@dataclass(frozen=True)
class JoinMoments:
    """Join the slices: `out[0]` the mean, `out[1]` the biased variance of each column."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("slices:int", "inner:int", "in0:f4", "count:i4", "out:f4")

    def emit(self, k: Kernel) -> None:
        with k.range(k.inner, step=k.target.lanes) as index:
            mask = k.lane_mask(k.inner - index)
            mean = k.variable((k.in0 + index).vector(mask))
            spread = k.variable((k.in0 + (k.inner + index)).vector(mask))
            total = k.variable((k.count + 0).load())
            with k.range(k.slices, 1) as part:
                at = k.in0 + (part * k.inner * 2 + index)
                count = (k.count + part).load()
                before = total.get()
                joined = before + count
                distance = at.vector(mask) - mean.get()
                weight = k.splat(k.to_float(count) / k.to_float(joined))
                cross = distance * distance * (weight * k.splat(k.to_float(before)))
                spread.set(spread.get() + (at + k.inner).vector(mask) + cross)
                mean.set(mean.get() + distance * weight)
                total.set(joined)
            (k.out + index).store_vector(mean.get(), mask)
            variance = spread.get() / k.splat(k.to_float(total.get()))
            (k.out + (k.inner + index)).store_vector(variance, mask)
