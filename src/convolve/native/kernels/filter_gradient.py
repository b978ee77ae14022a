"""The filter gradient: the gather-GEMM with rows and reduction exchanged.

    dW[run + k, v] = sum over segments, i of X[x[segment] + start[run] + k + i * x_step] * dY[y[segment] + v + i * y_step]

Rows are consecutive elements of a tap run (one pointer, constant offsets), the reduction walks image rows, columns are one
panel of filters. A piece is one (slice of segments, panel, run); it goes through its segments in chunks that stay in cache,
keeping its sums in the result, so that each sum is one chain whatever the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel
from convolve.native.kernels.gemm import share
from convolve.native.target import PANEL


@dataclass(frozen=True)
class FilterGradient:
    """Register tile: rows x vectors of one panel."""

    rows: int
    vectors: int

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "dy:f4", "y:f4"),
            *("segment:i4", "segments:int", "slices:int", "chunk:int"),  # pairs of offsets (x, dy)
            *("inner:int", "x_step:int", "dy_step:int"),
            *("run:i4", "runs:int", "length:int"),  # offset in x of each tap run, and how long runs are
            *("panels:int", "slice_size:int", "columns:int"),
        )

    def emit(self, k: Kernel) -> None:
        run, rest = k.piece % k.runs, k.piece // k.runs
        panel, part = rest % k.panels, rest // k.panels
        column = panel * PANEL
        x, dy = k.x + (k.run + run).load(), k.dy + column
        y = k.y + (part * k.slice_size + ((panel * k.runs + run) * k.length) * PANEL)
        first, last = share(part, k.slices, k.segments)
        chunks = (last - first + (k.chunk - 1)) // k.chunk
        with k.range(chunks) as chunk:
            start = first + chunk * k.chunk
            stop = k.minimum(start + k.chunk, last)
            tiles = (k.length + (self.rows - 1)) // self.rows
            with k.range(tiles) as tile:
                self._tile(k, x, dy, y, tile * self.rows, k.columns - column, start, stop, chunk.equals(0))

    def _tile(
        self, k: Kernel, x: Expr, dy: Expr, y: Expr, row: Expr, left: Expr, start: Expr, stop: Expr, fresh: Expr
    ) -> None:
        lanes = k.target.lanes
        # Rows past the run's end are computed with the others and written to scratch.
        places = [k.choose(row + j < k.length, y + (row + j) * PANEL, k.scratch) for j in range(self.rows)]
        zero = k.constant(0.0)
        sums = [
            [k.variable(k.select(fresh, zero, (place + v * lanes).vector())) for v in range(self.vectors)]
            for place in places
        ]
        with k.range(stop, start) as segment:
            pair = k.segment + segment * 2
            xs, ys = x + (pair.load() + row), dy + (pair + 1).load()
            with k.range(k.inner) as i:
                at = xs + i * k.x_step
                values = [(ys + (i * k.dy_step + v * lanes)).vector() for v in range(self.vectors)]
                for j in range(self.rows):
                    factor = (at + j).splat()
                    for v, value in enumerate(values):
                        sums[j][v].set(k.fma(factor, value, sums[j][v].get()))
        for j, place in enumerate(places):
            for v in range(PANEL // lanes):
                # Columns past the last filter stay zero, so that packed parameters never hold anything there.
                value = k.select(k.lane_mask(left - v * lanes), sums[j][v].get(), zero) if v < self.vectors else zero
                (place + v * lanes).store_vector(value)
