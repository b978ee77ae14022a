"""When convolutions run by Winograd's algorithm, and how they are lowered then.

The choice depends on one image's shape alone, so that an image's bits never depend on its batch. Costs are in
multiplications of the direct kernel, fitted to measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convolve.graph import Value
from convolve.lowering import Group, Lowering, epilogue_inputs, offsets, panel_count, table
from convolve.native.kernels import winograd as kernels
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.gemm import tile_shape
from convolve.native.target import PANEL, host
from convolve.program import Argument, At, Buffer
from convolve.window import Pads, Window

LEAST_CHANNELS = 8
IMAGES = 8
"""The batch that costs are reckoned for, whatever the real one is."""
TRANSFORM_COST = 160
"""Transforming a tile of one channel, in or out."""
FILTER_COST = 500
"""Transforming one filter of one channel, and passing it through memory."""
PASS_COST = 10
"""Bringing one number of a filter from memory, where the batch is a single image."""
GRADIENT_COST = 150
"""Adding one filter's products up in memory, a slice."""
GRADIENT_GROUP = 64
"""Filters that one piece of a filter gradient transforms."""
MOST_SLICES = 16
SLICES_BYTES = 24 * 1024 * 1024


@dataclass(frozen=True)
class Tiling:
    """Tiles of `outputs` positions along the last one or two dimensions of an output of `size`, one along the others.

    `lo` is the padding before the input.
    """

    outputs: int
    dims: int
    kernel: tuple[int, ...]
    lo: tuple[int, ...]
    size: tuple[int, ...]
    images: int

    @property
    def points(self) -> int:
        """Points at which a tile's polynomials are known: multiplications of a tile, a channel and a filter."""
        return int((self.outputs + 2) ** self.dims)

    @property
    def leads(self) -> int:
        """Taps of the dimensions that have no tiles: they join the channels."""
        return math.prod(self.kernel[: -self.dims])

    @property
    def steps(self) -> tuple[int, ...]:
        """Positions from tile to tile."""
        return (1,) * (len(self.size) - self.dims) + (self.outputs,) * self.dims

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(-(-n // step) for n, step in zip(self.size, self.steps, strict=True))

    @property
    def count(self) -> int:
        return self.images * math.prod(self.grid)

    def input_pads(self, size: Sequence[int]) -> Pads:
        """Margins an input of `size` needs: zeros up to the last whole tile."""
        reach = (g * step + k - 1 for g, step, k in zip(self.grid, self.steps, self.kernel, strict=True))
        return tuple((lo, max(0, r - lo - n)) for lo, r, n in zip(self.lo, reach, size, strict=True))

    def output_pads(self) -> Pads:
        """Margins a gradient of the output needs to be read in whole tiles."""
        return tuple((0, g * step - n) for g, step, n in zip(self.grid, self.steps, self.size, strict=True))

    def holds(self, pool: Window) -> bool:
        """Whether a pooling's windows are pairs along the dimensions that have tiles: each lies within one."""
        pair = (1,) * (len(self.size) - self.dims) + (2,) * self.dims
        return pool == Window(pair, pair, (1,) * len(pair), ((0, 0),) * len(pair))

    def places(self, buffer: Buffer, before: Sequence[int] | None = None, pool: int = 1) -> np.ndarray:
        """Offset of each tile's first position in a buffer, `before` positions earlier; with a `pool`, of its first."""
        n, *spatial, _ = buffer.strides
        walk = (n, *(-(-step // pool) * s for step, s in zip(self.steps, spatial, strict=True)))
        return offsets((self.images, *self.grid), walk) - sum(
            b * s for b, s in zip(before or (), spatial, strict=False)
        )

    def leading(self, x: Buffer) -> np.ndarray:
        """Offset of each lead in an input."""
        return offsets(self.kernel[: -self.dims], x.strides[1 : -1 - self.dims])

    def along(self, name: str, buffer: Buffer) -> dict[str, Argument]:
        """A buffer's strides along a tile's dimensions, as arguments."""
        return {f"{name}_step{i}": s for i, s in enumerate(buffer.strides[-1 - self.dims : -1])}

    def extents(self, pool: int = 1) -> np.ndarray:
        """How many positions of each tile lie inside the output, a byte a dimension; or how many pools."""
        inside = np.zeros((1,), np.int64)
        first = len(self.size) - self.dims
        for axis, (n, g) in enumerate(zip(self.size, self.grid, strict=True)):
            here = np.minimum(self.outputs, n - np.arange(g) * self.outputs) // pool << (8 * (axis - first))
            inside = (inside[:, None] + (here if axis >= first else np.zeros(g, np.int64))).ravel()
        return np.tile(inside, self.images)


def _dims(window: Window) -> int:
    """Along how many dimensions a window can be tiled: the last two at most, each with three taps."""
    plain = set(window.stride) | set(window.dilation) == {1}
    if not plain or not all(0 <= p < k for k, pair in zip(window.kernel, window.pads, strict=True) for p in pair):
        return 0
    return 0 if window.kernel[-1] != 3 else 2 if window.kernel[-2:] == (3, 3) else 1


def product_tiling(
    window: Window, lo: Sequence[int], images: int, size: Sequence[int], channels: int, filters: int, fixed: bool
) -> Tiling | None:
    """The tiling that computes a product fastest, or None where the direct kernel does.

    Filters that are `fixed` have been transformed before, and costs are those of one image: its answer is waited for.
    """
    dims = _dims(window)
    if not dims or min(channels, filters) < LEAST_CHANNELS:
        return None
    cost: float
    batch, each = (1, PASS_COST) if fixed else (IMAGES, 0)
    best, least = None, float(window.taps * channels * filters * (batch * math.prod(size) + each))
    filter_cost = PASS_COST if fixed else FILTER_COST / 36
    for outputs in (2, 4):
        tiling = Tiling(outputs, dims, window.kernel, tuple(lo), tuple(size), images)
        points, tiles, rows = tiling.points, batch * math.prod(tiling.grid), tiling.leads * channels
        cost = points * tiles * rows * filters
        cost += tiles * (rows + filters) * TRANSFORM_COST * points / 36
        cost += rows * filters * filter_cost * points
        if cost < least:
            best, least = tiling, cost
    return best


def gradient_tiling(window: Window, images: int, size: Sequence[int], channels: int, filters: int) -> Tiling | None:
    """The tiling of a filter gradient, or None where the direct kernel is faster."""
    dims = _dims(window)
    if not dims or min(channels, filters) < LEAST_CHANNELS:
        return None
    tiling = Tiling(4, dims, window.kernel, tuple(lo for lo, _ in window.pads), tuple(size), images)
    groups, tiles, rows = -(-filters // GRADIENT_GROUP), IMAGES * math.prod(tiling.grid), tiling.leads * channels
    cost = 1.3 * tiling.points * tiles * rows * filters
    cost += tiles * (rows * groups + filters) * TRANSFORM_COST * tiling.points / 36
    cost += rows * filters * GRADIENT_COST * tiling.points / 36
    return tiling if cost < 1.2 * window.taps * IMAGES * math.prod(size) * channels * filters else None


def gradient_slices(tiling: Tiling, rows: int, filters: int) -> int:
    """Slices of a filter gradient's tiles: from the shape, bounded by the memory of their sums."""
    each = 4 * tiling.points * rows * panel_count(filters) * PANEL
    return max(1, min(MOST_SLICES, tiling.count // 48, SLICES_BYTES // each))


def _cut(tiling: Tiling, rows: int, groups: int) -> tuple[int, int]:
    """Tiles a piece transforms at once, and the pieces its filters are split into.

    Blocks keep scratch in the second cache. Few tiles are split by filters, so that each filter is read but once.
    """
    most = max(24, min(60, 4096 // (rows + PANEL) // 6 * 6))
    if tiling.count <= 60 and groups > 1:
        return tiling.count, groups
    blocks = max(-(-tiling.count // most), min(8, -(-tiling.count // 12)))
    even = -(-tiling.count // blocks)
    return min(tiling.count, -(-even // 6) * 6), 1


def _pitch(channels: int) -> int:
    wide = -(-channels // PANEL) * PANEL
    return wide + PANEL if wide % 64 == 0 else wide


def lower_product(group: Group, low: Lowering, tiling: Tiling, x: Buffer, panels: At, result: Buffer) -> None:
    """A product over `tiling`; `panels` are its filters packed [panel][tap][channel][16]."""
    channels, filters = x.shape[-1], result.shape[-1]
    length, points, count = tiling.leads * channels, tiling.points, panel_count(filters)
    u = low.temporary(f"{low.label}.filters", count * PANEL * length * points)
    parts = max(1, length // 32)
    transform: dict[str, Argument] = {
        "x": panels,
        "y": At(u),
        "channels": channels,
        "leads": tiling.leads,
        "panels": count,
        "group_panels": kernels.GROUP // PANEL,
        "parts": parts,
    }
    spec = kernels.FilterTransform(tiling.outputs, tiling.dims)
    low.call(spec, transform, count * parts, u, "transform filters")
    rows, vectors = tile_shape(host(), PANEL)
    block, splits = _cut(tiling, length, -(-filters // kernels.GROUP))
    held = -(-block // rows) * rows
    wide = min(kernels.GROUP, count * PANEL)
    v_pitch, m_pitch = _pitch(length), _pitch(wide)
    v_plane, m_plane = held * v_pitch + PANEL, held * m_pitch + PANEL
    pool = 2 if group.pooled else 1
    kinds, arguments = epilogue_inputs(group, low)
    for i in [i for i, kind in enumerate(kinds) if kind.startswith("vector")]:
        source = low.plain(group.inputs[i])
        arguments[f"in{i}_table"] = table(tiling.places(source))
        arguments |= tiling.along(f"in{i}", source)
    arguments |= tiling.along("x", x) | tiling.along("y", result)
    arguments |= {
        "x": At(x.memory, x.start),
        "u": At(u),
        "y": At(result.memory, result.start),
        "tiles": tiling.count,
        "block": block,
        "x_tile": table(tiling.places(x, tiling.lo)),
        "y_tile": table(tiling.places(result, pool=pool)),
        "extent": table(tiling.extents(pool)),
        "channels": channels,
        "lead": table(tiling.leading(x)),
        "leads": tiling.leads,
        "columns": filters,
        "group": kernels.GROUP,
        "splits": splits,
        "v_pitch": v_pitch,
        "v_plane": v_plane,
        "m_pitch": m_pitch,
        "m_plane": m_plane,
        "m_start": points * v_plane,
    }
    epilogue = Formula(kinds, group.steps, group.results)
    main = kernels.Product(tiling.outputs, tiling.dims, rows, vectors, epilogue, pool)
    flops = 2 * math.prod(tiling.kernel) * tiling.images * math.prod(tiling.size) * channels * filters
    scratch = points * (v_plane + m_plane) + 4 * PANEL
    name = f"winograd {_tile_name(tiling.outputs, tiling.dims)}, {block} tiles a block" + ", max pool" * group.pooled
    low.call(main, arguments, -(-tiling.count // block) * splits, result, name, flops, scratch, disjoint=True)


def lower_gradient(y: Value, low: Lowering, tiling: Tiling, x: Buffer, dy: Buffer) -> None:
    """The filter gradient over `tiling`."""
    channels, filters = x.shape[-1], dy.shape[-1]
    panels = panel_count(filters)
    rows, vectors = tile_shape(host(), PANEL)
    length, points = tiling.leads * channels, tiling.points
    channel_rows = -(-length // rows) * rows
    slices = gradient_slices(tiling, length, filters)
    groups = -(-filters // GRADIENT_GROUP)
    block = min(48, -(-tiling.count // slices))
    v_pitch, z_pitch = _pitch(channel_rows), _pitch(min(GRADIENT_GROUP, panels * PANEL))
    v_plane, z_plane = block * v_pitch + PANEL, block * z_pitch + PANEL
    sums = low.temporary(f"{low.label}.products", slices * points * panels * PANEL * channel_rows)
    arguments: dict[str, Argument] = {
        "x": At(x.memory, x.start),
        "dy": At(dy.memory, dy.start),
        "y": At(sums),
        "tiles": tiling.count,
        "block": block,
        "slices": slices,
        "x_tile": table(tiling.places(x, tiling.lo)),
        "dy_tile": table(tiling.places(dy)),
        "channels": channels,
        "lead": table(tiling.leading(x)),
        "leads": tiling.leads,
        "columns": filters,
        "group": GRADIENT_GROUP,
        "groups": groups,
        "panels": panels,
        "v_pitch": v_pitch,
        "v_plane": v_plane,
        "z_pitch": z_pitch,
        "z_plane": z_plane,
        "z_start": points * v_plane,
        "channel_rows": channel_rows,
    }
    arguments |= tiling.along("x", x) | tiling.along("dy", dy)
    flops = 2 * math.prod(tiling.kernel) * tiling.images * math.prod(tiling.size) * channels * filters
    spec = kernels.FilterGradientSum(tiling.dims, rows, vectors)
    scratch = points * (v_plane + z_plane) + 4 * PANEL
    name = f"winograd {_tile_name(3, tiling.dims)} of {_tile_name(4, tiling.dims)}, {slices} slices"
    low.call(spec, arguments, slices * groups, sums, name, flops, scratch)
    result = low.result(y)
    parts = max(1, length // 16)
    last: dict[str, Argument] = {
        "x": At(sums),
        "y": At(result.memory),
        "slices": slices,
        "channels": channels,
        "leads": tiling.leads,
        "panels": panels,
        "columns": filters,
        "channel_rows": channel_rows,
        "parts": parts,
    }
    low.call(kernels.FilterGradientResult(tiling.dims), last, panels * parts, result, "transform back")


def _tile_name(side: int, dims: int) -> str:
    return "x".join([str(side)] * dims)
