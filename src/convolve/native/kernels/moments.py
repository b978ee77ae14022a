"""Mean and variance of each column, in one pass, and of each row.

Each slice of a column's rows sums distances from its own first row (shifted variance); slices are joined in order of
their index with the formula of Chan, Golub and LeVeque (1983), so that no large sums cancel. A row is short enough to
be looked at twice (their corrected two-pass algorithm): the distances from its mean correct that, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask
from convolve.native.kernels.gemm import share
from convolve.native.kernels.pointwise import SPACE, rows, segment_start
from convolve.native.kernels.reduce import across, across_each


@dataclass(frozen=True)
class ColumnMoments:
    """Piece (o, slice) writes mean and summed squared distance of its rows to `out[o, slice, 0 and 1, column]`.

    The mean is written as its distance from the first row of all slices, which keeps its digits.
    """

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*SPACE, "slices:int", "in0:f4", "in0_table:i4", "in0_row:int", "count:i4", "out:f4")

    def emit(self, k: Kernel) -> None:
        lanes = k.target.lanes
        outer, part = k.piece // k.slices, k.piece % k.slices
        first, last = share(part, k.slices, k.segments)
        out = k.out + k.piece * k.inner * 2
        base = k.in0 + (k.in0_table + outer * k.segments).load()
        origin = k.in0 + (k.in0_table + (outer * k.segments + first)).load()

        def columns(index: Expr, width: int, mask: Mask | None) -> None:
            """All the slice's rows of a few columns."""
            zero = k.constant(0.0)
            shifts = [(origin + (index + v * lanes)).vector(mask) for v in range(width)]
            sums = [k.variable(zero) for _ in range(width)]
            squares = [k.variable(zero) for _ in range(width)]
            with k.range(last, first) as segment:
                starts, mid, _ = segment_start(k, outer * k.segments + segment, ("in0",))
                with k.range(mid) as row:
                    at = starts["in0"] + (row * k.in0_row + index)
                    for v in range(width):
                        distance = (at + v * lanes).vector(mask) - shifts[v]
                        sums[v].set(sums[v].get() + distance)
                        squares[v].set(k.fma(distance, distance, squares[v].get()))
            n = k.splat(k.to_float((k.count + part).load()))
            for v in range(width):
                mean = sums[v].get() / n
                spread = squares[v].get() - mean * sums[v].get()
                from_base = shifts[v] - (base + (index + v * lanes)).vector(mask)
                (out + (index + v * lanes)).store_vector(from_base + mean, mask)
                (out + (k.inner + index + v * lanes)).store_vector(k.select(spread > 0.0, spread, zero), mask)

        block = 2
        wide = k.inner - k.inner % (block * lanes)
        with k.range(wide, step=block * lanes) as index:
            columns(index, block, None)
        with k.range(k.inner, wide, step=lanes) as index:
            columns(index, 1, k.lane_mask(k.inner - index))


@dataclass(frozen=True)
class JoinMoments:
    """Piece `o` joins its slices: `out[0, o]` the mean, `out[1, o]` the biased variance of each column.

    `base` is the first row, from which the slices' means count.
    """

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("slices:int", "inner:int", "in0:f4", "base:f4", "base_table:i4", "count:i4", "out:f4", "plane:int")

    def emit(self, k: Kernel) -> None:
        source, out = k.in0 + k.piece * k.slices * k.inner * 2, k.out + k.piece * k.inner
        base = k.base + (k.base_table + k.piece).load()
        with k.range(k.inner, step=k.target.lanes) as index:
            mask = k.lane_mask(k.inner - index)
            mean = k.variable((source + index).vector(mask))
            spread = k.variable((source + (k.inner + index)).vector(mask))
            total = k.variable((k.count + 0).load())
            with k.range(k.slices, 1) as part:
                at = source + (part * k.inner * 2 + index)
                count = (k.count + part).load()
                before = total.get()
                joined = before + count
                distance = at.vector(mask) - mean.get()
                weight = k.splat(k.to_float(count) / k.to_float(joined))
                cross = distance * distance * (weight * k.splat(k.to_float(before)))
                spread.set(spread.get() + (at + k.inner).vector(mask) + cross)
                mean.set(mean.get() + distance * weight)
                total.set(joined)
            (out + index).store_vector((base + index).vector(mask) + mean.get(), mask)
            variance = spread.get() / k.splat(k.to_float(total.get()))
            (out + (k.plane + index)).store_vector(variance, mask)


@dataclass(frozen=True)
class RowMoments:
    """`out[0, row]` the mean, `out[1, row]` the biased variance of each row; they lie `plane` apart."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*SPACE, "in0:f4", "in0_table:i4", "in0_row:int", "out:f4", "out_table:i4", "out_row:int", "plane:int")

    def emit(self, k: Kernel) -> None:
        with rows(k, ("in0", "out")) as (at, inner):
            count = k.to_float(inner)

            def value(index: Expr, mask: Mask | None) -> Expr:
                return (at["in0"] + index).vector(mask)

            mean = across(k, "sum", inner, value) / count
            centre = k.splat(mean)

            def distances(index: Expr, mask: Mask | None) -> list[Expr]:
                distance = value(index, mask) - centre
                return [distance, distance * distance]

            total, squares = across_each(k, "sum", inner, 2, distances)
            rest = total / count
            at["out"].store(mean + rest)
            variance = squares / count - rest * rest
            (at["out"] + k.plane).store(k.select(variance < 0.0, k.lift(0.0, variance.type), variance))
