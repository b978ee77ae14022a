"""Convolution (a cross-correlation, as the field calls it), the gradients of its input and of its filters.

    Y[n, r, f] = sum over taps i and channels c of  X[n, r * stride - lo + i * dilation, c] * W[f, i, c]

at any number of spatial dimensions; with none it is the fully-connected layer. The three are one sum over the same
triples (Y, X, W), so that one micro-kernel serves them with different tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import MOST_PIECES, Group, Lowering, epilogue_inputs, offsets, panel_count, table
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.filter_gradient import FilterGradient
from convolve.native.kernels.gemm import Gemm, tile_shape
from convolve.native.kernels.layout import TransposePanels
from convolve.native.target import PANEL, host
from convolve.ops.reduce import join_slices
from convolve.ops.winograd import Tiling, gradient_tiling, lower_gradient, lower_product, product_tiling
from convolve.program import Argument, At, Buffer
from convolve.window import Pads, Window

TABLE_ROWS = 16384
"""Rows of an offset table at most: more images go into further groups."""
BLOCK_BYTES = 256 * 1024
"""What a piece of a product reads of its left side: stays in the second cache while the panels pass by."""
CHUNK_BYTES = 24 * 1024
"""What a chunk of a filter gradient reads of both sides: stays in the first cache while the tiles pass by."""
SEGMENT = 64
"""Positions of an image row that a filter gradient takes at once, at most."""
GATHERED_RUN = 24
"""Rows from which on a filter gradient's panel of dY is worth bringing together."""
WORTHWHILE = 0.92
"""Share of a product's work from which on leaving out the taps that meet only margin is not worth smaller tiles."""
CHAINS = 8
"""Independent sums that keep the multiply-add units busy: fewer cost as much."""
PIECE_FLOPS = 500_000
SLICED_PIECES = 64
"""Pieces a filter gradient is cut into at least: enough for 64 threads, the same for any number."""


def patches(x: np.ndarray, window: Window, fill: float = 0.0) -> np.ndarray:
    """All windows of x (n, *spatial, c) as (n, *output, taps, c): the matrix that is never built, built."""
    out = window.output(x.shape[1:-1])
    padded_x = np.pad(x, ((0, 0), *window.pads, (0, 0)), constant_values=fill)
    taps = []
    for offset in window.offsets():
        slices = tuple(slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, out, window.stride, strict=True))
        taps.append(padded_x[(slice(None), *slices)])
    return np.stack(taps, axis=-2)


def scatter(columns: np.ndarray, window: Window, size: tuple[int, ...]) -> np.ndarray:
    """The transpose of `patches`: add (n, *output, taps, c) back to (n, *size, c)."""
    n, c = columns.shape[0], columns.shape[-1]
    out = columns.shape[1:-2]
    whole = np.zeros((n, *(s + lo + hi for s, (lo, hi) in zip(size, window.pads, strict=True)), c), columns.dtype)
    for t, offset in enumerate(window.offsets()):
        slices = tuple(slice(o, o + (m - 1) * s + 1, s) for o, m, s in zip(offset, out, window.stride, strict=True))
        whole[(slice(None), *slices)] += columns[..., t, :]
    return whole[(slice(None), *(slice(lo, lo + s) for s, (lo, _) in zip(size, window.pads, strict=True)))]


def fitting(window: Window, x: Shape) -> Shape:
    """The output's spatial size; refuses a window that fits nowhere."""
    size = window.output(x[1:-1])
    if any(n < 1 for n in size):
        raise ShapeError(f"a window that spans {window.extent} with pads {window.pads} over an input {x}")
    return size


@register
@dataclass(frozen=True)
class Convolution(Op):
    """x (n, *spatial, channels), w (filters, *kernel, channels) -> (n, *output, filters)."""

    name: ClassVar[str] = "convolution"
    arity: ClassVar[int | None] = 2
    window: Window

    def shape(self, *inputs: Shape) -> Shape:
        x, w = inputs
        if not len(x) == len(w) == self.window.rank + 2 or w[-1] != x[-1] or w[1:-1] != self.window.kernel:
            raise ShapeError(f"convolution of an input {x} with filters {w} and kernel {self.window.kernel}")
        return (x[0], *fitting(self.window, x), w[0])

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, w = inputs
        columns = patches(x, self.window)
        return np.asarray(columns.reshape(*columns.shape[:-2], -1) @ w.reshape(w.shape[0], -1).T)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, w = y.inputs
        return (
            apply(InputGradient(self.window, x.shape[1:-1]), dy, w),
            apply(FilterGradientOp(self.window), x, dy),
        )

    def tiling(self, x: Shape, w: Shape) -> Tiling | None:
        lo = [pair[0] for pair in self.window.pads]
        return product_tiling(self.window, lo, x[0], self.window.output(x[1:-1]), x[-1], w[0])

    def margins(self, *inputs: Shape) -> dict[int, Pads]:
        """Margins of zeros that the inputs' buffers must carry."""
        tiling = self.tiling(*inputs)
        return {0: tiling.input_pads(inputs[0][1:-1]) if tiling else self.window.pads}

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        shapes = [v.shape for v in y.inputs]
        x, w = low.margined(y.inputs[0], self.margins(*shapes)[0]), low.panels(y.inputs[1])
        window = self.window
        tiling = None if low.exact else self.tiling(*shapes)
        if tiling:
            lower_product(group, low, tiling, x, At(w.memory), group_result(group, low))
            return
        axes = [self._axis(i, x.shape[1 + i], y.shape[1 + i]) for i in range(window.rank)]
        product_of(group, low, x, At(w.memory), axes, group_result(group, low))

    def _axis(self, i: int, size: int, positions: int) -> Axis:
        """Dimension i: every output position sees an input of `size` through all taps."""
        k, s, d, (lo, _) = (getattr(self.window, name)[i] for name in ("kernel", "stride", "dilation", "pads"))
        return Axis(positions, s, -lo, size, tuple(range(0, k * d, d)), tuple(range(k)), k)


@register
@dataclass(frozen=True)
class InputGradient(Op):
    """dy (n, *output, filters), w (filters, *kernel, channels) -> dx (n, *size, channels).

    Also the transposed convolution. Stride s makes s phases a dimension, each with the taps that reach it.
    """

    name: ClassVar[str] = "convolution_input_gradient"
    arity: ClassVar[int | None] = 2
    window: Window
    size: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        dy, w = inputs
        x = (dy[0], *self.size, w[-1])
        if Convolution(self.window).shape(x, w) != dy:
            raise ShapeError(f"gradient of an input {x} from {dy} with filters {w} and window {self.window}")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        dy, w = inputs
        columns = (dy @ w.reshape(w.shape[0], -1)).reshape(*dy.shape[:-1], self.window.taps, w.shape[-1])
        return scatter(columns, self.window, self.size)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        g, w = y.inputs
        return apply(Convolution(self.window), dy, w), apply(FilterGradientOp(self.window), dy, g)

    def tiling(self, dy: Shape, w: Shape) -> Tiling | None:
        lo = [e - 1 - pair[0] for e, pair in zip(self.window.extent, self.window.pads, strict=True)]
        return product_tiling(self.window, lo, dy[0], self.size, w[0], w[-1])

    def margins(self, *inputs: Shape) -> dict[int, Pads]:
        tiling = self.tiling(*inputs)
        return {0: tiling.input_pads(inputs[0][1:-1]) if tiling else self.window.transposed_pads(self.size)}

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        shapes = [v.shape for v in y.inputs]
        dy, w = low.margined(y.inputs[0], self.margins(*shapes)[0]), low.panels(y.inputs[1])
        filters, channels, taps = w.shape[0], w.shape[-1], self.window.taps
        size = taps * filters * PANEL
        transposed = low.temporary(f"{w.memory.name}.transposed", panel_count(channels) * size)
        low.call(
            TransposePanels(),
            {"x": At(w.memory), "y": At(transposed), "taps": taps, "channels": channels, "filters": filters},
            panel_count(channels) * taps,
            transposed,
            "transpose filters",
        )
        window = self.window
        result = group_result(group, low)
        tiling = None if low.exact else self.tiling(*shapes)
        if tiling:
            lower_product(group, low, tiling, dy, At(transposed), result)
            return
        for phase in product(*(range(min(s, n)) for s, n in zip(window.stride, self.size, strict=True))):
            axes = [self._axis(i, p, dy.shape[1 + i]) for i, p in enumerate(phase)]
            product_of(group, low, dy, At(transposed), axes, result)

    def _axis(self, i: int, phase: int, size: int) -> Axis:
        """Every stride-th input position from `phase` on, and the taps that reach it from an output of `size`.

        Taps lie turned round in the transposed filters, so that at stride 1 a row of them is one run of dy.
        """
        k, s, d, (lo, _) = (getattr(self.window, name)[i] for name in ("kernel", "stride", "dilation", "pads"))
        taps = [t for t in reversed(range(k)) if (phase + lo - t * d) % s == 0]
        shifts = tuple((phase + lo - t * d) // s for t in taps)
        count = -(-(self.size[i] - phase) // s)
        return Axis(count, 1, 0, size, shifts, tuple(k - 1 - t for t in taps), k, phase, s)


@register
@dataclass(frozen=True)
class FilterGradientOp(Op):
    """x (n, *spatial, channels), dy (n, *output, filters) -> dw (filters, *kernel, channels)."""

    name: ClassVar[str] = "convolution_filter_gradient"
    arity: ClassVar[int | None] = 2
    window: Window

    def shape(self, *inputs: Shape) -> Shape:
        x, dy = inputs
        w = (dy[-1], *self.window.kernel, x[-1])
        if Convolution(self.window).shape(x, w) != dy:
            raise ShapeError(f"gradient of filters {w} from an input {x} and {dy} with window {self.window}")
        return w

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, dy = inputs
        columns = patches(x, self.window)
        flat = columns.reshape(-1, columns.shape[-2] * columns.shape[-1])
        return np.asarray(dy.reshape(-1, dy.shape[-1]).T @ flat).reshape(self.shape(x.shape, dy.shape))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, g = y.inputs
        return apply(InputGradient(self.window, x.shape[1:-1]), g, dy), apply(Convolution(self.window), x, dy)

    def tiling(self, x: Shape, dy: Shape) -> Tiling | None:
        return gradient_tiling(self.window, x[0], dy[1:-1], x[-1], dy[-1])

    def margins(self, *inputs: Shape) -> dict[int, Pads]:
        tiling = self.tiling(*inputs)
        if tiling:
            return {0: tiling.input_pads(inputs[0][1:-1]), 1: tiling.output_pads()}
        return {0: self.window.pads}

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        pads = self.margins(*(v.shape for v in y.inputs))
        x = low.margined(y.inputs[0], pads[0])
        tiling = None if low.exact else self.tiling(*(v.shape for v in y.inputs))
        if tiling:
            lower_gradient(y, low, tiling, x, low.margined(y.inputs[1], pads[1]))
            return
        dy = low.plain(y.inputs[1])
        window, channels, filters = self.window, x.shape[-1], dy.shape[-1]
        xs = (x.strides[0], *(s * t for s, t in zip(window.stride, x.strides[1:-1], strict=True)))
        sizes = dy.shape[:-1]
        segments = _segments(sizes, xs, dy.strides[:-1])
        origin = -sum(lo * s for (lo, _), s in zip(window.pads, x.strides[1:-1], strict=True))
        taps = offsets(window.kernel, [d * s for d, s in zip(window.dilation, x.strides[1:-1], strict=True)])
        run = channels
        if window.rank and window.dilation[-1] == 1 and x.strides[-2] == channels:
            run *= window.kernel[-1]
        runs = taps[:: run // channels]
        if not window.rank:
            run, runs = _split_features(channels)
        panels = panel_count(filters)
        blocks = panels * len(runs)
        slices = min(len(segments), -(-SLICED_PIECES // blocks))
        size = math.prod(window.kernel) * channels * panels * PANEL
        result = low.result(y)
        assert result.panels
        target = result.memory if slices == 1 else low.temporary(f"{y.label or y.serial}.slices", slices * size)
        positions = int(segments[:, 2].max())
        chunk = max(1, CHUNK_BYTES // (4 * positions * (channels if window.rank else run) + 4 * positions * PANEL))
        gathered = run >= GATHERED_RUN
        spare = chunk * positions * PANEL
        arguments: dict[str, Argument] = {
            "x": At(x.memory, x.start + origin),
            "segment": table(segments),
            "segments": len(segments),
            "slices": slices,
            "chunk": chunk,
            "x_step": xs[-1],
            "dy_step": dy.strides[-2],
            "run": table(runs),
            "runs": len(runs),
            "length": run,
            "slice_size": size,
            "spare": spare,
        }
        for column, width in column_spans(filters):
            rows, vectors = tile_shape(host(), width)
            rows = min((rows, -(-rows // 2)), key=lambda r: -(-run // r) * max(r * vectors, CHAINS))
            here: dict[str, Argument] = {
                "dy": At(dy.memory, dy.start + column),
                "y": At(target, column * len(runs) * run),
                "panels": panel_count(width),
                "columns": width,
            }
            flops = 2 * y.size // filters * width * math.prod(sizes)
            spec, name = FilterGradient(rows, vectors, gathered), f"direct, {slices} slices"
            pieces = slices * panel_count(width) * len(runs)
            low.call(spec, arguments | here, pieces, target, name, flops, spare + 2 * PANEL, disjoint=True)
        if slices > 1:
            join_slices(low, "sum", At(target), 1, slices, size, result.memory)


def _segments(sizes: Sequence[int], x_strides: Sequence[int], dy_strides: Sequence[int]) -> np.ndarray:
    """The reduction of a filter gradient as rows (offset in x, offset in dy, positions), long image rows cut."""
    starts = np.arange(0, sizes[-1], SEGMENT)
    counts = np.minimum(SEGMENT, sizes[-1] - starts)

    def places(strides: Sequence[int]) -> np.ndarray:
        return (offsets(sizes[:-1], strides[:-1])[:, None] + starts * strides[-1]).ravel()

    return np.stack([places(x_strides), places(dy_strides), np.tile(counts, math.prod(sizes[:-1]))], 1)


def _split_features(features: int) -> tuple[int, np.ndarray]:
    """A fully-connected layer has one long run: cut it evenly, so that threads can share it."""
    part = max((d for d in range(1, min(features, 192) + 1) if features % d == 0), default=1)
    if part < 24:
        return features, np.zeros(1, np.int64)
    return part, np.arange(features // part) * part


def group_result(group: Group, low: Lowering) -> Buffer:
    """Where a product's epilogue writes: the fused formula's output, or the product itself."""
    [target] = group.outputs
    return low.result(target)


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


def product_of(group: Group, low: Lowering, x: Buffer, panels: At, axes: Sequence[Axis], y: Buffer) -> None:
    """One gather-GEMM: the positions of every image as rows, the output's channels as columns."""
    for first, columns in column_spans(y.shape[-1]):
        _span_of(group, low, x, panels, axes, y, first, columns)


def column_spans(columns: int) -> list[tuple[int, int]]:
    """First column and width of what one register tile serves: a last panel that is at most half full goes apart.

    >>> column_spans(100), column_spans(10), column_spans(64)
    ([(0, 96), (96, 4)], [(0, 10)], [(0, 64)])
    """
    last = columns % PANEL
    if columns < PANEL or not 0 < last <= PANEL // 2:
        return [(0, columns)]
    return [(0, columns - last), (columns - last, last)]


def _span_of(
    group: Group,
    low: Lowering,
    x: Buffer,
    panels: At,
    axes: Sequence[Axis],
    y: Buffer,
    column: int,
    columns: int,
) -> None:
    """The columns from `column` on of a product."""
    images, channels = y.shape[0], x.shape[-1]
    steps = x.strides[1:-1]
    positions = [a.positions for a in axes]
    together = _together(images, math.prod(positions))
    rows, vectors = tile_shape(host(), columns)
    reductions, run = _reductions(axes, steps, channels)
    order, reach = _tiles(axes, together, rows, len(reductions), run, run > channels)

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
        arguments[f"in{i}_group"] = together * source.strides[0]
    spec = Gemm(rows, vectors, Formula(kinds, group.steps, group.results))
    groups, tiles, panel_size = images // together, len(reach), math.prod(a.kernel for a in axes) * channels * PANEL
    flops = 2 * images * math.prod(positions) * columns * len(reductions) * run
    tile_blocks, panel_blocks = _blocks(groups, tiles, rows, channels, panel_size, panel_count(columns), flops)
    origin = sum(a.start * s for a, s in zip(axes, steps, strict=True))
    walk = (a.step * s for a, s in zip(axes, steps, strict=True))
    arguments |= {
        "x": At(x.memory, x.start + origin),
        "b": At(panels.memory, panels.index + column // PANEL * panel_size),
        "y": At(y.memory, y.start + column),
        "row": in_tiles(offsets((together, *positions), (x.strides[0], *walk)), 0),
        "out": in_tiles(places(y), -1),
        "tiles": tiles,
        "red": table(reductions),
        "reach": table(reach),
        "x_group": together * x.strides[0],
        "y_group": together * y.strides[0],
        "panels": panel_count(columns),
        "panel_size": panel_size,
        "columns": columns,
        "tile_blocks": tile_blocks,
        "panel_blocks": panel_blocks,
    }
    name = f"direct, tile {rows}x{vectors}"
    low.call(spec, arguments, groups * tile_blocks * panel_blocks, y, name, flops, disjoint=True)


def _together(images: int, pixels: int) -> int:
    """Images that share one offset table: as many as divide the batch and keep the table small."""
    return max(d for d in range(1, images + 1) if images % d == 0 and (d == 1 or d * pixels <= TABLE_ROWS))


def _reductions(axes: Sequence[Axis], steps: Sequence[int], channels: int) -> tuple[np.ndarray, int]:
    """Pairs (offset in the source, offset in a panel), and the length of the run behind each.

    A run is a tap's channels, or all taps of the last dimension where these lie one behind the other on both sides.
    """
    merged = bool(axes) and steps[-1] == channels and len(axes[-1].taps) > 1
    merged = merged and all(np.diff(axes[-1].shifts) == 1) and all(np.diff(axes[-1].taps) == 1)
    pairs = [(0, 0)]
    for i, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        taps = list(zip(axis.shifts, axis.taps, strict=True))
        last = taps[:1] if merged and i == len(axes) - 1 else taps
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
    kinds, member = np.unique(need.reshape(-1, 4), axis=0, return_inverse=True)
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
    groups: int, tiles: int, rows: int, channels: int, panel_size: int, panels: int, flops: int
) -> tuple[int, int]:
    """How a product is cut into pieces: blocks of tiles and of panels for each group of images.

    A block's rows stay in the second cache while the panels pass by. Where the filters are larger than the rows,
    pieces take panels of their own instead.
    """
    wanted = max(1, min(MOST_PIECES, flops // PIECE_FLOPS))
    least = -(-tiles // max(1, BLOCK_BYTES // (4 * channels * rows)))
    if panels == 1 or panel_size * panels <= tiles * rows * channels:
        return min(tiles, max(least, -(-wanted // groups))), 1
    panel_blocks = min(panels, wanted)
    return min(tiles, max(least, -(-wanted // (groups * panel_blocks)))), panel_blocks
