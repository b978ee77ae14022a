"""The filter gradient: the gather-GEMM with rows and reduction exchanged.

    dW[run + k, v] = sum over segments, i of X[x[segment] + start[run] + k + i * x_step] * dY[y[segment] + v + i *
    y_step]

Rows are consecutive elements of a tap run (one pointer, constant offsets), or of several short ones together, the
reduction walks image rows, columns are one panel of filters. A piece is one (slice of segments, panel, block of
runs); it goes through its segments in chunks that stay in cache, all its runs through each, keeping its sums in the
result, so that each sum is one chain whatever the chunk. Where a run has many tiles, a chunk's panel of dY is first
brought together in scratch: left in place, its lines would fall on a few sets of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Pointer
from convolve.native.kernels.gemm import share
from convolve.native.target import PANEL


@dataclass(frozen=True)
class FilterGradient:
    """Register tile: `together` runs x rows x vectors of one panel; `gathered` brings dY's panel together first."""

    together: int
    rows: int
    vectors: int
    gathered: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "dy:f4", "y:f4"),
            *("segment:i4", "segments:int", "slices:int", "chunk:int"),  # (offset in x, in dy, positions) each
            *("x_step:int", "dy_step:int"),
            *("run:i4", "runs:int", "length:int", "run_blocks:int"),  # offset in x of each tap run, how long runs are
            *("groups:int", "x_group:int", "dy_group:int", "y_group:int"),
            *("panels:int", "slice_size:int", "columns:int", "spare:int"),
        )

    def emit(self, k: Kernel) -> None:
        run_block, rest = k.piece % k.run_blocks, k.piece // k.run_blocks
        first_run, last_run = share(run_block, k.run_blocks, (k.runs + (self.together - 1)) // self.together)
        panel, rest = rest % k.panels, rest // k.panels
        group, part = rest % k.groups, rest // k.groups
        column = panel * PANEL
        dy = k.dy + (group * k.dy_group + column)
        y = k.y + (part * k.slice_size + group * k.y_group + panel * k.runs * k.length * PANEL)
        first, last = share(part, k.slices, k.segments)
        chunks = (last - first + (k.chunk - 1)) // k.chunk
        with k.range(chunks) as chunk:
            start = first + chunk * k.chunk
            stop = k.minimum(start + k.chunk, last)
            if self.gathered:
                self._gather(k, dy, start, stop)
            tiles = (k.length + (self.rows - 1)) // self.rows
            with k.range(last_run, first_run) as block:
                # Runs past the last are computed as the first and written to scratch, and so are rows past a run's end.
                numbers = [block * self.together + t for t in range(self.together)]
                places = [(k.run + k.select(n < k.runs, n, k.lift(0))).load() for n in numbers]
                seen = [k.x + (group * k.x_group + place) for place in places]
                sums = [(n < k.runs, y + n * k.length * PANEL) for n in numbers]
                with k.range(tiles) as tile:
                    self._tile(k, seen, dy, sums, tile * self.rows, k.columns - column, start, stop, chunk.equals(0))

    def _tile(
        self,
        k: Kernel,
        x: list[Pointer],
        dy: Pointer,
        y: list[tuple[Expr, Pointer]],
        row: Expr,
        left: Expr,
        start: Expr,
        stop: Expr,
        fresh: Expr,
    ) -> None:
        lanes = k.target.lanes
        spare = k.scratch + k.spare
        places = [
            k.choose((row + j < k.length) & exists, run + (row + j) * PANEL, spare)
            for exists, run in y
            for j in range(self.rows)
        ]
        zero = k.constant(0.0)
        sums = [
            [k.variable(k.select(fresh, zero, (place + v * lanes).vector())) for v in range(self.vectors)]
            for place in places
        ]
        gathered = k.variable(0)
        with k.range(stop, start) as segment:
            entry = k.segment + segment * 3
            count = (entry + 2).load()
            xs = [run + (entry.load() + row) for run in x]
            ys = k.scratch + gathered.get() if self.gathered else dy + (entry + 1).load()
            step = k.lift(PANEL) if self.gathered else k.dy_step
            gathered.set(gathered.get() + count * PANEL)
            with k.range(count) as i:
                rows = [run + (i * k.x_step + j) for run in xs for j in range(self.rows)]
                values = [(ys + (i * step + v * lanes)).vector() for v in range(self.vectors)]
                for j, row_at in enumerate(rows):
                    factor = row_at.splat()
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
