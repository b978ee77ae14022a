"""Reductions over axes (sum, max) and the change of shape that keeps elements in order."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import (
    GRAIN,
    Group,
    Lowering,
    Space,
    Step,
    aligned_strides,
    constants_or_buffers,
    flat,
    offsets,
    operands,
    table,
)
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.reduce import ColumnReduce, RowReduce
from convolve.native.target import PANEL
from convolve.ops.pointwise import broadcast, equal
from convolve.program import Argument, At, Buffer, Memory, row_major

SLICES = 64
"""Slices of a column reduction at most: enough for 64 threads, the same for any number."""

Axes = tuple[int, ...]
KINDS = ("sum", "max")


@register
@dataclass(frozen=True)
class Reduce(Op):
    """`sum` or `max` over `axes`, which disappear."""

    name: ClassVar[str] = "reduce"
    arity: ClassVar[int | None] = 1
    kind: str
    axes: Axes

    def shape(self, *inputs: Shape) -> Shape:
        rank = len(inputs[0])
        distinct = len(set(self.axes)) == len(self.axes)
        if self.kind not in KINDS or not distinct or not all(0 <= a < rank for a in self.axes):
            raise ShapeError(f"{self.kind} over axes {self.axes} of a value with shape {inputs[0]}")
        return tuple(n for i, n in enumerate(inputs[0]) if i not in self.axes)

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        axes = tuple(self.axes)
        return np.asarray(np.sum(inputs[0], axes) if self.kind == "sum" else np.max(inputs[0], axes))

    def lower(self, group: Group, low: Lowering) -> None:
        """Reduce the innermost run of axes first; what cannot be walked in one stride takes another stage."""
        y = group.anchor
        assert y is not None
        if len(group.outputs) > 1:
            self._lower_together(group, low)
            return
        shape = y.inputs[0].shape
        steps, results = group.steps, group.results
        inputs: list[Buffer | float]
        if self._over_panels(group, low):
            packed = [flat(low.buffer(v)) for v in group.inputs]
            inputs, shape = [*packed], packed[0].shape
        else:
            inputs = constants_or_buffers(low, group.inputs)
        dims = self._dimensions(inputs, shape)
        result = low.result(y)
        if not any(d.reduced for d in dims):
            left = iter(result.strides)
            kept = tuple(0 if i in self.axes else next(left) for i in range(len(shape)))
            low.pointwise(steps, inputs, [replace(result, shape=shape, strides=kept, pads=())], results)
            return
        while any(d.reduced for d in dims):
            stage = _reduce_rows if dims[-1].reduced else _reduce_columns
            memory, dims = stage(low, self.kind, inputs, dims, steps, results, f"{y.label or y.serial}.partial", result)
            inputs, steps, results = [_vector(memory)], (), (0,)
        if memory is not result.memory:
            low.copy(Buffer(memory, result.shape, row_major(result.shape)), result)

    def joins(self, y: Value) -> bool:
        """Whether this is a sum of one stage, which others over the same axes of equal values can be joined to."""
        *rest, last = y.inputs[0].shape
        chosen = tuple(self.axes)
        if self.kind != "sum" or not chosen or last == 1:
            return False
        if chosen == (len(rest),):
            return True
        run = tuple(range(chosen[0], len(rest)))
        return chosen == run and math.prod(rest[chosen[0] :]) > 1

    def _lower_together(self, group: Group, low: Lowering) -> None:
        """Sums over the same axes of one shape: their results lie one behind the other."""
        assert group.anchor is not None
        inputs = constants_or_buffers(low, group.inputs)
        dims = self._dimensions(inputs, group.anchor.inputs[0].shape)
        name = f"{group.anchor.label or group.anchor.serial}.together"
        stage = _reduce_rows if dims[-1].reduced else _reduce_columns
        memory, _ = stage(low, self.kind, inputs, dims, group.steps, group.results, name, None)
        for i, value in enumerate(group.outputs):
            low.alias(value, Buffer(memory, value.shape, row_major(value.shape), i * value.size))

    def _dimensions(self, inputs: Sequence[Buffer | float], shape: Shape) -> list[Dimension]:
        strides = [aligned_strides(b, shape) for b in inputs if isinstance(b, Buffer)]
        dims = joined(
            [
                Dimension(n, along, i in self.axes)
                for i, (n, along) in enumerate(zip(shape, zip(*strides, strict=True), strict=True))
            ]
        )
        if dims and builtins.max(dims[-1].strides) > 1:  # one channel of several: a run of vectors is one element long
            dims.append(Dimension(1, (0,) * len(strides), False))
        return dims

    def _over_panels(self, group: Group, low: Lowering) -> bool:
        """A sum over all of filter gradients may include their empty lanes: they hold zeros."""
        assert group.anchor is not None
        whole = self.kind == "sum" and group.anchor.shape == ()
        return (
            whole
            and all(step[0] in ("square", "absolute") for step in group.steps)
            and all(v.op.name == "convolution_filter_gradient" and low.buffer(v).panels for v in group.inputs)
        )

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        [x] = y.inputs
        kept = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        spread = reshape_to(dy, kept)
        if self.kind == "sum":
            return (broadcast(spread, x.shape),)
        winners = equal(x, reshape_to(y, kept))
        return (winners * (spread / reshape_to(sum(winners, self.axes), kept)),)


@register
@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in the same order under another shape; -1 stands for the batch."""

    name: ClassVar[str] = "reshape"
    arity: ClassVar[int | None] = 1
    target: Shape

    def shape(self, *inputs: Shape) -> Shape:
        target = tuple(self.target)
        if -1 in target:
            rest = -int(np.prod(target, dtype=np.int64))
            total = int(np.prod(inputs[0], dtype=np.int64))
            if rest == 0 or total % rest:
                raise ShapeError(f"cannot reshape {inputs[0]} to {target}: {total} elements do not divide by {rest}")
            target = tuple(total // rest if n == -1 else n for n in target)
        if np.prod(target, dtype=np.int64) != np.prod(inputs[0], dtype=np.int64):
            raise ShapeError(f"cannot reshape {inputs[0]} to {target}: the number of elements differs")
        return target

    def dtype(self, *inputs: str) -> str:
        return inputs[0]

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return inputs[0].reshape(self.target)

    def lower(self, group: Group, low: Lowering) -> None:
        """The same memory seen with another shape; nothing to do where the input was computed in the result's."""
        y = group.anchor
        assert y is not None
        if low.folded.get(y.inputs[0].serial) is y:
            return
        low.alias(y, replace(low.compact(y.inputs[0]), shape=y.shape, strides=row_major(y.shape), pads=()))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (reshape_to(dy, y.inputs[0].shape),)


@dataclass(frozen=True)
class Dimension:
    """A dimension of what is reduced: its size, each operand's stride, and whether it disappears."""

    size: int
    strides: tuple[int, ...]
    reduced: bool


def joined(dims: Sequence[Dimension]) -> list[Dimension]:
    """Neighbours of one kind become one wherever all operands walk through both in one stride."""
    result: list[Dimension] = []
    for d in dims:
        if d.size == 1:
            continue
        last = result[-1] if result else None
        if (
            last
            and last.reduced == d.reduced
            and all(a == d.size * b for a, b in zip(last.strides, d.strides, strict=True))
        ):
            result[-1] = Dimension(last.size * d.size, d.strides, d.reduced)
        else:
            result.append(d)
    return result


def _vector(memory: Memory) -> Buffer:
    return Buffer(memory, (memory.size,), (1,))


def walk(dims: Sequence[Dimension], operands: int) -> tuple[int, tuple[int, ...], tuple[np.ndarray, ...], int]:
    """Rows of a sweep over `dims`: how many a segment, their strides, each operand's offsets, segments."""
    outer, mid = list(dims[:-1]), dims[-1] if dims else Dimension(1, (0,) * operands, False)
    if not outer and mid.size > 1:
        part = builtins.max(d for d in range(1, builtins.min(mid.size, 64) + 1) if mid.size % d == 0)
        outer = [Dimension(mid.size // part, tuple(s * part for s in mid.strides), mid.reduced)]
        mid = Dimension(part, mid.strides, mid.reduced)
    tables = tuple(offsets([d.size for d in outer], [d.strides[i] for d in outer]) for i in range(operands))
    return mid.size, mid.strides, tables, math.prod(d.size for d in outer)


def _contiguous(dims: Sequence[tuple[int, bool]]) -> list[Dimension]:
    steps = row_major([n for n, _ in dims])
    return joined([Dimension(n, (s,), reduced) for (n, reduced), s in zip(dims, steps, strict=True)])


def _target(low: Lowering, name: str, size: int, done: bool, result: Buffer | None) -> Memory:
    fits = done and result is not None and result.contiguous and not result.start
    return result.memory if result is not None and fits else low.temporary(name, size)


def _reduce_rows(
    low: Lowering,
    kind: str,
    inputs: Sequence[Buffer | float],
    dims: list[Dimension],
    steps: tuple[Step, ...],
    results: tuple[int, ...],
    name: str,
    result: Buffer | None,
) -> tuple[Memory, list[Dimension]]:
    """Reduce the last dimension. Several `results` lie one behind the other."""
    *outer, last = dims
    if result is not None and not result.shape and not outer and last.size > GRAIN:
        # One long run of everything: reduce parts of it, then the parts.
        parts = -(-last.size // GRAIN)
        part, short = GRAIN, last.size - (parts - 1) * GRAIN
        tables = tuple(np.arange(parts) * GRAIN * s for s in (*last.strides, 1 / GRAIN))
        space = Space(parts, 1, 1, part, short, tables, (0,) * (len(last.strides) + 1), (*last.strides, 1))
        left = _contiguous([(parts, True)])
    else:
        steps_out = row_major([d.size for d in outer])
        rows = joined([Dimension(d.size, (*d.strides, s), False) for d, s in zip(outer, steps_out, strict=True)])
        mid, row, tables, segments = walk(rows, len(last.strides) + 1)
        space = Space(segments, mid, mid, last.size, last.size, tables, row, (*last.strides, 1))
        left = _contiguous([(d.size, d.reduced) for d in outer])
    count = math.prod(d.size for d in left)
    memory = _target(low, name, len(results) * count, not any(d.reduced for d in left), result)
    buffers = [b for b in inputs if isinstance(b, Buffer)]
    kinds, arguments = operands(inputs, space, buffers)
    arguments |= space.arguments | {
        "pieces": space.pieces,
        "plane": count,
        "out": At(memory),
        "out_table": table(space.tables[-1]),
        "out_row": space.row[-1],
    }
    low.call(RowReduce(kind, Formula(kinds, steps, results)), arguments, space.pieces, memory, f"{kind} of rows")
    return memory, left


def _reduce_columns(
    low: Lowering,
    kind: str,
    inputs: Sequence[Buffer | float],
    dims: list[Dimension],
    steps: tuple[Step, ...],
    results: tuple[int, ...],
    name: str,
    result: Buffer | None,
) -> tuple[Memory, list[Dimension]]:
    """Reduce the innermost run of reduced dimensions, in slices; the last dimension is the columns.

    Several `results` lie one behind the other.
    """
    columns = dims[-1]
    stop = builtins.max(i for i, d in enumerate(dims) if d.reduced) + 1
    start = stop
    while start > 0 and dims[start - 1].reduced:
        start -= 1
    outer = [*dims[:start], *dims[stop:-1]]
    mid, row, tables, segments = walk(dims[start:stop], len(columns.strides))
    bases = [offsets([d.size for d in outer], [d.strides[i] for d in outer]) for i in range(len(columns.strides))]
    count = math.prod(d.size for d in outer)
    slices = slices_of(segments, mid * columns.size)
    whole = tuple((base[:, None] + own).ravel() for base, own in zip(bases, tables, strict=True))
    space = Space(segments, mid, mid, columns.size, columns.size, whole, row, columns.strides)
    left = _contiguous([*((d.size, d.reduced) for d in outer), (columns.size, False)])
    done = not any(d.reduced for d in left)
    plane = count * columns.size
    memory = _target(low, name, len(results) * plane, done, result)
    partial = memory if slices == 1 else low.temporary(f"{name}.slices", len(results) * slices * plane)
    buffers = [b for b in inputs if isinstance(b, Buffer)]
    kinds, arguments = operands(inputs, space, buffers)
    arguments |= space.arguments | {
        "segments": segments,
        "pieces": count,
        "slices": slices,
        "plane": slices * plane,
        "out": At(partial),
    }
    spec = ColumnReduce(kind, Formula(kinds, steps, results))
    low.call(spec, arguments, count * slices, partial, f"{kind} of columns, {slices} slices")
    if slices > 1:
        join_slices(low, kind, At(partial), len(results) * count, slices, columns.size, memory)
    return memory, left


def slices_of(segments: int, size: int) -> int:
    """Slices of a reduction over so many segments of so many elements: short sums round less, and have more threads.

    It depends on what is reduced alone, never on how often: an image's sums do not depend on its batch.
    """
    return builtins.max(1, builtins.min(segments, SLICES, segments * size * 4 // GRAIN))


def join_slices(low: Lowering, kind: str, source: At, count: int, slices: int, size: int, memory: Memory) -> None:
    """Reduce (count, slices, size) over its slices, in order of their index."""
    parts = builtins.max(d for d in range(1, 65) if size % d == 0 and (d == 1 or size // d % PANEL == 0))
    width = size // parts
    first = offsets((count, parts, slices), (slices * size, width, size))
    arguments: dict[str, Argument] = {
        "segments": slices,
        "pieces": count * parts,
        "mid": 1,
        "last_mid": 1,
        "inner": width,
        "last_inner": width,
        "slices": 1,
        "plane": 0,
        "in0": source,
        "in0_table": table(first),
        "in0_row": 0,
        "out": At(memory),
    }
    spec = ColumnReduce(kind, Formula(("vector:f4",), (), (0,)))
    low.call(spec, arguments, count * parts, memory, "join slices")


def reshape_to(value: Value, shape: Shape) -> Value:
    return value if value.shape == shape else apply(Reshape(shape), value)


def _axes(value: Value, axes: int | Sequence[int] | None) -> Axes:
    rank = len(value.shape)
    if axes is None:
        return tuple(range(rank))
    listed = (axes,) if isinstance(axes, int) else tuple(axes)
    if not all(-rank <= a < rank for a in listed):
        raise ShapeError(f"axes {listed} of a value with shape {value.shape}: they count from {-rank} to {rank - 1}")
    return tuple(sorted(a % rank for a in listed))


def sum(value: Value, axes: int | Sequence[int] | None = None) -> Value:
    """Sum over `axes` (all of them by default), which disappear."""
    chosen = _axes(value, axes)
    return apply(Reduce("sum", chosen), value) if chosen else value


def max(value: Value, axes: int | Sequence[int] | None = None) -> Value:
    """Largest element over `axes`; among equals the gradient is shared evenly."""
    chosen = _axes(value, axes)
    return apply(Reduce("max", chosen), value) if chosen else value


def mean(value: Value, axes: int | Sequence[int] | None = None) -> Value:
    """Arithmetic mean over `axes` (all of them by default)."""
    chosen = _axes(value, axes)
    count = int(np.prod([value.shape[a] for a in chosen], dtype=np.int64))
    return sum(value, chosen) * (1.0 / builtins.max(1, count))
