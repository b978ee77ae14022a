"""Batch normalisation: moments of each channel, and the normalisation with its fused gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, constant, register
from convolve.lowering import Group, Lowering, Space, aligned_strides, offsets, table
from convolve.native.kernels.moments import ColumnMoments, JoinMoments, RowMoments
from convolve.ops.layout import row
from convolve.ops.pointwise import broadcast, sqrt, square, sum_to
from convolve.ops.reduce import Dimension, joined, reshape_to, slices_of, sum, walk
from convolve.ops.reduce import mean as mean_of
from convolve.program import Argument, At, Buffer, row_major


@register
@dataclass(frozen=True)
class Moments(Op):
    """Mean and biased variance over `axes`, which disappear: x -> (2, *kept).

    They are the last axis alone, or any but the last.
    """

    name: ClassVar[str] = "moments"
    arity: ClassVar[int | None] = 1
    axes: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        last = len(inputs[0]) - 1
        chosen = sorted(set(self.axes))
        if not chosen or len(chosen) < len(self.axes) or not 0 <= chosen[0] <= chosen[-1] <= last:
            raise ShapeError(f"moments over axes {self.axes} of a value with shape {inputs[0]}")
        if chosen[-1] == last and len(chosen) > 1:
            raise ShapeError(f"moments over the last axis together with others: {self.axes} of {inputs[0]}")
        return (2, *(n for i, n in enumerate(inputs[0]) if i not in chosen))

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        axes = tuple(self.axes)
        return np.stack([inputs[0].mean(axes), inputs[0].var(axes)])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        [x] = y.inputs
        kept = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        share = math.prod(kept) / x.size
        mean, d_mean, d_variance = (reshape_to(v, kept) for v in (row(y, 0), row(dy, 0), row(dy, 1)))
        return ((x - mean) * (d_variance * (2 * share)) + d_mean * share,)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x = low.plain(y.inputs[0])
        strides = aligned_strides(x, x.shape)
        dims = [Dimension(n, (s,), i in self.axes) for i, (n, s) in enumerate(zip(x.shape, strides, strict=True))]
        lower = self._rows if len(x.shape) - 1 in self.axes else self._columns
        low.write_compact(y, lambda result: lower(low, x, dims, result))

    def _rows(self, low: Lowering, x: Buffer, dims: list[Dimension], result: Buffer) -> None:
        """Each row by itself, twice."""
        *outer, last = dims
        steps = row_major([d.size for d in outer])
        joint = joined([Dimension(d.size, (*d.strides, s), False) for d, s in zip(outer, steps, strict=True)])
        mid, step, [starts, ends], segments = walk(joint, 2)
        space = Space(segments, mid, mid, last.size, last.size, (starts, ends), step, (1, 1))
        arguments: dict[str, Argument] = space.arguments | {
            "pieces": space.pieces,
            "in0": At(x.memory, x.start),
            "in0_table": table(starts),
            "in0_row": step[0],
            "out": At(result.memory, result.start),
            "out_table": table(ends),
            "out_row": step[1],
            "plane": math.prod(result.shape[1:]),
        }
        low.call(RowMoments(), arguments, space.pieces, result, "of rows, two-pass")

    def _columns(self, low: Lowering, x: Buffer, dims: list[Dimension], result: Buffer) -> None:
        """Slices of what is reduced, for each index of the other kept axes; then their join."""
        channels = x.shape[-1]
        outer = [d for d in dims[:-1] if not d.reduced]
        mid, step, [starts], segments = walk(joined([d for d in dims if d.reduced]), 1)
        bases = offsets([d.size for d in outer], [d.strides[0] for d in outer])
        slices = slices_of(segments, mid * channels)
        bounds = np.arange(slices + 1) * segments // slices
        counts = table(np.diff(bounds) * mid)
        partial = low.temporary(f"{result.memory.name}.slices", len(bases) * slices * 2 * channels)
        arguments: dict[str, Argument] = {
            "segments": segments,
            "pieces": len(bases),
            "mid": mid,
            "last_mid": mid,
            "inner": channels,
            "last_inner": channels,
            "slices": slices,
            "in0": At(x.memory, x.start),
            "in0_table": table((bases[:, None] + starts).ravel()),
            "in0_row": step[0],
            "count": counts,
            "out": At(partial),
        }
        low.call(ColumnMoments(), arguments, len(bases) * slices, partial, f"shifted, {slices} slices")
        join: dict[str, Argument] = {
            "slices": slices,
            "inner": channels,
            "in0": At(partial),
            "base": At(x.memory, x.start),
            "base_table": table(bases + starts[0]),
            "count": counts,
            "out": At(result.memory, result.start),
            "plane": len(bases) * channels,
        }
        low.call(JoinMoments(), join, len(bases), result, "join slices")


@register
@dataclass(frozen=True)
class Normalize(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, where mean and variance are those of x itself.

    They are taken over `axes` and, without the last among these, over `groups` of equally many channels, and are
    repeated for what they were taken over as NumPy does or in full. The gradient is that of the whole, moments included
    (Ioffe and Szegedy, 2015), so that mean and variance receive none.
    """

    name: ClassVar[str] = "normalize"
    arity: ClassVar[int | None] = 5
    epsilon: float
    axes: tuple[int, ...]
    groups: int

    def shape(self, *inputs: Shape) -> Shape:
        x, *_, scale, _ = inputs
        fits = np.broadcast_shapes(*inputs) == x and all(0 <= a < len(x) for a in self.axes) and not x[-1] % self.groups
        if not fits or (self.groups < x[-1] and not self._by_channel(x, scale)):
            raise ShapeError(
                f"normalize over axes {self.axes} and {self.groups} groups of channels: x, mean, variance, scale and "
                f"shift have the shapes {', '.join(map(str, inputs))}"
            )
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, mean, variance, scale, shift = inputs
        return np.asarray((x - mean) / np.sqrt(variance + self.epsilon) * scale + shift)

    def expand(self, y: Value) -> Value:
        """The same in pointwise ops, what is small first."""
        x, mean, variance, scale, shift = y.inputs
        inverse = 1.0 / sqrt(variance + self.epsilon)
        if np.broadcast_shapes(scale.shape, inverse.shape) == x.shape:
            return (x - mean) * inverse * scale + shift
        return (x - mean) * (scale * inverse) + shift

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, mean, variance, scale, shift = y.inputs
        inverse = 1.0 / sqrt(variance + self.epsilon)
        centred = x - mean
        if not self._by_channel(x.shape, scale.shape):
            weighted = dy * scale
            share = mean.size / x.size
            constant, linear = _sums(mean.shape, weighted, weighted * centred)
            d_shift, d_scale = _sums(scale.shape, dy, dy * (centred * inverse))
            dx = weighted * inverse
        else:
            # Scale is the same for all of a channel: it waits for the sums, which serve its own gradient, too.
            kept = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
            share = math.prod(kept) / x.size / (x.shape[-1] // self.groups)
            d_shift, d_scale = _sums(kept, dy, dy * centred)
            constant, linear = self._together(d_shift * scale), self._together(d_scale * scale)
            d_shift, d_scale = sum_to(d_shift, shift.shape), sum_to(d_scale * inverse, scale.shape)
            dx = dy * (scale * inverse)
        constant, linear = constant * inverse * -share, linear * inverse * square(inverse) * -share
        return dx + (centred * linear + constant), None, None, d_scale, d_shift

    def _by_channel(self, x: Shape, scale: Shape) -> bool:
        """Whether scale is the same for all that a channel is normalised over."""
        wide = (1,) * (len(x) - len(scale)) + scale
        return len(x) - 1 not in self.axes and all(wide[a] == 1 for a in self.axes)

    def _together(self, sums: Value) -> Value:
        """Sums over the channels of each group, for each of its channels."""
        *rest, channels = sums.shape
        if self.groups == channels:
            return sums
        grouped = (*rest, self.groups, channels // self.groups)
        [total] = _sums((*grouped[:-1], 1), reshape_to(sums, grouped))
        return reshape_to(broadcast(total, grouped), sums.shape)


def _sums(shape: Shape, *values: Value) -> list[Value]:
    """Values of one shape, each summed to `shape`. Nothing comes between the sums, so that they take one pass."""
    wide = values[0].shape
    axes = tuple(i for i, n in enumerate((*(1,) * (len(wide) - len(shape)), *shape)) if n != wide[i])
    return [reshape_to(total, shape) for total in [sum(v, axes) for v in values]]


def normalize(x: Value, axes: Sequence[int], epsilon: float, scale: Value | float, shift: Value | float) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with mean and variance over any axes."""
    return apply(Normalize(epsilon, tuple(axes), x.shape[-1]), x, *moments(x, axes), constant(scale), constant(shift))


def group_normalize(x: Value, groups: int, epsilon: float, scale: Value | float, shift: Value | float) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with those of each group of each sample's channels."""
    found = group_moments(x, groups)
    op = Normalize(epsilon, tuple(range(1, len(x.shape) - 1)), groups)
    return apply(op, x, *found, constant(scale), constant(shift))


def moments(x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """Mean and biased variance over any axes, which stay with size 1."""
    last = len(x.shape) - 1
    chosen = [a for a in axes if a != last] or [last]
    found = apply(Moments(tuple(chosen)), x)
    kept = tuple(1 if i in chosen else n for i, n in enumerate(x.shape))
    mean, variance = (reshape_to(row(found, i), kept) for i in (0, 1))
    return _joint(mean, variance) if len(chosen) < len(axes) else (mean, variance)


def group_moments(x: Value, groups: int) -> tuple[Value, Value]:
    """Mean and biased variance of each group of a sample's channels over all positions, for each of its channels."""
    batch, *size, channels = x.shape
    grouped, kept = (batch, groups, channels // groups), (batch, *(1 for _ in size), channels)
    if size and channels == 1:  # one row, which many lanes sum
        mean, variance = moments(reshape_to(x, (batch, x.size // batch)), (1,))
        return reshape_to(mean, kept), reshape_to(variance, kept)
    if size:
        mean, variance = moments(x, range(1, len(x.shape) - 1))
        if groups == channels:
            return mean, variance
        found = _joint(reshape_to(mean, grouped), reshape_to(variance, grouped))
    else:
        found = moments(reshape_to(x, grouped), (2,))
    mean, variance = (reshape_to(broadcast(v, grouped), kept) for v in found)
    return mean, variance


def _joint(mean: Value, variance: Value) -> tuple[Value, Value]:
    """Moments of everything along the last axis, which stays with size 1, where each is that of as many values."""
    kept = (*mean.shape[:-1], 1)
    centre = reshape_to(mean_of(mean, -1), kept)
    return centre, reshape_to(mean_of(variance + square(mean - centre), -1), kept)
