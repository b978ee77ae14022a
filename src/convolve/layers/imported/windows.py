"""Convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from convolve import ops
from convolve.deferred import Deferred
from convolve.errors import ShapeError
from convolve.graph import Value, apply
from convolve.layers.imported.graph import Node
from convolve.layers.imported.site import Operand, Result, Site, handles, spelled
from convolve.layers.imported.tensor import Tensor
from convolve.ops.convolution import convolve, transposed
from convolve.ops.pool import Pool
from convolve.window import Window

if TYPE_CHECKING:
    from convolve.layers.pooling import power
else:
    power = Deferred("convolve.layers.pooling:power")

MOST_PHASES = 1 << 10
"""Steps between the outputs of one position, over all dimensions, at most."""


def last(rank: int) -> tuple[int, ...]:
    """The file's dimensions (batch, channels, *spatial) in the order batch, *spatial, channels."""
    return (0, *range(2, rank), 1)


def channels_last(t: Tensor) -> Value:
    """A map as kernels want it."""
    if t.rank < 3:
        raise ShapeError(f"needs (batch, channels, *spatial). Received: shape {t.shape}")
    return t.arranged([(d,) for d in last(t.rank)])


def maps_last(t: Tensor) -> Tensor:
    """The same map, its channels last: its numbers are then those of convolve's own layers to the last bit."""
    return Tensor.laid(channels_last(t), last(t.rank), t.dtype)


@handles("Conv")
def _conv(s: Site, x: Operand, w: Operand, b: Operand | None = None) -> Result:
    t = s.tensor(x)
    value, shape = channels_last(t), w.shape
    kernel = s.node.integers("kernel_shape")
    if len(shape) != t.rank or kernel not in (None, shape[2:]):
        raise ShapeError(f"weights of shape {shape}, kernel_shape {kernel} and an input of shape {t.shape}")
    weight = s.array(w, "weight", [(d,) for d in last(t.rank)])
    y = convolve(value, weight, s.window(shape[2:], t.shape[2:]), s.node.integer("group", 1))
    if b is not None:
        y = y + s.array(b, "bias", [(0,)], decay=False)
    return Tensor.laid(y, last(t.rank))


@handles("ConvTranspose")
def _conv_transpose(s: Site, x: Operand, w: Operand, b: Operand | None = None) -> Result:
    t = s.tensor(x)
    value, shape, rank, group = channels_last(t), w.shape, t.rank - 2, s.node.integer("group", 1)
    if len(shape) != t.rank:
        raise ShapeError(f"weights of shape {shape} and an input of shape {t.shape}")
    strides = s.node.integers("strides") or (1,) * rank
    dilations = s.node.integers("dilations") or (1,) * rank
    extra = s.node.integers("output_padding") or (0,) * rank
    if math.prod(strides) > MOST_PHASES:
        raise ShapeError(
            f"strides {strides}: each combination of steps is a product of its own, at most {MOST_PHASES:,}"
        )
    dims = zip(t.shape[2:], strides, dilations, shape[2:], extra, strict=True)
    whole = [(n - 1) * k + d * (m - 1) + 1 + e for n, k, d, m, e in dims]
    rule, output, cut = s.node.word("auto_pad", "NOTSET"), s.node.integers("output_shape"), s.node.integers("pads")
    if output is None and rule in ("SAME_UPPER", "SAME_LOWER"):
        output = tuple(n * k for n, k in zip(t.shape[2:], strides, strict=True))
    if output is not None:
        output = output[-rank:]
        total = [n - m for n, m in zip(whole, output, strict=True)]
        halves = [(n // 2, n - n // 2) for n in total]
        pads = [pair if rule == "SAME_UPPER" else pair[::-1] for pair in halves]
        source = "output_shape" if rule == "NOTSET" else f"auto_pad {rule}"
    else:
        pads = list(zip(cut[:rank], cut[rank:], strict=True)) if cut and rule == "NOTSET" else [(0, 0)] * rank
        source = "pads"
    s.audit.append(f"{source}: {spelled(tuple(pads))}")
    # What is cut off is the window's padding; what is to be added comes behind as zeros.
    inner = tuple((max(0, lo), max(0, hi)) for lo, hi in pads)
    size = tuple(n - lo - hi for n, (lo, hi) in zip(whole, inner, strict=True))
    window = Window(tuple(shape[2:]), tuple(strides), tuple(dilations), inner)
    weight = s.array(w, "weight", [(d,) for d in (0, *range(2, t.rank), 1)])
    y = transposed(value, weight, window, size, group)
    outer = tuple((max(0, -lo), max(0, -hi)) for lo, hi in pads)
    if any(n for pair in outer for n in pair):
        y = ops.pad(y, outer)
    if b is not None:
        y = y + s.array(b, "bias", [(0,)], decay=False)
    return Tensor.laid(y, last(t.rank))


def _flat_indices(node: Node) -> Iterable[str]:
    if len(node.outputs) > 1 and node.outputs[1]:
        yield "the second output (indices)"


@handles("MaxPool", "AveragePool", "LpPool", refuses=_flat_indices)
def _pool(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    value, size = channels_last(t), t.shape[2:]
    kernel = s.node.integers("kernel_shape") or ()
    if len(kernel) != len(size):
        raise ShapeError(f"kernel_shape {kernel} over an input of shape {t.shape}")
    asked = s.window(kernel, size)
    window = asked
    if s.node.integer("ceil_mode", 0):
        window = asked.ceiled(size)
        s.audit.append(f"ceil_mode: {spelled(window.pads)}")
    if s.node.op == "MaxPool":
        y = apply(Pool("max", window), value)
    elif s.node.op == "AveragePool":
        counted = asked.pads if s.node.integer("count_include_pad", 0) else ()
        s.audit.append("mean of positions and padding" if counted else "mean of positions")
        y = apply(Pool("avg", window, counted), value)
    else:
        p = s.node.integer("p", 2)
        y = power(apply(Pool("sum", window), power(ops.absolute(value), p)), 1 / p)
    return Tensor.laid(y, last(t.rank), t.dtype)


@handles("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global(s: Site, x: Operand) -> Result:
    t = maps_last(s.tensor(x))
    axes = tuple(a for d in range(2, t.rank) for a in t.dims[d])
    if s.node.op == "GlobalAveragePool":
        y = ops.mean(t.value, axes)
    elif s.node.op == "GlobalMaxPool":
        y = ops.max(t.value, axes)
    else:
        p = s.node.integer("p", 2)
        y = power(ops.sum(power(ops.absolute(t.value), p), axes), 1 / p)
    return reduced(t, axes, y, range(2, t.rank), True)


def reduced(t: Tensor, axes: Iterable[int], y: Value, dims: Iterable[int], kept: bool) -> Tensor:
    """The result of a reduction over the axes of some dimensions, which stay with size 1 or disappear."""
    gone = set(axes)
    place = {a: i for i, a in enumerate(a for a in range(len(t.value.shape)) if a not in gone)}
    left = [tuple(place[a] for a in of if a not in gone) for of in t.dims]
    over = set(dims)
    return Tensor(y, tuple(of for d, of in enumerate(left) if kept or d not in over), t.dtype)
