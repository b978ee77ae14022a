"""Every op's kernels against its reference in float64, over any legal shape, fused to its neighbours and alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import (
    CASES,
    Array,
    Case,
    Machine,
    RandomGraph,
    assert_close,
    check,
    graphs,
    leaf_for,
    maps,
    normal,
    run,
    values_of,
    weighted,
    windows,
)
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import BroadcastableShapes, mutually_broadcastable_shapes

from convolve import ops
from convolve.graph import Graph, Value, apply, differentiate, evaluate, leaf
from convolve.native.cache import statistics
from convolve.native.kernels import winograd
from convolve.native.kernels.depthwise import Depthwise, DepthwiseFilterGradient
from convolve.native.kernels.filter_gradient import FilterGradient
from convolve.native.kernels.gemm import Gemm
from convolve.native.kernels.layout import Fill
from convolve.native.kernels.pointwise import Pointwise as PointwiseKernel
from convolve.native.kernels.resample import Resample as ResampleKernel
from convolve.ops.convolution import Convolution, transposed
from convolve.ops.layout import transpose
from convolve.ops.norm import moments, normalize
from convolve.ops.pool import KINDS, Pool, PoolGradient
from convolve.ops.resample import PADDINGS, RESIZINGS, Map, Resample
from convolve.ops.softmax import CrossEntropy, Softmax
from convolve.passes import compile_graph
from convolve.window import Pads, Window, resolve

# every op


@pytest.mark.parametrize("case", CASES, ids=str)
def test_op(case: Case) -> None:
    value, _ = case.value()
    check([value], case.feeds)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.op.name not in {"pool_gradient", "cross_entropy_gradient"}], ids=str
)
def test_gradient(case: Case) -> None:
    value, leaves = case.value()
    loss, weights = weighted(value)
    check(differentiate(loss, [v for v in leaves if v.dtype == "f4"]), case.feeds | weights)


@pytest.mark.parametrize("case", [c for c in CASES if c.value()[0].shape], ids=str)
def test_op_computed_where_it_is_concatenated(case: Case) -> None:
    """Behind other values and before others, along the first axis and the last; read from there as well."""
    value, _ = case.value()
    other = leaf_for("other", normal(value.shape, 8))
    for axis in (0, -1):
        joined = ops.concat(ops.tanh(other), value, ops.exp(value), axis=axis)
        check([joined, ops.sum(ops.square(value))], case.feeds | {"other": normal(value.shape, 8)})


@given(graphs())
@settings(max_examples=25)
def test_graphs_at_random(made: RandomGraph) -> None:
    """Outputs and updated parameters, fused and not. Some are small differences of large numbers, hence 1e-4."""
    true = values_of(made.graph, made.feeds)
    for fused in (True, False):
        machine = Machine(made.graph, made.feeds, fused)
        for name, got in (machine.run() | machine.state()).items():
            assert_close(got, true[name], 1e-4)


# convolutions and pools over any legal window

Sized = tuple[Window, tuple[int, ...]]
CONVOLUTION_SPECS = 28
GROUPED_SPECS = 40
POOL_SPECS = 16


def convolution_specs(sized: Sized, images: int, channels: int, filters: int, kept: bool, groups: int = 1) -> set[Any]:
    """Check a convolution and both its gradients. `kept` inputs have been computed, and carry margins themselves."""
    window, size = sized
    feeds = {"x": normal((images, *size, channels)), "w": normal((filters, *window.kernel, channels // groups), 1)}
    x, w = leaf_for("x", feeds["x"]), leaf_for("w", feeds["w"], "parameter")
    y = apply(Convolution(window, groups), ops.cast(x) if kept else x, w)
    loss, weights = weighted(y)
    return check([y, *differentiate(loss, [x, w])], feeds | weights)


def test_convolutions() -> None:
    """Sizes are arguments of kernels, never part of them: all of these share a few."""
    specs: set[Any] = set()

    @given(windows(), st.integers(1, 4), st.integers(1, 20), st.sampled_from([1, 5, 8, 9, 16, 17, 33]), st.booleans())
    @settings(max_examples=150)
    def examine(sized: Sized, images: int, channels: int, filters: int, kept: bool) -> None:
        specs.update(convolution_specs(sized, images, channels, filters, kept))

    before = statistics.compiled
    examine()
    assert len(specs) <= CONVOLUTION_SPECS
    assert statistics.compiled - before <= CONVOLUTION_SPECS


def test_grouped_convolutions() -> None:
    """Any number of groups, one a channel among them, over any legal window."""
    specs: set[Any] = set()

    @given(
        windows(least=1),
        st.integers(1, 3),
        st.sampled_from([2, 3, 8, 17, 33, 40]),
        st.sampled_from([1, 1, 2, 3, 5]),
        st.sampled_from([1, 1, 2, 3, 9, 17]),
        st.booleans(),
    )
    @settings(max_examples=150)
    def examine(sized: Sized, images: int, groups: int, channels: int, filters: int, kept: bool) -> None:
        specs.update(convolution_specs(sized, images, groups * channels, groups * filters, kept, groups))

    before = statistics.compiled
    examine()
    assert {type(spec) for spec in specs} >= {Depthwise, DepthwiseFilterGradient, Gemm, FilterGradient}
    assert len(specs) <= GROUPED_SPECS
    assert statistics.compiled - before <= GROUPED_SPECS


TRANSPOSED_SPECS = 56


def test_transposed_convolutions() -> None:
    """Any groups, and any size of the result: cut off at both ends, or with positions behind that nothing paints."""
    specs: set[Any] = set()

    @given(
        windows(least=1),
        st.integers(1, 3),
        st.sampled_from([1, 1, 2, 3, 17]),
        st.sampled_from([1, 2, 8]),
        st.sampled_from([1, 2, 9]),
        st.data(),
    )
    @settings(max_examples=150)
    def examine(sized: Sized, images: int, groups: int, channels: int, filters: int, data: Any) -> None:
        window, positions = sized
        assume(math.prod(positions) <= 600)
        whole = [(n - 1) * s + e for n, s, e in zip(positions, window.stride, window.extent, strict=True)]
        lows = tuple(data.draw(st.integers(0, n - 1)) for n in whole)
        size = tuple(data.draw(st.integers(1, n - lo + 4)) for n, lo in zip(whole, lows, strict=True))
        window = replace(window, pads=tuple((lo, 0) for lo in lows))
        feeds = {"x": normal((images, *positions, groups * channels))}
        feeds["w"] = normal((groups * channels, *window.kernel, filters), 1)
        x, w = leaf_for("x", feeds["x"]), leaf_for("w", feeds["w"], "parameter")
        y = transposed(ops.cast(x), w, window, size, groups)
        assert y.shape == (images, *size, groups * filters)
        loss, weights = weighted(y)
        specs.update(check([y, *differentiate(loss, [x, w])], feeds | weights))

    before = statistics.compiled
    examine()
    assert len(specs) <= TRANSPOSED_SPECS
    assert statistics.compiled - before <= TRANSPOSED_SPECS


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((2, 60, 60, 24), 3, 1),  # many blocks of tiles, panels half full
        ((3, 5, 4, 200), 3, 2),  # many panels of few positions
        ((1, 4000, 32), 9, 4),
        ((2, 9, 8, 7, 48), (3, 3, 5), 1),
        ((1, 1, 1, 70), 1, 1),
        ((3, 40), (), ()),  # no dimension at all: as many products of numbers
    ],
)
def test_depthwise_convolutions_cut_into_pieces(shape: tuple[int, ...], kernel: Any, stride: Any) -> None:
    window = resolve(kernel, stride, 1, "same", shape[1:-1])
    convolution_specs((window, shape[1:-1]), shape[0], shape[-1], shape[-1], True, shape[-1])


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (5, 3), (3, 3, 3), (2, 1, 3), (5,), (5, 5), (1, 5, 5)], ids=str)
def test_winograd(kernel: tuple[int, ...]) -> None:
    """Windows of three and five taps with so many channels that tiles pay, whole tiles or not, in groups or not."""
    specs: set[Any] = set()
    rank = len(kernel)
    pads = st.tuples(*[st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)) for k in kernel])
    largest = (64, 18, 9)[rank - 1]

    @given(
        st.tuples(*[st.integers(1, largest)] * rank),
        pads,
        st.integers(1, 4),
        st.integers(8, 50),
        st.sampled_from([8, 16, 19, 40, 130]),
        st.sampled_from([1, 1, 2, 3]),
        st.booleans(),
    )
    @example(
        (5,) * rank, ((kernel[-1] // 2,) * 2,) * rank if set(kernel) == {3} else ((0, 0),) * rank, 2, 64, 64, 1, True
    )
    @settings(max_examples=30)
    def examine(
        size: tuple[int, ...], pads: Pads, images: int, channels: int, filters: int, groups: int, kept: bool
    ) -> None:
        window = Window(kernel, (1,) * rank, (1,) * rank, pads)
        assume(min(window.output(size)) > 0)
        specs.update(convolution_specs((window, size), images, groups * channels, groups * filters, kept, groups))

    examine()
    found = {spec.tile.outputs for spec in specs if isinstance(spec, winograd.Product)}
    assert found >= ({2} if kernel[-1] == 5 else {2, 4} if kernel[-2:] == (3, 3) else {4})
    assert any(isinstance(spec, winograd.FilterGradientSum) for spec in specs)
    assert len(specs) <= CONVOLUTION_SPECS


@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "stride"),
    [
        ((3, 100, 90, 1), 6, 5, 1),  # an image fills a table of rows
        ((6, 60, 60, 2), 6, 3, 1),  # four images would not fit a table
        ((1, 7, 7, 64), 96, 3, 1),  # more weights than pixels: pieces share the panels
        ((2, 14, 14, 40), 48, 3, 2),
        ((2, 28, 28, 16), 64, 1, 1),
        ((130, 784), 10, (), ()),  # many features in few panels
        ((67, 100), 33, (), ()),  # a prime number of images
        ((1, 300), 200, (), ()),
    ],
)
def test_convolutions_cut_into_pieces(shape: tuple[int, ...], filters: int, kernel: Any, stride: Any) -> None:
    size = shape[1:-1]
    window = resolve(kernel, stride, 1 if size else (), "same", size)
    convolution_specs((window, size), shape[0], shape[-1], filters, True)


def pool_specs(sized: Sized, images: int, channels: int, kind: str, counted: Pads) -> set[Any]:
    window, size = sized
    feeds = {"x": normal((images, *size, channels))}
    x = leaf_for("x", feeds["x"])
    y = apply(Pool(kind, window, counted), ops.cast(x))
    loss, weights = weighted(y)
    return check([y, *differentiate(loss, [x])], feeds | weights)


def test_pools() -> None:
    specs: set[Any] = set()

    @given(windows(pooling=True, least=1), st.integers(1, 3), st.integers(1, 70), st.sampled_from(KINDS), st.data())
    @settings(max_examples=120)
    def examine(sized: Sized, images: int, channels: int, kind: str, data: Any) -> None:
        counted = tuple((data.draw(st.integers(0, lo)), data.draw(st.integers(0, hi))) for lo, hi in sized[0].pads)
        specs.update(pool_specs(sized, images, channels, kind, counted))

    before = statistics.compiled
    examine()
    assert len(specs) <= POOL_SPECS
    assert statistics.compiled - before <= POOL_SPECS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((90, 70), Window((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)))),
        ((90, 70), Window((2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)))),
        ((91, 70), Window((2, 3), (4, 3), (1, 2), ((1, 0), (3, 2)))),  # rows and columns that nobody reads
        ((1, 4000), Window((1, 4), (1, 4), (1, 1), ((0, 0), (0, 0)))),
        ((3001,), Window((5,), (1,), (2,), ((4, 4),))),
        ((9001,), Window((2,), (9,), (1,), ((0, 0),))),
        ((20, 14, 18), Window((2, 2, 2), (2, 2, 2), (1, 1, 1), ((0, 0), (0, 1), (1, 0)))),
    ],
)
def test_a_pool_of_one_image_is_cut_into_pieces(size: tuple[int, ...], window: Window, kind: str) -> None:
    feeds = {"x": normal((1, *size, 37))}
    x = leaf_for("x", feeds["x"])
    y = apply(Pool(kind, window), x)
    loss, weights = weighted(y)
    roots = [y, *differentiate(loss, [x])]
    check(roots, feeds | weights)
    pools = [c for c in compile_graph(Graph({"y": y, "dx": roots[1]})).calls if "pool" in c.algorithm]
    assert [call.pieces > 1 for call in pools] == [True, True]
    one, *others = (run(roots, feeds | weights, threads=threads) for threads in (1, 2, 3))
    for other in others:
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_pools_read_and_write_values_with_margins() -> None:
    """Between two convolutions: the margins of what a pool reads and writes never count."""
    x, w = leaf("input", "x", (2, 9, 8, 3)), leaf("parameter", "w", (3, 3, 3, 3))
    feeds = {"x": normal(x.shape), "w": normal(w.shape, 1) / 5}
    y = ops.cast(x)
    for kind in ("max", "avg"):
        y = apply(Convolution(resolve(3, 1, 1, "same", y.shape[1:-1])), y, w)
        y = apply(Pool(kind, resolve(2, 1, 1, "same", y.shape[1:-1])), y)
    y = apply(Convolution(resolve(3, 1, 1, "same", y.shape[1:-1])), y, w)
    loss, weights = weighted(y)
    check([y, *differentiate(loss, [x, w])], feeds | weights)


def test_resampling() -> None:
    """Padding and resizing over any maps, and turned round: one kernel, and one for what is made of nothing."""
    specs: set[Any] = set()

    @given(maps(), st.integers(1, 3), st.sampled_from([1, 3, 8, 17, 40]), st.sampled_from([0.0, -1.5]))
    @settings(max_examples=80)
    def examine(drawn: tuple[Map, ...], images: int, channels: int, fill: float) -> None:
        feeds = {"x": normal((images, *(m.size for m in drawn), channels))}
        x = leaf_for("x", feeds["x"])
        y = apply(Resample(drawn, fill=fill), ops.cast(x))
        loss, weights = weighted(y)
        specs.update(check([y, *differentiate(loss, [x])], feeds | weights))

    examine()
    kinds = [type(spec) for spec in specs]
    assert kinds.count(ResampleKernel) == kinds.count(Fill) == 1


@pytest.mark.parametrize("kind", [*PADDINGS, *RESIZINGS])
def test_resampling_reads_and_writes_values_with_margins(kind: str) -> None:
    """Between two convolutions: margins never count, and stay zero."""
    x, w = leaf("input", "x", (2, 5, 6, 3)), leaf("parameter", "w", (3, 3, 3, 3))
    feeds = {"x": normal(x.shape), "w": normal(w.shape, 1) / 5}
    y = apply(Convolution(resolve(3, 1, 1, "same", (5, 6))), ops.cast(x), w)
    y = ops.pad(y, ((2, 1), (0, 3)), kind, 0.5) if kind in PADDINGS else ops.resize(y, (7, 12), kind)
    y = apply(Convolution(resolve(3, 1, 1, "same", y.shape[1:-1])), y, w)
    loss, weights = weighted(y)
    check([y, *differentiate(loss, [x, w])], feeds | weights)


@pytest.mark.parametrize("shape", [(2, 7000, 3), (1, 70, 60, 8), (3, 9, 3000)])
def test_resampling_cut_into_pieces(shape: tuple[int, ...]) -> None:
    x = leaf("input", "x", shape)
    z = ops.cast(x)
    roots = [ops.pad(z, 2), ops.pad(z, 3, "reflect"), ops.resize(z, tuple(2 * n for n in shape[1:-1]), "linear")]
    check(roots, {"x": normal(shape)})
    calls = compile_graph(Graph({str(i): root for i, root in enumerate(roots)})).calls
    assert all(c.pieces > shape[0] for c in calls if isinstance(c.spec, ResampleKernel))


def test_tables_of_a_large_map_stay_small() -> None:
    """Positions repeat few patterns, and neighbours that are copied together are one row."""
    x = ops.cast(leaf("input", "x", (4, 128, 128, 64)))
    calls = {}
    for name, y in (
        ("pad", ops.pad(x, 1)),
        ("reflect", ops.pad(x, 3, "reflect")),
        ("nearest", ops.resize(x, 256)),
        ("linear", ops.resize(x, 256, "linear")),
    ):
        made = compile_graph(Graph({"y": y})).calls
        [calls[name]] = [c for c in made if isinstance(c.spec, ResampleKernel)]
    rows = {name: call.arguments["rows"] for name, call in calls.items()}
    assert rows == {"pad": 128, "reflect": 134 * (1 + 6), "nearest": 257 * 128 + 1, "linear": 256**2}
    assert [len(call.arguments["offset"]) for call in calls.values()] == [1, 1, 1, (1 + 2 + 2) ** 2]
    for call in calls.values():
        size = sum(a.nbytes for a in call.arguments.values() if isinstance(a, np.ndarray))
        assert size <= 12 * 256**2 + 1000


def test_padding_with_a_constant_turned_round_is_a_view() -> None:
    x = ops.cast(leaf("input", "x", (4, 9, 9, 3)))
    y = apply(Resample((Map("constant", 5, 9, 3), Map("constant", 8, 9)), True), x)
    check([y * 2.0], {"x": normal(x.shape)})
    assert not any(isinstance(c.spec, ResampleKernel) for c in compile_graph(Graph({"y": y * 2.0})).calls)


# what is fused


@pytest.mark.parametrize("size", [(), (7,), (6, 5)])
@pytest.mark.parametrize("filters", [4, 19])
def test_bias_residual_and_relu_are_part_of_the_product(size: tuple[int, ...], filters: int) -> None:
    window = resolve((3,) * len(size), (1,) * len(size), (1,) * len(size), "same", size)
    x, w = leaf("input", "x", (3, *size, 5)), leaf("parameter", "w", (filters, *window.kernel, 5))
    bias, residual = leaf("parameter", "b", (filters,)), leaf("input", "r", (3, *size, filters))
    y = ops.relu(apply(Convolution(window), ops.cast(x), w) + bias + residual)
    feeds = {"x": normal(x.shape), "w": normal(w.shape, 1), "b": normal(bias.shape, 2), "r": normal(residual.shape, 3)}
    check([y], feeds)
    calls = compile_graph(Graph({"y": y})).calls
    after_product = [c for c in calls if isinstance(c.spec, PointwiseKernel) and c.label != "x"]
    loss, weights = weighted(y)
    check(differentiate(loss, [x, w, bias, residual]), feeds | weights)
    assert len([c for c in after_product if c.spec.formula.steps]) <= 1  # the cast of x


def test_an_epilogue_may_use_its_product_twice_and_others_in_between() -> None:
    x, w = leaf("input", "x", (2, 6, 6, 3)), leaf("parameter", "w", (10, 3, 3, 3))
    window = resolve(3, 1, 1, "same", (6, 6))
    first = apply(Convolution(window), ops.cast(x), w)
    second = apply(Convolution(window), ops.cast(x) * 0.5, w)
    y = first * ops.sigmoid(first) + second * 2.0 - ops.exp(-ops.square(second))
    check([y], {"x": normal(x.shape), "w": normal(w.shape, 1) / 5})


def test_a_product_that_others_need_exists_beside_its_epilogue() -> None:
    x, w = leaf("input", "x", (2, 6, 3)), leaf("parameter", "w", (10, 3, 3))
    y = apply(Convolution(resolve(3, 1, 1, "same", (6,))), ops.cast(x), w)
    active = ops.relu(y)
    check([active, y, ops.sum(y)], {"x": normal(x.shape), "w": normal(w.shape, 1)})
    check([active, ops.sum(y, (0, 1)), ops.max(active, -1)], {"x": normal(x.shape), "w": normal(w.shape, 1)})


@pytest.mark.parametrize("shape", [(4, 6, 6, 5), (3, 4, 17), (30, 20), (2, 3, 3, 2, 16)])
def test_batch_norm_with_residual_and_relu(shape: tuple[int, ...]) -> None:
    x, other = leaf("input", "x", shape), leaf("input", "r", shape)
    scale, shift = leaf("parameter", "scale", shape[-1:]), leaf("parameter", "shift", shape[-1:])
    axes = tuple(range(len(shape) - 1))
    found = moments(ops.cast(x), axes)
    y = ops.relu(normalize(ops.cast(x), axes, 1e-5, scale, shift) + other)
    loss, weights = weighted(y)
    feeds = {
        "x": normal(shape) * 3 + 5,
        "r": normal(shape, 1),
        "scale": normal(shape[-1:], 2),
        "shift": normal(shape[-1:], 3),
    }
    # dx is a difference of sums over the batch: a few more roundings than the others.
    check([y, *found, *differentiate(loss, [x, other, scale, shift])], feeds | weights, 5e-5)


@pytest.mark.parametrize("axes", [(0, 1), (1,), (0,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_moments_of_values_far_from_zero(axes: tuple[int, ...]) -> None:
    """E[x^2] - E[x]^2 would have no digit left."""
    x = leaf("input", "x", (50, 90, 60))
    feeds = {"x": normal(x.shape) + 10_000}
    got = run(moments(ops.cast(x), axes), feeds)
    true = evaluate(moments(x, axes), {"x": feeds["x"].astype(np.float64)})
    for found, expected, most in zip(got, true, (3e-7, 5e-5), strict=True):
        np.testing.assert_allclose(found, expected, rtol=most)


# reductions, pointwise ops, layout


@st.composite
def reductions(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 19]), min_size=1, max_size=5))
    while math.prod(shape) > 30_000:
        shape[int(np.argmax(shape))] = 2
    return tuple(shape), tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))


def reduced(x: Value, y: Value, axes: tuple[int, ...]) -> list[Value]:
    """Reductions alone, and of a formula."""
    z = ops.cast(x) * 1.5
    return [ops.sum(x, axes), ops.max(x, axes), ops.sum(ops.square(x) * y, axes), ops.max(z - y, axes), z]


@given(reductions(), st.data())
@example(((3, 40_000), (1,)), None)
@example(((40_000, 3), (0,)), None)
@example(((50_001,), (0,)), None)
@example(((300, 7, 20, 1), (0, 1, 2)), None)
@settings(max_examples=60)
def test_reductions(drawn: tuple[tuple[int, ...], tuple[int, ...]], data: Any) -> None:
    """Alone and with a prologue, one operand of which is broadcast. Long sums cancel, hence the tolerance."""
    shape, axes = drawn
    repeated = data.draw(st.sets(st.integers(0, len(shape) - 1))) if data else {0}
    feeds = {"x": normal(shape), "y": normal([1 if i in repeated else n for i, n in enumerate(shape)], 1) + 2}
    check(reduced(leaf_for("x", feeds["x"]), leaf_for("y", feeds["y"]), axes), feeds, 3e-5)


@given(mutually_broadcastable_shapes(num_shapes=3, max_dims=5, max_side=7))
def test_pointwise_ops_broadcast(shapes: BroadcastableShapes) -> None:
    feeds = {f"x{i}": normal(shape, i) for i, shape in enumerate(shapes.input_shapes)}
    a, b, c = (leaf_for(key, array) for key, array in feeds.items())
    check([a * b + c, ops.where(ops.greater(a, c), ops.broadcast(b, shapes.result_shape), 0.5), a + 1.0], feeds)


@pytest.mark.parametrize("shape", [(20_001,), (3, 8193), (9001, 3), (2, 3, 5000), (130, 70, 2), (1, 1), ()])
def test_sweeps_are_cut_anywhere(shape: tuple[int, ...]) -> None:
    x, b = leaf("input", "x", shape), leaf("input", "b", shape[-1:])
    feeds = {"x": normal(shape), "b": normal(b.shape, 1)}
    check([ops.tanh(x) * 2.0 + b, ops.sigmoid(x)], feeds)


def test_views_and_pieces_of_values() -> None:
    x = leaf("input", "x", (4, 6, 7, 8))
    z = ops.cast(x) * 2.0
    check(
        [
            ops.cut(z, 3, 2, 5),
            ops.cut(ops.cut(z, 1, 1, 5), 2, 3, 7) + 1.0,
            ops.reshape(ops.cut(z, 2, 0, 3), (4, -1)),
            ops.concat(z, ops.cut(z, 3, 0, 1), z * 3.0),
            ops.concat(z, z, axis=0),
            ops.sum(ops.concat(ops.cut(z, 1, 3, 6), z, axis=1), (0, 3)),
            ops.max(ops.reshape(z, (24, 56)), 1),
            ops.broadcast(ops.cut(z, 0, 1, 2), z.shape) * z,
        ],
        {"x": normal(x.shape)},
    )


@pytest.mark.parametrize("axes", [None, 0, 1, (0, 2)])
def test_one_channel_of_several_is_reduced(axes: Any) -> None:
    x, y = normal((3, 5, 4)), normal((3, 5, 1))
    channel = ops.cut(leaf("input", "x", x.shape), 2, 1, 2)
    product = channel * leaf("input", "y", y.shape)
    check([ops.sum(product, axes), ops.max(product, axes), ops.sum(channel, axes)], {"x": x, "y": y})


def test_branches_write_to_their_places_at_once() -> None:
    """No copies, and no waiting for each other; what reads a neighbour waits for it."""
    x = leaf("input", "x", (3, 40, 40, 3))
    weights = [leaf("parameter", f"w{i}", (16, 3, 3, 3)) for i in range(2)]
    feeds = {"x": normal(x.shape)} | {f"w{i}": normal(w.shape, i) / 5 for i, w in enumerate(weights)}
    window = resolve(3, 1, 1, "same", (40, 40))
    first, second = [ops.relu(apply(Convolution(window), ops.cast(x), w)) for w in weights]
    for joined, phases in (
        (ops.concat(first, second), [0, 0]),
        (ops.concat(first, ops.exp(first), second), [0, 1, 1]),
        (ops.concat(ops.concat(first, ops.cut(x, 3, 0, 2)), second), [0, 0, 0]),
        (ops.concat(first, first), [0, 1]),
    ):
        check([joined, *differentiate(ops.sum(ops.square(joined)), weights)], feeds)
        calls = [c for c in compile_graph(Graph({"joined": joined})).calls if c.writes[0].size >= joined.size]
        assert len({c.writes[0] for c in calls}) == 1
        assert [c.phase - calls[0].phase for c in calls] == phases


def copies(*roots: Value) -> list[str]:
    """Calls that only move what is there."""
    program = compile_graph(Graph({str(i): root for i, root in enumerate(roots)}))
    return [c.algorithm for c in program.calls if c.algorithm in ("copy", "transpose")]


def test_a_part_that_a_convolution_reads_lies_in_its_place_with_margins() -> None:
    x = leaf("input", "x", (2, 6, 5, 3))
    first, other = (leaf("parameter", f"w{i}", (n, 3, 3, c)) for i, (n, c) in enumerate([(4, 3), (7, 4)]))
    window = resolve(3, 1, 1, "same", (6, 5))
    y = ops.relu(apply(Convolution(window), ops.exp(x), first))
    joined = ops.concat(y, ops.square(y), axis=3)
    z = apply(Convolution(window), y, other)
    check([joined, z], {"x": normal(x.shape), "w0": normal(first.shape, 1), "w1": normal(other.shape, 2)})
    assert not copies(joined * 2.0, z)


def test_shuffled_channels_are_written_between_margins() -> None:
    x, w = leaf("input", "x", (2, 5, 6, 12)), leaf("parameter", "w", (12, 3, 3, 1))
    parts = transpose(ops.reshape(ops.exp(x), (2, 5, 6, 4, 3)), (0, 1, 2, 4, 3))
    shuffled = ops.reshape(parts, x.shape)
    y = apply(Convolution(resolve(3, 1, 1, "same", (5, 6)), 12), shuffled, w)
    check([y], {"x": normal(x.shape), "w": normal(w.shape, 1)})
    assert copies(y) == ["transpose"]
    check([y, parts * 2.0], {"x": normal(x.shape), "w": normal(w.shape, 1)})


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_planes_are_woven_into_pixels(channels: int) -> None:
    x = leaf("parameter", "x", (2, channels, 3, 29))
    check([transpose(x, (0, 2, 3, 1))], {"x": normal(x.shape)})


def test_a_view_of_what_carries_margins() -> None:
    """Flattening, cutting and joining what a convolution also reads."""
    x, w = leaf("input", "x", (2, 5, 6, 3)), leaf("parameter", "w", (4, 3, 3, 3))
    z = ops.cast(x) * 2.0
    y = apply(Convolution(resolve(3, 1, 1, "same", (5, 6))), z, w)
    joined = ops.concat(z, ops.cut(z, 3, 1, 3))
    wide_w = leaf("parameter", "v", (4, 3, 3, 5))
    again = apply(Convolution(resolve(3, 1, 1, "same", (5, 6))), joined, wide_w)
    roots = [y, ops.reshape(z, (2, -1)), ops.cut(z, 1, 1, 4), ops.sum(z, 1), joined, again, apply(Softmax(), z)]
    check(roots, {"x": normal(x.shape), "w": normal(w.shape, 1), "v": normal(wide_w.shape, 2)})


def test_weights_may_be_computed_and_looked_at() -> None:
    """A filter bank is packed for products; sums, slices and pointwise ops of it see the plain array."""
    x, w = leaf("input", "x", (2, 6, 3)), leaf("parameter", "w", (18, 3, 3))
    window = resolve(3, 1, 1, "same", (6,))
    scale = leaf("parameter", "s", (18, 1, 1))
    scaled = w * scale
    roots = [
        apply(Convolution(window), ops.cast(x), w),
        apply(Convolution(window), ops.cast(x), scaled),
        ops.sum(ops.square(w)),
        ops.sum(ops.square(w) + 1.0),
        ops.max(w, (1, 2)),
        ops.cut(w, 0, 3, 17) * 2.0,
        ops.reshape(w, (18, 9)),
        scaled,
        w * 2.0 + scaled,
        w,
    ]
    check(roots, {"x": normal(x.shape), "w": normal(w.shape, 1), "s": normal(scale.shape, 2)})


def test_leaves_and_numbers_may_be_outputs() -> None:
    x, b = leaf("input", "x", (2, 3)), leaf("parameter", "b", (3,))
    feeds = {"x": normal(x.shape), "b": normal(b.shape)}
    check([ops.constant(2.5), b, ops.broadcast(ops.constant(1.5), (2, 3)), x + b], feeds)
    check([x, ops.reshape(x, (3, 2)), ops.cut(x, 1, 1, 3)], feeds)


# types and odd numbers


@pytest.mark.parametrize("dtype", ["u1", "i4"])
def test_integers_are_read_as_they_are(dtype: str) -> None:
    low = 0 if dtype == "u1" else -(2**20)
    x = np.random.default_rng(3).integers(low, 256, (3, 7, 6, 5)).astype(dtype)
    v, w = leaf_for("x", x), leaf("parameter", "w", (4, 3, 3, 5))
    image = ops.cast(v)
    y = apply(Convolution(resolve(3, 1, 1, "same", (7, 6))), image, w)
    pooled = apply(Pool("max", resolve(2, 2, 1, "valid", (7, 6))), image)
    check(
        [
            v,
            ops.cut(v, 1, 2, 6),
            image,
            v * (1 / 255),
            ops.sum(v, (1, 2)),
            ops.max(image, -1),
            y,
            pooled,
            ops.cut(image, 1, 2, 6),
        ],
        {"x": x, "w": normal(w.shape)},
    )


def test_labels_compare() -> None:
    """A person's own loss: one-hot labels by comparison."""
    labels = np.array([2, 0, 4, 4], np.int32)
    x = leaf("input", "x", (4, 5))
    classes = leaf("input", "classes", (5,), "i4")
    hot = ops.equal(ops.reshape(leaf_for("labels", labels), (4, 1)), classes)
    feeds = {"x": normal(x.shape), "labels": labels, "classes": np.arange(5, dtype=np.int32)}
    check([hot, ops.sum(x * hot, 1)], feeds)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_goes_where_the_definition_says(bad: float) -> None:
    x = normal((2, 9, 17))
    x[0, 3, 5] = x[1, 8, 16] = bad
    v, y = leaf_for("x", x), leaf("input", "y", x.shape)
    x[0, :2, 7] = bad  # all that the first window sees
    window, dy = resolve(3, 2, 1, ((1, 1),), (9,)), normal((2, 5, 17), 2)
    z = ops.cast(v)
    roots = [
        *(ops.relu(z), ops.maximum(z, y), ops.maximum(y, z), ops.minimum(z, y), ops.absolute(z), ops.exp(z)),
        *(apply(Pool(kind, window), z) for kind in ("max", "avg")),
        apply(PoolGradient("max", window), z, leaf_for("dy", dy)),
        *(reduce(z, axes) for reduce in (ops.max, ops.sum) for axes in ((1,), (2,), (0, 1, 2))),
    ]
    with np.errstate(invalid="ignore", over="ignore"):
        check(roots, {"x": x, "y": normal(x.shape, 1), "dy": dy})


def test_a_bad_image_leaves_the_others_alone() -> None:
    x, w = normal((5, 6, 6, 3)), normal((9, 3, 3, 3), 1)
    y = apply(Convolution(resolve(3, 1, 1, "same", (6, 6))), ops.cast(leaf_for("x", x)), leaf_for("w", w, "parameter"))
    [clean] = run([y], {"x": x, "w": w})
    x[2, 0, 0, 0] = np.nan
    [dirty] = run([y], {"x": x, "w": w})
    assert np.isnan(dirty[2, :2, :2]).all()
    assert np.isfinite(dirty).sum() == dirty.size - 4 * 9
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(dirty[others], clean[others])


def test_labels_may_be_part_of_an_array() -> None:
    """A view does not begin where its memory does."""
    labels = np.arange(9, dtype=np.int32)
    x = leaf("input", "x", (3, 9))
    loss = apply(CrossEntropy(0.1), ops.cast(x), ops.cut(leaf_for("labels", labels), 0, 4, 7))
    check([loss, *differentiate(ops.sum(loss), [x])], {"x": normal(x.shape), "labels": labels})


def test_large_logits_do_not_overflow() -> None:
    x = normal((3, 5)) * 1000
    labels = np.array([0, 1, 4], np.int32)
    v, known = leaf_for("x", x), leaf_for("labels", labels)
    loss = apply(CrossEntropy(0.1), ops.cast(v), known)
    check([loss, *differentiate(ops.mean(loss), [v]), apply(Softmax(), ops.cast(v))], {"x": x, "labels": labels})


# updates


def test_updates_take_effect_after_everything_has_read_the_old_values() -> None:
    a, b = leaf("state", "a", (40,)), leaf("state", "b", (40,))
    feeds = {"a": normal(a.shape), "b": normal(b.shape, 1)}
    graph = Graph({"before": a * 1.0}, [(a, a * 0.5 + b), (b, a - b)])
    for fused in (True, False):
        machine = Machine(graph, feeds, fused)
        got = machine.run()
        np.testing.assert_array_equal(got["before"], feeds["a"])
        state = machine.state()
        assert_close(state["a"], feeds["a"] * 0.5 + feeds["b"])
        assert_close(state["b"], feeds["a"] - feeds["b"])


def test_a_leaf_may_become_another_leaf_or_share_its_new_value() -> None:
    a, b, c = (leaf("state", key, (20,)) for key in "abc")
    feeds: dict[str, Array] = {key: normal((20,), seed) for seed, key in enumerate("abc")}
    new = a + b
    machine = Machine(Graph({"c": c * 2.0}, [(a, new), (b, new), (c, a)]), feeds)
    machine.run()
    state = machine.state()
    assert_close(state["a"], feeds["a"] + feeds["b"])
    assert_close(state["b"], feeds["a"] + feeds["b"])
    assert_close(state["c"], feeds["a"])


def test_an_update_may_need_the_new_values_of_others() -> None:
    """Of one shape and of another, a sum among them: none is taken before it has been made."""
    v, t, n, w = (leaf("state", key, shape) for key, shape in (("v", (40,)), ("t", ()), ("n", ()), ("w", (40,))))
    feeds = {key: normal(shape, 5) for key, shape in (("v", (40,)), ("t", ()), ("n", ()), ("w", (40,)))}
    velocity = v * 0.9 + w
    count = t + 1.0
    norm = ops.sum(ops.square(velocity))
    graph = Graph({}, [(v, velocity), (t, count), (n, norm), (w, w - velocity * count * norm)])
    true = values_of(graph, feeds)
    for fused in (True, False):
        machine = Machine(graph, feeds, fused)
        machine.run()
        for key, got in machine.state().items():
            assert_close(got, true[key])


def test_rounding_goes_to_the_even_neighbour_and_leaves_what_is_whole_or_no_number() -> None:
    whole = [2.0**23 + 1, -(2.0**24), 1e30, -np.inf, np.inf, np.nan]
    x = np.array([-2.5, -1.5, -0.5, 0.0, 0.49999997, 0.5, 1.5, 2.5, 0.75, -0.75, 8388607.5, *whole], np.float32)
    value = leaf_for("x", x)
    made = run([ops.round(value), ops.floor(value), ops.ceil(value)], {"x": x})
    for got, function in zip(made, (np.round, np.floor, np.ceil), strict=True):
        np.testing.assert_array_equal(got, function(x))
