"""Operators that move elements or repeat them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from convolve import ops
from convolve.errors import ShapeError
from convolve.layers.imported import folding
from convolve.layers.imported.site import Operand, Result, Site, alike, handles, placed
from convolve.layers.imported.tensor import Tensor
from convolve.ops.layout import concat, cut

MOST_PLACES = 1 << 17
"""Places that are taken of a dimension in an order of their own, at most."""


@handles("Shape")
def _shape(s: Site, x: Operand) -> Result:
    return folding.shape_of(s.node, x.shape)


@handles("Size")
def _size(s: Site, x: Operand) -> Result:
    return np.array(math.prod(x.shape), np.int64)


@handles("Reshape", known=(1,))
def _reshape(s: Site, x: Operand, target: Operand | None = None) -> Result:
    t = s.tensor(x)
    wanted = s.node.integers("shape") or () if target is None else s.integers(target, "shape")
    if s.batches and wanted[:1] == s.batches[:1] and t.shape[:1] == s.batches[1:]:
        wanted = (s.batches[1], *wanted[1:])
    return t.reshaped(folding.reshaped(t.shape, wanted, bool(s.node.integer("allowzero", 0))))


@handles("Flatten")
def _flatten(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    return t.reshaped(folding.flattened(t.shape, s.node))


@handles("Squeeze", "Unsqueeze", known=(1,))
def _squeeze(s: Site, x: Operand, axes: Operand | None = None) -> Result:
    t = s.tensor(x)
    given = None if axes is None else s.known(axes, "axes")
    change = folding.squeezed if s.node.op == "Squeeze" else folding.unsqueezed
    return t.reshaped(change(t.shape, s.node, given))


@handles("Transpose")
def _transpose(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    return t.transposed(folding.order_of(s.node, t.rank))


@handles("Concat")
def _concat(s: Site, *inputs: Operand) -> Result:
    d = folding.axis_of(s.node, len(inputs[0].shape), 1)
    shapes = [x.shape for x in inputs]
    if len({(*shape[:d], *shape[d + 1 :]) for shape in shapes}) > 1:
        raise ShapeError(
            f"along axis {d}, all other sizes must be equal; nets that halve what they join again take sizes that "
            f"halve without a rest. Received: {', '.join(map(str, shapes))}"
        )
    tensors = [s.tensor(x).single(d)[0] for x in inputs]
    leader = max(tensors, key=lambda t: t.value.size)
    for other in tensors:
        leader, _ = alike(leader, other, but=d)
    leader, axis = leader.single(d)
    return leader.like(concat(*(placed(leader, other, d) for other in tensors), axis=axis))


@handles("Slice", known=(1, 2, 3, 4))
def _slice(s: Site, x: Operand, *bounds: Operand | None) -> Result:
    t = s.tensor(x)
    names = ("starts", "ends", "axes", "steps")
    known = [None if b is None else s.known(b, name) for name, b in zip(names, bounds, strict=False)]
    for d, part in folding.slices(s.node, t.shape, known).items():
        t = taken(t, d, range(t.shape[d])[part])
    return t


def taken(t: Tensor, d: int, places: Sequence[int]) -> Tensor:
    """The places of one dimension, in order."""
    if not places:
        raise ShapeError(f"takes nothing of axis {d} of shape {t.shape}: empty values are not supported")
    if places == range(t.shape[d]):
        return t
    t, axis = t.single(d)
    if isinstance(places, range) and places.step == 1:
        return t.like(cut(t.value, axis, places.start, places.stop))
    if len(places) > MOST_PLACES:
        raise ShapeError(f"takes {len(places):,} places of axis {d}; at most {MOST_PLACES:,} are taken one by one")
    return t.like(ops.take(t.value, axis, places))


@handles("Split", known=(1,))
def _split(s: Site, x: Operand, split: Operand | None = None) -> Result:
    t = s.tensor(x)
    d = folding.axis_of(s.node, t.rank, 0)
    sizes = folding.shares(s.node, t.shape[d], None if split is None else s.known(split, "split"))
    stops = np.cumsum(sizes).tolist()
    return [taken(t, d, range(stop - n, stop)) for stop, n in zip(stops, sizes, strict=True)]


@handles("Expand", known=(1,))
def _expand(s: Site, x: Operand, shape: Operand) -> Result:
    target = np.broadcast_shapes(x.shape, s.integers(shape, "shape"))
    s.bounded(target)
    t = s.tensor(x).expanded(len(target))
    for d, n in enumerate(target):
        if t.shape[d] != n:
            t, axis = t.single(d)
            t = t.like(ops.broadcast(t.value, (*t.value.shape[:axis], n, *t.value.shape[axis + 1 :])))
    return t


@handles("Gather", known=(1,))
def _gather(s: Site, x: Operand, indices: Operand) -> Result:
    t = s.tensor(x)
    d = folding.axis_of(s.node, t.rank, 0)
    chosen = s.known(indices, "indices")
    places = folding.positions(chosen, t.shape[d])
    made = taken(t, d, places.ravel().tolist())
    return made.reshaped((*t.shape[:d], *chosen.shape, *t.shape[d + 1 :]))
