"""How each op of the graph is written with ONNX's operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from convolve.errors import ConvolveError
from convolve.graph import OPS, Constant, Op, Value
from convolve.onnx.export.draft import BATCH, TYPES, Dims, Draft, Order, Scan, first, is_batch, last
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.layout import Concat, Place, Slice, Transpose
from convolve.ops.norm import Moments, Normalize
from convolve.ops.pointwise import Broadcast, Pointwise
from convolve.ops.pool import Pool
from convolve.ops.reduce import Reduce, Reshape
from convolve.ops.resample import Map, Resample
from convolve.ops.softmax import LogSoftmax, Softmax
from convolve.window import Pads, Window

Write = Callable[[Draft, Value, str], None]
"""Writes the nodes of a value whose inputs are written; the last is named as given."""
W = TypeVar("W", bound=Write)

WRITERS: dict[str, Write] = {}
"""How the ops are written, by name."""


def _writes(op: type[Op]) -> Callable[[W], W]:
    def enter(write: W) -> W:
        WRITERS[op.name] = write
        return write

    return enter


def write(draft: Draft, value: Value) -> None:
    """Write a value and all that it needs; its node is named after the layer that is being written.

    Raises:
        ConvolveError: an op has no counterpart in ONNX.
    """
    stack = [(value, False)]
    while stack:
        here, ready = stack.pop()
        if draft.has(here) or draft.known(here) is not None:
            continue
        if not ready:
            stack.append((here, True))
            stack.extend((v, False) for v in reversed(here.inputs))
            continue
        if here.op.name not in WRITERS:
            raise ConvolveError(
                f"{draft.path or 'the net'}: cannot be exported, because ONNX has no counterpart of its op "
                f"{here.op.name}. Exported are nets of these: {', '.join(sorted(WRITERS))}"
            )
        what = here.op.function if isinstance(here.op, Pointwise) else here.op.name
        name = here.label or ((draft.path or what) if here is value else draft.inner(what))
        WRITERS[here.op.name](draft, here, name)


# products


def pads_of(pads: Pads) -> list[int]:
    """Pads as ONNX lists them: all that come before, then all that come behind."""
    return [lo for lo, _ in pads] + [hi for _, hi in pads]


def convolution(
    draft: Draft, value: Value, x: Value, w: Value, window: Window, groups: int, bias: Value | None, name: str
) -> None:
    """x convolved with w, or their product where there are no spatial dimensions."""
    if not window.rank:
        (product(draft, value, x, w, bias, name) if groups == 1 else products(draft, value, x, w, groups, bias, name))
        return
    rank = len(x.shape)
    inputs = [draft.at(v, first(rank)) for v in (x, w)] + ([draft.at(bias, last(1))] if bias else [])
    made = draft.node(
        "Conv",
        inputs,
        name,
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        group=groups,
        pads=pads_of(window.pads),
    )
    draft.put(value, made, first(rank))


def product(draft: Draft, value: Value, x: Value, w: Value, bias: Value | None, name: str) -> None:
    """x (n, features) times w (units, features). Features that lie otherwise than they should move in w instead."""
    order: Order = draft.order(x)
    if draft.known(w) is None and isinstance(order, Scan):
        order = last(2)
    inputs = [draft.at(x, order), draft.at(w, order)] + ([draft.at(bias, last(1))] if bias else [])
    draft.put(value, draft.node("Gemm", inputs, name, transB=1), last(2))


def products(draft: Draft, value: Value, x: Value, w: Value, groups: int, bias: Value | None, name: str) -> None:
    """Matrices side by side in x (n, groups * features) times those in w (groups * units, features), one by one."""
    (n, _), (units, features) = x.shape, w.shape
    left = draft.node("Reshape", [draft.at(x, last(2)), _unknown(draft, n, groups, features)])
    right = draft.node("Reshape", [draft.at(w, last(2)), _unknown(draft, groups, units // groups, features)])
    factors = [draft.node("Transpose", [left], perm=(1, 0, 2)), draft.node("Transpose", [right], perm=(0, 2, 1))]
    made = draft.node("Transpose", [draft.node("MatMul", factors)], perm=(1, 0, 2))
    made = draft.node("Reshape", [made, _unknown(draft, n, units)], None if bias else name)
    draft.put(value, draft.node("Add", [made, draft.at(bias, last(1))], name) if bias else made, last(2))


def _unknown(draft: Draft, *sizes: int) -> str:
    """A shape for Reshape, which finds out the size that is made of the batch."""
    return draft.integers(*(-1 if is_batch(n) else n for n in sizes))


def transposed(
    draft: Draft, value: Value, x: Value, w: Value, window: Window, groups: int, bias: Value | None, name: str
) -> None:
    """The transposed convolution of x with w (channels, *kernel, filters / groups)."""
    rank, size = len(x.shape), value.shape[1:-1]
    if not window.rank:
        inputs = [draft.at(x, last(2)), draft.at(w, last(2))] + ([draft.at(bias, last(1))] if bias else [])
        draft.put(value, draft.node("Gemm", inputs, name), last(2))
        return
    made = [
        (n - 1) * s + e - lo - hi
        for n, s, e, (lo, hi) in zip(x.shape[1:-1], window.stride, window.extent, window.pads, strict=True)
    ]
    more = [m - n for m, n in zip(size, made, strict=True)]
    # Operators refuse an output padding of a whole stride: less is cut off behind, then positions that no input reaches
    # are added.
    within = [max(0, min(m, s - 1)) for m, s in zip(more, window.stride, strict=True)]
    pads = tuple((lo, max(0, hi - m + w)) for (lo, hi), m, w in zip(window.pads, more, within, strict=True))
    beyond = [max(0, m - w - hi) for (_, hi), m, w in zip(window.pads, more, within, strict=True)]
    inputs = [draft.at(v, first(rank)) for v in (x, w)]
    attributes: dict[str, Any] = {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "dilations": window.dilation,
        "group": groups,
        "pads": pads_of(pads),
        "output_padding": within,
    }
    if not any(beyond):
        inputs += [draft.at(bias, last(1))] if bias else []
        draft.put(value, draft.node("ConvTranspose", inputs, name, **attributes), first(rank))
        return
    tensor = draft.node("ConvTranspose", inputs, **attributes)
    tensor = padded(draft, tensor, tuple((0, b) for b in beyond), None if bias else name)
    if bias:
        tensor = draft.node("Add", [tensor, draft.operand(bias, rank, first(rank))], name)
    draft.put(value, tensor, first(rank))


@_writes(Convolution)
def _convolution(draft: Draft, value: Value, name: str) -> None:
    op, (x, w) = value.op, value.inputs
    assert isinstance(op, Convolution)
    convolution(draft, value, x, w, op.window, op.groups, None, name)


@_writes(InputGradient)
def _input_gradient(draft: Draft, value: Value, name: str) -> None:
    op, (x, w) = value.op, value.inputs
    assert isinstance(op, InputGradient)
    transposed(draft, value, x, w, op.window, op.groups, None, name)


# pointwise functions

OPERATORS = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "negative": "Neg",
    "absolute": "Abs",
    "sign": "Sign",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sqrt": "Sqrt",
    "relu": "Relu",
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "erf": "Erf",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
}
COMPARISONS = {
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "equal": "Equal",
}


@_writes(Pointwise)
def _pointwise(draft: Draft, value: Value, name: str) -> None:
    assert isinstance(value.op, Pointwise)
    function, inputs = value.op.function, _bare(value)
    order = common(draft, inputs, len(value.shape))
    if function == "cast" or (function == "subtract" and _is_zero(inputs[1])):
        draft.put(value, draft.operand(inputs[0], len(value.shape), order), order)
        return
    operands = [draft.operand(v, len(value.shape), order) for v in inputs]
    if function == "square":
        made = draft.node("Mul", [*operands, *operands], name)
    elif function == "expm1":
        made = draft.node("Sub", [draft.node("Exp", operands), draft.number(1.0)], name)
    elif function == "clip":
        made = draft.node("Min", [draft.node("Max", operands[:2]), operands[2]], name)
    elif function == "where":
        made = draft.node("Where", [draft.truth(operands[0]), *operands[1:]], name)
    elif function in COMPARISONS:
        truth = draft.node(COMPARISONS[function], operands, f"{name}.truth")
        made = draft.node("Cast", [truth], name, to=TYPES["float32"])
        draft.truth(made, truth)
    else:
        made = draft.node(OPERATORS[function], operands, name)
    draft.put(value, made, order)


def _bare(value: Value) -> Sequence[Value]:
    """The inputs, without the broadcasts that a pointwise function makes itself."""
    bare = [v.inputs[0] if isinstance(v.op, Broadcast) else v for v in value.inputs]
    return bare if np.broadcast_shapes(*(v.shape for v in bare)) == value.shape else value.inputs


def _is_zero(value: Value) -> bool:
    return isinstance(value.op, Constant) and value.op.value == 0


def common(draft: Draft, inputs: Iterable[Value], rank: int) -> Order:
    """The order in which values are brought together to one of `rank`: that of those which lie channels first."""
    moving = [v for v in inputs if draft.known(v) is None]
    orders = [draft.order(v) for v in moving if len(v.shape) == rank]
    if any(isinstance(order, Scan) for order in orders):
        return orders[0] if len(orders) == len(moving) and len(set(orders)) == 1 else last(rank)
    return first(rank) if first(rank) in orders or not orders else orders[0]


@_writes(Broadcast)
def _broadcast(draft: Draft, value: Value, name: str) -> None:
    [x] = value.inputs
    rank = len(value.shape)
    order = common(draft, [x], rank)
    order = last(rank) if isinstance(order, Scan) else order
    operand = draft.operand(x, rank, order)
    aligned = (1,) * (rank - len(x.shape)) + x.shape
    sizes = [value.shape[d] if aligned[d] != value.shape[d] else 1 for d in order.order]
    draft.put(value, draft.node("Expand", [operand, sizes_of(draft, sizes)], name), order)


def sizes_of(draft: Draft, sizes: Sequence[int]) -> str:
    """A shape as a tensor; what is made of the batch is read off the net's input."""
    if not any(map(is_batch, sizes)):
        return draft.integers(*sizes)
    batch = draft.node("Shape", [draft.input], start=0, end=1)
    parts = [
        draft.node("Mul", [batch, draft.integers(n // BATCH)]) if is_batch(n) else draft.integers(n) for n in sizes
    ]
    return draft.node("Concat", parts, axis=0)


# shapes


@_writes(Reshape)
def _reshape(draft: Draft, value: Value, name: str) -> None:
    [x] = value.inputs
    if [n for n in x.shape if n != 1] == [n for n in value.shape if n != 1]:
        _squeeze(draft, value, x, name)
    elif len(value.shape) == 2 and value.shape[0] == x.shape[0]:
        draft.flatten(value, x, name)
    else:
        alike = x.shape[:1] == value.shape[:1]  # 0 keeps a size, -1 is what the others leave
        sizes = [0 if alike and not i else -1 if is_batch(n) else n for i, n in enumerate(value.shape)]
        made = draft.node("Reshape", [draft.at(x, last(len(x.shape))), draft.integers(*sizes)], name)
        draft.put(value, made, last(len(value.shape)))


def _squeeze(draft: Draft, value: Value, x: Value, name: str) -> None:
    """Drop dimensions of one position and make others, in whatever order the rest lies."""
    order = draft.order(x)
    if isinstance(order, Scan) or draft.known(x) is not None:
        order = last(len(x.shape))
    tensor = draft.at(x, order)
    kept = [i for i, n in enumerate(x.shape) if n != 1]
    places = dict(zip(kept, (i for i, n in enumerate(value.shape) if n != 1), strict=True))
    walk = [places[d] for d in order.order if d in places]
    target = first(len(value.shape)) if walk == [d for d in first(len(value.shape)).order if d in walk] else None
    if target is None:
        target = Dims((*walk, *(i for i, n in enumerate(value.shape) if n == 1)))
    if len(kept) < len(x.shape):
        ones = [i for i, d in enumerate(order.order) if d not in kept]
        tensor = draft.node("Squeeze", [tensor, draft.integers(*ones)], name if len(value.shape) == len(kept) else None)
    if len(walk) < len(value.shape):
        ones = [i for i, d in enumerate(target.order) if d not in walk]
        tensor = draft.node("Unsqueeze", [tensor, draft.integers(*ones)], name)
    draft.put(value, tensor, target)


@_writes(Slice)
def _slice(draft: Draft, value: Value, name: str) -> None:
    op, [x] = value.op, value.inputs
    assert isinstance(op, Slice)
    order = _plain(draft, [x])
    if (op.start, op.stop) == (0, x.shape[op.axis]):
        draft.put(value, draft.at(x, order), order)
        return
    draft.put(value, cut(draft, draft.at(x, order), order.along(op.axis), op.start, op.stop, name), order)


def cut(draft: Draft, tensor: str, axis: int, start: int, stop: int, name: str | None = None) -> str:
    """Positions start..stop-1 along an axis of a tensor."""
    return draft.node("Slice", [tensor, *map(draft.integers, (start, stop, axis))], name)


@_writes(Transpose)
def _transpose(draft: Draft, value: Value, name: str) -> None:
    """Nothing is moved: the tensor's dimensions are others of the value."""
    assert isinstance(value.op, Transpose)
    [x] = value.inputs
    made = draft.order(x)
    order = made if isinstance(made, Dims) else last(len(x.shape))
    draft.put(value, draft.at(x, order), Dims(tuple(value.op.axes.index(d) for d in order.order)))


@_writes(Place)
def _place(draft: Draft, value: Value, name: str) -> None:
    op, [x] = value.op, value.inputs
    assert isinstance(op, Place)
    order, rank = _plain(draft, [x]), len(x.shape)
    pads = [0] * (2 * rank)
    pads[order.along(op.axis)] = op.start
    pads[rank + order.along(op.axis)] = op.size - op.start - x.shape[op.axis]
    draft.put(value, draft.node("Pad", [draft.at(x, order), draft.integers(*pads)], name), order)


@_writes(Concat)
def _concat(draft: Draft, value: Value, name: str) -> None:
    assert isinstance(value.op, Concat)
    rank = len(value.shape)
    order = _plain(draft, value.inputs)
    tensors = [draft.at(v, order) for v in value.inputs]
    draft.put(value, draft.node("Concat", tensors, name, axis=order.along(value.op.axis % rank)), order)


def _plain(draft: Draft, inputs: Sequence[Value]) -> Dims:
    """The common order of values of one rank, with every dimension by itself."""
    order = common(draft, inputs, len(inputs[0].shape))
    return last(len(inputs[0].shape)) if isinstance(order, Scan) else order


# reductions


@_writes(Reduce)
def _reduce(draft: Draft, value: Value, name: str) -> None:
    op, [x] = value.op, value.inputs
    assert isinstance(op, Reduce)
    order = _plain(draft, [x])
    operator = {"sum": "ReduceSum", "max": "ReduceMax"}[op.kind]
    if not op.axes:
        draft.put(value, draft.at(x, order), order)
        return
    axes = draft.integers(*sorted(order.along(a) for a in op.axes))
    left = [d for d in order.order if d not in op.axes]
    draft.put(
        value,
        draft.node(operator, [draft.at(x, order), axes], name, keepdims=0),
        Dims(tuple(sorted(left).index(d) for d in left)),
    )


def _softmax(operator: str) -> Write:
    def write(draft: Draft, value: Value, name: str) -> None:
        order = _plain(draft, value.inputs)
        axis = order.along(len(value.shape) - 1)
        draft.put(value, draft.node(operator, [draft.at(value.inputs[0], order)], name, axis=axis), order)

    return write


WRITERS[Softmax.name] = _softmax("Softmax")
WRITERS[LogSoftmax.name] = _softmax("LogSoftmax")


@_writes(Moments)
def _moments(draft: Draft, value: Value, name: str) -> None:
    op, [x] = value.op, value.inputs
    assert isinstance(op, Moments)
    order = _plain(draft, [x])
    axes = draft.integers(*sorted(order.along(a) for a in op.axes))
    tensor = draft.at(x, order)
    mean = draft.node("ReduceMean", [tensor, axes], keepdims=1)
    centred = draft.node("Sub", [tensor, mean])
    variance = draft.node("ReduceMean", [draft.node("Mul", [centred, centred]), axes], keepdims=1)
    rows = [
        draft.node("Unsqueeze", [draft.node("Squeeze", [part, axes]), draft.integers(0)]) for part in (mean, variance)
    ]
    left = [d for d in order.order if d not in op.axes]
    kept = Dims((0, *(1 + sorted(left).index(d) for d in left)))
    draft.put(value, draft.node("Concat", rows, name, axis=0), kept)


@_writes(Normalize)
def _normalize(draft: Draft, value: Value, name: str) -> None:
    assert isinstance(value.op, Normalize)
    expanded = value.op.expand(value)
    path, draft.path = draft.path, name
    write(draft, expanded)
    draft.path = path
    order = draft.order(expanded)
    draft.put(value, draft.at(expanded, order), order)


# windows


def padded(draft: Draft, tensor: str, pads: Pads, name: str | None = None, fill: float = 0.0, mode: str = "") -> str:
    """A channels-first tensor with positions around."""
    listed = draft.integers(*pads_of(((0, 0), (0, 0), *pads)))
    if mode:
        return draft.node("Pad", [tensor, listed], name, mode=mode)
    return draft.node("Pad", [tensor, listed, draft.number(fill)], name)


def fits(window: Window) -> bool:
    """Whether runtimes take a pool's pads: these must be smaller than the kernel, whatever its dilation."""
    return all(max(pair) < k for pair, k in zip(window.pads, window.kernel, strict=True))


def outside(draft: Draft, tensor: str, window: Window, fill: float) -> tuple[str, Pads]:
    """A pool's input, and its pads: those that runtimes refuse are written as a Pad."""
    if fits(window):
        return tensor, window.pads
    return padded(draft, tensor, window.pads, fill=fill), ((0, 0),) * window.rank


@_writes(Pool)
def _pool(draft: Draft, value: Value, name: str) -> None:
    op, [x] = value.op, value.inputs
    assert isinstance(op, Pool)
    order, window = first(len(x.shape)), op.window
    tensor = draft.at(x, order)
    if op.kind == "max":
        tensor, pads = outside(draft, tensor, window, -math.inf)
        attributes = {"kernel_shape": window.kernel, "strides": window.stride, "dilations": window.dilation}
        tensor = draft.node("MaxPool", [tensor], name, **attributes, pads=pads_of(pads))
    elif max(window.dilation) > 1 and (draft.opset < 19 or not fits(window)):
        tensor = _sums(draft, tensor, x.shape[-1], window)
        tensor = draft.node("Div", [tensor, _numbers(draft, op.divisor(x.shape[1:-1]))], name)
    else:
        tensor = _means(draft, tensor, op, name if op.kind == "avg" else None)
        if op.kind == "sum":
            tensor = draft.node("Mul", [tensor, _numbers(draft, Pool("avg", window).divisor(x.shape[1:-1]))], name)
    draft.put(value, tensor, order)


def _means(draft: Draft, tensor: str, op: Pool, name: str | None) -> str:
    """Means of windows. Padding that counts is all of it, or is written as a Pad."""
    window = op.window
    pads, counts = window.pads, any(map(any, op.counted))
    if counts and op.counted != pads:
        tensor = padded(draft, tensor, op.counted)
        pads = tuple((lo - a, hi - b) for (lo, hi), (a, b) in zip(pads, op.counted, strict=True))
        counts = False
    attributes = {"kernel_shape": window.kernel, "strides": window.stride, "pads": pads_of(pads)}
    attributes |= {"dilations": window.dilation} if max(window.dilation) > 1 else {}
    return draft.node("AveragePool", [tensor], name, **attributes, count_include_pad=int(counts))


def _sums(draft: Draft, tensor: str, channels: int, window: Window) -> str:
    """Sums over windows of any dilation, as a convolution of each channel with ones."""
    ones = draft.initialiser(np.ones((channels, 1, *window.kernel), np.float32), draft.inner("ones"))
    return draft.node(
        "Conv",
        [tensor, ones],
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        group=channels,
        pads=pads_of(window.pads),
    )


def _numbers(draft: Draft, array: np.ndarray) -> str:
    """Numbers, one a position."""
    if (array == array.flat[0]).all():
        return draft.number(float(array.flat[0]))
    return draft.initialiser(array.astype(np.float32), draft.inner("numbers"))


# padding and resizing


@_writes(Resample)
def _resample(draft: Draft, value: Value, name: str) -> None:
    op, [x] = value.op, value.inputs
    assert isinstance(op, Resample)
    tensor = draft.at(x, first(len(x.shape)))
    rest = {i: m for i, m in enumerate(op.maps) if m.size != m.output or m.lo}
    before = len(draft.nodes)
    if op.transposed:
        for axis, map_ in [(a, m) for a, m in rest.items() if m.kind == "constant"]:
            tensor = cut(draft, tensor, axis + 2, map_.lo, map_.lo + map_.size)
            del rest[axis]
    else:
        for group in (_resized, _pooled, _padded):
            tensor = group(draft, tensor, rest, len(op.maps))
    for axis, map_ in [(a, m) for a, m in rest.items() if m.kind != "constant"]:
        tensor = _mapped(draft, tensor, map_, op.transposed, axis + 2, len(x.shape))
        del rest[axis]
    if rest:
        pads = tuple(rest[i].pads if i in rest else (0, 0) for i in range(len(op.maps)))
        tensor = padded(draft, tensor, pads, fill=op.fill)
    if len(draft.nodes) > before:
        tensor = draft.rename(name)
    draft.put(value, tensor, first(len(x.shape)))


def _resized(draft: Draft, tensor: str, rest: dict[int, Map], rank: int) -> str:
    """Nearest positions where each is repeated as often, and straight lines between positions."""
    for kind, attributes in (
        ("nearest", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        ("linear", {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}),
    ):
        chosen = {a: m for a, m in rest.items() if m.kind == kind and (m.output % m.size == 0 or kind == "linear")}
        if not chosen:
            continue
        scales = np.ones(rank + 2, np.float32)
        for axis, map_ in chosen.items():
            scales[axis + 2] = map_.output / map_.size
            del rest[axis]
        if all(m.output % m.size == 0 for m in chosen.values()):
            inputs = [tensor, "", draft.initialiser(scales, draft.inner("scales"))]
            tensor = draft.node("Resize", inputs, **attributes)
        else:
            sizes = draft.integers(*(m.output for m in chosen.values()))
            axes = [a + 2 for a in chosen]
            tensor = draft.node("Resize", [tensor, "", "", sizes], **attributes, axes=axes)
    return tensor


def _pooled(draft: Draft, tensor: str, rest: dict[int, Map], rank: int) -> str:
    """Means of as many positions each."""
    chosen = {a: m for a, m in rest.items() if m.kind == "area" and m.size % m.output == 0}
    if not chosen:
        return tensor
    kernel = [chosen[i].size // chosen[i].output if i in chosen else 1 for i in range(rank)]
    for axis in chosen:
        del rest[axis]
    return draft.node("AveragePool", [tensor], kernel_shape=kernel, strides=kernel)


def _padded(draft: Draft, tensor: str, rest: dict[int, Map], rank: int) -> str:
    """Positions around that repeat others."""
    for kind in ("reflect", "edge", *(["wrap"] if draft.opset >= 19 else [])):
        chosen = {a: m for a, m in rest.items() if m.kind == kind}
        if chosen:
            pads = tuple(chosen[i].pads if i in chosen else (0, 0) for i in range(rank))
            tensor = padded(draft, tensor, pads, mode=kind)
            for axis in chosen:
                del rest[axis]
    return tensor


def _mapped(draft: Draft, tensor: str, map_: Map, turned: bool, axis: int, rank: int) -> str:
    """Any other map along an axis: positions by their numbers, or a product with its matrix."""
    rows, columns, weights = map_.entries(turned)
    size, output = (map_.output, map_.size) if turned else (map_.size, map_.output)
    if len(rows) == output == len(set(rows.tolist())) and (weights == 1).all():
        return draft.node("Gather", [tensor, draft.integers(*columns.tolist())], axis=axis)
    matrix = np.zeros((size, output), np.float32)
    np.add.at(matrix, (columns, rows), weights.astype(np.float32))
    factor = draft.initialiser(matrix, draft.inner(map_.kind))
    if axis == rank - 1:
        return draft.node("MatMul", [tensor, factor])
    perm = [i for i in range(rank) if i != axis] + [axis]
    tensor = draft.node("MatMul", [draft.node("Transpose", [tensor], perm=perm), factor])
    return draft.node("Transpose", [tensor], perm=[perm.index(i) for i in range(rank)])


assert set(WRITERS) <= set(OPS)
