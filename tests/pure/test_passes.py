"""Rewrites keep every number; groups compute every root; phases and addresses keep calls out of each other's way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from helpers import Array, Feeds, RandomGraph, graphs, normal, values_of, wide
from hypothesis import given
from hypothesis import strategies as st

from convolve import ops
from convolve.graph import Constant, Graph, Leaf, Value, apply, constant, differentiate, evaluate, leaf
from convolve.lowering import Group
from convolve.ops.convolution import Convolution
from convolve.ops.norm import normalize
from convolve.ops.pointwise import TABLE, Broadcast, Pointwise
from convolve.ops.pool import Pool
from convolve.ops.reduce import Reduce, reshape_to
from convolve.passes import REWRITES, compile_graph, expand, fold, fuse, share, simplify, sink
from convolve.program import ALIGN, At, Call, Memory, place, schedule
from convolve.window import resolve

# rewrites


def assert_same(graph: Graph, rewritten: Graph, feeds: Feeds) -> None:
    """Equal but for rounding: `expand` multiplies in another order."""
    before, after = values_of(graph, feeds), values_of(rewritten, feeds)
    assert before.keys() == after.keys()
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("rewrite", [sink, *REWRITES], ids=lambda r: r.__name__)
@given(made=graphs())
def test_a_rewrite_keeps_every_value(rewrite: Callable[[Graph], Graph], made: RandomGraph) -> None:
    assert_same(made.graph, rewrite(made.graph), made.feeds)


@given(graphs())
def test_all_rewrites_keep_every_value(made: RandomGraph) -> None:
    graph = made.graph
    for rewrite in (sink, *REWRITES):
        graph = rewrite(graph)
    assert_same(made.graph, graph, made.feeds)


def functions(graph: Graph) -> list[str]:
    """Names of the graph's ops, inputs first."""
    return [v.op.function if isinstance(v.op, Pointwise) else v.op.name for v in graph.values()]


def pooled(kind: str = "max") -> tuple[Graph, Feeds]:
    x = leaf("input", "x", (2, 5, 5, 3))
    y = apply(Pool(kind, resolve(3, 2, 1, "same", (5, 5))), ops.relu(x))
    return Graph({"y": y}), {"x": normal(x.shape) - 1}


def test_sink_turns_relu_and_max_pool_round() -> None:
    graph, feeds = pooled()
    sunk = sink(graph)
    assert functions(sunk) == ["leaf", "pool", "relu"]
    assert_same(graph, sunk, feeds)


def test_sink_keeps_the_gradient() -> None:
    """Also where a whole window is negative: then no input receives anything."""
    graph, feeds = pooled()
    found = []
    for y in (graph.outputs["y"], sink(graph).outputs["y"]):
        x = next(v for v in Graph({"y": y}).values() if isinstance(v.op, Leaf))
        found += evaluate(differentiate(ops.sum(ops.square(y)), [x]), wide(feeds))
    assert (found[0] == 0).any()
    assert (found[0] != 0).any()
    np.testing.assert_array_equal(*found)


def test_sink_leaves_what_others_see() -> None:
    graph, _ = pooled()
    y = graph.outputs["y"]
    watched = Graph({"y": y, "relu": y.inputs[0]})
    assert functions(sink(watched)) == functions(watched)
    averaged, _ = pooled("avg")
    assert functions(sink(averaged)) == functions(averaged)


def test_expand_leaves_no_composite() -> None:
    x, s = leaf("input", "x", (4, 3)), leaf("parameter", "s", (3,))
    graph = expand(Graph({"y": normalize(x, (0,), 1e-5, s, s)}))
    assert "normalize" not in functions(graph)


def test_simplify_drops_a_broadcast_only_where_the_shape_stays() -> None:
    x, b = leaf("input", "x", (2, 3)), leaf("input", "b", (3,))
    spread = apply(Broadcast((2, 3)), b)
    graph = simplify(Graph({"needless": x + spread, "needed": ops.exp(spread)}))
    assert [type(v.op) for v in graph.outputs["needless"].inputs] == [Leaf, Leaf]
    assert [type(v.op) for v in graph.outputs["needed"].inputs] == [Broadcast]


def test_simplify_looks_behind_leading_dimensions() -> None:
    """Else a residual addition, aligned with a batch of one image, would not join the convolution before it."""
    x, w = leaf("input", "x", (1, 4, 4, 3)), leaf("parameter", "w", (3, 1, 1, 3))
    y = apply(Convolution(resolve(1, 1, 1, "valid", (4, 4))), x, w) + reshape_to(ops.exp(x), (4, 4, 3))
    moved = ops.exp(x) + reshape_to(ops.exp(x), (4, 4, 1, 3))
    graph = simplify(Graph({"y": y, "moved": moved}))
    assert functions(Graph({"y": graph.outputs["y"]})).count("reshape") == 0
    assert functions(Graph({"moved": graph.outputs["moved"]})).count("reshape") == 1
    assert [g.anchor.op.name for g in fuse(Graph({"y": graph.outputs["y"]})) if g.anchor] == ["convolution"]


def test_share_computes_equal_values_once() -> None:
    x = leaf("input", "x", (2,))
    graph = share(Graph({"a": ops.exp(x) * 2.0, "b": ops.exp(x) * 2.0, "c": ops.exp(x) * 3.0}))
    assert graph.outputs["a"] is graph.outputs["b"]
    assert functions(graph).count("exp") == 1
    assert functions(graph).count("multiply") == 2


def test_share_keeps_zeros_of_both_signs_apart() -> None:
    outputs = share(Graph({"plus": constant(0.0) * 1.0, "minus": constant(-0.0) * 1.0})).outputs
    signs = {name: bool(np.signbit(evaluate([value], {})[0])) for name, value in outputs.items()}
    assert signs == {"plus": False, "minus": True}


def test_share_joins_leaves_of_one_name_and_their_updates() -> None:
    first, again = leaf("parameter", "w", (2,)), leaf("parameter", "w", (2,))
    graph = share(Graph({"y": first + again}, [(again, first * 2.0)]))
    [(target, value)] = graph.updates
    assert functions(graph).count("leaf") == 1
    assert target is value.inputs[0]


# groups


def run_groups(groups: list[Group], feeds: Feeds) -> dict[int, Array]:
    """What groups compute in their order, by the references: the values that get memory, by serial."""
    known: dict[int, Array] = {}

    def look(v: Value) -> Array:
        if isinstance(v.op, Leaf):
            return feeds[v.op.key]
        return np.array(v.op.value) if isinstance(v.op, Constant) else known[v.serial]

    for group in groups:
        anchor = group.anchor
        reduces = anchor is not None and isinstance(anchor.op, Reduce)
        if anchor is not None and not reduces:
            product = anchor.op.reference(*(look(v) for v in anchor.inputs))
        values = [product if v is anchor else look(v) for v in group.inputs]
        for function, *operands in group.steps:
            values.append(TABLE[function].reference(*(values[i] for i in operands)))
        for output, result in zip(group.outputs, group.results, strict=True):
            known[output.serial] = anchor.op.reference(values[result]) if anchor and reduces else values[result]
    return known


@pytest.mark.parametrize("fused", [True, False])
@given(made=graphs())
def test_groups_compute_every_root_in_an_order_that_works(made: RandomGraph, fused: bool) -> None:
    known = run_groups(fuse(made.graph, fused), wide(made.feeds))
    for name, root in zip(values_of(made.graph, made.feeds), made.graph.roots, strict=True):
        if not isinstance(root.op, Leaf):
            expected = values_of(made.graph, made.feeds)[name]
            np.testing.assert_allclose(known[root.serial], expected, rtol=1e-9, atol=1e-12, err_msg=name)


@given(graphs())
def test_updates_come_last(made: RandomGraph) -> None:
    final = {value.serial for _, value in made.graph.updates}
    order = [group.outputs[0].serial in final for group in fuse(made.graph)]
    assert order == sorted(order)


@given(graphs())
def test_unfused_groups_compute_every_value(made: RandomGraph) -> None:
    values = {v.serial for v in made.graph.values() if not isinstance(v.op, (Leaf, Constant))}
    assert {v.serial for g in fuse(made.graph, fused=False) for v in g.outputs} == values


# phases and addresses

MEMORIES = 6


@st.composite
def call_lists(draw: st.DrawFn) -> tuple[list[Call], list[Memory]]:
    """Calls that read and write a few memories of many sizes, in any pattern."""
    sizes = draw(st.lists(st.integers(1, 5000), min_size=MEMORIES, max_size=MEMORIES))
    homes = draw(st.lists(st.sampled_from(["arena", "arena", "arena", "store"]), min_size=MEMORIES, max_size=MEMORIES))
    memories = [Memory(f"m{i}", n, home=home) for i, (n, home) in enumerate(zip(sizes, homes, strict=True))]
    calls = []
    for _ in range(draw(st.integers(1, 10))):
        used = draw(st.lists(st.sampled_from(memories), min_size=1, max_size=4, unique=True))
        arguments = {f"a{i}": At(m, draw(st.integers(0, 3))) for i, m in enumerate(used)}
        calls.append(Call(None, arguments, 1, tuple(used[: draw(st.integers(1, 2))]), "", ""))
    return calls, memories


@given(call_lists())
def test_calls_that_touch_one_memory_keep_their_order(made: tuple[list[Call], list[Memory]]) -> None:
    calls, _ = made
    phases = schedule(calls)
    assert {call.phase for call in calls} == set(range(phases))
    for i, later in enumerate(calls):
        blockers = [
            earlier
            for earlier in calls[:i]
            if set(earlier.writes) & set(later.memories) or set(earlier.memories) & set(later.writes)
        ]
        assert all(b.phase < later.phase for b in blockers)
        needed = sum(m.bytes for m in later.reads if m.home == "arena")
        if 2 * needed > sum(m.bytes for m in later.writes):
            assert any(b.phase == later.phase - 1 for b in blockers) or later.phase == 0 or not blockers


def test_what_makes_much_from_little_waits_until_it_is_needed() -> None:
    """Margins are cleared in the phase that fills the rest, filters transformed just before they are used."""
    x, y, weight = Memory("x", 100), Memory("y", 100), Memory("w", 50, home="store")
    transformed, z = Memory("t", 200), Memory("z", 100)
    margins = Call(None, {"y": At(y)}, 1, (y,), "", "")
    transform = Call(None, {"w": At(weight), "t": At(transformed)}, 1, (transformed,), "", "")
    chain = [
        Call(None, {"x": At(x)}, 1, (x,), "", ""),
        Call(None, {"x": At(x), "y": At(y)}, 1, (y,), "", "", disjoint=True),
        Call(None, {"y": At(y), "t": At(transformed), "z": At(z)}, 1, (z,), "", ""),
    ]
    assert schedule([margins, transform, *chain]) == 3
    assert [call.phase for call in (margins, transform, *chain)] == [1, 1, 0, 1, 2]


@given(call_lists(), st.sets(st.integers(0, MEMORIES - 1)))
def test_what_is_alive_at_once_never_overlaps(made: tuple[list[Call], list[Memory]], kept: set[int]) -> None:
    calls, memories = made
    phases = schedule(calls)
    outputs = [memories[i] for i in kept]
    total = place(calls, outputs, phases)
    lives: dict[Memory, list[int]] = {}
    for call in calls:
        for memory in call.memories:
            lives.setdefault(memory, []).append(call.phase)
    for memory in outputs:
        if memory in lives:
            lives[memory].append(phases)
    placed = [m for m in lives if m.home == "arena"]
    for a in placed:
        assert a.offset % ALIGN == 0
        assert 0 <= a.offset <= a.offset + a.bytes <= total
        for b in placed:
            apart = a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
            later = max(lives[a]) < min(lives[b]) or max(lives[b]) < min(lives[a])
            assert a is b or apart or later
    assert all(m.offset == -1 for m in memories if m not in placed)


def test_memory_is_used_again() -> None:
    """A chain of four equal buffers needs room for two."""
    chain = [Memory(f"m{i}", 1000) for i in range(5)]
    calls = [Call(None, {"x": At(a), "y": At(b)}, 1, (b,), "", "") for a, b in pairwise(chain)]
    total = place(calls, [chain[-1]], schedule(calls))
    assert total == 2 * -(-chain[0].bytes // ALIGN) * ALIGN


# factors and shifts a channel move into filters


def normed(prediction: bool, relu: bool = False) -> tuple[Graph, dict[str, np.ndarray]]:
    """A convolution with bias, a batch norm as predictions see it, and a ReLU between them where asked."""
    x, w = leaf("input", "x", (2, 5, 5, 3)), leaf("parameter", "w", (4, 3, 3, 3))
    names = ("bias", "mean", "variance", "scale", "shift")
    bias, mean, variance, scale, shift = (leaf("parameter", name, (4,)) for name in names)
    y = apply(Convolution(resolve(3, 1, 1, "same", (5, 5))), x, w) + bias
    y = ops.relu(y) if relu else y
    graph = Graph({"y": (y - mean) * (scale / ops.sqrt(variance + 0.1)) + shift}, prediction=prediction)
    feeds = {v.op.key: np.abs(normal(v.shape)).astype(np.float64) for v in graph.values() if isinstance(v.op, Leaf)}
    return graph, feeds


def test_fold_leaves_one_shift_behind_a_convolution() -> None:
    graph, feeds = normed(prediction=True)
    folded = fold(graph)
    [y] = folded.outputs.values()
    assert y.op == Pointwise("add")
    assert isinstance(y.inputs[0].op, Convolution)
    [before], [after] = evaluate([*graph.outputs.values()], feeds), evaluate([y], feeds)
    assert np.allclose(before, after, rtol=1e-12)


@pytest.mark.parametrize(("prediction", "relu"), [(False, False), (True, True)])
def test_fold_keeps_what_is_trained_and_what_a_function_parts(prediction: bool, relu: bool) -> None:
    graph, feeds = normed(prediction, relu)
    folded = fold(graph)
    assert sum(v.op == Pointwise("subtract") for v in folded.values()) == 1
    [before], [after] = evaluate([*graph.outputs.values()], feeds), evaluate([*folded.outputs.values()], feeds)
    assert np.allclose(before, after, rtol=1e-12)


# what is prepared once


def test_what_is_made_of_parameters_alone_is_prepared() -> None:
    w = leaf("parameter", "w", (4, 4))
    x = leaf("input", "x", (2, 4))
    program = compile_graph(Graph({"y": x * ops.sqrt(ops.sum(ops.exp(w), 0)), "e": ops.exp(w)}))
    assert len(program.calls) == 1
    assert all(memory.home in ("store", "prepared", "arena") for c in program.preparation for memory in c.memories)
    assert program.outputs["e"].memory.home == "prepared"


def test_nothing_is_prepared_of_what_a_program_updates() -> None:
    w = leaf("parameter", "w", (4, 4))
    x = leaf("input", "x", (2, 4))
    program = compile_graph(Graph({"y": x * ops.sum(ops.exp(w), 0)}, [(w, w * 0.5)]))
    assert not program.preparation
    assert program.changes
