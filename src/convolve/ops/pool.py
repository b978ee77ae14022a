"""Pooling over windows (max, average, sum), and its gradient. Padding never takes part in a maximum, nor adds to a sum.

Both are gathers: an output position reads the positions in its window, and the gradient of an input position is made
of what the windows that read it give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import GRAIN, Group, Lowering, offsets, table
from convolve.native.kernels.pool import Pool as PoolKernel
from convolve.native.kernels.pool import PoolGradient as PoolGradientKernel
from convolve.ops.convolution import fitting, patches, scatter
from convolve.program import SLACK, Argument, At, Buffer, row_major
from convolve.window import Pads, Reach, Window

KINDS = ("max", "avg", "sum")
MOST_TAPS = 1 << 16
"""Positions a pooling window may have; GlobalAvgPool and GlobalMaxPool serve larger ones."""
READS = 4 * GRAIN
"""Elements that are worth a piece of their own when they are only read."""


@register
@dataclass(frozen=True)
class Pool(Op):
    """`max`, `avg` or `sum` over each window of x (n, *spatial, channels), channel by channel.

    `counted` is the part of the window's padding that counts as positions of an average: none unless it is given.
    """

    name: ClassVar[str] = "pool"
    arity: ClassVar[int | None] = 1
    kind: str
    window: Window
    counted: Pads = ()

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        if self.kind not in KINDS or not 1 <= self.window.rank == len(x) - 2:
            raise ShapeError(f"{self.kind} pooling with a window of rank {self.window.rank} over an input {x}")
        if self.window.taps > MOST_TAPS:
            raise ShapeError(f"a pooling window of {self.window.kernel} has more than {MOST_TAPS:,} positions")
        output = fitting(self.window, x)
        for dim, (_, count, _) in enumerate(self.window.reads(x[1:-1])):
            if count.min() == 0:
                raise ShapeError(
                    f"along spatial dimension {dim}, pooling window {count.argmin()} of {len(count)} sees nothing but "
                    "padding; ask for less padding or less dilation. Received: "
                    f"pool_size {self.window.kernel}, stride {self.window.stride}, dilation {self.window.dilation}, "
                    f"pads {self.window.pads} over spatial size {x[1:-1]}"
                )
        pairs = zip(self.counted, self.window.pads, strict=False)
        part = all(0 <= a <= lo and 0 <= b <= hi for (a, b), (lo, hi) in pairs)
        if len(self.counted) not in (0, self.window.rank) or not part:
            raise ShapeError(f"the padding that counts, {self.counted}, is not within {self.window.pads} around {x}")
        return (x[0], *output, x[-1])

    def divisor(self, size: tuple[int, ...]) -> np.ndarray:
        """What each window's sum is divided by (*output): over the input grown by what counts, it reads so many."""
        if self.kind == "sum":
            return np.ones(self.window.output(size))
        counted = self.counted or ((0, 0),) * self.window.rank
        grown = tuple(n + a + b for n, (a, b) in zip(size, counted, strict=True))
        rest = tuple((lo - a, hi - b) for (lo, hi), (a, b) in zip(self.window.pads, counted, strict=True))
        counts = [count for _, count, _ in replace(self.window, pads=rest).reads(grown)]
        return np.asarray(reduce(np.multiply.outer, counts, np.ones(())))

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        [x] = inputs
        if self.kind == "max":
            return np.asarray(patches(x, self.window, -np.inf).max(-2))
        divisor = self.divisor(x.shape[1:-1])[..., None].astype(x.dtype)
        return np.asarray(patches(x, self.window).sum(-2) / divisor)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        [x] = y.inputs
        return (apply(PoolGradient(self.kind, self.window, self.counted), x, dy),)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, result = low.plain(y.inputs[0]), low.result(y)
        self.gather(low, x, result, self.window.reads(x.shape[1:-1]), self.divisor(x.shape[1:-1]))

    def gather(self, low: Lowering, x: Buffer, result: Buffer, reads: Sequence[Reach], divisor: np.ndarray) -> None:
        """The call for a result whose windows read so of an input."""
        channels = x.shape[-1]
        rows, taps = gathers(reads, x.strides[1:-1], result.strides[1:-1])
        pieces = max(1, min(len(rows), len(rows) * self.window.taps * channels // READS))
        arguments: dict[str, Argument] = {
            "x": At(x.memory, x.start),
            "y": At(result.memory, result.start),
            "x_image": x.strides[0],
            "y_image": result.strides[0],
            "windows": len(rows),
            "window": table(rows),
            "taps": table(taps),
            "channels": channels,
            "pieces": pieces,
        }
        if self.kind == "max":
            spec = PoolKernel("max")
        else:
            spec = PoolKernel("sum")
            arguments["divisor"] = divisor.astype(np.float32)
        low.call(spec, arguments, pieces * x.shape[0], result, f"{self.kind} pool", disjoint=True)


@register
@dataclass(frozen=True)
class PoolGradient(Op):
    """dx of a pooling: the first winner in scan order takes it (`max`), or all positions evenly (`avg`, `sum`)."""

    name: ClassVar[str] = "pool_gradient"
    arity: ClassVar[int | None] = 2
    kind: str
    window: Window
    counted: Pads = ()

    @property
    def pool(self) -> Pool:
        return Pool(self.kind, self.window, self.counted)

    def shape(self, *inputs: Shape) -> Shape:
        x, dy = inputs
        if self.pool.shape(x) != dy:
            raise ShapeError(f"gradient of {self.kind} pooling over {x} from {dy} with window {self.window}")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, dy = inputs
        if self.kind == "max":
            taps = patches(x, self.window, -np.inf)
            best = (taps == taps.max(-2, keepdims=True)) | np.isnan(taps)
            winner = np.argmax(best & (patches(np.ones_like(x), self.window) > 0), -2)
            columns = np.where(winner[..., None, :] == np.arange(self.window.taps)[:, None], dy[..., None, :], 0)
        else:
            divisor = self.pool.divisor(x.shape[1:-1])[..., None].astype(x.dtype)
            columns = np.repeat((dy / divisor)[..., None, :], self.window.taps, -2)
        return scatter(columns.astype(x.dtype), self.window, x.shape[1:-1])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        raise ShapeError("second derivatives of pooling are not defined here; differentiate the loss once")

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        dy, result = low.plain(y.inputs[1]), low.result(y)
        size, output, channels = y.shape[1:-1], dy.shape[1:-1], y.shape[-1]
        rows, readers = gathers(self.window.readers(size), row_major(output), result.strides[1:-1])
        blocks = _blocks(self, y.shape, rows, readers)
        arguments: dict[str, Argument] = {
            "dy": At(dy.memory, dy.start),
            "y": At(result.memory, result.start),
            "dy_image": dy.strides[0],
            "y_image": result.strides[0],
            "blocks": len(blocks),
            "block": table(blocks),
            "position": table(rows),
            "readers": table(readers),
            "received": table(offsets(output, dy.strides[1:-1])),
            "channels": channels,
        }
        scratch = 0
        if self.kind == "max":
            x = low.plain(y.inputs[0])
            in_scratch = [channels * n for n in row_major(output)]
            windows, taps = gathers(self.window.reads(size), x.strides[1:-1], in_scratch)
            arguments |= {
                "x": At(x.memory, x.start),
                "x_image": x.strides[0],
                "window": table(windows),
                "taps": table(taps),
                "here": table(offsets(size, x.strides[1:-1])),
            }
            spec = PoolGradientKernel("max")
            scratch = int((blocks[:, 3] - blocks[:, 2]).max()) * channels + SLACK
        else:
            arguments["weight"] = (1 / self.pool.divisor(size)).astype(np.float32)
            spec = PoolGradientKernel("sum")
        pieces = len(blocks) * y.shape[0]
        low.call(spec, arguments, pieces, result, f"{self.kind} pool gradient", scratch=scratch, disjoint=True)


def gathers(reaches: Sequence[Reach], source: Sequence[int], target: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A table of gathers and its lists (see `native.kernels.pool`): reaches by dimension, strides of both sides.

    >>> gathers([(np.array([0, 2]), np.array([2, 1]), 1)], (10,), (1,))
    (array([[ 0,  0,  1,  2],
           [20,  1,  0,  1]]), array([ 0,  0, 10]))
    """
    first, kind = np.zeros(1, np.int64), np.zeros(1, np.int64)
    counts: list[tuple[int, ...]] = [()]
    for (starts, lengths, _), step in zip(reaches, source, strict=True):
        known, member = np.unique(lengths, return_inverse=True)
        first = (first[:, None] + starts * step).ravel()
        kind = (kind[:, None] * len(known) + member.reshape(-1)).ravel()
        counts = [(*c, int(n)) for c in counts for n in known]
    steps = [apart * step for (_, _, apart), step in zip(reaches, source, strict=True)]
    lists = [offsets(c, steps) for c in counts]
    ends = np.cumsum([len(each) for each in lists])
    length = np.array([len(each) for each in lists])
    places = offsets([len(starts) for starts, _, _ in reaches], target)
    return np.stack([first, places, (ends - length)[kind], length[kind]], 1), np.concatenate(lists)


def _blocks(op: PoolGradient, x: Shape, rows: np.ndarray, readers: np.ndarray) -> np.ndarray:
    """Pieces of a gradient: runs (first, end) of input positions and, behind each, of the windows that read them.

    They end where windows begin, along the first dimension that has any length. For a maximum, windows that reach into
    two blocks are looked at twice: blocks are so large that these are few.
    """
    size, window = x[1:-1], op.window
    output = window.output(size)
    axis = next((i for i, n in enumerate(size) if n > 1), 0)
    overlap = -(-window.extent[axis] // window.stride[axis]) - 1 if op.kind == "max" else 0
    most = output[axis] // max(1, 4 * overlap)
    work = (math.prod(output) * window.taps + math.prod(size)) * x[-1]
    parts = max(1, min(most, work // (2 * READS)))
    cuts = np.arange(parts + 1) * output[axis] // parts * window.stride[axis] - window.pads[axis][0]
    cuts[0], cuts[-1] = 0, size[axis]
    edges = np.unique(np.clip(cuts, 0, size[axis])) * math.prod(size[axis + 1 :])
    read = rows[:, 3] > 0
    first = np.where(read, rows[:, 0], math.prod(output))
    end = np.where(read, rows[:, 0] + readers[rows[:, 2] + rows[:, 3] - 1] + 1, 0)
    runs = [f.reduceat(v, edges[:-1]) for f, v in ((np.minimum, first), (np.maximum, end))]
    return np.stack([edges[:-1], edges[1:], *runs], 1)
