"""Kernels that move numbers: margins, packed filters and their transposes."""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Pointer
from convolve.native.kernels.gemm import share
from convolve.native.target import PANEL


@dataclass(frozen=True)
class Fill:
    """One number in the runs `(offset, length)` of each image: zeros in margins, or all over."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("y:f4", "image:int", "run:i4", "runs:int", "value:float")

    def emit(self, k: Kernel) -> None:
        value = k.splat(k.value)
        y = k.y + k.piece * k.image
        with k.range(k.runs) as run:
            pair = k.run + run * 2
            at, length = y + pair.load(), (pair + 1).load()
            whole = length - length % k.target.lanes
            with k.range(whole, step=k.target.lanes) as index:
                (at + index).store_vector(value)
            with k.range(length, whole) as index:
                (at + index).store(k.value)


@dataclass(frozen=True)
class Transpose:
    """Planes of rows and columns, copied element by element: each side has strides of its own, planes have tables.

    With `woven`, so many columns, dense in the result, are woven from as many runs of the input: pixels from planes.
    """

    woven: int = 0

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "y:f4", "x_table:i4", "y_table:i4", "planes:int", "parts:int", "pieces:int"),
            *("rows:int", "x_row:int", "y_row:int", "columns:int", "x_column:int", "y_column:int"),
        )

    def emit(self, k: Kernel) -> None:
        first, last = share(k.piece // k.parts, k.pieces // k.parts, k.planes)
        begin, end = share(k.piece % k.parts, k.parts, k.rows)
        with k.range(last, first) as plane:
            x = k.x + (k.x_table + plane).load()
            y = k.y + (k.y_table + plane).load()
            start = self._weave(k, x, y, begin, end) if self.woven else begin
            with k.range(k.columns) as column:
                source, target = x + column * k.x_column, y + column * k.y_column
                with k.range(end, start) as row:
                    (target + row * k.y_row).store((source + row * k.x_row).load())

    def _weave(self, k: Kernel, x: Pointer, y: Pointer, begin: Expr, end: Expr) -> Expr:
        """Whole vectors of rows; gives the first row that is left."""
        lanes = k.target.lanes
        stop = end - (end - begin) % lanes
        with k.range(stop, begin, step=lanes) as row:
            runs = [(x + (column * k.x_column + row)).vector() for column in range(self.woven)]
            for i, vector in enumerate(k.woven(runs)):
                (y + (row * self.woven + i * lanes)).store_vector(vector)
        return stop


@dataclass(frozen=True)
class TransposePanels:
    """From panels of filters to panels of channels, taps turned round: what the gradient of an input multiplies with.

    `[filters/16][tap][channel][16]` becomes `[channels/16][last tap - tap][filter][16]`, group by group.
    """

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("x:f4", "y:f4", "taps:int", "channels:int", "filters:int", "panels:int")

    def emit(self, k: Kernel) -> None:
        panel, tap = k.piece // k.taps, k.piece % k.taps
        group, column = panel // k.panels, panel % k.panels * PANEL
        left = k.channels - column
        y = k.y + (panel * k.taps + (k.taps - 1 - tap)) * k.filters * PANEL
        blocks = (k.filters + (PANEL - 1)) // PANEL
        with k.range(blocks) as block:
            x = k.x + ((((group * blocks + block) * k.taps + tap) * k.channels) + column) * PANEL
            rows = k.minimum(k.filters - block * PANEL, PANEL)
            with k.range(rows) as f:
                target = y + (block * PANEL + f) * PANEL
                with k.range(k.minimum(left, PANEL)) as c:
                    (target + c).store((x + (c * PANEL + f)).load())
                with k.range(PANEL, left) as c:
                    (target + c).store(0.0)


@dataclass(frozen=True)
class TransposeGroups:
    """Within groups of `width` filters and channels, the two exchanged: panels `[panel][tap][width][16]`."""

    width: int

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("x:f4", "y:f4", "taps:int")

    def emit(self, k: Kernel) -> None:
        size = self.width * PANEL
        with k.range(k.taps) as tap:
            start = (k.piece * k.taps + tap) * size
            for row in range(self.width):
                for column in range(PANEL):
                    group, place = column // self.width * self.width, column % self.width
                    value = (k.x + (start + (place * PANEL + group + row))).load()
                    (k.y + (start + (row * PANEL + column))).store(value)


@dataclass(frozen=True)
class Repack:
    """Between a plain weight (groups, filters, rest) and its panels, in either direction."""

    packing: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("x:f4", "y:f4", "rest:int", "filters:int", "groups:int", "pieces:int")

    def emit(self, k: Kernel) -> None:
        blocks = (k.filters + (PANEL - 1)) // PANEL
        first, last = share(k.piece, k.pieces, k.groups * blocks * k.rest)
        with k.range(last, first) as row:
            block, index = row // k.rest, row % k.rest
            group = block // blocks
            with k.range(PANEL) as f:
                filter_ = (block - group * blocks) * PANEL + f
                with k.either(filter_ < k.filters) as (inside, outside):
                    with inside:
                        plain, panel = (group * k.filters + filter_) * k.rest + index, row * PANEL + f
                        source, target = (plain, panel) if self.packing else (panel, plain)
                        (k.y + target).store((k.x + source).load())
                    with outside:
                        if self.packing:
                            (k.y + (row * PANEL + f)).store(0.0)
