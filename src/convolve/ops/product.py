"""How products are lowered: a convolution, the gradient of its input or a fully-connected layer, as tables of offsets.

The gather-GEMM serves them all; where groups are narrow, a kernel with vectors along channels does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convolve.lowering import MOST_PIECES, Group, Lowering, epilogue_inputs, offsets, panel_count, table
from convolve.native.kernels.depthwise import Depthwise
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.gemm import UNROLL, Gemm, tile_shape
from convolve.native.target import PANEL, host
from convolve.program import Argument, At, Buffer

TABLE_ROWS = 16384
"""Rows of an offset table at most: more images go into further stacks."""
BLOCK_BYTES = 256 * 1024
"""What a piece of a product reads of its left side: stays in the second cache while the panels pass by."""
WORTHWHILE = 0.92
"""Share of a product's work from which on leaving out the taps that meet only margin is not worth smaller tiles."""
PIECE_FLOPS = 500_000
SMALL_FLOPS, SMALL_PIECES = 60_000, 16
"""Operations worth a piece where there are so few pieces that threads would wait for each other."""
PIECE_BYTES = 256 * 1024
"""Filters worth a piece of their own where few positions share them: in a dense layer, for one image."""
ROWS_ALONG = (7, 4, 1)
"""Rows that a tile of a depthwise convolution may have: few, so that kernels stay few."""
FAR_BYTES = 1024 * 1024
"""What groups share lines of, from where on it no longer lies in the second cache."""
SHORT = 288
"""Multiply-adds of an output of a group up to which tiles ask for each other's lines."""


@dataclass(frozen=True)
class Axis:
    """One spatial dimension of a product: through which taps its output positions see the source.

    Position q sees source position `start + q * step + shift` through each tap, and lands at `first + q * every`.
    """

    positions: int
    step: int
    start: int
    size: int
    shifts: tuple[int, ...]
    taps: tuple[int, ...]
    kernel: int
    first: int = 0
    every: int = 1

    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        """First and one-past-last of the taps through which each position sees more than margin."""
        seen = self.start + np.arange(self.positions)[:, None] * self.step + np.array(self.shifts, np.int64)
        inside = (seen >= 0) & (seen < self.size)
        count = inside.sum(1)
        first = np.array([row.argmax() if row.any() else 0 for row in inside], np.int64)
        return first, first + count


POINT = Axis(1, 1, 0, 1, (0,), (0,), 1)
"""What stands for the last dimension where there is none: one position, one tap."""


def product_of(
    group: Group, low: Lowering, x: Buffer, panels: At, axes: Sequence[Axis], y: Buffer, groups: int = 1
) -> None:
    """One gather-GEMM: the positions of every image as rows, the output's channels as columns, group by group."""
    for first, columns in column_spans(y.shape[-1] // groups):
        span_of(group, low, x, panels, axes, y, first, columns, groups)


def column_spans(columns: int) -> list[tuple[int, int]]:
    """First column and width of what one register tile serves: a last panel that is at most half full goes apart.

    >>> column_spans(100), column_spans(10), column_spans(64)
    ([(0, 96), (96, 4)], [(0, 10)], [(0, 64)])
    """
    last = columns % PANEL
    if columns < PANEL or not 0 < last <= PANEL // 2:
        return [(0, columns)]
    return [(0, columns - last), (columns - last, last)]


def narrow_of(
    group: Group,
    low: Lowering,
    x: Buffer,
    panels: At,
    axes: Sequence[Axis],
    y: Buffer,
    width: int,
    column: int = 0,
) -> None:
    """Groups of `width` channels and filters: positions as rows, channels as columns, taps as the reduction.

    The channels of `x` and the columns of `y` may be some of many, from `column` on.
    """
    *leads, last = axes or (POINT,)
    run = len(last.taps) if set(np.diff(last.shifts)) <= {1} and len(set(np.diff(last.taps))) <= 1 else 1
    rows = _rows_along(last.positions, run)
    together = _together(y.shape[0], math.prod(a.positions for a in axes))
    reductions, _ = _reductions(axes, x.strides[1:-1], width, heads=run > 1)
    order, reach = _tiles_along(leads, last, together, rows, len(reductions))
    tables = _Tables.of(group, low, x, axes, y, together, order, reach, column)
    apart = last.step if run > 1 < rows else 1
    spec = Depthwise(width, rows, run, apart, tables.epilogue)
    columns, panel_size = y.shape[-1], math.prod(a.kernel for a in axes) * width * PANEL
    stacks = y.shape[0] // together
    taps = math.prod(len(a.taps) for a in axes)
    flops = 2 * y.shape[0] * math.prod(a.positions for a in axes) * columns * taps * width
    blocks = min(len(reach), max(1, min(MOST_PIECES, _pieces(flops)) // stacks))
    arguments = tables.arguments | {
        "red": table(reductions),
        "x_step": (last.step if run == 1 else 1) * x.strides[-2],
        "b_step": (last.taps[1] - last.taps[0]) * width * PANEL if run > 1 else 0,
        "b": At(panels.memory, panels.index + column // PANEL * panel_size),
        "panels": panel_count(columns),
        "panel_size": panel_size,
        "columns": columns,
        "tile_blocks": blocks,
    }
    low.call(spec, arguments, stacks * blocks, y, f"{narrow_name(width)}, tile {rows}x1", flops, disjoint=True)


def _rows_along(positions: int, run: int) -> int:
    """Rows of a tile along the last dimension: what registers hold beside a run of filters, with little waste."""
    fit = [rows for rows in ROWS_ALONG if rows <= positions and rows + run + 2 <= max(host().registers, run + 6)]
    return min(fit, key=lambda rows: -(-positions // rows) * (rows + 2))


def _tiles_along(
    leads: Sequence[Axis], last: Axis, together: int, rows: int, outer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of tiles that each lie in one line of the last dimension, and the taps that each tile needs.

    The last tile of a line reaches back into the one before it: it computes some outputs again.
    """
    lines = together * math.prod(a.positions for a in leads)
    starts = np.minimum(np.arange(-(-last.positions // rows)) * rows, last.positions - rows)
    along = (starts[:, None] + np.arange(rows)).ravel()
    order = (np.arange(lines)[:, None] * last.positions + along).ravel()
    reach = np.zeros((lines, len(starts), 4), np.int64)
    reach[..., 1] = outer
    if leads and outer:
        each = outer // len(leads[0].taps)
        rest = math.prod(a.positions for a in leads[1:])
        for column, edge in enumerate(leads[0].reach()):
            reach[..., column] = np.tile(edge.repeat(rest), together)[:, None] * each
    return order, reach.reshape(-1, 4)


def narrow_name(width: int) -> str:
    return "depthwise" if width == 1 else f"groups of {width}"


def span_of(
    group: Group,
    low: Lowering,
    x: Buffer,
    panels: At,
    axes: Sequence[Axis],
    y: Buffer,
    column: int,
    columns: int,
    groups: int,
) -> None:
    """The columns from `column` on of each group of a product."""
    channels, filters = x.shape[-1] // groups, y.shape[-1] // groups
    rows, vectors = tile_shape(host(), columns)
    together = _together(y.shape[0], math.prod(a.positions for a in axes))
    reductions, run = _reductions(axes, x.strides[1:-1], channels)
    order, reach = _tiles(axes, together, rows, len(reductions), run, run > channels)
    tables = _Tables.of(group, low, x, axes, y, together, order, reach, column)
    reduction = len(reductions) * run
    ahead = groups > 1 and reduction <= SHORT and 4 * x.memory.size > FAR_BYTES
    spec = Gemm(rows, vectors, _unroll(run), ahead, tables.epilogue)
    panel_size = math.prod(a.kernel for a in axes) * channels * PANEL
    stacks = y.shape[0] // together
    flops = 2 * y.shape[0] * math.prod(a.positions for a in axes) * groups * columns * reduction
    wanted = max(_pieces(flops), 4 * panel_size * panel_count(columns) // PIECE_BYTES)
    tile_blocks, panel_blocks = _blocks(
        stacks * groups, len(reach), rows, x.shape[-1], panel_size, panel_count(columns), wanted
    )
    arguments = tables.arguments | {
        "red": table(reductions),
        "b": At(panels.memory, panels.index + column // PANEL * panel_size),
        "groups": groups,
        "x_group": channels,
        "b_group": panel_count(filters) * panel_size,
        "y_group": filters,
        "panels": panel_count(columns),
        "panel_size": panel_size,
        "columns": columns,
        "tile_blocks": tile_blocks,
        "panel_blocks": panel_blocks,
    }
    # Pieces that follow each other share a block of tiles, which stays in cache, or panels where these are more.
    if panel_blocks * len(reach) * rows * channels < tile_blocks * panel_count(columns) * panel_size:
        every = (tile_blocks, tile_blocks * panel_blocks, 1)
    else:
        every = (1, panel_blocks, panel_blocks * groups)
    arguments |= dict(zip(("panel_every", "group_every", "tile_every"), every, strict=True))
    name = f"direct, tile {rows}x{vectors}" + (f", {groups} groups" if groups > 1 else "")
    low.call(spec, arguments, stacks * groups * tile_blocks * panel_blocks, y, name, flops, disjoint=True)


@dataclass(frozen=True)
class _Tables:
    """What a product's kernels read of rows, whatever the reduction and the columns are."""

    arguments: dict[str, Argument]
    epilogue: Formula

    @classmethod
    def of(
        cls,
        group: Group,
        low: Lowering,
        x: Buffer,
        axes: Sequence[Axis],
        y: Buffer,
        together: int,
        order: np.ndarray,
        reach: np.ndarray,
        column: int = 0,
    ) -> _Tables:
        """The tables for tiles of rows in this `order`; `together` images share them."""
        steps = x.strides[1:-1]
        positions = [a.positions for a in axes]

        def in_tiles(values: np.ndarray, spare: int) -> np.ndarray:
            return table(np.where(order < 0, spare, values[order]))

        def places(buffer: Buffer) -> np.ndarray:
            strides = buffer.strides[1:-1]
            first = sum(a.first * s for a, s in zip(axes, strides, strict=True))
            walk = (a.every * s for a, s in zip(axes, strides, strict=True))
            return first + offsets((together, *positions), (buffer.strides[0], *walk))

        kinds, arguments = epilogue_inputs(group, low, column)
        for i in [i for i, kind in enumerate(kinds) if kind.startswith("vector")]:
            source = low.plain(group.inputs[i])
            arguments[f"in{i}_table"] = in_tiles(places(source), 0)
            arguments[f"in{i}_stack"] = together * source.strides[0]
        origin = sum(a.start * s for a, s in zip(axes, steps, strict=True))
        walk = (a.step * s for a, s in zip(axes, steps, strict=True))
        arguments |= {
            "x": At(x.memory, x.start + origin),
            "y": At(y.memory, y.start + column),
            "row": in_tiles(offsets((together, *positions), (x.strides[0], *walk)), 0),
            "out": in_tiles(places(y), -1),
            "tiles": len(reach),
            "reach": table(reach),
            "x_stack": together * x.strides[0],
            "y_stack": together * y.strides[0],
        }
        return cls(arguments, Formula(kinds, group.steps, group.results))


def _pieces(flops: int) -> int:
    """Pieces that so many operations are worth."""
    return max(flops // PIECE_FLOPS, min(SMALL_PIECES, flops // SMALL_FLOPS))


def _unroll(run: int) -> int:
    """Steps that follow each other: threes for a short run of threes, as of three taps or three channels."""
    return 3 if run in (3, 6, 9) else UNROLL


def _together(images: int, pixels: int) -> int:
    """Images that share one offset table: as many as divide the batch and keep the table small."""
    return max(d for d in range(1, images + 1) if images % d == 0 and (d == 1 or d * pixels <= TABLE_ROWS))


def _reductions(
    axes: Sequence[Axis], steps: Sequence[int], channels: int, heads: bool = False
) -> tuple[np.ndarray, int]:
    """Pairs (offset in the source, offset in a panel), and the length of the run behind each.

    A run is a tap's channels, or all taps of the last dimension where these lie one behind the other on both sides.
    With `heads`, only the first tap of the last dimension is listed anyway: the kernel finds the others.
    """
    merged = bool(axes) and steps[-1] == channels and len(axes[-1].taps) > 1
    merged = merged and all(np.diff(axes[-1].shifts) == 1) and all(np.diff(axes[-1].taps) == 1)
    pairs = [(0, 0)]
    for i, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        taps = list(zip(axis.shifts, axis.taps, strict=True))
        last = taps[:1] if (merged or heads) and i == len(axes) - 1 else taps
        pairs = [(at + shift * step, place * axis.kernel + tap) for at, place in pairs for shift, tap in last]
    run = channels * (len(axes[-1].taps) if merged else 1)
    return np.array([(at, place * channels * PANEL) for at, place in pairs], np.int64).reshape(-1, 2), run


def _tiles(
    axes: Sequence[Axis], together: int, rows: int, outer: int, run: int, merged: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of tiles (-1 where a tile has a row to spare), and what each tile needs of the reduction.

    Rows that see the margin through the same taps share tiles, which leave those taps out, where that saves enough.
    """
    grid = [a.positions for a in axes]
    count = together * math.prod(grid)
    whole = np.array([[0, outer, 0, run]])
    tiles = -(-count // rows)
    plain = np.concatenate([np.arange(count), np.full(tiles * rows - count, -1)]), whole.repeat(tiles, 0)
    if not axes or not outer:
        return plain
    need = np.broadcast_to(whole[0], (*grid, 4)).copy()
    if len(axes) > 1 or not merged:
        taps = len(axes[0].taps)
        for column, edge in enumerate(axes[0].reach()):
            need[..., column] = (edge * (outer // taps)).reshape(-1, *[1] * (len(grid) - 1))
    if merged:
        for column, edge in enumerate(axes[-1].reach()):
            need[..., 2 + column] = edge * (run // len(axes[-1].taps))
    # Rows of four small numbers are told apart as one number each: far quicker to sort.
    key = np.ravel_multi_index(need.reshape(-1, 4).T, (outer + 1, outer + 1, run + 1, run + 1))
    _, first, member = np.unique(key, return_index=True, return_inverse=True)
    kinds = need.reshape(-1, 4)[first]
    member = np.tile(member.reshape(-1), together)
    order, reach = [], []
    for i, kind in enumerate(kinds):
        rows_of = np.flatnonzero(member == i)
        here = -(-len(rows_of) // rows)
        order.append(np.concatenate([rows_of, np.full(here * rows - len(rows_of), -1)]))
        reach.append(np.tile(kind, (here, 1)))
    table_ = np.concatenate(reach)
    work = ((table_[:, 1] - table_[:, 0]) * (table_[:, 3] - table_[:, 2])).sum()
    return (np.concatenate(order), table_) if work < WORTHWHILE * tiles * outer * run else plain


def _blocks(
    stacks: int, tiles: int, rows: int, channels: int, panel_size: int, panels: int, wanted: int
) -> tuple[int, int]:
    """How a product is cut into pieces: blocks of tiles and of panels for each stack of images (and group of channels).

    So many are `wanted`, for their operations or for the filters they read.

    A block's rows stay in the second cache while the panels pass by. Where the filters are larger than the rows,
    pieces take panels of their own instead.
    """
    wanted = max(1, min(MOST_PIECES, wanted))
    least = -(-tiles // max(1, BLOCK_BYTES // (4 * channels * rows)))
    if panels == 1 or panel_size * panels <= tiles * rows * channels:
        return min(tiles, max(least, -(-wanted // stacks))), 1
    panel_blocks = min(panels, wanted)
    return min(tiles, max(least, -(-wanted // (stacks * panel_blocks)))), panel_blocks
