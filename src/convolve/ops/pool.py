"""Max and average pooling over windows, and their gradients. Padding never takes part in a maximum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import GRAIN, Group, Lowering, offsets, table
from convolve.native.kernels.pool import Pool as PoolKernel
from convolve.native.kernels.pool import PoolGradient as PoolGradientKernel
from convolve.ops.convolution import fitting, patches, scatter
from convolve.program import Argument, At, Buffer
from convolve.window import Window

KINDS = ("max", "avg")
MOST_TAPS = 1 << 16
"""Positions a pooling window may have; GlobalAvgPool serves larger ones."""


def _inside(x_shape: Shape, window: Window) -> np.ndarray:
    """Which taps of each window lie inside the image: (*output, taps)."""
    inside = np.ones((), bool)
    for (first, last), k in zip(window.spans(x_shape[1:-1]), window.kernel, strict=True):
        tap = np.arange(k)
        inside = np.logical_and.outer(inside, (tap >= first[:, None]) & (tap < last[:, None]))
    rank = window.rank
    places = inside.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
    return places.reshape(*places.shape[:rank], window.taps)


def _divisor(x_shape: Shape, window: Window, count_padding: bool) -> np.ndarray:
    counts = _inside(x_shape, window).sum(-1)
    return np.full(counts.shape, window.taps) if count_padding else counts


@register
@dataclass(frozen=True)
class Pool(Op):
    """`max` or `avg` over each window of x (n, *spatial, channels), channel by channel."""

    name: ClassVar[str] = "pool"
    arity: ClassVar[int | None] = 1
    kind: str
    window: Window
    count_padding: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        if self.kind not in KINDS or len(x) != self.window.rank + 2:
            raise ShapeError(f"{self.kind} pooling with a window of rank {self.window.rank} over an input {x}")
        if self.window.taps > MOST_TAPS:
            raise ShapeError(f"a pooling window of {self.window.kernel} has more than {MOST_TAPS:,} positions")
        return (x[0], *fitting(self.window, x), x[-1])

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        [x] = inputs
        if self.kind == "max":
            return np.asarray(patches(x, self.window, -np.inf).max(-2))
        divisor = _divisor(x.shape, self.window, self.count_padding)
        return np.asarray(patches(x, self.window).sum(-2) / divisor[..., None].astype(x.dtype))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        [x] = y.inputs
        return (apply(PoolGradient(self.kind, self.window, self.count_padding), x, dy),)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, result = low.plain(y.inputs[0]), low.result(y)
        tables = window_tables(self.window, x, result)
        count = len(tables["window"])
        pieces = max(1, min(count, count * x.shape[-1] // GRAIN))
        arguments: dict[str, Argument] = {
            "x": At(x.memory, x.start),
            "y": At(result.memory, result.start),
            "x_image": x.strides[0],
            "y_image": result.strides[0],
            "divisor": _divisor(x.shape, self.window, self.count_padding).ravel().astype(np.float32),
            "windows": count,
            "window": tables["window"],
            "taps": tables["taps"],
            "channels": x.shape[-1],
            "pieces": pieces,
        }
        low.call(PoolKernel(self.kind), arguments, pieces * x.shape[0], result, f"{self.kind} pool", disjoint=True)


@register
@dataclass(frozen=True)
class PoolGradient(Op):
    """dx of a pooling: the first winner in scan order takes it (`max`), or all taps evenly (`avg`)."""

    name: ClassVar[str] = "pool_gradient"
    arity: ClassVar[int | None] = 2
    kind: str
    window: Window
    count_padding: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        x, dy = inputs
        if Pool(self.kind, self.window, self.count_padding).shape(x) != dy:
            raise ShapeError(f"gradient of {self.kind} pooling over {x} from {dy} with window {self.window}")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, dy = inputs
        if self.kind == "max":
            taps = patches(x, self.window, -np.inf)
            chosen = np.argmax(taps, -2)[..., None, :] == np.arange(self.window.taps)[:, None]
            columns = np.where(chosen, dy[..., None, :], 0)
        else:
            divisor = _divisor(x.shape, self.window, self.count_padding)[..., None].astype(x.dtype)
            columns = np.where(_inside(x.shape, self.window)[..., None], (dy / divisor)[..., None, :], 0)
        return scatter(columns.astype(x.dtype), self.window, x.shape[1:-1])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        raise ShapeError("second derivatives of pooling are not defined here; differentiate the loss once")

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, dy = low.plain(y.inputs[0]), low.plain(y.inputs[1])
        result = low.result(y)
        apart = all(s >= e for s, e in zip(self.window.stride, self.window.extent, strict=True))
        inside = _inside(x.shape, self.window)
        if not apart or inside.sum() < np.prod(x.shape[1:-1]):
            low.pointwise((), [0.0], [result], (0,), "zero")
        tables, own = window_tables(self.window, x, dy), window_tables(self.window, result, dy)
        arguments: dict[str, Argument] = {
            "x": At(x.memory, x.start),
            "dy": At(dy.memory, dy.start),
            "y": At(result.memory, result.start),
            "x_image": x.strides[0],
            "dy_image": dy.strides[0],
            "y_image": result.strides[0],
            "divisor": _divisor(x.shape, self.window, self.count_padding).ravel().astype(np.float32),
            "windows": len(tables["window"]),
            "window": tables["window"],
            "taps": np.concatenate([tables["taps"], own["taps"]]),
            "y_window": np.stack([own["window"][:, 0], own["window"][:, 2] + len(tables["taps"])], 1).astype(np.int32),
            "channels": x.shape[-1],
        }
        low.call(PoolGradientKernel(self.kind, not apart), arguments, x.shape[0], result, f"{self.kind} pool gradient")


def window_tables(window: Window, x: Buffer, y: Buffer) -> dict[str, np.ndarray]:
    """Each window's origin in x, place in y and class of taps inside the image (see `native.kernels.pool`)."""
    inside = _inside(x.shape, window).reshape(-1, window.taps)
    origin = offsets(y.shape[1:-1], [s * t for s, t in zip(window.stride, x.strides[1:-1], strict=True)])
    origin = origin - sum(lo * s for (lo, _), s in zip(window.pads, x.strides[1:-1], strict=True))
    result = offsets(y.shape[1:-1], y.strides[1:-1])
    tap = offsets(window.kernel, [d * s for d, s in zip(window.dilation, x.strides[1:-1], strict=True)])
    classes, member = np.unique(inside, axis=0, return_inverse=True)
    lists = [tap[c] for c in classes]
    starts = np.concatenate([[0], np.cumsum([len(c) for c in lists])])
    member = member.reshape(-1)
    windows = np.stack([origin, result, starts[member], starts[member + 1] - starts[member]], 1)
    return {"window": table(windows), "taps": table(np.concatenate(lists))}
