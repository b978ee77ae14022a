"""Gather-GEMM: a matrix product whose left matrix is never built.

    Y[out[m] + v] = epilogue( sum over o, k of X[row[m] + red[o] + k] * B[panel][bred[o] + k][v] )

Rows `m` come from a table of offsets, the reduction from a table of offset pairs (`o`, outer) around a contiguous run
(`k`, inner), columns `v` from panels of `PANEL` filters. Convolution, the gradient of its input and the fully-connected
layer are this kernel with different tables, at every rank; the groups of a grouped convolution share the tables. One
output is one sequential chain of fused multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Pointer, Variable
from convolve.native.kernels.expression import Formula
from convolve.native.target import PANEL, Target

UNROLL = 4


def tile_shape(target: Target, columns: int) -> tuple[int, int]:
    """Rows and vectors of the register tile for so many columns; a narrow result leaves half a panel out."""
    vectors = max(1, target.panel_vectors // 2) if columns <= PANEL // 2 else target.panel_vectors
    return target.tile_rows(vectors), vectors


@dataclass(frozen=True)
class Gemm:
    """Register tile, how many steps of a run follow each other, and what is done with a sum before it is stored.

    With `ahead`, a tile asks for the lines of the next one: short tiles, whose lines lie far apart.
    """

    rows: int
    vectors: int
    unroll: int
    ahead: bool
    epilogue: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "b:f4", "y:f4"),
            *("row:i4", "out:i4", "tiles:int"),  # offset tables, `tiles` register tiles long
            *("red:i4", "reach:i4"),  # pairs (offset in x, offset in a panel); what each tile needs of o and k
            *("x_stack:int", "y_stack:int"),  # the tables serve several stacks of images
            *("groups:int", "x_group:int", "b_group:int", "y_group:int"),  # and the groups of channels
            *("panels:int", "panel_size:int", "columns:int"),
            *("tile_blocks:int", "panel_blocks:int"),  # how pieces cut the work
            *("panel_every:int", "group_every:int", "tile_every:int"),  # after how many the next panels, group, tiles
            *epilogue_arguments(self.epilogue),
        )

    def emit(self, k: Kernel) -> None:
        panel_block = k.piece // k.panel_every % k.panel_blocks
        group = k.piece // k.group_every % k.groups
        tile_block = k.piece // k.tile_every % k.tile_blocks
        stack = k.piece // (k.panel_blocks * k.groups * k.tile_blocks)
        first_tile, last_tile = share(tile_block, k.tile_blocks, k.tiles)
        first_panel, last_panel = share(panel_block, k.panel_blocks, k.panels)
        x, y = k.x + (stack * k.x_stack + group * k.x_group), k.y + stack * k.y_stack
        with k.range(last_panel, first_panel) as panel:
            column = panel * PANEL
            left = k.columns - column
            b = k.b + (group * k.b_group + panel * k.panel_size)
            with k.either(left >= self.vectors * k.target.lanes) as (whole, part):
                for branch, masked in ((whole, False), (part, True)):
                    with branch, k.range(last_tile, first_tile) as tile:
                        self._tile(
                            k, x, y, b, tile * self.rows, stack, column + group * k.y_group, left if masked else None
                        )

    def _tile(
        self,
        k: Kernel,
        x: Pointer,
        y: Pointer,
        b: Pointer,
        first: Expr,
        stack: Expr,
        column: Expr,
        left: Expr | None,
    ) -> None:
        lanes = k.target.lanes
        rows = [x + (k.row + (first + j)).load() for j in range(self.rows)]
        sums = [[k.variable(k.constant(0.0)) for _ in range(self.vectors)] for _ in rows]
        reach = k.reach + first // self.rows * 4
        start, stop = (reach + 2).load(), (reach + 3).load()
        if self.ahead:
            following = k.minimum(first // self.rows + 1, k.tiles - 1) * self.rows
            for j in range(self.rows):
                (x + (k.row + (following + j)).load()).prefetch()
                (y + ((k.out + (following + j)).load() + column)).prefetch(write=True)
        with k.range((reach + 1).load(), reach.load()) as o:
            pair = k.red + o * 2
            at, offset = pair.load(), (pair + 1).load()
            starts = [row + at for row in rows]
            panel = b + offset

            def step(index: Expr) -> None:
                weights = [(panel + (index * PANEL + v * lanes)).vector() for v in range(self.vectors)]
                for j, p in enumerate(starts):
                    value = (p + index).splat()
                    for v, weight in enumerate(weights):
                        sums[j][v].set(k.fma(value, weight, sums[j][v].get()))

            whole = stop - (stop - start) % self.unroll
            with k.range(whole, start, step=self.unroll) as index:
                for u in range(self.unroll):
                    step(index + u)
            with k.range(stop, whole) as index:
                step(index)
        finish(k, self.epilogue, sums, y, first, stack, column, left)


def epilogue_arguments(epilogue: Formula) -> tuple[str, ...]:
    """What an epilogue needs besides the sums: inputs as large as the output come with a table of their own."""
    vectors = epilogue.indices("vector")
    return (
        *epilogue.arguments,
        *(f"in{i}_table:i4" for i in vectors),
        *(f"in{i}_stack:int" for i in vectors),
    )


def finish(
    k: Kernel,
    epilogue: Formula,
    sums: list[list[Variable]],
    y: Pointer,
    first: Expr,
    stack: Expr,
    column: Expr,
    left: Expr | None,
) -> None:
    """Send a tile's sums through the epilogue and store them: rows from `first` on, columns from `column` on.

    Only the first `left` columns are stored, where there is a `left`; spare rows go to scratch.
    """
    lanes = k.target.lanes
    for j, row in enumerate(sums):
        position = (k.out + (first + j)).load()
        spare = position < 0
        place = k.choose(spare, k.scratch, y + (position + column))
        sources = {
            i: k.choose(
                spare,
                k.scratch,
                k.args[f"in{i}"]
                + (stack * k.args[f"in{i}_stack"] + (k.args[f"in{i}_table"] + (first + j)).load() + column),
            )
            for i in epilogue.indices("vector")
        }
        for v, total in enumerate(row):
            values = [
                _operand(k, i, kind, total.get(), sources, column, v * lanes) for i, kind in enumerate(epilogue.inputs)
            ]
            [value] = epilogue.evaluate(k, values)
            mask = k.lane_mask(left - v * lanes) if left is not None else None
            (place + v * lanes).store_vector(value, mask)


def _operand(k: Kernel, i: int, kind: str, total: Expr, sources: dict[int, Pointer], column: Expr, offset: int) -> Expr:
    if kind == "sum":
        return total
    if kind == "constant":
        return k.splat(k.args[f"in{i}"])
    if kind == "channel":
        return (k.args[f"in{i}"] + (column + offset)).vector()
    return (sources[i] + offset).vector()


def share(block: Expr, blocks: Expr, total: Expr) -> tuple[Expr, Expr]:
    """First and one-past-last of `block`'s even share of `total`."""
    return block * total // blocks, (block + 1) * total // blocks
