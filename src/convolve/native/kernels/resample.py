"""Sparse separable maps: padding, resizing, and their gradients, over tables of runs.

    Y[result[m] + v] = sum over entries e of row m: weight[e] * X[origin[m] + offset[e] + v],   v in 0..length[m]-1

Every row knows its pattern: the entries, and how many elements it walks through. Rows that repeat each other relative
to their origin share one. One output is one sequential chain of fused multiply-adds; a row of one entry is a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask
from convolve.native.kernels.gemm import share

UNROLL = 4
"""Vectors that go through a row's entries together: chains that do not wait for each other."""


@dataclass(frozen=True)
class Resample:
    """`row`: (origin in x, place in y, pattern) of each; `pattern`: (first entry, entries, length) of each."""

    @property
    def arguments(self) -> tuple[str, ...]:
        images = ("x:f4", "y:f4", "x_image:int", "y_image:int")
        return (*images, "pieces:int", "rows:int", "row:i4", "pattern:i4", "offset:i4", "weight:f4")

    def emit(self, k: Kernel) -> None:
        lanes = k.target.lanes
        image, part = k.piece // k.pieces, k.piece % k.pieces
        first, last = share(part, k.pieces, k.rows)
        with k.range(last, first) as index:
            row = k.row + index * 3
            pattern = k.pattern + (row + 2).load() * 3
            begin, entries, length = (pattern + 0).load(), (pattern + 1).load(), (pattern + 2).load()
            x = k.x + (image * k.x_image + row.load())
            y = k.y + (image * k.y_image + (row + 1).load())
            offset, weight = k.offset + begin, k.weight + begin
            nearest, scale = x + offset.load(), weight.splat()

            def walk(place: Expr, vectors: int, mask: Mask | None = None) -> None:
                at = [place + v * lanes for v in range(vectors)]
                sums = [k.variable((nearest + a).vector(mask) * scale) for a in at]
                with k.range(entries, 1) as e:
                    source, factor = x + (offset + e).load(), (weight + e).splat()
                    for a, total in zip(at, sums, strict=True):
                        total.set(k.fma(factor, (source + a).vector(mask), total.get()))
                for a, total in zip(at, sums, strict=True):
                    (y + a).store_vector(total.get(), mask)

            blocks, whole = length - length % (UNROLL * lanes), length - length % lanes
            with k.range(blocks, step=UNROLL * lanes) as place:
                walk(place, UNROLL)
            with k.range(whole, blocks, step=lanes) as place:
                walk(place, 1)
            with k.when(whole < length):
                walk(whole, 1, k.lane_mask(length - whole))
