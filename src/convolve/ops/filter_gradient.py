"""How the gradient of filters is lowered: rows and reduction of the gather-GEMM exchanged, the reduction in slices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from convolve.graph import Value
from convolve.lowering import Lowering, offsets, panel_count, table
from convolve.native.kernels.depthwise import DepthwiseFilterGradient
from convolve.native.kernels.filter_gradient import FilterGradient
from convolve.native.kernels.gemm import tile_shape
from convolve.native.target import PANEL, host
from convolve.ops.product import PIECE_FLOPS, column_spans, narrow_name
from convolve.ops.reduce import join_slices
from convolve.program import Argument, At, Buffer, Memory
from convolve.window import Window

CHUNK_BYTES = 24 * 1024
"""What a chunk of a filter gradient reads of both sides: stays in the first cache while the tiles pass by."""
DEPTHWISE_CHUNK_BYTES = 128 * 1024
"""The same where every channel has a filter of its own: in the second cache, while the panels pass by."""
SEGMENT = 64
"""Positions of an image row that a filter gradient takes at once, at most."""
GATHERED_RUN = 16
"""Rows from which on a filter gradient's panel of dY is worth bringing together."""
CHAINS = 8
"""Independent sums that keep the multiply-add units busy: fewer cost as much."""
SLICED_PIECES = 64
"""Pieces a filter gradient is cut into at least: enough for 64 threads, the same for any number."""


def lower_filter_gradient(y: Value, low: Lowering, window: Window, x: Buffer, dy: Buffer, groups: int) -> None:
    """dW of filters in `groups` groups: a product for each panel of filters and run of taps."""
    channels, filters = x.shape[-1] // groups, dy.shape[-1] // groups
    walk = _walk(window, x, dy)
    segments = walk.pop("segment")
    assert isinstance(segments, np.ndarray)
    taps = _taps(window, x)
    run = channels
    if window.rank and window.dilation[-1] == 1 and x.strides[-2] == channels:
        run *= window.kernel[-1]
    runs = taps[:: run // channels]
    if not window.rank:
        run, runs = _split_features(channels)
    panels = panel_count(filters)
    blocks = groups * panels * len(runs)
    # Where a gradient is sliced anyway, a piece takes all runs: what it brought together of dY serves them all.
    joint = window.rank > 0 and blocks < SLICED_PIECES
    slices = min(len(segments), -(-SLICED_PIECES // (groups * panels if joint else blocks)))
    size = groups * panels * PANEL * math.prod(window.kernel) * channels
    result = low.result(y)
    target = _slices(y, low, result, slices, size)
    positions = int(segments[:, 2].max())
    chunk = max(1, CHUNK_BYTES // (4 * positions * (channels if window.rank else run) + 4 * positions * PANEL))
    gathered = run >= GATHERED_RUN
    spare = chunk * positions * PANEL
    arguments: dict[str, Argument] = walk | {
        "segment": table(segments),
        "segments": len(segments),
        "slices": slices,
        "chunk": chunk,
        "run": table(runs),
        "runs": len(runs),
        "length": run,
        "groups": groups,
        "x_group": channels,
        "dy_group": filters,
        "y_group": size // groups,
        "slice_size": size,
        "spare": spare,
    }
    for column, width in column_spans(filters):
        rows, vectors = tile_shape(host(), width)
        # Runs of at most half a tile share one.
        together = max(1, min(rows // run, len(runs)))
        if together == 1:
            rows = min((rows, -(-rows // 2)), key=lambda r: -(-run // r) * max(r * vectors, CHAINS))
        else:
            rows = run
        here: dict[str, Argument] = {
            "dy": At(dy.memory, dy.start + column),
            "y": At(target, column * len(runs) * run),
            "panels": panel_count(width),
            "columns": width,
        }
        flops = 2 * y.size // filters * width * math.prod(dy.shape[:-1])
        spec, name = FilterGradient(together, rows, vectors, gathered), f"direct, {slices} slices"
        run_blocks = 1 if joint else -(-len(runs) // together)
        here["run_blocks"] = run_blocks
        pieces = slices * groups * panel_count(width) * run_blocks
        low.call(spec, arguments | here, pieces, target, name, flops, spare + 2 * PANEL, disjoint=True)
    if slices > 1:
        join_slices(low, "sum", At(target), 1, slices, size, result.memory)


def lower_narrow_gradient(y: Value, low: Lowering, window: Window, x: Buffer, dy: Buffer, width: int) -> None:
    """dW where groups have `width` channels and filters: sums over positions, vectors along channels."""
    walk = _walk(window, x, dy)
    segments = walk.pop("segment")
    assert isinstance(segments, np.ndarray)
    taps, channels = _taps(window, x), x.shape[-1]
    panels, flops = panel_count(channels), 2 * dy.shape[-1] * math.prod(dy.shape[:-1]) * window.taps * width
    slices = max(1, min(len(segments), SLICED_PIECES, flops // PIECE_FLOPS))
    panel_blocks = min(panels, -(-SLICED_PIECES // slices))
    size = panels * PANEL * len(taps) * width
    result = low.result(y)
    target = _slices(y, low, result, slices, size)
    rows, vectors = _tap_tile(len(taps), width)
    arguments: dict[str, Argument] = walk | {
        "dy": At(dy.memory, dy.start),
        "y": At(target),
        "segment": table(segments),
        "segments": len(segments),
        "slices": slices,
        "chunk": max(1, DEPTHWISE_CHUNK_BYTES // (8 * int(segments[:, 2].max()) * channels)),
        "run": table(taps),
        "runs": len(taps),
        "panels": panels,
        "panel_blocks": panel_blocks,
        "slice_size": size,
        "columns": channels,
    }
    spec, name = DepthwiseFilterGradient(width, rows, vectors), f"{narrow_name(width)}, {slices} slices"
    low.call(spec, arguments, slices * panel_blocks, target, name, flops, disjoint=True)
    if slices > 1:
        join_slices(low, "sum", At(target), 1, slices, size, result.memory)


def _tap_tile(taps: int, width: int) -> tuple[int, int]:
    """Taps and vectors of a register tile: the one that does the least work beside what is asked for."""
    target = host()

    def cost(tile: tuple[int, int]) -> float:
        rows, vectors = tile
        return -(-taps // rows) * max(rows * width * vectors, CHAINS) / vectors

    tiles = [
        (rows, vectors)
        for vectors in range(1, target.panel_vectors + 1)
        if target.panel_vectors % vectors == 0
        for rows in range(1, max(1, (target.registers - 3) // (vectors * width)) + 1)
    ]
    return min(tiles, key=cost)


def _walk(window: Window, x: Buffer, dy: Buffer) -> dict[str, Argument]:
    """The reduction as both sides walk through it, over all positions of dy."""
    xs = (x.strides[0], *(s * t for s, t in zip(window.stride, x.strides[1:-1], strict=True)))
    origin = -sum(lo * s for (lo, _), s in zip(window.pads, x.strides[1:-1], strict=True))
    return {
        "x": At(x.memory, x.start + origin),
        "segment": _segments(dy.shape[:-1], xs, dy.strides[:-1]),
        "x_step": xs[-1],
        "dy_step": dy.strides[-2],
    }


def _taps(window: Window, x: Buffer) -> np.ndarray:
    """Offset of each tap in x."""
    return offsets(window.kernel, [d * s for d, s in zip(window.dilation, x.strides[1:-1], strict=True)])


def _slices(y: Value, low: Lowering, result: Buffer, slices: int, size: int) -> Memory:
    """Where the slices' sums go: to the result itself where there is but one."""
    assert result.panels
    return result.memory if slices == 1 else low.temporary(f"{y.label or y.serial}.slices", slices * size)


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
