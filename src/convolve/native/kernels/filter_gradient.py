"""The filter gradient: the gather-GEMM with rows and reduction exchanged.

    dW[run + k, v] = sum over segments, i of X[x[segment] + start[run] + k + i * x_step] * dY[y[segment] + v + i *
    y_step]

Rows are consecutive elements of a tap run (one pointer, constant offsets), the reduction walks image rows, columns
are one panel of filters. A piece is one (slice of segments, panel, run); it goes through its segments in chunks that
stay in cache, keeping its sums in the result, so that each sum is one chain whatever the chunk. Where a run has many
tiles, a chunk's panel of dY is first brought together in scratch: left in place, its lines would fall on a few sets
of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Pointer
from convolve.native.kernels.gemm import share
from convolve.native.target import PANEL


@dataclass(frozen=True)
class FilterGradient:
    """Register tile: rows x vectors of one panel; `gathered` brings dY's panel together first."""

    rows: int
    vectors: int
    gathered: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "dy:f4", "y:f4"),
            *("segment:i4", "segments:int", "slices:int", "chunk:int"),  # (offset in x, in dy, positions) each
            *("x_step:int", "dy_step:int"),
            *("run:i4", "runs:int", "length:int"),  # offset in x of each tap run, and how long runs are
            *("groups:int", "x_group:int", "dy_group:int", "y_group:int"),
            *("panels:int", "slice_size:int", "columns:int", "spare:int"),
        )

    def emit(self, k: Kernel) -> None:
        run, rest = k.piece % k.runs, k.piece // k.runs
        panel, rest = rest % k.panels, rest // k.panels
        group, part = rest % k.groups, rest // k.groups
        column = panel * PANEL
        x, dy = k.x + (group * k.x_group + (k.run + run).load()), k.dy + (group * k.dy_group + column)
        y = k.y + (part * k.slice_size + group * k.y_group + ((panel * k.runs + run) * k.length) * PANEL)
        first, last = share(part, k.slices, k.segments)
        chunks = (last - first + (k.chunk - 1)) // k.chunk
        with k.range(chunks) as chunk:
            start = first + chunk * k.chunk
            stop = k.minimum(start + k.chunk, last)
            if self.gathered:
                self._gather(k, dy, start, stop)
            tiles = (k.length + (self.rows - 1)) // self.rows
            with k.range(tiles) as tile:
                self._tile(k, x, dy, y, tile * self.rows, k.columns - column, start, stop, chunk.equals(0))

    def _tile(
        self,
        k: Kernel,
        x: Pointer,
        dy: Pointer,
        y: Pointer,
        row: Expr,
        left: Expr,
        start: Expr,
        stop: Expr,
        fresh: Expr,
    ) -> None:
        lanes = k.target.lanes
        # Rows past the run's end are computed with the others and written to scratch.
        spare = k.scratch + k.spare
        places = [k.choose(row + j < k.length, y + (row + j) * PANEL, spare) for j in range(self.rows)]
        zero = k.constant(0.0)
        sums = [
            [k.variable(k.select(fresh, zero, (place + v * lanes).vector())) for v in range(self.vectors)]
            for place in places
        ]
        gathered = k.variable(0)
        with k.range(stop, start) as segment:
            entry = k.segment + segment * 3
            count = (entry + 2).load()
            xs = x + (entry.load() + row)
            ys = k.scratch + gathered.get() if self.gathered else dy + (entry + 1).load()
            step = k.lift(PANEL) if self.gathered else k.dy_step
            gathered.set(gathered.get() + count * PANEL)
            with k.range(count) as i:
                at = xs + i * k.x_step
                values = [(ys + (i * step + v * lanes)).vector() for v in range(self.vectors)]
                for j in range(self.rows):
                    factor = (at + j).splat()
                    for v, value in enumerate(values):
                        sums[j][v].set(k.fma(factor, value, sums[j][v].get()))
        for j, place in enumerate(places):
            for v in range(PANEL // lanes):
                # Columns past the last filter stay zero, so that packed parameters never hold anything there.
                value = k.select(k.lane_mask(left - v * lanes), sums[j][v].get(), zero) if v < self.vectors else zero
                (place + v * lanes).store_vector(value)

    def _gather(self, k: Kernel, dy: Pointer, start: Expr, stop: Expr) -> None:
        """Copy the chunk's panel of dY to scratch, position behind position."""
        lanes = k.target.lanes
        place = k.variable(0)
        with k.range(stop, start) as segment:
            entry = k.segment + segment * 3
            source, count = dy + (entry + 1).load(), (entry + 2).load()
            target = k.scratch + place.get()
            with k.range(count) as i:
                for v in range(self.vectors):
                    value = (source + (i * k.dy_step + v * lanes)).vector()
                    (target + (i * PANEL + v * lanes)).store_vector(value)
            place.set(place.get() + count * PANEL)
