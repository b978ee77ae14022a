"""Rewrites from graph to graph. Each keeps every number."""

from __future__ import annotations

from collections import Counter

import numpy as np

from convolve.graph import Graph, Leaf, Value, apply, rewrite
from convolve.ops.norm import BatchNormalize
from convolve.ops.pointwise import Broadcast, Pointwise
from convolve.ops.pool import Pool


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
        if isinstance(old.op, BatchNormalize):
            return old.op.expand(Value(old.op, inputs, old.shape, old.dtype, old.label))
        return None

    return rewrite(graph, rule)


def simplify(graph: Graph) -> Graph:
    """A pointwise op repeats its inputs itself: drop a broadcast before it where the shape comes out the same."""

    def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
        if isinstance(old.op, Pointwise):
            bare = tuple(v.inputs[0] if isinstance(v.op, Broadcast) else v for v in inputs)
            if bare != inputs and np.broadcast_shapes(*(v.shape for v in bare)) == old.shape:
                return apply(old.op, *bare, label=old.label)
        return None

    return rewrite(graph, rule)


def share(graph: Graph) -> Graph:
    """Equal ops over equal inputs become one value."""
    known: dict[object, Value] = {}

    def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
        key = (old.op, tuple(v.serial for v in inputs), old.shape)
        if key in known:
            return known[key]
        same = all(a is b for a, b in zip(inputs, old.inputs, strict=True))
        made = old if same else Value(old.op, inputs, old.shape, old.dtype, old.label)
        known[key] = made
        return made

    shared = rewrite(graph, rule)
    targets: dict[object, Value] = {v.op: v for v, _ in shared.updates if isinstance(v.op, Leaf)}
    return Graph(shared.outputs, [(targets[target.op], value) for target, value in shared.updates])
