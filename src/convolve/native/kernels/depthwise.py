"""Depthwise convolution, and any other with few channels a group: vectors run along channels.

    Y[out[m] + f] = epilogue( sum over taps o, t and channels j of
                              X[row[m] + red[o] + t * x_step + first(f) + j] * B[bred[o] + t * b_step + j][f] )

where first(f) is the first channel of f's group: `width` channels and as many filters make one, a divisor of 16, so
that a panel of 16 filters sees the 16 channels at its own place. Depthwise is width 1. The tables are those of the
gather-GEMM, and so is the layout of the filters; the rows of a tile follow each other along the last dimension, so
that what one reads through a tap the next reads through another.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Pointer
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.gemm import epilogue_arguments, finish, share
from convolve.native.target import PANEL


@dataclass(frozen=True)
class Depthwise:
    """Register tile: `rows` outputs, `step` positions apart, that see `run` positions each, a vector of channels.

    All panels pass over a tile while its rows are in the first cache.
    """

    width: int
    rows: int
    run: int
    step: int
    epilogue: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "b:f4", "y:f4"),
            *("row:i4", "out:i4", "tiles:int"),
            *("red:i4", "reach:i4", "x_step:int", "b_step:int"),
            *("x_stack:int", "y_stack:int"),
            *("panels:int", "panel_size:int", "columns:int", "tile_blocks:int"),
            *epilogue_arguments(self.epilogue),
        )

    @property
    def positions(self) -> int:
        """How many positions a tile sees through a run of taps."""
        return (self.rows - 1) * self.step + self.run

    def emit(self, k: Kernel) -> None:
        block, stack = k.piece % k.tile_blocks, k.piece // k.tile_blocks
        first, last = share(block, k.tile_blocks, k.tiles)
        x, y = k.x + stack * k.x_stack, k.y + stack * k.y_stack
        with k.range(last, first) as tile, k.range(k.panels) as panel:
            left = k.columns - panel * PANEL
            self._ask_for_next(k, x, y, tile, panel * PANEL)
            with k.either(left >= PANEL) as (whole, part):
                for branch, masked in ((whole, False), (part, True)):
                    with branch:
                        for v in range(k.target.panel_vectors):
                            self._tile(k, x, y, panel, v, tile, stack, left if masked else None)

    def _tile(
        self, k: Kernel, x: Pointer, y: Pointer, panel: Expr, v: int, tile: Expr, stack: Expr, left: Expr | None
    ) -> None:
        """Vector `v` of a panel."""
        lanes, column = k.target.lanes, panel * PANEL
        b = k.b + (panel * k.panel_size + v * lanes)
        origin = x + ((k.row + tile * self.rows).load() + column)
        sums = [k.variable(k.constant(0.0)) for _ in range(self.rows)]
        reach = k.reach + tile * 4
        with k.range((reach + 1).load(), reach.load()) as o:
            pair = k.red + o * 2
            at, weights = origin + pair.load(), b + (pair + 1).load()
            filters = [
                [(weights + (k.b_step * t + c * PANEL)).vector() for c in range(self.width)] for t in range(self.run)
            ]
            for place in range(self.positions):
                taps = [(j, place - j * self.step) for j in range(self.rows)]
                through = [(j, t) for j, t in taps if 0 <= t < self.run]
                seen = channels(k, at + k.x_step * place, v, self.width) if through else []
                for j, t in through:
                    for value, weight in zip(seen, filters[t], strict=True):
                        sums[j].set(k.fma(value, weight, sums[j].get()))
        rest = None if left is None else left - v * lanes
        finish(k, self.epilogue, [[total] for total in sums], y, tile * self.rows, stack, column + v * lanes, rest)

    def _ask_for_next(self, k: Kernel, x: Pointer, y: Pointer, tile: Expr, column: Expr) -> None:
        """Prefetch what the next tile reads through its last run of taps, new to it alone, and where it writes.

        A tile is too short, and its lines too far apart, for the processor to see them coming.
        """
        following = k.minimum(tile + 1, k.tiles - 1)
        stop = (k.reach + (following * 4 + 1)).load()
        at = (k.red + k.select(stop > 0, stop - 1, k.lift(0)) * 2).load()
        origin = x + ((k.row + following * self.rows).load() + at + column)
        for place in range(self.run - 1, self.positions):
            (origin + k.x_step * place).prefetch()
        for j in range(self.rows):
            (y + ((k.out + (following * self.rows + j)).load() + column)).prefetch(write=True)


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
