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
from convolve.program import Argument, At, Buffer, Memory
from convolve.window import Pads, Window

TAPS = {3: (2, 4), 5: (2,)}
"""Taps a dimension, and the outputs that tiles for them may have."""
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
FEW_TILES = 60
"""Tiles that one piece takes at most, whatever the cache holds, where filters are what is split."""
FAR_BYTES = 16 * 1024 * 1024
"""Transformed filters from which on they come from memory, not from the last cache."""
MOST_SLICES = 16
TRANSFORM_GRAIN = 512
"""Tiles times channels worth a piece of their own."""
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
    def tile(self) -> kernels.Filtering:
        return kernels.Filtering(self.outputs, self.kernel[-1], self.dims)

    @property
    def points(self) -> int:
        return self.tile.count

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
    """Along how many dimensions a window can be tiled: the last two at most, each with as many taps, three or five."""
    plain = set(window.stride) | set(window.dilation) == {1}
    if not plain or not all(0 <= p < k for k, pair in zip(window.kernel, window.pads, strict=True) for p in pair):
        return 0
    return 0 if window.kernel[-1] not in TAPS else 2 if window.kernel[-2:-1] == window.kernel[-1:] else 1


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
    for outputs in TAPS[window.kernel[-1]]:
        tiling = Tiling(outputs, dims, window.kernel, tuple(lo), tuple(size), images)
        points, tiles, rows = tiling.points, batch * math.prod(tiling.grid), tiling.leads * channels
        cost = points * tiles * rows * filters
        cost += tiles * (rows + filters) * TRANSFORM_COST * points / 36
        cost += rows * filters * filter_cost * points
        if cost < least:
            best, least = tiling, cost
    return best


def gradient_tiling(window: Window, images: int, size: Sequence[int], channels: int, filters: int) -> Tiling | None:
    """The tiling of a filter gradient, or None where the direct kernel is faster.

    Tiles are the smallest that hold the map, or else the largest.
    """
    dims = _dims(window)
    if not dims or min(channels, filters) < LEAST_CHANNELS:
        return None
    sides = TAPS[window.kernel[-1]]
    outputs = next((side for side in sides if max(size[-dims:]) <= side), sides[-1])
    tiling = Tiling(outputs, dims, window.kernel, tuple(lo for lo, _ in window.pads), tuple(size), images)
    groups, tiles, rows = -(-filters // GRADIENT_GROUP), IMAGES * math.prod(tiling.grid), tiling.leads * channels
    cost = 1.3 * tiling.points * tiles * rows * filters
    cost += tiles * (rows * groups + filters) * TRANSFORM_COST * tiling.points / 36
    cost += rows * filters * GRADIENT_COST * tiling.points / 36
    return tiling if cost < 1.2 * window.taps * IMAGES * math.prod(size) * channels * filters else None


def gradient_slices(tiling: Tiling, rows: int, filters: int) -> int:
    """Slices of a filter gradient's tiles: from the shape, bounded by the memory of their sums."""
    each = 4 * tiling.points * rows * panel_count(filters) * PANEL
    return max(1, min(MOST_SLICES, tiling.count // 48, SLICES_BYTES // each))


def _fresh(tiling: Tiling, weights: int, fixed: bool) -> bool:
    """Whether so few of the largest tiles share a filter that each piece transforms it for itself.

    In training steps, whatever the batch: a partial one would need other kernels. There it pays where transformed
    filters do not stay in the last cache.
    """
    if tiling.outputs != 4:
        return False
    if fixed:
        return tiling.count <= FEW_TILES
    return IMAGES * math.prod(tiling.grid) <= FEW_TILES and 4 * tiling.points * weights > FAR_BYTES


def _cut(tiling: Tiling, rows: int, groups: int) -> tuple[int, int]:
    """Blocks of tiles that a piece transforms at once, and the pieces its filters are split into.

    Blocks keep scratch in the second cache, and are as many as threads share evenly. Few tiles are split by filters, so
    that each filter is read but once.
    """
    most = max(24, min(36, 4096 // (rows + PANEL) // 6 * 6))
    if tiling.count <= FEW_TILES and groups > 1:
        return 1, groups
    blocks = max(-(-tiling.count // most), min(8, -(-tiling.count // 12)))
    return blocks if blocks < 4 else (blocks + 1) // 4 * 4, 1


def _pitch(channels: int) -> int:
    wide = -(-channels // PANEL) * PANEL
    return wide + PANEL if wide % 64 == 0 else wide


def lower_product(
    group: Group, low: Lowering, tiling: Tiling, x: Buffer, panels: At, result: Buffer, groups: int = 1
) -> None:
    """A product over `tiling`, group by group; `panels` are its filters packed [group][panel][tap][channel][16]."""
    channels, filters = x.shape[-1] // groups, result.shape[-1] // groups
    size = panel_count(filters) * math.prod(tiling.kernel) * channels * PANEL
    for i in range(groups):
        seen = x.part((*x.shape[:-1], channels), len(x.shape) - 1, i * channels)
        made = result.part((*result.shape[:-1], filters), len(x.shape) - 1, i * filters)
        _lower_group(group, low, tiling, seen, At(panels.memory, panels.index + i * size), made, i * filters)


def _lower_group(
    group: Group, low: Lowering, tiling: Tiling, x: Buffer, panels: At, result: Buffer, column: int
) -> None:
    """One group of a product, whose first filter is `column` of all."""
    channels, filters = x.shape[-1], result.shape[-1]
    length, points, count = tiling.leads * channels, tiling.points, panel_count(filters)
    rows, vectors = tile_shape(host(), PANEL)
    groups = -(-filters // kernels.GROUP)
    fresh = groups > 1 and _fresh(tiling, length * filters, low.fixed)
    width = min(kernels.FRESH_GROUP if fresh else kernels.GROUP, count * PANEL)
    if fresh:
        blocks, splits = -(-tiling.count // FEW_TILES), -(-filters // width)
    else:
        blocks, splits = _cut(tiling, length, groups)
    row_tiles = -(-tiling.count // rows)
    held = -(-row_tiles // blocks) * rows
    v_pitch, m_pitch = _pitch(length), _pitch(width)
    v_plane, m_plane = (row_tiles * rows if fresh else held) * v_pitch + PANEL, held * m_pitch + PANEL
    tiles: dict[str, Argument] = tiling.along("x", x) | {
        "x": At(x.memory, x.start),
        "x_tile": table(tiling.places(x, tiling.lo)),
        "lead": table(tiling.leading(x)),
    }
    common: dict[str, Argument] = {
        "tiles": tiling.count,
        "channels": channels,
        "leads": tiling.leads,
        "v_pitch": v_pitch,
        "v_plane": v_plane,
    }
    if fresh:
        v = low.temporary(f"{low.label}.tiles", points * v_plane)
        pieces = max(1, tiling.count * length // TRANSFORM_GRAIN)
        transform = tiles | common | {"v": At(v), "pieces": pieces}
        low.call(kernels.InputTransform(tiling.tile), transform, pieces, v, "transform tiles")
        u_plane = width * min(kernels.CHUNK, length) + PANEL
        own: dict[str, Argument] = {"v": At(v), "u": panels, "u_plane": u_plane}
        first = points * u_plane
    else:
        u = _transformed(low, tiling, panels, channels, count)
        own = tiles | {"u": At(u)}
        first = points * v_plane
    pool = 2 if group.pooled else 1
    kinds, arguments = epilogue_inputs(group, low, column)
    for i in [i for i, kind in enumerate(kinds) if kind.startswith("vector")]:
        source = low.plain(group.inputs[i])
        arguments[f"in{i}_table"] = table(tiling.places(source))
        arguments |= tiling.along(f"in{i}", source)
    arguments |= tiling.along("y", result) | common | own
    arguments |= {
        "y": At(result.memory, result.start),
        "blocks": blocks,
        "y_tile": table(tiling.places(result, pool=pool)),
        "extent": table(tiling.extents(pool)),
        "columns": filters,
        "group": width,
        "splits": splits,
        "m_pitch": m_pitch,
        "m_plane": m_plane,
        "m_start": first,
    }
    epilogue = Formula(kinds, group.steps, group.results)
    main = kernels.Product(tiling.tile, rows, vectors, epilogue, pool, fresh)
    flops = 2 * math.prod(tiling.kernel) * tiling.images * math.prod(tiling.size) * channels * filters
    scratch = first + points * m_plane + 4 * PANEL
    most = -(-tiling.count // blocks)
    name = f"winograd {_tile_name(tiling.outputs, tiling.dims)}, {most} tiles a block"
    name += ", filters transformed there" * fresh + ", max pool" * group.pooled
    low.call(main, arguments, blocks * splits, result, name, flops, scratch, disjoint=True)


def _transformed(low: Lowering, tiling: Tiling, panels: At, channels: int, count: int) -> Memory:
    """The filters of `count` panels at all points, transformed in a call of their own."""
    length = tiling.leads * channels
    u = low.temporary(f"{low.label}.filters", count * PANEL * length * tiling.points)
    parts = max(1, length // 32)
    arguments: dict[str, Argument] = {
        "x": panels,
        "y": At(u),
        "channels": channels,
        "leads": tiling.leads,
        "panels": count,
        "group_panels": kernels.GROUP // PANEL,
        "parts": parts,
    }
    spec = kernels.FilterTransform(tiling.tile)
    low.call(spec, arguments, count * parts, u, "transform filters")
    return u


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
    spec = kernels.FilterGradientSum(tiling.tile.transposed, rows, vectors)
    scratch = points * (v_plane + z_plane) + 4 * PANEL
    sides = (_tile_name(side, tiling.dims) for side in (tiling.tile.taps, tiling.outputs))
    name = f"winograd {' of '.join(sides)}, {slices} slices"
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
    low.call(kernels.FilterGradientResult(tiling.tile.transposed), last, panels * parts, result, "transform back")


def _tile_name(side: int, dims: int) -> str:
    return "x".join([str(side)] * dims)
