"""Parts of values and their order: slices as views, concatenation, transposition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import GRAIN, MOST_PIECES, Group, Lowering, aligned_strides, merged, offsets, table
from convolve.native.kernels.layout import Transpose as TransposeKernel
from convolve.ops.reduce import Reshape, reshape_to
from convolve.program import Argument, At, Buffer

WOVEN = (2, 3, 4)
"""Numbers of runs that are woven vector by vector: channels of pictures, and groups whose channels are shuffled."""


@register
@dataclass(frozen=True)
class Slice(Op):
    """Positions start..stop-1 of one axis."""

    name: ClassVar[str] = "slice"
    arity: ClassVar[int | None] = 1
    axis: int
    start: int
    stop: int

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        if not (0 <= self.axis < len(x) and 0 <= self.start < self.stop <= x[self.axis]):
            raise ShapeError(f"slice {self.start}:{self.stop} of axis {self.axis} of a value with shape {x}")
        return (*x[: self.axis], self.stop - self.start, *x[self.axis + 1 :])

    def dtype(self, *inputs: str) -> str:
        return inputs[0]

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return inputs[0][(slice(None),) * self.axis + (slice(self.start, self.stop),)]

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (apply(Place(self.axis, self.start, y.inputs[0].shape[self.axis]), dy),)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        low.alias(y, low.plain(y.inputs[0]).part(y.shape, self.axis, self.start))


@register
@dataclass(frozen=True)
class Place(Op):
    """Put a value at `start` of an axis of `size`, zeros elsewhere: the gradient of a slice."""

    name: ClassVar[str] = "place"
    arity: ClassVar[int | None] = 1
    axis: int
    start: int
    size: int

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        if not (0 <= self.axis < len(x) and self.start >= 0 and self.start + x[self.axis] <= self.size):
            raise ShapeError(f"place {x} at {self.start} of {self.size} along axis {self.axis}")
        return (*x[: self.axis], self.size, *x[self.axis + 1 :])

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        [x] = inputs
        y = np.zeros(self.shape(x.shape), x.dtype)
        y[(slice(None),) * self.axis + (slice(self.start, self.start + x.shape[self.axis]),)] = x
        return y

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (cut(dy, self.axis, self.start, self.start + y.inputs[0].shape[self.axis]),)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        result = low.result(y)
        low.pointwise((), [0.0], [result], (0,), "zero")
        x = low.plain(y.inputs[0])
        low.copy(x, result.part(x.shape, self.axis, self.start))


@register
@dataclass(frozen=True)
class Concat(Op):
    """Values one behind the other along an axis."""

    name: ClassVar[str] = "concat"
    axis: int

    def shape(self, *inputs: Shape) -> Shape:
        first = inputs[0] if inputs else ()
        if not -len(first) <= self.axis < len(first):
            raise ShapeError(f"concat along axis {self.axis} of shapes {', '.join(map(str, inputs)) or 'none'}")
        axis = self.axis % len(first)
        for other in inputs[1:]:
            if len(other) != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(first, other, strict=True)) if i != axis
            ):
                raise ShapeError(
                    f"concat along axis {axis} of shapes {', '.join(map(str, inputs))}: all other sizes must be equal"
                )
        return (*first[:axis], sum(s[axis] for s in inputs), *first[axis + 1 :])

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return np.concatenate(inputs, self.axis)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return tuple(cut(dy, axis, at, at + v.shape[axis]) for v, axis, at in self.parts(y))

    def parts(self, y: Value) -> list[tuple[Value, int, int]]:
        """Each input of `y`, the axis along which it lies, and its first position there."""
        axis = self.axis % len(y.shape)
        stops = np.cumsum([v.shape[axis] for v in y.inputs])
        return [(v, axis, int(stop) - v.shape[axis]) for v, stop in zip(y.inputs, stops, strict=True)]

    def lower(self, group: Group, low: Lowering) -> None:
        """Copy what was not computed in its place."""
        y = group.anchor
        assert y is not None
        result = low.whole(y)
        for value, axis, at in self.parts(y):
            x, place = low.plain(value), result.part(value.shape, axis, at)
            if (x.memory, x.start, x.strides) != (place.memory, place.start, place.strides):
                low.copy(x, place, disjoint=True)


@register
@dataclass(frozen=True)
class Transpose(Op):
    """The same elements with the axes in another order: axis i of the result is axis `axes[i]` of the input."""

    name: ClassVar[str] = "transpose"
    arity: ClassVar[int | None] = 1
    axes: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        if sorted(self.axes) != list(range(len(x))):
            raise ShapeError(f"transpose of a value with shape {x} to the order {self.axes} of its axes")
        return tuple(x[a] for a in self.axes)

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return inputs[0].transpose(self.axes)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (apply(Transpose(tuple(int(i) for i in np.argsort(self.axes))), dy),)

    def lower(self, group: Group, low: Lowering) -> None:
        """Planes of the two axes along which input and result lie densely, all others in tables."""
        y = group.anchor
        assert y is not None
        x, result = low.plain(y.inputs[0]), low.result(y)
        source = Buffer(x.memory, y.shape, tuple(x.strides[a] for a in self.axes), x.start)
        dims = merged(y.shape, [aligned_strides(b, y.shape) for b in (source, result)]) or [(1, (1, 1))]
        along = min(range(len(dims)), key=lambda i: dims[i][1][1])
        columns, (x_column, y_column) = dims.pop(along)
        dense = min(range(len(dims)), key=lambda i: dims[i][1][0]) if dims else None
        rows, (x_row, y_row) = dims.pop(dense) if dense is not None else (1, (0, 0))
        if x_column == 1:  # dense on both sides: the inner loop goes along it
            rows, x_row, y_row, columns, x_column, y_column = columns, x_column, y_column, rows, x_row, y_row
        sizes = [n for n, _ in dims]
        planes = math.prod(sizes)
        parts = max(1, min(rows, MOST_PIECES // planes, planes * rows * columns // GRAIN))
        pieces = max(1, min(planes, MOST_PIECES, planes * rows * columns // GRAIN)) if parts == 1 else planes * parts
        arguments: dict[str, Argument] = {
            "x": At(x.memory, x.start),
            "y": At(result.memory, result.start),
            "x_table": table(offsets(sizes, [steps[0] for _, steps in dims])),
            "y_table": table(offsets(sizes, [steps[1] for _, steps in dims])),
            "planes": planes,
            "parts": parts,
            "pieces": pieces,
            "rows": rows,
            "x_row": x_row,
            "y_row": y_row,
            "columns": columns,
            "x_column": x_column,
            "y_column": y_column,
        }
        woven = columns if columns in WOVEN and x_row == y_column == 1 and y_row == columns else 0
        low.call(TransposeKernel(woven), arguments, pieces, result, "transpose", disjoint=True)


def transpose(value: Value, axes: Sequence[int]) -> Value:
    """The value with axis `axes[i]` as its axis i: a reshape where only axes of size 1 move."""
    order = tuple(axes)
    moving = [a for a in order if value.shape[a] != 1]
    if moving == sorted(moving):
        return reshape_to(value, tuple(value.shape[a] for a in order))
    return apply(Transpose(order), value)


def unmoved(value: Value) -> Value:
    """What a value is that only lies otherwise: the one before reshapings and transpositions."""
    while isinstance(value.op, (Reshape, Transpose)):
        [value] = value.inputs
    return value


def cut(value: Value, axis: int, start: int, stop: int) -> Value:
    """Positions start..stop-1 of `axis`."""
    return apply(Slice(axis, start, stop), value)


def row(value: Value, index: int) -> Value:
    """One entry of the first axis."""
    return reshape_to(cut(value, 0, index, index + 1), value.shape[1:])


def concat(*values: Value, axis: int = -1) -> Value:
    """Values one behind the other along `axis` (the channels by default)."""
    return apply(Concat(axis), *values)
