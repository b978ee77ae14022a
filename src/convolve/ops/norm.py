"""Batch normalisation: moments of each channel, and the normalisation with its fused gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import Group, Lowering, aligned_strides, table
from convolve.native.kernels.moments import JoinMoments, Moments
from convolve.ops.layout import row
from convolve.ops.pointwise import sqrt
from convolve.ops.reduce import SLICES, Dimension, joined, sum, walk
from convolve.program import Argument, At, Buffer


@register
@dataclass(frozen=True)
class ChannelMoments(Op):
    """x (..., channels) -> (2, channels): each channel's mean and biased variance."""

    name: ClassVar[str] = "channel_moments"
    arity: ClassVar[int | None] = 1

    def shape(self, *inputs: Shape) -> Shape:
        return (2, inputs[0][-1])

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        axes = tuple(range(inputs[0].ndim - 1))
        return np.stack([inputs[0].mean(axes), inputs[0].var(axes)])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        [x] = y.inputs
        count = x.size // x.shape[-1]
        return ((row(dy, 0) + (x - row(y, 0)) * row(dy, 1) * 2.0) * (1.0 / count),)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x = low.plain(y.inputs[0])
        channels = x.shape[-1]
        rows = [Dimension(n, (s,), True) for n, s in zip(x.shape[:-1], aligned_strides(x, x.shape)[:-1], strict=True)]
        mid, step, [starts], segments = walk(joined(rows), 1)
        slices = min(segments, SLICES)
        bounds = np.arange(slices + 1) * segments // slices
        counts = table(np.diff(bounds) * mid)
        partial = low.temporary(f"{y.label or y.serial}.slices", slices * 2 * channels)
        arguments: dict[str, Argument] = {
            "segments": segments,
            "pieces": slices,
            "mid": mid,
            "last_mid": mid,
            "inner": channels,
            "last_inner": channels,
            "slices": slices,
            "in0": At(x.memory, x.start),
            "in0_table": table(starts),
            "in0_row": step[0],
            "count": counts,
            "out": At(partial),
        }
        low.call(Moments(), arguments, slices, partial, f"shifted, {slices} slices")
        join: dict[str, Argument] = {
            "slices": slices,
            "inner": channels,
            "in0": At(partial),
            "count": counts,
        }

        def write(result: Buffer) -> None:
            low.call(JoinMoments(), join | {"out": At(result.memory, result.start)}, 1, result, "join slices")

        low.write_compact(y, write)


@register
@dataclass(frozen=True)
class BatchNormalize(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, where `moments` (2, channels) are those of x itself.

    The gradient is that of the whole, moments included (Ioffe and Szegedy, 2015), so that `moments` receives none.
    """

    name: ClassVar[str] = "batch_normalize"
    arity: ClassVar[int | None] = 4
    epsilon: float

    def shape(self, *inputs: Shape) -> Shape:
        x, moments, scale, shift = inputs
        if moments != (2, x[-1]) or not scale == shift == x[-1:]:
            raise ShapeError(f"batch norm of {x} with moments {moments}, scale {scale} and shift {shift}")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, moments, scale, shift = inputs
        return np.asarray((x - moments[0]) / np.sqrt(moments[1] + self.epsilon) * scale + shift)

    def expand(self, y: Value) -> Value:
        """The same in pointwise ops."""
        x, moments, scale, shift = y.inputs
        return (x - row(moments, 0)) * (scale / sqrt(row(moments, 1) + self.epsilon)) + shift

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, moments, scale, _ = y.inputs
        axes = tuple(range(len(x.shape) - 1))
        count = math.prod(x.shape[:-1])
        inverse = 1.0 / sqrt(row(moments, 1) + self.epsilon)
        centred = x - row(moments, 0)
        d_shift = sum(dy, axes)
        d_scale = sum(dy * centred, axes) * inverse
        slope = scale * inverse
        constant, linear = slope * d_shift * (-1.0 / count), slope * d_scale * inverse * (-1.0 / count)
        return dy * slope + (centred * linear + constant), None, d_scale, d_shift


def moments(x: Value) -> Value:
    """Mean and biased variance of each channel: x (..., channels) -> (2, channels)."""
    return apply(ChannelMoments(), x)
