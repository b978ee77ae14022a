"""From groups to kernel calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from convolve.graph import Constant, Graph, Leaf, Value
from convolve.lowering import Group, Lowering
from convolve.ops.convolution import Convolution, FilterGradientOp, InputGradient
from convolve.ops.layout import Concat, Transpose
from convolve.ops.pointwise import Pointwise
from convolve.ops.pooled import lower_pooled, pools
from convolve.ops.reduce import Reshape
from convolve.ops.strips import chains, lower_strips
from convolve.program import Buffer, Memory
from convolve.window import Pads


def lower(graph: Graph, groups: Sequence[Group], exact: bool = False) -> Lowering:
    """Lower every group in order; an updated leaf's new value is written where the leaf lies."""
    values = graph.values()
    low = Lowering(_margins(values, graph.prediction), _weights(values), exact=exact, fixed=graph.prediction)
    low.targets = {value.serial: low.leaf(target) for target, value in _in_place(graph, groups)}
    low.parts = _parts(values, low.targets)
    low.folded = _folded(values, low)
    titles = _titles(values)
    joined = _joined(graph, groups, exact)
    firsts = {first.outputs[0].serial for first, _ in joined.values()}
    for group in groups:
        output = group.outputs[-1]
        own = output.label or (group.anchor.label if group.anchor else "")
        low.label = own or titles.get(output.serial, f"%{output.serial}")
        if group.outputs[0].serial in firsts:
            continue
        if output.serial in joined:
            first, lower_both = joined[output.serial]
            lower_both(first, group, low)
        elif group.anchor is None:
            _sweep(group, low)
        else:
            group.anchor.op.lower(group, low)  # type: ignore[attr-defined]
    for value in graph.outputs.values():
        _keep(value, low)
    _copy_updates(graph, low)
    return low


Joint = Callable[[Group, Group, Lowering], None]
"""Lowers two groups, the second of which reads the first, as one."""


def _joined(graph: Graph, groups: Sequence[Group], exact: bool) -> dict[int, tuple[Group, Joint]]:
    """Groups that are computed with the one that alone reads them, by the serial of that one's result, and how."""
    users = Counter(v.serial for g in groups for v in {*g.inputs, *(g.anchor.inputs if g.anchor else ())} - {g.anchor})
    kept = {v.serial for v in graph.roots}
    made = {g.outputs[0].serial: g for g in groups}
    found: dict[int, tuple[Group, Joint]] = {}
    for group in groups:
        source = group.anchor.inputs[0].serial if group.anchor and group.anchor.inputs else -1
        alone = source in made and source not in kept and users[source] == 1
        if not alone or source in found:
            continue
        if pools(made[source], group, exact, graph.prediction):
            found[group.outputs[0].serial] = made[source], lower_pooled
        elif graph.prediction and chains(made[source], group, exact):
            found[group.outputs[0].serial] = made[source], lower_strips
    return found


def _titles(values: Sequence[Value]) -> dict[int, str]:
    """For each value its label, or that of the first value with one that it goes into."""
    titles: dict[int, str] = {}
    for value in reversed(values):
        if value.label:
            titles[value.serial] = value.label
        if title := titles.get(value.serial):
            titles |= {v.serial: title for v in value.inputs}
    return titles


def _keep(value: Value, low: Lowering) -> None:
    """A result outlives the run in the arena: what lies in a caller's array or in a store is copied there."""
    buffer = low.buffer(value)
    if buffer.memory.home != "arena" and value.serial not in low.targets:
        kept = replace(buffer, memory=Memory(f"{value.label}.kept", buffer.memory.size))
        low.buffers[value.serial] = kept
        low.copy(buffer, kept)


def _copy_updates(graph: Graph, low: Lowering) -> None:
    """Updates that could not be computed in place are copied; another leaf's old value is set aside first."""
    late = []
    for target, value in graph.updates:
        if value.serial not in low.targets or low.buffer(value) is not low.leaf(target):
            low.label = target.label
            groups = low.leaf(target).panels
            source = low.panels(value, groups) if groups else low.plain(value)
            if isinstance(value.op, Leaf):
                aside = replace(source, memory=Memory(f"{target.label}.old", source.memory.size))
                low.copy(source, aside)
                source = aside
            late.append((source, low.leaf(target)))
    for source, kept in late:
        low.copy(source, kept)


def _in_place(graph: Graph, groups: Sequence[Group]) -> list[tuple[Value, Value]]:
    """Updates that may be computed where their leaf lies: nobody reads the old value afterwards."""
    last: dict[int, int] = {}
    made: dict[int, int] = {}
    for place, group in enumerate(groups):
        for value in (*group.inputs, *(group.anchor.inputs if group.anchor else ())):
            last[value.serial] = place
        for value in group.outputs:
            made[value.serial] = place
    wanted = {v.serial for v in graph.roots if isinstance(v.op, Leaf)}
    fit = [
        (target, value)
        for target, value in graph.updates
        if value.serial in made and last.get(target.serial, -1) <= made[value.serial] and target.serial not in wanted
    ]
    return list({value.serial: (target, value) for target, value in fit}.values())


def _parts(values: Sequence[Value], targets: Collection[int]) -> dict[int, tuple[Value, int, int]]:
    """The place of each value in the first concatenation of it, unless that is to lie where a leaf does."""
    parts: dict[int, tuple[Value, int, int]] = {}
    for value in values:
        if isinstance(value.op, Concat) and value.serial not in targets:
            for part, axis, at in value.op.parts(value):
                parts.setdefault(part.serial, (value, axis, at))
    return parts


def _folded(values: Sequence[Value], low: Lowering) -> dict[int, Value]:
    """Values whose reshape has margins and joins their last dimensions (as a shuffle of channels does), with it."""
    users = Counter(v.serial for value in values for v in value.inputs)
    folded: dict[int, Value] = {}
    for value in values:
        if isinstance(value.op, Reshape) and any(map(any, low.pads.get(value.serial, ()))):
            [source] = value.inputs
            joined = len(source.shape) > len(value.shape) and source.shape[: len(value.shape) - 1] == value.shape[:-1]
            if joined and isinstance(source.op, Transpose) and users[source.serial] == 1:
                folded[source.serial] = value
    return {serial: value for serial, value in folded.items() if not {serial, value.serial} & low.targets.keys()}


def _sweep(group: Group, low: Lowering) -> None:
    output = group.outputs[-1]
    results = [low.result(v) for v in group.outputs]

    def source(value: Value) -> Buffer | float:
        if isinstance(value.op, Constant):
            return value.op.value
        if results[-1].panels and value.shape == output.shape:
            return low.panels(value, results[-1].panels)
        return low.plain(value)

    low.pointwise(group.steps, [source(v) for v in group.inputs], results, group.results, disjoint=True)


def _margins(values: Sequence[Value], fixed: bool) -> dict[int, Pads]:
    """The widest margins that any user asks of each value, or of one that is computed as some of its channels."""
    pads: dict[int, Pads] = {}
    for value in values:
        if isinstance(value.op, (Convolution, InputGradient, FilterGradientOp)):
            for index, asked in value.op.margins(*(v.shape for v in value.inputs), fixed=fixed).items():
                serial = value.inputs[index].serial
                known = pads.get(serial, asked)
                pads[serial] = _wider(known, asked)
    for value in values:
        if isinstance(value.op, Concat) and value.op.axis % len(value.shape) == len(value.shape) - 1:
            for asked in [pads[v.serial] for v in value.inputs if v.serial in pads]:
                pads[value.serial] = _wider(pads.get(value.serial, asked), asked)
    return pads


def _wider(first: Pads, second: Pads) -> Pads:
    return tuple((max(a, c), max(b, d)) for (a, b), (c, d) in zip(first, second, strict=True))


def _weights(values: Sequence[Value]) -> dict[int, int]:
    """Values kept in filter panels, by serial, with the number of groups whose panels are apart.

    They are what products multiply with, filter gradients, and what is pointwise with them.
    """
    packed: dict[int, int] = {}
    for value in values:
        if isinstance(value.op, (Convolution, InputGradient)):
            filters = _unscaled(value.inputs[1])
            if isinstance(filters.op, Leaf):
                packed.setdefault(filters.serial, value.op.panel_groups(filters.shape))
        elif isinstance(value.op, FilterGradientOp):
            packed[value.serial] = value.op.panel_groups(value.shape)
    sweeps = [v for v in values if isinstance(v.op, Pointwise) and _over_one_shape(v)]
    able = {v.serial for v in sweeps} | {v.serial for v in values if isinstance(v.op, Leaf)}
    while True:
        before = len(packed)
        for value in sweeps:
            alike = {v.serial for v in (*value.inputs, value) if v.shape == value.shape}
            if known := alike & packed.keys():
                groups = packed[min(known)]
                packed |= dict.fromkeys((alike & able) - known, groups)
        if len(packed) == before:
            return packed


def _unscaled(filters: Value) -> Value:
    """The filters that were scaled, by each factor that was folded into them."""
    while isinstance(filters.op, Pointwise) and filters.inputs[0].shape == filters.shape:
        filters = filters.inputs[0]
    return filters


def _over_one_shape(value: Value) -> bool:
    """Whether a pointwise op combines whole values of its shape with single numbers only."""
    return bool(value.shape) and all(v.shape in ((), value.shape) for v in value.inputs)


def packed_leaves(graph: Graph) -> dict[str, int]:
    """Keys of the leaves that a graph's program keeps in filter panels, and how many groups these have."""
    values = graph.values()
    packed = _weights(values)
    return {v.op.key: packed[v.serial] for v in values if v.serial in packed and isinstance(v.op, Leaf)}
