"""Depthwise convolution, and any other with few channels a group: vectors run along channels.

    Y[out[m] + f] = epilogue( sum over taps o and channels j of X[row[m] + red[o] + first(f) + j] * B[bred[o] + j][f] )

where first(f) is the first channel of f's group: `width` channels and as many filters make one, a divisor of 16, so
that a panel of 16 filters sees the 16 channels at its own place. Depthwise is width 1. The tables are those of the
gather-GEMM, and so is the layout of the filters.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Pointer
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.gemm import epilogue_arguments, finish, share
from convolve.native.target import PANEL


@dataclass(frozen=True)
class Depthwise:
    """Register tile: rows x vectors of channels. All panels pass over a tile while its rows are in the first cache."""

    width: int
    rows: int
    vectors: int
    epilogue: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "b:f4", "y:f4"),
            *("row:i4", "out:i4", "tiles:int"),
            *("red:i4", "reach:i4"),
            *("x_stack:int", "y_stack:int"),
            *("panels:int", "panel_size:int", "columns:int", "tile_blocks:int"),
            *epilogue_arguments(self.epilogue),
        )

    def emit(self, k: Kernel) -> None:
        block, stack = k.piece % k.tile_blocks, k.piece // k.tile_blocks
        first, last = share(block, k.tile_blocks, k.tiles)
        x, y = k.x + stack * k.x_stack, k.y + stack * k.y_stack
        with k.range(last, first) as tile, k.range(k.panels) as panel:
            left = k.columns - panel * PANEL
            with k.either(left >= self.vectors * k.target.lanes) as (whole, part):
                for branch, masked in ((whole, False), (part, True)):
                    with branch:
                        self._tile(k, x, y, panel, tile * self.rows, stack, left if masked else None)

    def _tile(
        self, k: Kernel, x: Pointer, y: Pointer, panel: Expr, first: Expr, stack: Expr, left: Expr | None
    ) -> None:
        lanes, column = k.target.lanes, panel * PANEL
        b = k.b + panel * k.panel_size
        rows = [x + ((k.row + (first + j)).load() + column) for j in range(self.rows)]
        sums = [[k.variable(k.constant(0.0)) for _ in range(self.vectors)] for _ in rows]
        reach = k.reach + first // self.rows * 4
        first_tap, stop = reach.load(), (reach + 1).load()
        self._ask_for_next(k, x, y, first, column, k.select(stop > 0, stop - 1, k.lift(0)))
        with k.range(stop, first_tap) as o:
            pair = k.red + o * 2
            at, weights = pair.load(), b + (pair + 1).load()
            for v in range(self.vectors):
                columns = [(weights + (c * PANEL + v * lanes)).vector() for c in range(self.width)]
                for j, row in enumerate(rows):
                    seen = channels(k, row + at, v, self.width)
                    for value, weight in zip(seen, columns, strict=True):
                        sums[j][v].set(k.fma(value, weight, sums[j][v].get()))
        finish(k, self.epilogue, sums, y, first, stack, column, left)

    def _ask_for_next(self, k: Kernel, x: Pointer, y: Pointer, first: Expr, column: Expr, tap: Expr) -> None:
        """Prefetch what the next tile reads through its last tap, new to it alone, and where it writes.

        A tile is too short, and its lines too far apart, for the processor to see them coming.
        """
        following = k.minimum(first // self.rows + 1, k.tiles - 1) * self.rows
        at = (k.red + tap * 2).load() + column
        for j in range(self.rows):
            (x + ((k.row + (following + j)).load() + at)).prefetch()
            (y + ((k.out + (following + j)).load() + column)).prefetch(write=True)


def channels(k: Kernel, at: Pointer, v: int, width: int) -> list[Expr]:
    """Vector `v` of a panel's channels as its filters see them: for each lane its group's first channel, second, ..."""
    lanes = k.target.lanes
    if width == 1:
        return [(at + v * lanes).vector()]
    if width >= lanes:
        first = v * lanes // width * width
        return [(at + (first + c)).splat() for c in range(width)]
    value = (at + v * lanes).vector()
    return [k.shuffle(value, [lane // width * width + c for lane in range(lanes)]) for c in range(width)]


@dataclass(frozen=True)
class DepthwiseFilterGradient:
    """dW[tap, j, f] = sum over segments, i of X[x[segment] + run[tap] + first(f) + j + i * x_step] * dY[...].

    Register tile: `taps` x width x vectors of one panel. A piece is a (slice of segments, block of panels); it takes
    its segments in chunks, each of which all its panels pass over while it is in cache.
    """

    width: int
    taps: int
    vectors: int

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "dy:f4", "y:f4"),
            *("segment:i4", "segments:int", "slices:int", "chunk:int"),  # (offset in x, in dy, positions) each
            *("x_step:int", "dy_step:int"),
            *("run:i4", "runs:int"),  # offset in x of each tap
            *("panels:int", "panel_blocks:int", "slice_size:int", "columns:int"),
        )

    def emit(self, k: Kernel) -> None:
        block, part = k.piece % k.panel_blocks, k.piece // k.panel_blocks
        first_panel, last_panel = share(block, k.panel_blocks, k.panels)
        first, last = share(part, k.slices, k.segments)
        with k.range((last - first + (k.chunk - 1)) // k.chunk) as chunk:
            start = first + chunk * k.chunk
            stop = k.minimum(start + k.chunk, last)
            with k.range(last_panel, first_panel) as panel:
                y = k.y + (part * k.slice_size + panel * k.runs * (self.width * PANEL))
                with k.range(k.runs, step=self.taps) as tap:
                    for first_vector in range(0, k.target.panel_vectors, self.vectors):
                        self._tile(k, panel * PANEL, first_vector, y, tap, start, stop, chunk.equals(0))

    def _tile(
        self, k: Kernel, column: Expr, first: int, y: Pointer, tap: Expr, start: Expr, stop: Expr, fresh: Expr
    ) -> None:
        """Vectors from `first` on of a panel, taps from `tap` on."""
        lanes, zero = k.target.lanes, k.constant(0.0)
        vectors = range(first, first + self.vectors)
        # Taps past the last are computed as tap 0 and written to scratch.
        spare = [tap + j >= k.runs for j in range(self.taps)]
        places = [k.choose(s, k.scratch, y + (tap + j) * (self.width * PANEL)) for j, s in enumerate(spare)]
        moved = [(k.run + k.select(s, k.lift(0), tap + j)).load() for j, s in enumerate(spare)]
        sums = {
            (j, c, v): k.variable(k.select(fresh, zero, (place + (c * PANEL + v * lanes)).vector()))
            for j, place in enumerate(places)
            for c in range(self.width)
            for v in vectors
        }
        with k.range(stop, start) as segment:
            entry = k.segment + segment * 3
            x, dy = k.x + (entry.load() + column), k.dy + ((entry + 1).load() + column)
            sources = [x + at for at in moved]
            with k.range((entry + 2).load()) as i:
                for v in vectors:
                    received = (dy + (i * k.dy_step + v * lanes)).vector()
                    for j, source in enumerate(sources):
                        for c, value in enumerate(channels(k, source + i * k.x_step, v, self.width)):
                            total = sums[j, c, v]
                            total.set(k.fma(value, received, total.get()))
        for (j, c, v), total in sums.items():
            # Columns past the last filter stay zero, as everywhere in packed parameters.
            mask = k.lane_mask(k.columns - column - v * lanes)
            (places[j] + (c * PANEL + v * lanes)).store_vector(k.select(mask, total.get(), zero))
