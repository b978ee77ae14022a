"""Which values exist in memory, and what is computed on the way to them.

A pointwise value is computed inside its user wherever that user is pointwise too, a reduction (prologue) or comes from the
same product (epilogue). It gets memory of its own when somebody needs it there, or when it would be computed twice and is not
cheap.
"""

from __future__ import annotations

from collections import defaultdict

from convolve.graph import Constant, Graph, Leaf, Value
from convolve.lowering import Group, Step
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.pointwise import Pointwise
from convolve.ops.reduce import Reduce

CHEAP = 2
"""Steps that may be computed again rather than stored."""
DEAR = {"exp", "log", "tanh", "erf", "sigmoid", "divide", "sqrt"}


def fuse(graph: Graph, fused: bool = True) -> list[Group]:
    """Group the graph's values, in an order in which they can be computed; updates of leaves come last."""
    values = graph.values()
    stored = _stored(graph, values, fused)
    users: dict[int, list[Value]] = defaultdict(list)
    for value in values:
        for v in value.inputs:
            users[v.serial].append(value)
    groups = []
    absorbed: set[int] = set()
    for value in values:
        if isinstance(value.op, (Leaf, Constant)) or value.serial not in stored:
            continue
        if isinstance(value.op, Pointwise):
            inputs, steps, result = _formula(value, stored, True)
            product = _product(value, inputs, steps, users, stored, graph) if fused else None
            if product is not None:
                absorbed.add(product.serial)
            groups.append(Group(product, inputs, steps, (result,), (value,)))
        elif isinstance(value.op, Reduce):
            inputs, steps, result = _formula(value.inputs[0], stored, value.inputs[0].serial not in stored)
            groups.append(Group(value, inputs, steps, (result,), (value,)))
        else:
            groups.append(Group(value, (value,), (), (0,), (value,)))
    groups = [g for g in groups if g.outputs[0].serial not in absorbed]
    final = {value.serial for _, value in graph.updates}
    groups.sort(key=lambda g: (g.outputs[0].serial in final, g.outputs[0].serial))
    return _paired(groups, final) if fused else groups


def _paired(groups: list[Group], final: set[int]) -> list[Group]:
    """Join an update's sweep to that of the update it needs (momentum, then parameter): one pass over memory for both."""
    result: list[Group] = []
    for group in groups:
        needed = [g for g in result if g.anchor is None and any(o in group.inputs for o in g.outputs)]
        alone = group.anchor is None and group.outputs[0].serial in final and len(needed) == 1
        if alone and all(o.serial in final and o.shape == group.outputs[0].shape for o in needed[0].outputs):
            result[result.index(needed[0])] = _chained(needed[0], group)
        else:
            result.append(group)
    return result


def _chained(first: Group, second: Group) -> Group:
    """One group that computes both: what `first` stores is a step for `second`."""
    inputs = [*first.inputs, *(v for v in second.inputs if v not in first.inputs and v not in first.outputs)]
    shift = len(inputs) - len(first.inputs)

    def moved(operand: int) -> int:
        return operand if operand < len(first.inputs) else operand + shift

    steps = [(f, *(moved(o) for o in operands)) for f, *operands in first.steps]
    results = tuple(moved(r) for r in first.results)
    place = {v.serial: i for i, v in enumerate(inputs)}
    place |= {v.serial: r for v, r in zip(first.outputs, results, strict=True)}
    base = len(inputs) + len(steps)
    known = [place[v.serial] for v in second.inputs]

    def found(operand: int) -> int:
        return known[operand] if operand < len(known) else base + operand - len(known)

    steps += [(f, *(found(o) for o in operands)) for f, *operands in second.steps]
    return Group(
        None,
        tuple(inputs),
        tuple(steps),
        (*results, *(found(r) for r in second.results)),
        (*first.outputs, *second.outputs),
    )


def _stored(graph: Graph, values: list[Value], fused: bool) -> set[int]:
    """Serials of the values that get memory."""
    if not fused:
        return {v.serial for v in values}
    stored = {v.serial for v in graph.roots}
    cost: dict[int, int] = {}
    homes: dict[int, set[int]] = defaultdict(set)
    for value in values:
        if not isinstance(value.op, Pointwise):
            stored.add(value.serial)
            cost[value.serial] = 0
            fits = isinstance(value.op, Reduce)
            stored.update(v.serial for v in value.inputs if not fits)
        else:
            stored.update(v.serial for v in value.inputs if v.shape != value.shape)
            dear = CHEAP if value.op.function in DEAR else 0
            cost[value.serial] = 1 + dear + sum(cost[v.serial] for v in value.inputs)
    for value in reversed(values):
        if len(homes[value.serial]) > 1 and cost[value.serial] > CHEAP:
            stored.add(value.serial)
        here = {value.serial} if value.serial in stored else homes[value.serial]
        for v in value.inputs:
            homes[v.serial] |= here
    return stored


def _formula(root: Value, stored: set[int], expand: bool) -> tuple[tuple[Value, ...], tuple[Step, ...], int]:
    """The steps from stored values to `root`; with `expand`, root itself is computed even if it is stored."""
    inside: dict[int, Value] = {}
    inputs: dict[int, Value] = {}

    def visit(value: Value, inline: bool) -> None:
        if inline and isinstance(value.op, Pointwise):
            if value.serial not in inside:
                for v in value.inputs:
                    visit(v, v.serial not in stored)
                inside[value.serial] = value
        else:
            inputs[value.serial] = value

    visit(root, expand)
    place = {serial: i for i, serial in enumerate([*inputs, *inside])}
    steps = tuple((_function(v), *(place[u.serial] for u in v.inputs)) for v in inside.values())
    return tuple(inputs.values()), steps, place[root.serial]


def _function(value: Value) -> str:
    assert isinstance(value.op, Pointwise)
    return value.op.function


def _product(
    root: Value,
    inputs: tuple[Value, ...],
    steps: tuple[Step, ...],
    users: dict[int, list[Value]],
    stored: set[int],
    graph: Graph,
) -> Value | None:
    """The product whose epilogue these steps can be: its result is used here only, the rest fits beside it."""
    wanted = {v.serial for v in graph.roots}
    candidates = [
        v
        for v in inputs
        if isinstance(v.op, (Convolution, InputGradient)) and v.shape == root.shape and v.serial not in wanted
    ]
    for value in reversed(candidates):
        others = [v for v in inputs if v is not value]
        fit = all(
            isinstance(v.op, Constant) or v.shape in (root.shape, root.shape[-1:]) and v.dtype == "f4" for v in others
        )
        if fit and _homes(value, users, stored) == {root.serial} and len(steps) <= 12:
            return value
    return None


def _homes(value: Value, users: dict[int, list[Value]], stored: set[int]) -> set[int]:
    """The stored values in whose computation `value` takes part."""
    found: set[int] = set()
    for user in users[value.serial]:
        if user.serial in stored:
            found.add(user.serial)
        else:
            found |= _homes(user, users, stored)
    return found
