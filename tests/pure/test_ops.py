"""Every op's reference against its definition written as loops, and its gradient against central differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
import pytest
from helpers import CASES, Array, Case, central_differences, leaf_for, normal, weighted, wide

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import OPS, Graph, Leaf, apply, differentiate, evaluate, leaf
from convolve.native.kernels.functions import FUNCTIONS
from convolve.ops.convolution import Convolution
from convolve.ops.dropout import Dropout
from convolve.ops.pointwise import TABLE, Pointwise
from convolve.ops.pool import Pool, PoolGradient
from convolve.ops.resample import PADDINGS, RESIZINGS, Map, Resample
from convolve.ops.softmax import CrossEntropy, CrossEntropyGradient, Softmax
from convolve.window import Window, resolve

DEFINITIONS: dict[str, Callable[..., Array]] = {}
FLAT: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "maximum": max,
    "minimum": min,
    "negative": lambda a: -a,
    "absolute": abs,
    "sign": lambda a: float(a > 0) - float(a < 0),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "sqrt": math.sqrt,
    "square": lambda a: a**2,
    "relu": lambda a: max(0.0, a),
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "equal": lambda a, b: a == b,
    "where": lambda c, a, b: a if c else b,
    "clip": lambda a, low, high: min(max(a, low), high),
    "cast": float,
    "exp": math.exp,
    "expm1": math.expm1,
    "log": math.log,
    "tanh": math.tanh,
    "erf": math.erf,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "softplus": lambda a: math.log(1 + math.exp(a)),
}
"""What each pointwise function does to numbers."""


def defines(name: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    def enter(function: Callable[..., Array]) -> Callable[..., Array]:
        DEFINITIONS[name] = function
        return function

    return enter


def reached(window: Window, size: tuple[int, ...]) -> Iterator[tuple[Any, Any, Any]]:
    """Every (output position, tap, input position) that is inside the input: p = r * stride - lo + i * dilation."""
    for r in np.ndindex(window.output(size)):
        for i in np.ndindex(window.kernel):
            lows = [lo for lo, _ in window.pads]
            steps = zip(r, i, window.stride, window.dilation, lows, strict=True)
            p = tuple(o * s - lo + t * d for o, t, s, d, lo in steps)
            if all(0 <= at < n for at, n in zip(p, size, strict=True)):
                yield r, i, p


def filled(op: Any, *arrays: Array, value: float = 0.0) -> Array:
    return np.full(op.shape(*(a.shape for a in arrays)), value)


@defines("constant")
def _(op: Any) -> Array:
    return np.array(op.value)


def channel(op: Any, f: int, c: int, w: Array) -> int:
    """The input channel that filter f sees as its c-th: those of its own group."""
    return f // (len(w) // op.groups) * w.shape[-1] + c


@defines("convolution")
def _(op: Any, x: Array, w: Array) -> Array:
    y = filled(op, x, w)
    for r, i, p in reached(op.window, x.shape[1:-1]):
        for n, f, c in np.ndindex(len(x), len(w), w.shape[-1]):
            y[(n, *r, f)] += x[(n, *p, channel(op, f, c, w))] * w[(f, *i, c)]
    return y


@defines("convolution_input_gradient")
def _(op: Any, dy: Array, w: Array) -> Array:
    dx = filled(op, dy, w)
    for r, i, p in reached(op.window, op.size):
        for n, f, c in np.ndindex(len(dy), len(w), w.shape[-1]):
            dx[(n, *p, channel(op, f, c, w))] += dy[(n, *r, f)] * w[(f, *i, c)]
    return dx


@defines("convolution_filter_gradient")
def _(op: Any, x: Array, dy: Array) -> Array:
    dw = filled(op, x, dy)
    for r, i, p in reached(op.window, x.shape[1:-1]):
        for n, f, c in np.ndindex(len(x), dy.shape[-1], dw.shape[-1]):
            dw[(f, *i, c)] += dy[(n, *r, f)] * x[(n, *p, channel(op, f, c, dw))]
    return dw


def seen(op: Any, x: Array) -> dict[Any, list[Any]]:
    """The input positions each output position sees, in scan order."""
    taps: dict[Any, list[Any]] = {}
    for r, _, p in reached(op.window, x.shape[1:-1]):
        taps.setdefault(r, []).append(p)
    return taps


def share(op: Any, x: Array, r: Any) -> float:
    """What a position of window r adds to an average: of those in the input and the padding that counts, one part."""
    size, w = x.shape[1:-1], op.window
    counted = op.counted or ((0, 0),) * w.rank
    count = 0
    for i in np.ndindex(w.kernel):
        p = [o * s - lo + t * d for o, t, s, d, (lo, _) in zip(r, i, w.stride, w.dilation, w.pads, strict=True)]
        count += all(-lo <= at < n + hi for at, n, (lo, hi) in zip(p, size, counted, strict=True))
    return 1 / count if op.kind == "avg" else 1.0


@defines("pool")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for r, taps in seen(op, x).items():
        for n, c in np.ndindex(len(x), x.shape[-1]):
            values = [x[(n, *p, c)] for p in taps]
            y[(n, *r, c)] = max(values) if op.kind == "max" else sum(values) * share(op, x, r)
    return y


@defines("pool_gradient")
def _(op: Any, x: Array, dy: Array) -> Array:
    dx = filled(op, x, dy)
    for r, taps in seen(op, x).items():
        for n, c in np.ndindex(len(x), x.shape[-1]):
            received = dy[(n, *r, c)]
            if op.kind == "max":
                winner = max(taps, key=lambda p: x[(n, *p, c)])
                dx[(n, *winner, c)] += received
            else:
                for p in taps:
                    dx[(n, *p, c)] += received * share(op, x, r)
    return dx


@defines("pointwise")
def _(op: Any, *arrays: Array) -> Array:
    y = filled(op, *arrays)
    for index in np.ndindex(y.shape):
        at = [tuple(0 if n == 1 else i for i, n in zip(index[-a.ndim :], a.shape, strict=True)) for a in arrays]
        y[index] = FLAT[op.function](*(a[i] for a, i in zip(arrays, at, strict=True)))
    return y


@defines("broadcast")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for index in np.ndindex(y.shape):
        y[index] = x[tuple(0 if n == 1 else i for i, n in zip(index[-x.ndim :], x.shape, strict=True))]
    return y


@defines("reduce")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x, value=0.0 if op.kind == "sum" else -math.inf)
    for index in np.ndindex(x.shape):
        to = tuple(i for axis, i in enumerate(index) if axis not in op.axes)
        y[to] = y[to] + x[index] if op.kind == "sum" else max(y[to], x[index])
    return y


@defines("reshape")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for to, source in zip(np.ndindex(y.shape), np.ndindex(x.shape), strict=True):
        y[to] = x[source]
    return y


@defines("transpose")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for index in np.ndindex(y.shape):
        source = [0] * x.ndim
        for i, axis in zip(index, op.axes, strict=True):
            source[axis] = i
        y[index] = x[tuple(source)]
    return y


@defines("slice")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for index in np.ndindex(y.shape):
        y[index] = x[tuple(i + op.start * (axis == op.axis) for axis, i in enumerate(index))]
    return y


@defines("place")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for index in np.ndindex(x.shape):
        y[tuple(i + op.start * (axis == op.axis) for axis, i in enumerate(index))] = x[index]
    return y


@defines("concat")
def _(op: Any, *arrays: Array) -> Array:
    rows = chain.from_iterable(np.moveaxis(a, op.axis, 0) for a in arrays)
    return np.moveaxis(np.array(list(rows)), 0, op.axis)


def source_of(kind: str, n: int, m: int, lo: int, o: int) -> dict[int, Any]:
    """Which of n positions, and how much of each, make position o of m: walked step by step."""
    if kind == "nearest":
        return {o * n // m: 1}
    if kind == "area":
        seen = [i for i in range(n) if i * m < (o + 1) * n and (i + 1) * m > o * n]
        return {i: Fraction(1, len(seen)) for i in seen}
    if kind == "linear":
        centre = min(max(Fraction(2 * o + 1, 2 * m) * n, Fraction(1, 2)), n - Fraction(1, 2))
        near = {i: 1 - abs(Fraction(2 * i + 1, 2) - centre) for i in range(n)}
        return {i: weight for i, weight in near.items() if weight > 0}
    at, step = 0, 1 if o >= lo else -1
    for _ in range(abs(o - lo)):  # outwards from the first position, one at a time
        if kind == "reflect" and n > 1 and not 0 <= at + step < n:
            step = -step
        at += step
    if kind == "edge":
        at = min(max(at, 0), n - 1)
    return {} if kind == "constant" and not 0 <= at < n else {at % n: 1}


@defines("resample")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    smaller, larger = [m.size for m in op.maps], [m.output for m in op.maps]
    for o in np.ndindex(*larger):
        sources = [
            dict(m.rows[i]) if m.rows else source_of(m.kind, m.size, m.output, m.lo, i)
            for m, i in zip(op.maps, o, strict=True)
        ]
        if not op.transposed and not all(sources):
            y[(slice(None), *o)] = op.fill
        for p in np.ndindex(*smaller):
            weight = math.prod(float(s.get(i, 0)) for s, i in zip(sources, p, strict=True))
            to, of = (p, o) if op.transposed else (o, p)
            if weight:
                y[(slice(None), *to)] += weight * x[(slice(None), *of)]
    return y


@defines("moments")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    kept = [i for i in range(x.ndim) if i not in op.axes]
    for place in np.ndindex(y.shape[1:]):
        at = dict(zip(kept, place, strict=True))
        values = [float(x[i]) for i in np.ndindex(x.shape) if all(i[axis] == n for axis, n in at.items())]
        y[0][place] = math.fsum(values) / len(values)
        y[1][place] = math.fsum((v - y[0][place]) ** 2 for v in values) / len(values)
    return y


@defines("normalize")
def _(op: Any, x: Array, mean: Array, variance: Array, scale: Array, shift: Array) -> Array:
    """By a mean and a variance that are found once more: those of all that shares them."""
    y = filled(op, x, mean, variance, scale, shift)
    each = x.shape[-1] // op.groups
    for index in np.ndindex(x.shape):
        values = [
            float(x[i])
            for i in np.ndindex(x.shape)
            if all(a == b or axis in op.axes for axis, (a, b) in enumerate(zip(i[:-1], index[:-1], strict=True)))
            and (x.ndim - 1 in op.axes or i[-1] // each == index[-1] // each)
        ]
        centre = math.fsum(values) / len(values)
        spread = math.fsum((v - centre) ** 2 for v in values) / len(values)
        factor, term = (np.broadcast_to(a, x.shape)[index] for a in (scale, shift))
        y[index] = (x[index] - centre) / math.sqrt(spread + op.epsilon) * factor + term
    return y


@defines("dropout")
def _(op: Any, x: Array, random: Array) -> Array:
    """SplitMix64 keys a row by (seed, step, layer, row); 32 mixed bits of it and the element's place decide."""
    whole, half = 2**64 - 1, 2**32 - 1

    def mix(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & whole
        z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
        return z ^ z >> 31

    seed, step = (int(v) & whole for v in random)
    layer = mix(mix(mix(seed) + step & whole) + op.layer & whole)
    y = filled(op, x, random)
    for row in range(len(x)):
        key = mix(layer + row & whole)
        for element, index in enumerate(np.ndindex(x.shape[1:])):
            h = element * 0x9E3779B9 & half ^ key & half
            h = (h ^ h >> 16) * 0x85EBCA6D & half
            h = (h ^ h >> 13 ^ key >> 32) * 0xC2B2AE35 & half
            h ^= h >> 16
            if h / 2**32 >= op.rate:
                y[(row, *index)] = x[(row, *index)] / (1 - op.rate)
    return y


def softmax(row: Array) -> list[float]:
    total = sum(math.exp(v) for v in row)
    return [math.exp(v) / total for v in row]


@defines("softmax")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for index in np.ndindex(x.shape[:-1]):
        y[index] = softmax(x[index])
    return y


@defines("log_softmax")
def _(op: Any, x: Array) -> Array:
    y = filled(op, x)
    for index in np.ndindex(x.shape[:-1]):
        y[index] = [math.log(p) for p in softmax(x[index])]
    return y


def target(op: Any, classes: int, label: int) -> list[float]:
    return [(1 - op.smoothing) * (c == label) + op.smoothing / classes for c in range(classes)]


@defines("cross_entropy")
def _(op: Any, x: Array, labels: Array) -> Array:
    y = filled(op, x, labels)
    for row, label in np.ndenumerate(labels):
        wanted = target(op, x.shape[-1], label)
        y[row] = -sum(t * math.log(p) for t, p in zip(wanted, softmax(x[row]), strict=True))
    return y


@defines("cross_entropy_gradient")
def _(op: Any, x: Array, labels: Array, dy: Array) -> Array:
    y = filled(op, x, labels, dy)
    for row, label in np.ndenumerate(labels):
        wanted = target(op, x.shape[-1], label)
        y[row] = [(p - t) * dy[row] for p, t in zip(softmax(x[row]), wanted, strict=True)]
    return y


@defines("vector")
def _(op: Any) -> Array:
    return np.array(list(op.values))


# the vocabulary is covered


def test_every_op_has_a_case_and_a_definition() -> None:
    vocabulary = set(OPS) - {Leaf.name}
    assert {case.op.name for case in CASES} == vocabulary
    assert set(DEFINITIONS) == vocabulary


def test_every_pointwise_function_has_a_kernel_a_case_and_a_definition() -> None:
    assert set(FUNCTIONS) == set(TABLE)
    assert {case.op.function for case in CASES if isinstance(case.op, Pointwise)} == set(TABLE)
    assert set(FLAT) == set(TABLE)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_the_definition(case: Case) -> None:
    value, _ = case.value()
    feeds = wide(case.feeds)
    arrays = evaluate(value.inputs, feeds)
    [y] = evaluate([value], feeds)
    assert y.shape == value.shape
    np.testing.assert_allclose(y, DEFINITIONS[case.op.name](value.op, *arrays), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.arrays], ids=str)
def test_reference_keeps_the_precision(case: Case) -> None:
    value, _ = case.value()
    arrays = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in evaluate(value.inputs, case.feeds)]
    assert value.op.reference(*arrays).dtype == np.float32


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.op.name not in {"pool_gradient", "cross_entropy_gradient"}], ids=str
)
def test_gradient_is_the_slope(case: Case) -> None:
    value, leaves = case.value()
    loss, weights = weighted(value)
    feeds = case.feeds | weights
    floats = [v for v in leaves if v.dtype == "f4"]
    for v, slopes in zip(floats, evaluate(differentiate(loss, floats), wide(feeds)), strict=True):
        key = v.op.key  # type: ignore[attr-defined]
        expected = central_differences(loss, key, feeds)
        np.testing.assert_allclose(np.broadcast_to(slopes, expected.shape), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["pool_gradient", "cross_entropy_gradient"])
def test_a_second_derivative_that_is_not_defined_is_refused(name: str) -> None:
    case = next(c for c in CASES if c.op.name == name)
    value, leaves = case.value()
    with pytest.raises(ShapeError, match="differentiate the loss once"):
        differentiate(ops.sum(value), leaves)


# what the definitions above leave open


def test_the_seed_formula() -> None:
    """Y[r, c] = sum over i < k1, j < k2 of X[r + i, c + j] * W[i, j]."""
    x, w = normal((6, 5)), normal((3, 2), 1)
    k1, k2 = w.shape
    y = np.zeros((6 - k1 + 1, 5 - k2 + 1))
    for r, c in np.ndindex(y.shape):
        for i in range(k1):
            for j in range(k2):
                y[r, c] += x[r + i, c + j] * w[i, j]
    op = Convolution(resolve(w.shape, 1, 1, "valid", x.shape))
    np.testing.assert_allclose(op.reference(x[None, ..., None], w[None, ..., None])[0, ..., 0], y, rtol=1e-5)


def test_nan_wins_maxima_and_survives_relu() -> None:
    x = np.array([[1.0, np.nan, 2.0, 3.0]])[..., None]
    pool = Pool("max", resolve(2, 2, 1, "valid", (4,)))
    np.testing.assert_array_equal(pool.reference(x).ravel(), [np.nan, 3.0])
    np.testing.assert_array_equal(Pointwise("relu").reference(x), x)
    for function in ("maximum", "minimum"):
        assert np.isnan(Pointwise(function).reference(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))).all()


def test_the_first_of_equals_takes_a_max_pools_gradient_and_a_reduction_shares_it() -> None:
    x = leaf("input", "x", (1, 4, 1))
    feeds = {"x": np.array([1.0, 1.0, 0.0, 1.0]).reshape(1, 4, 1)}
    pooled = apply(Pool("max", resolve(4, 1, 1, "valid", (4,))), x)
    [of_pool, of_max] = (differentiate(ops.sum(y), [x])[0] for y in (pooled, ops.max(x)))
    assert evaluate([of_pool], feeds)[0].ravel().tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(evaluate([of_max], feeds)[0].ravel(), [1 / 3, 1 / 3, 0, 1 / 3])


def test_padding_never_takes_a_gradient_not_even_where_all_is_minus_infinity() -> None:
    x = leaf("input", "x", (1, 2, 1))
    pooled = apply(Pool("max", resolve(3, 1, 1, 1, (2,))), x)
    [gradient] = differentiate(ops.sum(pooled), [x])
    assert evaluate([gradient], {"x": np.full((1, 2, 1), -np.inf)})[0].ravel().tolist() == [2, 0]


def test_dropout_keeps_its_share_and_depends_on_every_part_of_its_key() -> None:
    x = np.ones((20, 500))

    def kept(layer: int = 1, seed: int = 2, step: int = 3) -> Array:
        return Dropout(0.3, layer).reference(x, np.array([seed, step], np.int64)) != 0

    first = kept()
    assert np.array_equal(first, kept())
    assert abs(first.mean() - 0.7) < 4 * math.sqrt(0.3 * 0.7 / x.size)
    for other in (kept(layer=2), kept(seed=3), kept(step=4), np.roll(first, 1, 0), np.roll(first, 1, 1)):
        assert abs((first == other).mean() - (0.7**2 + 0.3**2)) < 0.02


@pytest.mark.parametrize("mode", PADDINGS)
def test_padding_is_numpys(mode: str) -> None:
    x = normal((2, 3, 4, 2))
    found = ops.pad(leaf_for("x", x), ((2, 1), (0, 3)), mode, fill=0.5)
    more: dict[str, Any] = {"constant_values": 0.5} if mode == "constant" else {}
    expected = np.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)), mode, **more)  # type: ignore[call-overload]
    np.testing.assert_array_equal(evaluate([found], {"x": x})[0], expected)


@pytest.mark.parametrize("kind", [*PADDINGS, *RESIZINGS])
def test_a_map_turned_round_is_its_transpose(kind: str) -> None:
    map_ = Map(kind, 5, 9, 2 if kind in PADDINGS else 0)
    op = Resample((map_,))
    matrix = op.reference(np.eye(5)[..., None])[..., 0].T
    turned = Resample((map_,), True).reference(np.eye(9)[..., None])[..., 0].T
    np.testing.assert_array_equal(turned, matrix.T)
    if kind != "constant":
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-15)


def test_what_is_padded_may_be_anything() -> None:
    """Each position is made of those that it names: what is not finite elsewhere stays there."""
    x = np.array([np.nan, 1.0, np.inf, 2.0]).reshape(1, 4, 1)
    for mode, expected in (("constant", [-np.inf, np.nan, 1, np.inf, 2, -np.inf]), ("edge", [np.nan, *x.ravel(), 2])):
        found = ops.pad(leaf("input", "x", x.shape), 1, mode, -np.inf)
        np.testing.assert_array_equal(evaluate([found], {"x": x})[0].ravel(), expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "mirror", "size": 3, "output": 3},
        {"kind": "edge", "size": 0, "output": 3},
        {"kind": "nearest", "size": 3, "output": 0},
        {"kind": "edge", "size": 3, "output": 4, "lo": -1},
        {"kind": "edge", "size": 3, "output": 4, "lo": 2},
        {"kind": "edge", "size": 3, "output": 2},
        {"kind": "linear", "size": 3, "output": 6, "lo": 1},
        {"kind": "reflect", "size": 3, "output": 6, "lo": 3},
        {"kind": "reflect", "size": 3, "output": 6, "lo": 0},
        {"kind": "wrap", "size": 3, "output": 7, "lo": 4},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_there_is_no_map_out_of_what_it_reads(fields: dict[str, Any]) -> None:
    """Kernels trust the tables made of it, and files may hold anything."""
    with pytest.raises(ShapeError):
        Map(**fields)


def test_an_unused_leaf_has_a_gradient_of_zeros() -> None:
    x, unused = leaf("input", "x", (3,)), leaf("input", "u", (2, 2))
    [gradient] = differentiate(ops.sum(x), [unused])
    np.testing.assert_array_equal(evaluate([gradient], {"u": normal((2, 2))})[0], np.zeros((2, 2)))


def test_gradients_of_a_value_used_twice_add_up() -> None:
    x = leaf("input", "x", (3,))
    [gradient] = differentiate(ops.sum(x * x + ops.exp(x)), [x])
    at = np.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(evaluate([gradient], {"x": at})[0], 2 * at + np.exp(at))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: differentiate(x, [x]),
        lambda x: apply(Convolution(resolve(3, 1, 1, "same", (4,))), x, leaf_for("w", normal((2, 3, 5)))),
        lambda x: apply(Convolution(resolve(3, 1, 1, "same", (4, 4))), x, leaf_for("w", normal((2, 3, 3, 3)))),
        lambda x: apply(Pool("max", resolve(3, 1, 1, "same", (4, 4))), x),
        lambda x: apply(Pool("max", Window((), (), (), ())), x),
        lambda x: apply(Pool("min", resolve(3, 1, 1, "same", (4,))), x),
        lambda x: apply(Pool("max", resolve(2, 1, 1, 2, (4,))), x),
        lambda x: apply(Pool("avg", resolve(2, 1, 5, 1, (4,))), x),
        lambda x: apply(Pool("avg", resolve(3, 1, 1, 1, (4,)), ((2, 1),)), x),
        lambda x: apply(Pool("avg", resolve(3, 1, 1, 1, (4,)), ((1, 1), (0, 0))), x),
        lambda x: apply(PoolGradient("max", resolve(3, 1, 1, 1, (4,))), x, ops.cut(x, 1, 0, 3)),
        lambda x: apply(CrossEntropy(), x, leaf_for("labels", np.zeros(2, np.int32))),
        lambda x: apply(CrossEntropy(), x, leaf_for("labels", np.zeros((2, 4), np.float32))),
        lambda x: apply(CrossEntropy(), x, ops.cast(leaf_for("labels", np.zeros((2, 4), np.int32)))),
        lambda x: apply(CrossEntropyGradient(), x, leaf_for("labels", np.zeros((2, 4), np.int32)), x),
        lambda x: apply(Softmax(), ops.constant(1.0)),
        lambda x: ops.log_softmax(ops.constant(1.0)),
        lambda x: ops.vector(()),
        lambda x: apply(Pointwise("no such function"), x),
        lambda x: apply(Pointwise("relu"), x, x),
        lambda x: x + leaf_for("y", normal((2, 5, 3))),
        lambda x: ops.broadcast(x, (4, 3)),
        lambda x: ops.reshape(x, (5, 5)),
        lambda x: ops.reshape(x, (-1, 5)),
        lambda x: ops.concat(x, leaf_for("y", normal((2, 5, 3)))),
        lambda x: ops.cut(x, 1, 2, 5),
        lambda x: ops.cut(x, 3, 0, 1),
        lambda x: ops.sum(x, 3),
        lambda x: ops.max(x, -4),
        lambda x: apply(Resample((Map("edge", 5, 7, 1),)), x),
        lambda x: apply(Resample((Map("edge", 4, 6, 1),), True), x),
        lambda x: apply(Resample((Map("edge", 2, 4, 1),) * 2), x),
        lambda x: ops.pad(x, -1),
        lambda x: ops.pad(x, ((0, 1), (1, 0))),
        lambda x: ops.pad(x, 1, "mirror"),
        lambda x: ops.pad(x, 4, "reflect"),
        lambda x: ops.pad(x, 5, "wrap"),
        lambda x: ops.pad(ops.cut(x, 1, 0, 1), 1, "reflect"),
        lambda x: ops.pad(ops.sum(x, 1), 1),
        lambda x: ops.resize(x, 0),
        lambda x: ops.resize(x, 2.5),
        lambda x: ops.resize(x, (2, 2)),
        lambda x: ops.resize(x, 8, "cubic"),
        lambda x: ops.resize(ops.sum(x, 1), 3),
    ],
)
def test_what_does_not_fit_is_refused_with_its_shape(make: Callable[..., Any]) -> None:
    with pytest.raises(ShapeError, match=r"\(2, 4, 3\)|Received|no such function"):
        make(leaf_for("x", normal((2, 4, 3))))


def test_graphs_need_what_their_roots_need() -> None:
    x, y = leaf("input", "x", (2,)), leaf("parameter", "y", (2,))
    made = ops.exp(x)
    ops.log(x)
    graph = Graph({"made": made}, [(y, y + made)])
    assert [type(v.op).name for v in graph.values()] == ["leaf", "leaf", "pointwise", "pointwise"]
