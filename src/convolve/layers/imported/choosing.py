"""Operators that look for elements or pick them out: all made of comparisons, sums and maxima."""

from __future__ import annotations

import numpy as np

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Value
from convolve.layers.imported import folding
from convolve.layers.imported.site import Operand, Result, Site, handles, numbers
from convolve.layers.imported.tensor import Tensor
from convolve.layers.imported.windows import reduced

FAR = float(2**24)
"""Beyond every index: these are exact in float32 below."""


def _places(value: Value, axis: int) -> Value:
    """0, 1, 2 ... along an axis, of size 1 along the others."""
    size = value.shape[axis]
    if size >= FAR:
        raise ShapeError(f"looks for places among {size:,}; at most {int(FAR):,} are told apart")
    return numbers(np.arange(size, dtype=np.float32).reshape(size, *(1,) * (len(value.shape) - axis - 1)))


def _kept(value: Value, axis: int) -> Value:
    """A reduction's result with the reduced axis again, of size 1."""
    return ops.reshape(value, (*value.shape[:axis], 1, *value.shape[axis:]))


@handles("ArgMax", "ArgMin")
def _arg(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    d = folding.axis_of(s.node, t.rank, 0)
    t, axis = t.single(d)
    value = t.value if s.node.op == "ArgMax" else -t.value
    found = ops.equal(value, _kept(ops.max(value, axis), axis))
    places = _places(value, axis)
    if s.node.integer("select_last_index", 0):
        y = ops.max(ops.where(found, places, -1.0), axis)
    else:
        y = -ops.max(ops.where(found, -places, -FAR), axis)
    made = reduced(t, (axis,), y, (d,), bool(s.node.integer("keepdims", 1)))
    return Tensor(made.value, made.dims, "int64")


@handles("Hardmax")
def _hardmax(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    whole, shape = s.opset < 13, t.shape  # then all dimensions from the axis on are one
    d = folding.axis_of(s.node, t.rank, 1 if whole else -1)
    t, axis = (t.reshaped(folding.flattened(shape, s.node)) if whole else t).single(1 if whole else d)
    found = ops.equal(t.value, _kept(ops.max(t.value, axis), axis))
    places = _places(t.value, axis)
    first = -ops.max(ops.where(found, -places, -FAR), axis)
    return t.like(ops.equal(places, _kept(first, axis))).reshaped(shape)


@handles("TopK", known=(1,))
def _top(s: Site, x: Operand, k: Operand | None = None) -> Result:
    """The k first of each row by rank: the number of elements before one is its place."""
    t = s.tensor(x)
    d = folding.axis_of(s.node, t.rank, -1)
    t, axis = t.single(d)
    size = t.value.shape[axis]
    count = s.node.integer("k", 1) if k is None else s.integers(k, "k")[0]
    if not 1 <= count <= size:
        raise ShapeError(f"k must lie between 1 and {size}. Received: k={count}")
    value = t.value if s.node.integer("largest", 1) else -t.value
    here = ops.reshape(value, (*value.shape[: axis + 1], 1, *value.shape[axis + 1 :]))
    other = ops.reshape(value, (*value.shape[:axis], 1, *value.shape[axis:]))
    trail = len(value.shape) - axis - 1
    index = numbers(np.arange(size, dtype=np.float32).reshape(size, 1, *(1,) * trail))
    others = numbers(np.arange(size, dtype=np.float32).reshape(size, *(1,) * trail))
    before = ops.greater(other, here) + ops.equal(other, here) * ops.less(others, index)
    rank = ops.sum(before, axis + 1)
    wanted = numbers(np.arange(count, dtype=np.float32).reshape(count, 1, *(1,) * trail))
    chosen = ops.equal(ops.reshape(rank, other.shape), wanted)
    source = ops.reshape(t.value, other.shape)
    values = ops.sum(ops.where(chosen, source, 0.0), axis + 1)
    places = ops.sum(chosen * others, axis + 1)
    return [t.like(values), t.like(places, "int64")]


@handles("GatherElements")
def _gather_elements(s: Site, x: Operand, indices: Operand) -> Result:
    if len(x.shape) != len(indices.shape):
        raise ShapeError(f"indices of shape {indices.shape} for values of shape {x.shape}: the ranks differ")
    d = folding.axis_of(s.node, len(x.shape), 0)
    source, index = s.tensor(x).in_order(), s.tensor(indices).in_order()
    for e, n in enumerate(index.shape):
        if e != d and n != source.shape[e]:
            source = ops.cut(source, e, 0, n)
    size = source.shape[d]
    place = ops.where(ops.less(index, 0.0), index + float(size), index)
    trail = (1,) * (len(source.shape) - d - 1)
    found = ops.equal(_kept(place, d + 1), ops.reshape(_places(source, d), (1, size, *trail)))
    wide = ops.reshape(source, (*source.shape[:d], 1, *source.shape[d:]))
    return Tensor.plain(ops.sum(ops.where(found, wide, 0.0), d + 1), s.tensor(x).dtype)


@handles("OneHot", known=(1, 2))
def _one_hot(s: Site, indices: Operand, depth: Operand, values: Operand) -> Result:
    t = s.tensor(indices)
    count = int(s.known(depth, "depth").ravel()[0])
    known = s.known(values, "values")
    off, on = known.ravel().tolist()
    rank = t.rank + 1
    axis = s.node.integer("axis", -1) % rank
    value = t.in_order()
    s.bounded((*value.shape, count))
    place = ops.where(ops.less(value, 0.0), value + float(count), value)
    wide = ops.reshape(place, (*value.shape[:axis], 1, *value.shape[axis:]))
    classes = numbers(np.arange(count, dtype=np.float32).reshape(count, *(1,) * (rank - axis - 1)))
    return Tensor.plain(ops.equal(wide, classes) * float(on - off) + float(off), str(known.dtype))


@handles("Trilu", known=(1,))
def _trilu(s: Site, x: Operand, k: Operand | None = None) -> Result:
    t = s.tensor(x)
    offset = 0 if k is None else s.integers(k, "k")[0]
    rows, columns = t.shape[-2:]
    mask = np.tri(rows, columns, offset if not s.node.integer("upper", 1) else offset - 1, dtype=bool)
    mask = mask if not s.node.integer("upper", 1) else ~mask
    values, made = s.aligned([t, mask])
    return made.like(ops.where(values[1], values[0], 0.0))
