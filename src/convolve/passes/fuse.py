"""Which values exist in memory, and what is computed on the way to them.

A pointwise value is computed inside its user wherever that user is pointwise too, a reduction (prologue) or comes
from the same product (epilogue). It gets memory of its own when somebody needs it there, or when it would be computed
twice and is not cheap.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from convolve.graph import Constant, Graph, Leaf, Value
from convolve.lowering import Group, Step
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.pointwise import Pointwise
from convolve.ops.reduce import Reduce

CHEAP = 2
"""Steps that may be computed again rather than stored."""
LONGEST, LONGEST_EPILOGUE = 48, 12
"""Steps of one formula at most: longer chains go through memory in parts."""
DEAR = {"exp", "expm1", "log", "tanh", "erf", "sigmoid", "softplus", "divide", "sqrt"}


def fuse(graph: Graph, fused: bool = True) -> list[Group]:
    """Group the graph's values, in an order in which they can be computed; updates of leaves come last."""
    values = graph.values()
    stored, homes = _stored(graph, values, fused)
    groups = []
    absorbed: set[int] = set()
    for value in values:
        if isinstance(value.op, (Leaf, Constant)) or value.serial not in stored:
            continue
        if isinstance(value.op, Pointwise):
            inputs, steps, result = _formula(value, stored, True)
            product = _product(value, inputs, steps, homes, graph) if fused else None
            if product is not None:
                absorbed.add(product.serial)
            groups.append(Group(product, inputs, steps, (result,), (value,)))
        elif isinstance(value.op, Reduce):
            inputs, steps, result = _formula(value.inputs[0], stored, value.inputs[0].serial not in stored)
            groups.append(Group(value, inputs, steps, (result,), (value,)))
        else:
            groups.append(Group(value, (value,), (), (0,), (value,)))
    groups = [g for g in groups if g.outputs[0].serial not in absorbed]
    final = _final(groups, {value.serial for _, value in graph.updates})
    groups.sort(key=lambda g: (g.outputs[0].serial in final, g.outputs[0].serial))
    return _paired(_summed_together(groups), final) if fused else groups


def _final(groups: list[Group], updates: set[int]) -> set[int]:
    """Updates that only updates need: they can wait until everything else has read the old values."""
    while True:
        users = [g for g in groups if g.outputs[0].serial not in updates]
        needed = {v.serial for g in users for v in _reads(g)} & updates
        if not needed:
            return updates
        updates = updates - needed


def _reads(group: Group) -> tuple[Value, ...]:
    """What a group needs to have been computed."""
    return (*group.inputs, *(group.anchor.inputs if group.anchor else ()))


def _summed_together(groups: list[Group]) -> list[Group]:
    """Join sums over the same axes of the same values: one pass for both (a norm's gradients of scale and shift)."""
    result: list[Group] = []
    known: dict[tuple[int, object], Group] = {}
    for group in groups:
        result.append(group)
        anchor = group.anchor
        if anchor is None or not isinstance(anchor.op, Reduce) or not anchor.op.joins(anchor):
            continue
        keys = [(v.serial, anchor.op) for v in group.inputs if v.shape == anchor.inputs[0].shape]
        earlier = next((known[key] for key in keys if key in known), None)
        joint = group
        if earlier is not None:
            at = result.index(earlier)
            before, after = _parted(result[at + 1 : -1], earlier)
            if not {v.serial for v in _reads(group)} & {v.serial for g in (earlier, *after) for v in g.outputs}:
                joint = _chained(earlier, group)
                result[at:] = [*before, joint, *after]
        known = {key: joint if g is earlier else g for key, g in known.items()} | dict.fromkeys(keys, joint)
    return result


def _parted(groups: list[Group], first: Group) -> tuple[list[Group], list[Group]]:
    """Groups behind another one: those that can do without it, and those that need it."""
    before: list[Group] = []
    after: list[Group] = []
    needed = {v.serial for v in first.outputs}
    for group in groups:
        if needed.isdisjoint(v.serial for v in _reads(group)):
            before.append(group)
        else:
            after.append(group)
            needed |= {v.serial for v in group.outputs}
    return before, after


def _paired(groups: list[Group], final: set[int]) -> list[Group]:
    """Join the sweeps that update a parameter and its state: those that need each other's results or read the same."""
    result: dict[int, Group] = {}
    made: dict[int, int] = {}
    readers: dict[int, int] = {}
    users = Counter(serial for group in groups for serial in {v.serial for v in _reads(group)})
    for place, group in enumerate(groups):
        reads = {v.serial for v in _reads(group)}
        near = {known[s] for known in (made, readers) for s in reads if s in known}
        latest, *earlier = sorted(near, reverse=True) or [place]
        if latest in result and _updates_alike(result[latest], group, final):
            for other in earlier:
                # It moves to the latest, behind whoever stands between: nobody else may need it.
                alone = all(users[v.serial] == (v.serial in reads) for v in result[other].outputs)
                if alone and _updates_alike(result[other], group, final):
                    result[latest] = _chained(result.pop(other), result[latest])
            result[latest] = _chained(result[latest], group)
        else:
            latest = place
            result[latest] = group
        joined = result[latest]
        made |= {v.serial: latest for v in joined.outputs}
        if _updates_alike(joined, joined, final):
            readers |= {v.serial: latest for v in joined.inputs if v.shape == joined.outputs[0].shape}
    return list(result.values())


def _updates_alike(first: Group, second: Group, final: set[int]) -> bool:
    """Whether both are sweeps over one shape that only update leaves."""
    outputs = (*first.outputs, *second.outputs)
    plain = first.anchor is None and second.anchor is None
    return plain and all(v.serial in final and v.shape == outputs[0].shape for v in outputs)


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
        first.anchor,
        tuple(inputs),
        tuple(steps),
        (*results, *(found(r) for r in second.results)),
        (*first.outputs, *second.outputs),
    )


def _stored(graph: Graph, values: list[Value], fused: bool) -> tuple[set[int], dict[int, set[int]]]:
    """Serials of the values that get memory, and for each value those in whose computation it takes part."""
    if not fused:
        return {v.serial for v in values}, {}
    stored = {v.serial for v in graph.roots}
    cost: dict[int, int] = {}
    length: dict[int, int] = {}
    homes: dict[int, set[int]] = defaultdict(set)
    for value in values:
        if not isinstance(value.op, Pointwise):
            stored.add(value.serial)
            cost[value.serial] = length[value.serial] = 0
            fits = isinstance(value.op, Reduce)
            stored.update(v.serial for v in value.inputs if not fits)
        else:
            stored.update(v.serial for v in value.inputs if v.shape != value.shape)
            dear = CHEAP if value.op.function in DEAR else 0
            inside = [v.serial for v in value.inputs if v.serial not in stored]
            cost[value.serial] = 1 + dear + sum(cost[s] for s in inside)
            length[value.serial] = 1 + sum(length[s] for s in inside)
            if length[value.serial] > LONGEST:
                stored.add(value.serial)
    for value in reversed(values):
        if len(homes[value.serial]) > 1 and cost[value.serial] > CHEAP:
            stored.add(value.serial)
        here = {value.serial} if value.serial in stored else homes[value.serial]
        for v in value.inputs:
            homes[v.serial] |= here
    return stored, homes


def _formula(root: Value, stored: set[int], expand: bool) -> tuple[tuple[Value, ...], tuple[Step, ...], int]:
    """The steps from stored values to `root`; with `expand`, root itself is computed even if it is stored."""
    inside: dict[int, Value] = {}
    inputs: dict[int, Value] = {}
    met: set[int] = set()
    # Depth first, users after their inputs: one order for one computation, whenever its values were created.
    stack = [(root, expand, False)]
    while stack:
        value, inline, ready = stack.pop()
        if ready:
            inside[value.serial] = value
        elif not (inline and isinstance(value.op, Pointwise)):
            inputs[value.serial] = value
        elif value.serial not in met:
            met.add(value.serial)
            stack.append((value, inline, True))
            stack += [(v, v.serial not in stored, False) for v in reversed(value.inputs)]
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
    homes: dict[int, set[int]],
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
            isinstance(v.op, Constant) or (v.shape in (root.shape, root.shape[-1:]) and v.dtype == "f4") for v in others
        )
        if fit and homes[value.serial] == {root.serial} and len(steps) <= LONGEST_EPILOGUE:
            return value
    return None
