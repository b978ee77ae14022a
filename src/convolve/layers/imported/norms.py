"""Normalisations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from convolve import ops
from convolve.deferred import Deferred
from convolve.errors import ShapeError
from convolve.graph import Value, apply, constant
from convolve.layers.imported import folding
from convolve.layers.imported.graph import Node
from convolve.layers.imported.site import Operand, Result, Site, handles
from convolve.layers.imported.tensor import Tensor
from convolve.layers.imported.windows import channels_last, last, maps_last
from convolve.ops.norm import group_normalize, normalize
from convolve.ops.reduce import reshape_to
from convolve.ops.softmax import LogSoftmax, Softmax

if TYPE_CHECKING:
    from convolve.layers.norms import batch_norm
else:
    batch_norm = Deferred("convolve.layers.norms:batch_norm")


def _running(node: Node) -> Iterable[str]:
    if any(node.outputs[1:]):
        yield "outputs beyond the first (statistics of training)"


@handles("BatchNormalization", refuses=_running)
def _batch_norm(s: Site, x: Operand, scale: Operand, shift: Operand, mean: Operand, variance: Operand) -> Result:
    t = s.tensor(x)
    if t.rank < 2:
        raise ShapeError(f"needs (batch, channels, ...). Received: shape {t.shape}")
    value = t.arranged([(d,) for d in last(t.rank)])
    y = batch_norm(
        s.scope,
        value,
        s.array(scale, "scale", [(0,)], decay=False),
        s.array(shift, "shift", [(0,)], decay=False),
        s.array(mean, "mean", [(0,)], "statistic"),
        s.array(variance, "variance", [(0,)], "statistic"),
        s.node.number("momentum", 0.9),
        s.node.number("epsilon", 1e-5),
    )
    return Tensor.laid(y, last(t.rank))


def mean_over(value: Value, axes: Sequence[int]) -> Value:
    """The mean over some axes, which stay with size 1."""
    kept = tuple(1 if a in axes else n for a, n in enumerate(value.shape))
    return reshape_to(ops.mean(value, axes), kept)


@handles("InstanceNormalization")
def _instance_norm(s: Site, x: Operand, scale: Operand, shift: Operand) -> Result:
    t = s.tensor(x)
    value = channels_last(t)
    learnt = [s.array(w, role, [(0,)], decay=False) for w, role in ((scale, "scale"), (shift, "shift"))]
    return Tensor.laid(group_normalize(value, t.shape[1], s.node.number("epsilon", 1e-5), *learnt), last(t.rank))


@handles("GroupNormalization")
def _group_norm(s: Site, x: Operand, scale: Operand, shift: Operand) -> Result:
    t = s.tensor(x)
    value, groups, channels = channels_last(t), s.node.integer("num_groups", 1), t.shape[1]
    if groups < 1 or channels % groups:
        raise ShapeError(f"num_groups must divide the {channels} channels. Received: num_groups={groups}")
    each = channels // groups if scale.shape == (groups,) != (channels,) else 1
    learnt = []
    for w, role in ((scale, "scale"), (shift, "shift")):
        weight = s.array(w, role, [(0,)], decay=False)
        if each > 1:  # opset 18: one number a group
            weight = reshape_to(ops.broadcast(reshape_to(weight, (groups, 1)), (groups, each)), (channels,))
        learnt.append(weight)
    return Tensor.laid(group_normalize(value, groups, s.node.number("epsilon", 1e-5), *learnt), last(t.rank))


def _normalised_last(t: Tensor, first: int) -> Tensor:
    """The dimensions from `first` on behind the others; all of a map are as well with its channels last."""
    if first == 1 and t.rank > 2:
        return maps_last(t)
    axes = [a for d in range(first, t.rank) for a in t.dims[d]]
    behind = min(axes, default=0) >= len(t.value.shape) - len(axes)
    return t if behind else Tensor.plain(t.in_order(), t.dtype)


@handles("LayerNormalization", "RMSNormalization")
def _layer_norm(s: Site, x: Operand, scale: Operand, shift: Operand | None = None) -> Result:
    t, epsilon = s.tensor(x), s.node.number("epsilon", 1e-5)
    first = folding.axis_of(s.node, t.rank, -1)
    if s.node.op == "LayerNormalization" and not any(s.node.outputs[1:]):
        t = _normalised_last(t, first)
        [_, weight], t = s.aligned([t, scale], "scale")
        bias: Value | float = 0.0
        if shift is not None:
            [_, bias], t = s.aligned([t, shift], "bias")
        axes = sorted(a for d in range(first, t.rank) for a in t.dims[d])
        return t.like(normalize(t.value, axes, epsilon, weight, bias))
    axes = [a for d in range(first, t.rank) for a in t.dims[d]]
    mean = mean_over(t.value, axes)
    centred = t.value - mean if s.node.op == "LayerNormalization" else t.value
    spread = ops.sqrt(mean_over(ops.square(centred), axes) + epsilon)
    made = t.like(centred / spread)
    for w, function in ((scale, "scale"), (shift, "bias")):
        if w is not None:
            [y, weight], made = s.aligned([made, w], function)
            made = made.like(y * weight if function == "scale" else y + weight)
    return [made, t.like(mean), t.like(1.0 / spread)][: max(1, len(s.node.outputs))]


@handles("LpNormalization")
def _lp_norm(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    axes = t.dims[folding.axis_of(s.node, t.rank, -1)]
    size = ops.absolute(t.value) if s.node.integer("p", 2) == 1 else ops.square(t.value)
    kept = tuple(1 if a in axes else n for a, n in enumerate(t.value.shape))
    total = reshape_to(ops.sum(size, axes), kept)
    norm = total if s.node.integer("p", 2) == 1 else ops.sqrt(total)
    nothing = ops.equal(norm, 0.0)
    return t.like(ops.where(nothing, 0.0, t.value / ops.where(nothing, 1.0, norm)))


@handles("MeanVarianceNormalization")
def _mean_variance(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    dims = folding.axes_of(s.node, t.rank, None) or (0, *range(2, t.rank))
    axes = [a for d in dims for a in t.dims[d]]
    centred = t.value - mean_over(t.value, axes)
    return t.like(centred / (ops.sqrt(mean_over(ops.square(centred), axes)) + 1e-9))


NEIGHBOURS = 64
"""Channels that a response is normalised by, at most."""


@handles("LRN")
def _local_response(s: Site, x: Operand) -> Result:
    """x / (bias + alpha / size * sum of squares of the channels around) ** beta (Krizhevsky et al., 2012).

    The channels lie between zeros, so that the neighbours of all are slices, summed in one sweep.
    """
    t = s.tensor(x)
    value, size = channels_last(t), s.node.integer("size", 1)
    if not 1 <= size <= NEIGHBOURS:
        raise ShapeError(f"size must lie between 1 and {NEIGHBOURS}. Received: size={size}")
    *outer, channels = value.shape
    zeros = [ops.broadcast(constant(0.0), (*outer, n)) for n in ((size - 1) // 2, size // 2) if n]
    wide = ops.concat(*zeros[:-1], value, *zeros[-1:]) if zeros else value
    near = [ops.square(ops.cut(wide, len(outer), i, i + channels)) for i in range(size)]
    total = reduce(lambda a, b: a + b, near) * (s.node.number("alpha", 1e-4) / size) + s.node.number("bias", 1.0)
    beta = s.node.number("beta", 0.75)
    y = value / ops.sqrt(total * ops.sqrt(total)) if beta == 0.75 else value * ops.exp(ops.log(total) * -beta)
    return Tensor.laid(y, last(t.rank))


@handles("Softmax", "LogSoftmax")
def _softmax(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    whole = s.opset < 13  # then all dimensions from the axis on are one
    axis = folding.axis_of(s.node, t.rank, 1 if whole else -1)
    dims = range(axis, t.rank) if whole else (axis,)
    axes = [a for d in dims for a in t.dims[d]]
    rest = [a for a in range(len(t.value.shape)) if a not in axes]
    op = Softmax() if s.node.op == "Softmax" else LogSoftmax()
    order = [*rest, *sorted(axes)]
    moved = ops.transpose(t.value, order)
    flat = reshape_to(moved, (*(t.value.shape[a] for a in rest), math.prod(t.value.shape[a] for a in axes)))
    y = reshape_to(apply(op, flat), moved.shape)
    place = {a: i for i, a in enumerate(order)}
    return Tensor(y, tuple(tuple(place[a] for a in of) for of in t.dims))
