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
GRADIENT_COST = 150
"""Adding one filter's products up in memory, a slice."""
GRADIENT_GROUP = 64
"""Filters that one piece of a filter gradient transforms."""
MOST_SLICES = 16
SLICES_BYTES = 24 * 1024 * 1024


@dataclass(frozen=True)
class Tiling:
    """Tiles of `outputs` x `outputs` over an output of `size`, `lo` the padding before the input."""

    outputs: int
    lo: tuple[int, int]
    size: tuple[int, int]
    images: int

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.size[0] // self.outputs), -(-self.size[1] // self.outputs)

    @property
    def count(self) -> int:
        return self.images * self.grid[0] * self.grid[1]

    def input_pads(self, size: Sequence[int]) -> Pads:
        """Margins an input of `size` needs: zeros up to the last whole tile."""
        reach = (g * self.outputs + 2 for g in self.grid)
        return tuple((lo, max(0, r - lo - n)) for lo, r, n in zip(self.lo, reach, size, strict=True))

    def output_pads(self) -> Pads:
        """Margins a gradient of the output needs to be read in whole tiles."""
        return tuple((0, g * self.outputs - n) for g, n in zip(self.grid, self.size, strict=True))

    def places(self, buffer: Buffer, before: Sequence[int] = (0, 0)) -> np.ndarray:
        """Offset of each tile's first position in a buffer, `before` positions earlier."""
        n, *spatial, _ = buffer.strides
        steps = (n, *(self.outputs * s for s in spatial))
        return offsets((self.images, *self.grid), steps) - sum(b * s for b, s in zip(before, spatial, strict=True))

    def extents(self) -> np.ndarray:
        """Rows * 256 + columns of each tile that lie inside the output."""
        rows, columns = (
            np.minimum(self.outputs, n - np.arange(g) * self.outputs) for n, g in zip(self.size, self.grid, strict=True)
        )
        return np.tile((rows[:, None] * 256 + columns).ravel(), self.images)


def _suits(window: Window) -> bool:
    plain = window.kernel == (3, 3) and window.stride == (1, 1) and window.dilation == (1, 1)
    return plain and all(0 <= p <= 2 for pair in window.pads for p in pair)


def product_tiling(
    window: Window, lo: Sequence[int], images: int, size: Sequence[int], channels: int, filters: int
) -> Tiling | None:
    """The tiling that computes a 3x3 product fastest, or None where the direct kernel does."""
    if not _suits(window) or min(channels, filters) < LEAST_CHANNELS:
        return None
    cost: float
    best, least = None, 9.0 * IMAGES * math.prod(size) * channels * filters
    for outputs in (2, 4):
        tiling = Tiling(outputs, (lo[0], lo[1]), (size[0], size[1]), images)
        points, tiles = (outputs + 2) ** 2, IMAGES * math.prod(tiling.grid)
        cost = points * tiles * channels * filters
        cost += tiles * (channels + filters) * TRANSFORM_COST * points / 36
        cost += channels * filters * FILTER_COST * points / 36
        if cost < least:
            best, least = tiling, cost
    return best


def gradient_tiling(window: Window, images: int, size: Sequence[int], channels: int, filters: int) -> Tiling | None:
    """The tiling of a filter gradient, or None where the direct kernel is faster."""
    if not _suits(window) or min(channels, filters) < LEAST_CHANNELS:
        return None
    tiling = Tiling(4, (window.pads[0][0], window.pads[1][0]), (size[0], size[1]), images)
    groups, tiles = -(-filters // GRADIENT_GROUP), IMAGES * math.prod(tiling.grid)
    cost = 1.3 * 36 * tiles * channels * filters
    cost += tiles * (channels * groups + filters) * TRANSFORM_COST
    cost += channels * filters * GRADIENT_COST
    return tiling if cost < 1.2 * 9 * IMAGES * math.prod(size) * channels * filters else None


def gradient_slices(tiling: Tiling, channels: int, filters: int) -> int:
    """Slices of a filter gradient's tiles: from the shape, bounded by the memory of their sums."""
    each = 4 * 36 * channels * panel_count(filters) * PANEL
    return max(1, min(MOST_SLICES, tiling.count // 48, SLICES_BYTES // each))


def _cut(tiling: Tiling, channels: int, groups: int) -> tuple[int, int]:
    """Tiles a piece transforms at once, and the pieces its filters are split into.

    Blocks keep scratch in the second cache. Few tiles are split by filters, so that each filter is read but once.
    """
    most = max(24, min(60, 4096 // (channels + PANEL) // 6 * 6))
    if tiling.count <= 60 and groups > 1:
        return tiling.count, groups
    blocks = max(-(-tiling.count // most), min(8, -(-tiling.count // 12)))
    even = -(-tiling.count // blocks)
    return min(tiling.count, -(-even // 6) * 6), 1


def _pitch(channels: int) -> int:
    wide = -(-channels // PANEL) * PANEL
    return wide + PANEL if wide % 64 == 0 else wide


def lower_product(group: Group, low: Lowering, tiling: Tiling, x: Buffer, panels: At, result: Buffer) -> None:
    """A 3x3 product over `tiling`; `panels` are its filters packed [panel][tap][channel][16]."""
    channels, filters = x.shape[-1], result.shape[-1]
    size, count = tiling.outputs + 2, panel_count(filters)
    u = low.temporary(f"{low.label}.filters", count * PANEL * channels * size * size)
    parts = max(1, channels // 32)
    transform: dict[str, Argument] = {
        "x": panels,
        "y": At(u),
        "channels": channels,
        "panels": count,
        "group_panels": kernels.GROUP // PANEL,
        "parts": parts,
    }
    low.call(kernels.FilterTransform(tiling.outputs), transform, count * parts, u, "transform filters")
    rows, vectors = tile_shape(host(), PANEL)
    block, splits = _cut(tiling, channels, -(-filters // kernels.GROUP))
    held = -(-block // rows) * rows
    wide = min(kernels.GROUP, count * PANEL)
    v_pitch, m_pitch = _pitch(channels), _pitch(wide)
    v_plane, m_plane = held * v_pitch + PANEL, held * m_pitch + PANEL
    kinds, arguments = epilogue_inputs(group, low)
    for i in [i for i, kind in enumerate(kinds) if kind.startswith("vector")]:
        source = low.plain(group.inputs[i])
        arguments[f"in{i}_table"] = table(tiling.places(source))
        arguments[f"in{i}_row"], arguments[f"in{i}_column"] = source.strides[1:3]
    arguments |= {
        "x": At(x.memory, x.start),
        "u": At(u),
        "y": At(result.memory, result.start),
        "tiles": tiling.count,
        "block": block,
        "x_tile": table(tiling.places(x, tiling.lo)),
        "y_tile": table(tiling.places(result)),
        "extent": table(tiling.extents()),
        "x_row": x.strides[1],
        "x_column": x.strides[2],
        "y_row": result.strides[1],
        "y_column": result.strides[2],
        "channels": channels,
        "columns": filters,
        "group": kernels.GROUP,
        "splits": splits,
        "v_pitch": v_pitch,
        "v_plane": v_plane,
        "m_pitch": m_pitch,
        "m_plane": m_plane,
        "m_start": size * size * v_plane,
    }
    spec = kernels.Product(tiling.outputs, rows, vectors, Formula(kinds, group.steps, group.results))
    flops = 2 * 9 * tiling.images * math.prod(tiling.size) * channels * filters
    scratch = size * size * (v_plane + m_plane) + 4 * PANEL
    name = f"winograd {tiling.outputs}x{tiling.outputs}, {block} tiles a block"
    low.call(spec, arguments, -(-tiling.count // block) * splits, result, name, flops, scratch, disjoint=True)


def lower_gradient(y: Value, low: Lowering, tiling: Tiling, x: Buffer, dy: Buffer) -> None:
    """The filter gradient over `tiling`."""
    channels, filters = x.shape[-1], dy.shape[-1]
    panels = panel_count(filters)
    rows, vectors = tile_shape(host(), PANEL)
    channel_rows = -(-channels // rows) * rows
    slices = gradient_slices(tiling, channels, filters)
    groups = -(-filters // GRADIENT_GROUP)
    block = min(48, -(-tiling.count // slices))
    v_pitch, z_pitch = _pitch(channel_rows), _pitch(min(GRADIENT_GROUP, panels * PANEL))
    v_plane, z_plane = block * v_pitch + PANEL, block * z_pitch + PANEL
    sums = low.temporary(f"{low.label}.products", slices * 36 * panels * PANEL * channel_rows)
    arguments: dict[str, Argument] = {
        "x": At(x.memory, x.start),
        "dy": At(dy.memory, dy.start),
        "y": At(sums),
        "tiles": tiling.count,
        "block": block,
        "slices": slices,
        "x_tile": table(tiling.places(x, tiling.lo)),
        "dy_tile": table(tiling.places(dy)),
        "x_row": x.strides[1],
        "x_column": x.strides[2],
        "dy_row": dy.strides[1],
        "dy_column": dy.strides[2],
        "channels": channels,
        "columns": filters,
        "group": GRADIENT_GROUP,
        "groups": groups,
        "panels": panels,
        "v_pitch": v_pitch,
        "v_plane": v_plane,
        "z_pitch": z_pitch,
        "z_plane": z_plane,
        "z_start": 36 * v_plane,
        "channel_rows": channel_rows,
    }
    flops = 2 * 9 * tiling.images * math.prod(tiling.size) * channels * filters
    spec = kernels.FilterGradientSum(rows, vectors)
    scratch = 36 * (v_plane + z_plane) + 4 * PANEL
    low.call(spec, arguments, slices * groups, sums, f"winograd 3x3 of 4x4, {slices} slices", flops, scratch)
    result = low.result(y)
    parts = max(1, channels // 16)
    last: dict[str, Argument] = {
        "x": At(sums),
        "y": At(result.memory),
        "slices": slices,
        "channels": channels,
        "panels": panels,
        "columns": filters,
        "channel_rows": channel_rows,
        "parts": parts,
    }
    low.call(kernels.FilterGradientResult(), last, panels * parts, result, "transform back")
