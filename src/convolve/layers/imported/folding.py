"""What follows from constants and shapes alone is computed in NumPy while the net is built: one function an operator.

The definitions are those of the ONNX operators; integers stay integers. Results are bounded, so that a hostile file
cannot fill the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Shape
from convolve.layers.imported.graph import DTYPES, Node

Array = np.ndarray
Fold = Callable[..., Any]
MOST_ELEMENTS = 1 << 28
"""Elements of a folded array that repeats a number, at most."""
MOST_COMPUTED = 1 << 26
"""Elements of one that is computed, at most, unless it is made of a constant of the file."""
MOST_DIMENSIONS = 32
VIEWS = (
    *("ConstantOfShape", "Expand", "Shape", "Size", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
    *("Transpose", "Slice", "Split"),
)
"""Operators that compute nothing: their results share the memory of their inputs."""

FOLDS: dict[str, Fold] = {}
"""Operators by name: from the node and its inputs, None for one that is not given, to the outputs."""


def fold(node: Node, operands: Sequence[Any]) -> list[Array]:
    """The outputs of a node whose inputs are all known."""
    if node.op not in VIEWS and any(x is not None and x.size > MOST_COMPUTED and 0 in x.strides for x in operands):
        raise ShapeError(f"computes with more than {MOST_COMPUTED:,} times the same number")
    try:
        with np.errstate(all="ignore"):
            made = FOLDS[node.op](node, *operands)
    except (TypeError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        # Inputs that are missing, too many, or whose sizes do not fit each other.
        if isinstance(error, ShapeError):
            raise
        raise ShapeError(f"does not suit its inputs ({error})") from None
    return [np.asarray(made)] if isinstance(made, (Array, np.generic)) else [np.asarray(a) for a in made]


def bounded(shape: Iterable[int], most: int = MOST_COMPUTED) -> Shape:
    """A shape that is not too large to be computed."""
    sizes = tuple(int(n) for n in shape)
    if any(n < 0 for n in sizes) or len(sizes) > MOST_DIMENSIONS or math.prod(sizes) > most:
        raise ShapeError(
            f"makes a value of shape {sizes[:8]}; at most {most:,} elements in {MOST_DIMENSIONS} dimensions are made"
        )
    return sizes


def folds(*names: str) -> Callable[[Fold], Fold]:
    def enter(function: Fold) -> Fold:
        FOLDS.update(dict.fromkeys(names, function))
        return function

    return enter


def _pointwise(function: Callable[..., Any]) -> Fold:
    def call(node: Node, *inputs: Array) -> Array:
        shape = np.broadcast_shapes(*(a.shape for a in inputs))
        bounded(shape, max(MOST_COMPUTED, *(a.size for a in inputs)))
        return np.asarray(function(*inputs))

    return call


def _divide(a: Array, b: Array) -> Array:
    """Integers are cut towards zero, as in C."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not np.all(b):
        raise ShapeError("an integer is divided by zero")
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient)).astype(a.dtype)


def _power(a: Array, b: Array) -> Array:
    return np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype)


def _sum(*arrays: Array) -> Array:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": _power,
    "Sum": _sum,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sign": np.sign,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Reciprocal": np.reciprocal,
    "Relu": lambda a: np.maximum(a, 0),
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Where": np.where,
    "Identity": lambda a: a,
}
FOLDS |= {_name: _pointwise(_function) for _name, _function in _FUNCTIONS.items()}


@folds("Max", "Min")
def _extreme(node: Node, *inputs: Array) -> Array:
    best = inputs[0]
    for array in inputs[1:]:
        best = np.maximum(best, array) if node.op == "Max" else np.minimum(best, array)
    return best


@folds("Mod")
def _mod(node: Node, a: Array, b: Array) -> Array:
    if a.dtype.kind != "f" and not np.all(b):
        raise ShapeError("an integer is divided by zero")
    return np.asarray(np.fmod(a, b) if node.integer("fmod", 0) else np.mod(a, b))


@folds("Clip")
def _clip(node: Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    low = np.asarray(node.number("min", -np.inf)) if low is None else low
    high = np.asarray(node.number("max", np.inf)) if high is None else high
    return np.asarray(np.minimum(np.maximum(x, low), high), x.dtype)


@folds("Cast", "CastLike")
def _cast(node: Node, x: Array, like: Array | None = None) -> Array:
    to = node.word("to", "float32") if like is None else str(like.dtype)
    if to not in DTYPES:
        raise ShapeError(f"casts to {to}; known are {', '.join(DTYPES)}")
    return x.astype(to, copy=False)


@folds("Shape")
def _shape(node: Node, x: Array) -> Array:
    return shape_of(node, x.shape)


def shape_of(node: Node, shape: Shape) -> Array:
    """The sizes, or those from `start` to `end`."""
    end = node.get("end")
    return np.array(shape[node.integer("start", 0) : None if end is None else node.integer("end", 0)], np.int64)


@folds("Size")
def _size(node: Node, x: Array) -> Array:
    return np.array(x.size, np.int64)


@folds("ConstantOfShape")
def _constant_of_shape(node: Node, shape: Array) -> Array:
    dtype = node.word("dtype", "float32")
    value = np.array(node.number("value", 0.0) if dtype == "float32" else node.integer("value", 0), dtype)
    return np.broadcast_to(value, bounded(shape, MOST_ELEMENTS))


@folds("Range")
def _range(node: Node, start: Array, limit: Array, delta: Array) -> Array:
    first, end, step = start.item(), limit.item(), delta.item()
    if step == 0:
        raise ShapeError("a range goes in steps of zero")
    [count] = bounded([max(0, math.ceil((end - first) / step))])
    return np.asarray(first + np.arange(count) * step).astype(start.dtype)


def axes_of(node: Node, rank: int, given: Array | None) -> tuple[int, ...] | None:
    """Axes from an input (newer opsets) or an attribute (older ones), counted from 0; None where there are none."""
    axes = tuple(int(a) for a in given.ravel()) if given is not None else node.integers("axes")
    if axes is None:
        return None
    if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
        raise ShapeError(f"axes must differ and lie between {-rank} and {rank - 1}. Received: {axes}")
    return tuple(a % rank for a in axes)


def axis_of(node: Node, rank: int, default: int) -> int:
    axis = node.integer("axis", default)
    if not -rank <= axis < max(rank, 1):
        raise ShapeError(f"axis must lie between {-rank} and {rank - 1}. Received: axis={axis}")
    return axis % max(rank, 1)


def unsqueezed(shape: Shape, node: Node, axes: Array | None) -> Shape:
    given = (tuple(int(a) for a in axes.ravel()) if axes is not None else node.integers("axes")) or ()
    rank = len(shape) + len(given)
    if rank > MOST_DIMENSIONS:
        raise ShapeError(f"makes {rank} dimensions; at most {MOST_DIMENSIONS} are known")
    places = axes_of(node, rank, np.array(given, np.int64)) or ()
    left = iter(shape)
    return tuple(1 if i in places else next(left) for i in range(rank))


def squeezed(shape: Shape, node: Node, axes: Array | None) -> Shape:
    places = axes_of(node, len(shape), axes)
    if places is None:
        return tuple(n for n in shape if n != 1)
    if any(shape[a] != 1 for a in places):
        raise ShapeError(f"squeezes axes {places} of shape {shape}: only those of size 1 can go")
    return tuple(n for i, n in enumerate(shape) if i not in places)


def flattened(shape: Shape, node: Node) -> Shape:
    axis = node.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise ShapeError(f"axis must lie between {-len(shape)} and {len(shape)}. Received: axis={axis}")
    axis = axis + len(shape) if axis < 0 else axis
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def reshaped(shape: Shape, target: Sequence[int], keep_zeros: bool) -> Shape:
    """The target of a Reshape: 0 keeps a dimension, -1 is what is left."""
    made = [shape[i] if n == 0 and not keep_zeros and i < len(shape) else n for i, n in enumerate(target)]
    if len(made) > MOST_DIMENSIONS:
        raise ShapeError(f"reshapes to {len(made)} dimensions; at most {MOST_DIMENSIONS} are known")
    total, rest = math.prod(shape), math.prod(n for n in made if n != -1)
    if made.count(-1) == 1 and rest > 0 and total % rest == 0:
        made[made.index(-1)] = total // rest
    if any(n < 0 for n in made) or math.prod(made) != total:
        raise ShapeError(f"cannot reshape {shape} to {tuple(target)}: the number of elements differs")
    return tuple(made)


@folds("Reshape")
def _reshape(node: Node, x: Array, target: Array | None = None) -> Array:
    wanted = node.integers("shape") or () if target is None else tuple(int(n) for n in target)
    return x.reshape(reshaped(x.shape, wanted, bool(node.integer("allowzero", 0))))


@folds("Flatten")
def _flatten(node: Node, x: Array) -> Array:
    return x.reshape(flattened(x.shape, node))


@folds("Squeeze")
def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return x.reshape(squeezed(x.shape, node, axes))


@folds("Unsqueeze")
def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return x.reshape(unsqueezed(x.shape, node, axes))


@folds("Transpose")
def _transpose(node: Node, x: Array) -> Array:
    return x.transpose(order_of(node, x.ndim))


def order_of(node: Node, rank: int) -> tuple[int, ...]:
    order = node.integers("perm") or tuple(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        raise ShapeError(f"perm must hold each of {rank} axes once. Received: perm={order}")
    return order


@folds("Expand")
def _expand(node: Node, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, bounded(np.broadcast_shapes(x.shape, tuple(int(n) for n in shape)), MOST_ELEMENTS))


@folds("Tile")
def _tile(node: Node, x: Array, repeats: Array) -> Array:
    bounded(n * int(m) for n, m in zip(x.shape, repeats, strict=True))
    return np.tile(x, tuple(int(n) for n in repeats))


@folds("Concat")
def _concat(node: Node, *inputs: Array) -> Array:
    return np.concatenate(inputs, axis_of(node, inputs[0].ndim, 0))


@folds("Gather")
def _gather(node: Node, x: Array, indices: Array) -> Array:
    axis = axis_of(node, x.ndim, 0)
    bounded([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])
    return np.take(x, positions(indices, x.shape[axis]), axis)


def positions(indices: Array, size: int) -> Array:
    """Indices counted from 0; negative ones count from the end."""
    if indices.size and (indices.min() < -size or indices.max() >= size):
        raise ShapeError(f"indices must lie between {-size} and {size - 1}. Received: {indices.min()}..{indices.max()}")
    return np.where(indices < 0, indices + size, indices).astype(np.int64)


@folds("Slice")
def _slice(node: Node, x: Array, *bounds: Array | None) -> Array:
    for axis, cut in slices(node, x.shape, bounds).items():
        x = x[(slice(None),) * axis + (cut,)]
    return x


def slices(node: Node, shape: Shape, bounds: Sequence[Array | None]) -> dict[int, slice]:
    """What a Slice takes of each axis it names."""
    given = [None if b is None else tuple(int(n) for n in b.ravel()) for b in bounds]
    given += [None] * (4 - len(given))
    starts, ends = given[0] or node.integers("starts") or (), given[1] or node.integers("ends") or ()
    axes = given[2] or node.integers("axes") or tuple(range(len(starts)))
    steps = given[3] or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ShapeError(f"starts, ends, axes and steps do not fit: {starts}, {ends}, {axes}, {steps}")
    places = axes_of(node, len(shape), np.array(axes, np.int64)) or ()
    made = {}
    for axis, start, end, step in zip(places, starts, ends, steps, strict=True):
        found = range(shape[axis])[start:end:step]
        stop: int | None = found.stop
        made[axis] = slice(found.start, None if found.stop < 0 else stop, step)
    return made


@folds("Split")
def _split(node: Node, x: Array, split: Array | None = None) -> list[Array]:
    axis = axis_of(node, x.ndim, 0)
    return np.split(x, np.cumsum(shares(node, x.shape[axis], split))[:-1], axis)


def shares(node: Node, size: int, split: Array | None) -> tuple[int, ...]:
    """Sizes of the parts of a Split: as given, or even ones of which the last may be smaller."""
    given = tuple(int(n) for n in split.ravel()) if split is not None else node.integers("split")
    if given is None:
        count = node.integer("num_outputs", len(node.outputs))
        each = -(-size // max(1, count))
        given = (each,) * (count - 1) + (size - each * (count - 1),)
    if any(n < 0 for n in given) or sum(given) != size or len(given) < len(node.outputs):
        raise ShapeError(f"parts of {given} do not make up {size} positions")
    return given


REDUCTIONS: dict[str, Callable[..., Array]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
}


@folds(*REDUCTIONS)
def _reduce(node: Node, x: Array, axes: Array | None = None) -> Array:
    found = reduced_axes(node, x.ndim, axes)
    return np.asarray(REDUCTIONS[node.op](x, axis=found, keepdims=bool(node.integer("keepdims", 1)))).astype(x.dtype)


def reduced_axes(node: Node, rank: int, axes: Array | None) -> tuple[int, ...]:
    """The axes to reduce: all where none are given, unless the node says that then nothing is done."""
    found = axes_of(node, rank, axes)
    if found:
        return found
    return () if node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
