"""Rewrites from graph to graph. Each keeps every number."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import dropwhile

import numpy as np

from convolve.graph import Constant, Graph, Leaf, Shape, Value, apply, rewrite
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.norm import Normalize
from convolve.ops.pointwise import Broadcast, Pointwise
from convolve.ops.pool import Pool
from convolve.ops.reduce import Reshape, reshape_to
from convolve.program import CONSTANT


def sink(graph: Graph) -> Graph:
    """max_pool(relu(x)) becomes relu(max_pool(x)), where nobody else needs relu(x).

    ReLU is monotone, so the maximum commutes with it; where all of a window is negative both give zero and no gradient.
    """
    users = Counter(v.serial for value in graph.values() for v in value.inputs)
    wanted = {v.serial for v in graph.roots}

    def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
        if not (isinstance(old.op, Pool) and old.op.kind == "max"):
            return None
        before, [source] = old.inputs[0], inputs
        alone = users[before.serial] == 1 and before.serial not in wanted
        if alone and source.op == Pointwise("relu"):
            return apply(source.op, apply(old.op, source.inputs[0], label=old.label), label=before.label)
        return None

    return rewrite(graph, rule)


def expand(graph: Graph) -> Graph:
    """Composite ops become the pointwise ops they stand for."""

    def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
        if isinstance(old.op, Normalize):
            return old.op.expand(Value(old.op, inputs, old.shape, old.dtype, old.label))
        return None

    return rewrite(graph, rule)


def simplify(graph: Graph) -> Graph:
    """A pointwise op repeats its inputs itself: drop a broadcast before it where the shape comes out the same.

    A reshape that only adds or drops leading dimensions of size 1 says as little, and would hide what is behind it.
    """

    def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
        if isinstance(old.op, Pointwise):
            bare = tuple(v.inputs[0] if isinstance(v.op, Broadcast) or _leads_only(v) else v for v in inputs)
            if bare != inputs and np.broadcast_shapes(*(v.shape for v in bare)) == old.shape:
                return apply(old.op, *bare, label=old.label)
        return None

    return rewrite(graph, rule)


def _leads_only(value: Value) -> bool:
    """Whether a value is another one with more or fewer leading dimensions of size 1."""

    def bare(shape: Shape) -> Shape:
        return tuple(dropwhile(lambda n: n == 1, shape))

    return isinstance(value.op, Reshape) and bare(value.shape) == bare(value.inputs[0].shape)


def fold(graph: Graph) -> Graph:
    """Factors and shifts a channel behind a product move into its filters and one shift, as of a batch norm.

    Only in predictions: else filters would have to be scaled at every step.
    """
    if not graph.prediction:
        return graph
    users = Counter(v.serial for value in graph.values() for v in value.inputs)
    wanted = {v.serial for v in graph.roots}
    fixed = _fixed(graph)
    known: dict[int, Affine] = {}

    def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
        if isinstance(old.op, (Convolution, InputGradient)) and old.inputs[1].serial in fixed:
            scalable = isinstance(old.op, Convolution) or old.op.groups == 1
            if scalable and users[old.serial] == 1 and old.serial not in wanted:
                made = apply(old.op, *inputs, label=old.label)
                known[made.serial] = Affine(made)
                return made
        if not (isinstance(old.op, Pointwise) and len(inputs) == 2):
            return None
        place = next((i for i, v in enumerate(inputs) if v.serial in known), None)
        if place is None:
            return None
        other = 1 - place
        per_channel = old.inputs[other].shape in ((), *_channel_shapes(old.shape))
        if old.inputs[other].serial not in fixed or not per_channel or inputs[place].shape != old.shape:
            return None
        affine = known[inputs[place].serial].then(old.op.function, inputs[other], swapped=place == 1)
        if affine is None:
            return None
        made = affine.value(old.label)
        if users[old.serial] == 1 and old.serial not in wanted:
            known[made.serial] = affine
        return made

    return rewrite(graph, rule)


@dataclass(frozen=True)
class Affine:
    """product * scale + shift, both single numbers or one a channel; none of either by default."""

    product: Value
    scale: Value | None = None
    shift: Value | None = None

    def then(self, function: str, by: Value, swapped: bool) -> Affine | None:
        """What a function of this and `by` (the other way round where `swapped`) is; None where it is no such form."""
        by = reshape_to(by, by.shape[-1:])
        if function == "multiply":
            return self._scaled(by)
        if function == "divide" and not swapped:
            return self._scaled(1.0 / by)
        if function == "add":
            return replace(self, shift=by if self.shift is None else self.shift + by)
        if function == "subtract" and not swapped:
            return replace(self, shift=-by if self.shift is None else self.shift - by)
        return None

    def _scaled(self, by: Value) -> Affine:
        scale = by if self.scale is None else self.scale * by
        return Affine(self.product, scale, None if self.shift is None else self.shift * by)

    def value(self, label: str) -> Value:
        """The same, the factor in the filters."""
        x, w = self.product.inputs
        if self.scale is not None:
            first = isinstance(self.product.op, Convolution) and self.scale.shape
            w = w * (reshape_to(self.scale, (*self.scale.shape, *[1] * (len(w.shape) - 1))) if first else self.scale)
        if self.shift is None:
            return apply(self.product.op, x, w, label=label)
        return replace(apply(self.product.op, x, w, label=self.product.label) + self.shift, label=label)


def _channel_shapes(shape: Shape) -> list[Shape]:
    """Shapes of one number a channel."""
    return [(*[1] * i, shape[-1]) for i in range(len(shape))]


def _fixed(graph: Graph) -> set[int]:
    """Serials of the values that depend on nothing but parameters, statistics and numbers."""
    fixed: set[int] = set()
    for value in graph.values():
        op = value.op
        if op.kind in CONSTANT if isinstance(op, Leaf) else all(v.serial in fixed for v in value.inputs):
            fixed.add(value.serial)
    return fixed


def share(graph: Graph) -> Graph:
    """Equal ops over equal inputs become one value."""
    known: dict[object, Value] = {}

    def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
        zero = isinstance(old.op, Constant) and str(old.op.value)  # 0.0 and -0.0 are equal, and not the same
        key = (old.op, zero, tuple(v.serial for v in inputs), old.shape)
        if key in known:
            return known[key]
        same = all(a is b for a, b in zip(inputs, old.inputs, strict=True))
        made = old if same else Value(old.op, inputs, old.shape, old.dtype, old.label)
        known[key] = made
        return made

    shared = rewrite(graph, rule)
    targets: dict[object, Value] = {v.op: v for v, _ in shared.updates if isinstance(v.op, Leaf)}
    return replace(shared, updates=[(targets[target.op], value) for target, value in shared.updates])
