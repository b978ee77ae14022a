"""What the tests of the engine share: programs run from an arena full of NaN, cases for every op, legal windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from convolve import ops
from convolve.execution import Arena, Executable
from convolve.graph import Constant, Graph, Leaf, Op, Value, apply, differentiate, evaluate, leaf
from convolve.layers import Imported, Port
from convolve.layers.imported import Node, Number, Stored
from convolve.native.workers import aligned
from convolve.ops.convolution import Convolution, FilterGradientOp, InputGradient
from convolve.ops.dropout import Dropout
from convolve.ops.layout import Concat, Place, Slice, Transpose
from convolve.ops.norm import Moments, Normalize, group_normalize, normalize
from convolve.ops.pointwise import TABLE, Broadcast, Pointwise
from convolve.ops.pool import Pool, PoolGradient
from convolve.ops.reduce import Reduce, Reshape
from convolve.ops.resample import PADDINGS, RESIZINGS, Map, Resample
from convolve.ops.softmax import CrossEntropy, CrossEntropyGradient, LogSoftmax, Softmax
from convolve.ops.vector import Vector
from convolve.passes import compile_graph
from convolve.program import SLACK, pack, unpack
from convolve.window import Window, resolve

Array = NDArray[Any]
Feeds = Mapping[str, Array]

TOLERANCE = 1e-5
"""Largest error of float32 kernels over the result's largest element."""


# arrays


def normal(shape: Sequence[int], seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def wide(feeds: Feeds) -> dict[str, Array]:
    """The same numbers in float64; integers stay."""
    return {key: array.astype(np.float64) if array.dtype.kind == "f" else array for key, array in feeds.items()}


def leaf_for(key: str, array: Array, kind: str = "input") -> Value:
    return leaf(kind, key, array.shape, array.dtype.str[1:])


def assert_close(got: Array, true: Array, tolerance: float = TOLERANCE) -> None:
    """Every element within `tolerance` of the largest finite one; NaN and infinities in their places."""
    assert got.shape == true.shape
    finite = np.isfinite(true)
    np.testing.assert_array_equal(got[~finite], true[~finite])
    if finite.any():
        error = np.abs(got[finite] - true[finite]).max()
        scale = np.abs(true[finite]).max()
        assert error <= tolerance * scale, f"error {error:.3g} at scale {scale:.3g}"


# programs


class Machine:
    """A compiled graph with arrays of its own. The arena, and all memory behind an array, holds NaN before a run."""

    def __init__(self, graph: Graph, feeds: Feeds, fused: bool = True) -> None:
        self.program = compile_graph(graph, fused)
        self.arena = Arena()
        self.arena.poison = True
        self.buffers = {k.split(":", 1)[1]: b for k, b in self.program.stores.items() if b.memory.home == "store"}
        stores = {f"{self._kind(key)}:{key}": self._store(key, feeds[key]) for key in self.buffers}
        self.executable = Executable(self.program, self.arena, stores)
        self.inputs = {b.memory.name: feeds[b.memory.name] for b in self.program.stores.values() if self._given(b)}

    def run(self, threads: int = 2, **inputs: Array) -> dict[str, Array]:
        self.inputs |= inputs
        guarded = {key: _guarded(array) for key, array in self.inputs.items()}
        self.executable.run(guarded, threads)
        for key, store in self.executable.stores.items():
            assert np.isnan(store[-SLACK:].view(np.float32)).all(), f"{key} was written past its end"
        return {name: self.executable.output(name) for name in self.program.outputs}

    def state(self) -> dict[str, Array]:
        """The arrays that outlive a run, by key."""
        found = {}
        for name, store in self.executable.stores.items():
            buffer = self.program.stores[name]
            flat = store[: buffer.memory.size]
            found[name.split(":", 1)[1]] = _unpacked(flat, buffer)
        return found

    def _given(self, buffer: Any) -> bool:
        return bool(buffer.memory.home == "input")

    def _kind(self, key: str) -> str:
        return next(name.split(":", 1)[0] for name in self.program.stores if name.split(":", 1)[1] == key)

    def _store(self, key: str, array: Array) -> Array:
        panels = self.buffers[key].panels
        return _guarded(pack(array, panels) if panels else array)


def _unpacked(flat: Array, buffer: Any) -> Array:
    return unpack(flat, buffer.shape, buffer.panels) if buffer.panels else flat.reshape(buffer.shape)


def _guarded(array: Array) -> Array:
    """A copy that begins at a cache line, with NaN behind its end."""
    memory = aligned(array.size + SLACK, array.dtype.type)
    memory[: array.size] = array.ravel()
    memory[array.size :].view(np.uint8)[:] = 0xFF
    return memory


def run(roots: Sequence[Value], feeds: Feeds, fused: bool = True, threads: int = 2) -> list[Array]:
    """Values by compiled code."""
    graph = Graph({str(i): root for i, root in enumerate(roots)})
    return list(Machine(graph, feeds, fused).run(threads).values())


def check(roots: Sequence[Value], feeds: Feeds, tolerance: float = TOLERANCE) -> set[Any]:
    """Compiled values, fused and not, against the references in float64. Returns the specs of the kernels."""
    true = evaluate(roots, wide(feeds))
    specs: set[Any] = set()
    for fused in (True, False):
        machine = Machine(Graph({str(i): root for i, root in enumerate(roots)}), feeds, fused)
        for got, expected in zip(machine.run().values(), true, strict=True):
            assert_close(got, expected, tolerance)
        specs |= {call.spec for call in machine.program.calls}
    return specs


# derivatives


def weighted(value: Value, seed: int = 99) -> tuple[Value, dict[str, Array]]:
    """A scalar that depends on every element of `value` in its own way, and what to feed for it."""
    weights = normal(value.shape, seed)
    return ops.sum(value * leaf_for("weights", weights)), {"weights": weights}


def central_differences(loss: Value, key: str, feeds: Feeds, step: float = 1e-6) -> Array:
    """The derivative of the scalar `loss` by each element of feed `key`, in float64."""
    exact = wide(feeds)
    point = exact[key]
    slopes = np.empty(point.shape)
    for index in np.ndindex(point.shape):
        sides = []
        for sign in (1, -1):
            moved = point.copy()
            moved[index] += sign * step
            sides.append(evaluate([loss], {**exact, key: moved})[0])
        slopes[index] = (sides[0] - sides[1]) / (2 * step)
    return slopes


# one case an op at least


@dataclass(frozen=True)
class Case:
    """An op and arrays for it; `build` makes its value from leaves, one an array."""

    op: Op
    build: Callable[..., Value]
    arrays: tuple[Array, ...]

    @property
    def feeds(self) -> dict[str, Array]:
        return {f"x{i}": array for i, array in enumerate(self.arrays)}

    def value(self) -> tuple[Value, list[Value]]:
        """The op's value, and its leaves."""
        leaves = [leaf_for(key, array) for key, array in self.feeds.items()]
        return self.build(*leaves), leaves

    def __str__(self) -> str:
        function = f"-{self.op.function}" if isinstance(self.op, Pointwise) else ""
        if isinstance(self.op, Resample):
            function = f"-{self.op.maps[-1].kind}{'-transposed' if self.op.transposed else ''}"
        groups = f"-{self.op.groups}groups" if getattr(self.op, "groups", 1) > 1 else ""
        return f"{self.op.name}{function}{groups}-{'-'.join('x'.join(map(str, a.shape)) for a in self.arrays)}"


def _case(op: Op, *arrays: Array) -> Case:
    return Case(op, lambda *leaves: apply(op, *leaves), arrays)


SCALES = np.array([0.01, 0.1, 0.5, 1, 3], np.float32)
"""Numbers large and small, so that no kink goes unseen."""


def _pointwise_cases() -> list[Case]:
    cases = []
    for function, row in TABLE.items():
        arrays = [normal((2, 3, 5), seed) * SCALES for seed in range(row.arity)]
        if function in ("log", "sqrt"):
            arrays = [np.abs(a) + 0.1 for a in arrays]
        if function == "divide":
            arrays[1] += np.copysign(0.5, arrays[1])
        if function in ("equal", "where"):
            arrays[0][0] = 0
        if function == "equal":
            arrays[1][:, 0] = arrays[0][:, 0]
        cases.append(_case(Pointwise(function), *arrays))
        if row.arity > 1:
            cases.append(_case(Pointwise(function), arrays[0], *(a[0, :1] for a in arrays[1:])))
    return cases


def _window_cases() -> list[Case]:
    cases = []
    for window, size in (
        (Window((), (), (), ()), ()),
        (Window((3,), (2,), (2,), ((1, 2),)), (8,)),
        (Window((2, 3), (1, 1), (1, 1), ((0, 0), (1, 1))), (4, 5)),
        (Window((3, 2), (2, 3), (1, 2), ((2, 0), (0, 1))), (5, 6)),
        (Window((2, 1, 2), (1, 2, 1), (1, 1, 2), ((1, 0), (0, 0), (1, 1))), (3, 4, 3)),
    ):
        x, w = normal((2, *size, 3)), normal((4, *window.kernel, 3), 1)
        dy = normal((2, *window.output(size), 4), 2)
        cases += [
            _case(Convolution(window), x, w),
            _case(InputGradient(window, size), dy, w),
            _case(FilterGradientOp(window), x, dy),
        ]
        for groups, channels, filters in ((2, 4, 6), (5, 5, 5), (3, 3, 6)) if window.rank else ():
            x, w = normal((2, *size, channels)), normal((filters, *window.kernel, channels // groups), 1)
            dy = normal((2, *window.output(size), filters), 2)
            cases += [
                _case(Convolution(window, groups), x, w),
                _case(InputGradient(window, size, groups), dy, w),
                _case(FilterGradientOp(window, groups), x, dy),
            ]
        if window.rank:
            x, dy = normal((2, *size, 3)), normal((2, *window.output(size), 3), 3)
            part = tuple((lo, hi // 2) for lo, hi in window.pads)
            for kind, counted in (("max", ()), ("avg", ()), ("avg", window.pads), ("avg", part), ("sum", ())):
                cases.append(_case(Pool(kind, window, counted), x))
                cases.append(_case(PoolGradient(kind, window, counted), x, dy))
    return cases


def _resample_cases() -> list[Case]:
    cases = []
    for kind in PADDINGS:
        cases.append(_case(Resample((Map(kind, 4, 9, 3),), fill=1.5), normal((2, 4, 3))))
        cases.append(_case(Resample((Map(kind, 3, 6, 1), Map(kind, 4, 6, 0))), normal((2, 3, 4, 3))))
        cases.append(_case(Resample((Map(kind, 3, 6, 1), Map(kind, 4, 4, 0)), True), normal((2, 6, 4, 3))))
        cases.append(
            _case(Resample((Map(kind, 2, 3, 1), Map(kind, 3, 5, 2), Map(kind, 2, 3))), normal((2, 2, 3, 2, 5)))
        )
    for kind in RESIZINGS:
        cases.append(_case(Resample((Map(kind, 3, 6), Map(kind, 2, 6))), normal((2, 3, 2, 3))))
        cases.append(_case(Resample((Map(kind, 7, 3),)), normal((2, 7, 3))))
        cases.append(_case(Resample((Map(kind, 2, 3), Map(kind, 3, 1), Map(kind, 4, 4))), normal((1, 2, 3, 4, 3))))
        cases.append(_case(Resample((Map(kind, 5, 3), Map(kind, 2, 4)), True), normal((2, 3, 4, 3))))
    cases.append(_case(Resample((Map("edge", 2, 4, 1), Map("constant", 2, 4, 1)), fill=-2.0), normal((1, 2, 2, 2))))
    table = Map("table", 3, 4, rows=(((2, 1.0),), (), ((0, 0.25), (2, 0.75)), ((1, -1.0),)))
    cases.append(_case(Resample((table,), fill=3.0), normal((2, 3, 5))))
    cases.append(_case(Resample((Map("nearest", 2, 4), table), True), normal((2, 4, 4, 3))))
    return cases


def _normalize_cases() -> list[Case]:
    """Over channels, over positions and over both; scale and shift for a channel or for all that is normalised."""
    cases = []
    for shape, axes in (
        *(((3, 2, 4), axes) for axes in ((0, 1), (0,), (1,), (2,), (1, 2), (0, 2))),
        ((5, 4), (0,)),
        ((2, 3, 2, 3), (1, 3)),
    ):
        kept = shape[-1:]
        if len(shape) - 1 in axes:
            kept = tuple(n if i in axes else 1 for i, n in enumerate(shape))
        over = axes
        cases.append(
            Case(
                Normalize(1e-3, axes, shape[-1]),
                lambda x, scale, shift, axes=over: normalize(x, axes, 1e-3, scale, shift),
                (normal(shape), normal(kept, 1), normal(kept, 2)),
            )
        )
    for shape, groups in (((3, 2, 2, 6), 1), ((2, 5, 6), 3), ((2, 5, 4), 4), ((3, 8), 2)):
        cases.append(
            Case(
                Normalize(1e-3, tuple(range(1, len(shape) - 1)), groups),
                lambda x, scale, shift, groups=groups: group_normalize(x, groups, 1e-3, scale, shift),
                (normal(shape), normal(shape[-1:], 1), normal(shape[-1:], 2)),
            )
        )
    return cases


LABELS = np.array([4, 0, 2], np.int32)
PIXELS = np.arange(24, dtype=np.int32).reshape(2, 3, 4) % 5
RANDOM = np.array([7, -3], np.int64)

CASES: list[Case] = [
    _case(Constant(1.5)),
    _case(Vector((1.5, -2.0, 0.1))),
    *_pointwise_cases(),
    *_window_cases(),
    *_resample_cases(),
    _case(Broadcast((2, 3, 4)), normal((3, 1))),
    *(_case(Reduce(kind, axes), normal((2, 3, 4))) for kind in ("sum", "max") for axes in ((0,), (2,), (0, 2))),
    _case(Reshape((4, 6)), normal((2, 3, 4))),
    _case(Reshape((3, -1)), normal((2, 3, 4))),
    _case(Slice(1, 1, 3), normal((2, 4, 3))),
    _case(Place(1, 2, 5), normal((2, 2, 3))),
    _case(Concat(-1), normal((2, 2, 3)), normal((2, 2, 1), 1), normal((2, 2, 2), 2)),
    _case(Concat(0), normal((2, 3)), normal((1, 3), 1)),
    _case(Transpose((1, 0)), normal((3, 5))),
    _case(Transpose((0, 2, 3, 1)), normal((2, 3, 4, 5))),
    _case(Transpose((2, 0, 3, 1)), normal((2, 3, 1, 5))),
    _case(Transpose((0, 2, 1, 3)), normal((2, 3, 4, 2))),
    *(_case(Moments(axes), normal((3, 2, 4))) for axes in ((0,), (1,), (0, 1), (2,))),
    _case(Moments((0, 2)), normal((3, 2, 4, 5))),
    *_normalize_cases(),
    _case(Dropout(0.4, 5), normal((3, 2, 7)), RANDOM),
    *(_case(op, normal(shape)) for op in (Softmax(), LogSoftmax()) for shape in ((2, 3, 5), (2, 17), (7,))),
    *(_case(CrossEntropy(s), normal((*y.shape, 5)), y) for s in (0.0, 0.1) for y in (LABELS, PIXELS)),
    *(_case(CrossEntropyGradient(0.1), normal((*y.shape, 5)), y, normal(y.shape, 1)) for y in (LABELS, PIXELS)),
]


IMPORTED = Imported(
    (Port("image", ("N", 2, 6, 5)),),
    (Port("logits", ("N", 3)),),
    (
        Node("conv", "Conv", ("image", "w", "b"), ("c",), (("strides", (2, 1)), ("auto_pad", "SAME_LOWER"))),
        Node("norm", "BatchNormalization", ("c", "g", "h", "m", "v"), ("n",), (("epsilon", 1e-3),)),
        Node("act", "PRelu", ("n", "s"), ("a",)),
        Node("flat", "Reshape", ("a", "shape"), ("f",)),
        Node("fc", "Gemm", ("f", "w2", "b"), ("logits",), (("transB", 1), ("alpha", 0.5))),
    ),
    (Number("shape", "int64", (2,), (0, -1)),),
    (
        *(Stored("w", (3, 2, 3, 2)), Stored("w2", (3, 45)), Stored("s", (3, 1, 1))),
        *(Stored(name, (3,)) for name in "bghmv"),
    ),
    13,
)
"""A net as an importer makes it: channels first, a flattening, weights of all kinds."""


# what hypothesis draws


@st.composite
def windows(draw: st.DrawFn, pooling: bool = False, least: int = 0) -> tuple[Window, tuple[int, ...]]:
    """Any legal window and spatial size at ranks `least` to 3. Each pooling window sees something; some are ceiled."""
    rank = draw(st.integers(least, 3))
    largest = (64, 30, 12, 7)[rank]
    dims = []
    for _ in range(rank):
        kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        dilation = draw(st.integers(1, 3))
        extent = dilation * (kernel - 1) + 1
        most = extent - 1 if pooling else 4
        lo, hi = draw(st.integers(0, most)), draw(st.integers(0, most))
        size = draw(st.integers(max(1, extent - lo - hi), largest + extent))
        dims.append((kernel, stride, dilation, (lo, hi), size))
    kernel, stride, dilation, pads, size = zip(*dims, strict=True) if dims else ((),) * 5
    window = Window(kernel, stride, dilation, pads)
    if pooling:
        window = window.ceiled(size) if draw(st.booleans()) else window
        assume(all(_sees(window, size, axis) for axis in range(rank)))
    return window, size


def _sees(window: Window, size: tuple[int, ...], axis: int) -> bool:
    """Whether each window has a tap inside the input, along one dimension."""
    kernel, stride, dilation, (lo, _) = (
        part[axis] for part in (window.kernel, window.stride, window.dilation, window.pads)
    )
    starts = [o * stride - lo for o in range(window.output(size)[axis])]
    return all(any(0 <= start + i * dilation < size[axis] for i in range(kernel)) for start in starts)


@st.composite
def maps(draw: st.DrawFn) -> tuple[Map, ...]:
    """Any legal maps at ranks 1 to 3, of one kind or of one a dimension."""
    rank = draw(st.integers(1, 3))
    kinds = st.sampled_from([*PADDINGS, *RESIZINGS])
    kind = draw(st.none() | kinds)
    made = []
    for _ in range(rank):
        here, size = kind or draw(kinds), draw(st.integers(1, (40, 14, 7)[rank - 1]))
        if here in PADDINGS:
            most = {"reflect": size - 1, "wrap": size}.get(here, 9)
            lo, hi = draw(st.integers(0, most)), draw(st.integers(0, most))
            made.append(Map(here, size, lo + size + hi, lo))
        else:
            scaled = [size * s for s in (1, 2, 3)] if rank < 3 else [size * 2]
            made.append(Map(here, size, draw(st.sampled_from(scaled) | st.integers(1, 20))))
    return tuple(made)


SHAPE, CHANNELS = (2, 4, 5, 3), (3,)


@dataclass(frozen=True)
class RandomGraph:
    """A loss, some value on the way to it and a step of descent, with feeds."""

    graph: Graph
    feeds: dict[str, Array]


def _momentum(parameter: Value, gradient: Value, first: Value, second: Value) -> list[tuple[Value, Value]]:
    velocity = first * 0.9 + gradient
    return [(first, velocity), (parameter, parameter - velocity * 0.1)]


def _moments(parameter: Value, gradient: Value, first: Value, second: Value) -> list[tuple[Value, Value]]:
    """A parameter that needs two new values."""
    mean, square = first * 0.9 + gradient, second * 0.5 + ops.square(gradient)
    return [(first, mean), (second, square), (parameter, parameter - mean / (square + 1.0))]


def _lion(parameter: Value, gradient: Value, first: Value, second: Value) -> list[tuple[Value, Value]]:
    """A parameter that needs the old value of what is updated beside it."""
    return [(first, first * 0.5 + gradient), (parameter, parameter - ops.tanh(first * 0.9 + gradient))]


@st.composite
def graphs(draw: st.DrawFn) -> RandomGraph:
    """Ops at random over one image shape, one bank of filters and one vector; a step of SGD with momentum."""
    x = leaf("input", "x", SHAPE)
    parameters = [leaf("parameter", "w", (3, 3, 3, 3)), leaf("parameter", "b", CHANNELS)]
    w, b = parameters
    window = resolve(3, 1, 1, "same", SHAPE[1:-1])
    unary: list[Callable[[Value], Value]] = [
        ops.relu,
        ops.tanh,
        ops.sigmoid,
        ops.square,
        lambda v: -v,
        lambda v: v * 0.5 + b,
        lambda v: apply(Convolution(window), v, w),
        lambda v: apply(Pool("max", window), ops.relu(v)),
        lambda v: apply(Pool("avg", window), v),
        lambda v: normalize(v, (0, 1, 2), 0.1, b, b),
        lambda v: group_normalize(v, 3, 0.1, b, b),
        lambda v: normalize(v, (3,), 0.1, b, b),
        lambda v: ops.broadcast(ops.mean(v, (0, 1, 2)), SHAPE),
        lambda v: v + ops.broadcast(ops.mean(v, (0, 1, 2)), SHAPE),
        lambda v: v - ops.reshape(ops.max(v, -1), (*SHAPE[:-1], 1)),
        lambda v: ops.reshape(ops.reshape(v, (SHAPE[0], -1)), SHAPE),
        lambda v: ops.concat(ops.cut(v, 2, 2, 5), ops.cut(v, 2, 0, 2), axis=2),
        lambda v: ops.resize(ops.pad(v, 1, "reflect"), SHAPE[1:-1], "area"),
        lambda v: ops.cut(ops.cut(ops.pad(v, ((0, 2), (1, 0)), fill=0.5), 1, 1, 5), 2, 0, 5),
    ]
    binary: list[Callable[[Value, Value], Value]] = [
        *(Value.__add__, Value.__sub__, Value.__mul__, ops.maximum),
        lambda a, b: ops.cut(ops.concat(a, b), 3, 1, 4),
        lambda a, b: ops.cut(ops.concat(a, ops.concat(b, a, axis=1), axis=1), 1, 3, 7),
    ]
    values = [ops.cast(x)]
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            values.append(draw(st.sampled_from(unary))(draw(st.sampled_from(values))))
        else:
            values.append(draw(st.sampled_from(binary))(*(draw(st.sampled_from(values)) for _ in range(2))))
    loss = ops.mean(ops.tanh(values[-1]))
    updates = []
    feeds = {"x": normal(SHAPE), "w": normal(w.shape, 1) / 5, "b": normal(b.shape, 2) / 2}
    rule = draw(st.sampled_from([_momentum, _moments, _lion]))
    for parameter, gradient in zip(parameters, differentiate(loss, parameters), strict=True):
        states = [leaf("state", f"{name} of {leaf_key(parameter)}", parameter.shape) for name in ("first", "second")]
        updates += rule(parameter, gradient, *states)
        feeds |= {leaf_key(old): np.abs(normal(old.shape, seed)) for seed, old in enumerate(states, 3)}
    outputs = {"loss": loss, "value": draw(st.sampled_from(values[1:]))}
    return RandomGraph(Graph(outputs, updates), feeds)


def values_of(graph: Graph, feeds: Feeds) -> dict[str, Array]:
    """Every output and every updated leaf's new value, by the references in float64."""
    names = [*graph.outputs, *(leaf_key(target) for target, _ in graph.updates)]
    return dict(zip(names, evaluate(graph.roots, wide(feeds)), strict=True))


def leaf_key(value: Value) -> str:
    assert isinstance(value.op, Leaf)
    return value.op.key
