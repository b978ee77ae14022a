"""Pointwise functions with NumPy's broadcasting: one row of `TABLE` each.

What a function is in native code stands under the same name in `convolve.native.kernels.functions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, constant, register
from convolve.lowering import Group, Lowering, constants_or_buffers

Gradient = Callable[..., Sequence[Value | None]]
Function = Callable[..., Value]


@dataclass(frozen=True)
class Row:
    """A pointwise function: its definition, and the gradients of its inputs from (y, dy, *inputs)."""

    arity: int
    reference: Callable[..., np.ndarray]
    gradient: Gradient


def _none(y: Value, dy: Value, *inputs: Value) -> Sequence[None]:
    return (None,) * len(inputs)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x).astype(np.asarray(x).dtype))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))


def _truth(compare: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda a, b: compare(a, b).astype(np.result_type(a, b, np.float32))


def _select(y: Value, dy: Value, a: Value, b: Value, chosen: Callable[[Value, Value], Value]) -> Sequence[Value]:
    mask = chosen(a, b)
    return where(mask, dy, 0.0), where(mask, 0.0, dy)


TABLE: dict[str, Row] = {
    "add": Row(2, np.add, lambda y, dy, a, b: (dy, dy)),
    "subtract": Row(2, np.subtract, lambda y, dy, a, b: (dy, -dy)),
    "multiply": Row(2, np.multiply, lambda y, dy, a, b: (dy * b, dy * a)),
    "divide": Row(2, np.divide, lambda y, dy, a, b: (dy / b, -(dy * y) / b)),
    "maximum": Row(2, np.maximum, lambda y, dy, a, b: _select(y, dy, a, b, greater_equal)),
    "minimum": Row(2, np.minimum, lambda y, dy, a, b: _select(y, dy, a, b, less_equal)),
    "clip": Row(
        3,
        lambda a, low, high: np.minimum(np.maximum(a, low), high),
        lambda y, dy, a, low, high: (
            where(greater(y, low), where(less(y, high), dy, 0.0), 0.0),
            where(less(y, high), where(greater(y, low), 0.0, dy), 0.0),
            where(less(y, high), 0.0, dy),
        ),
    ),
    "negative": Row(1, np.negative, lambda y, dy, a: (-dy,)),
    "absolute": Row(1, np.abs, lambda y, dy, a: (dy * sign(a),)),
    "sign": Row(1, np.sign, _none),
    "floor": Row(1, np.floor, _none),
    "ceil": Row(1, np.ceil, _none),
    "round": Row(1, np.round, _none),
    "sqrt": Row(1, np.sqrt, lambda y, dy, a: (dy * 0.5 / y,)),
    "square": Row(1, np.square, lambda y, dy, a: (dy * (a * 2.0),)),
    "relu": Row(
        1,
        lambda a: np.asarray(np.where(a <= 0, np.zeros_like(a), a)),
        lambda y, dy, a: (where(greater(y, 0.0), dy, 0.0),),
    ),
    "greater": Row(2, _truth(np.greater), _none),
    "greater_equal": Row(2, _truth(np.greater_equal), _none),
    "less": Row(2, _truth(np.less), _none),
    "less_equal": Row(2, _truth(np.less_equal), _none),
    "equal": Row(2, _truth(np.equal), _none),
    "where": Row(
        3,
        lambda c, a, b: np.asarray(np.where(c != 0, a, b)),
        lambda y, dy, c, a, b: (None, where(c, dy, 0.0), where(c, 0.0, dy)),
    ),
    "cast": Row(1, lambda a: a.astype(np.float32) if a.dtype.kind in "ui" else a, lambda y, dy, a: (dy,)),
    "exp": Row(1, np.exp, lambda y, dy, a: (dy * y,)),
    "expm1": Row(1, np.expm1, lambda y, dy, a: (dy * (y + 1.0),)),
    "log": Row(1, np.log, lambda y, dy, a: (dy / a,)),
    "tanh": Row(1, np.tanh, lambda y, dy, a: (dy * (1.0 - square(y)),)),
    "erf": Row(1, _erf, lambda y, dy, a: (dy * (exp(-square(a)) * (2 / math.sqrt(math.pi))),)),
    "sigmoid": Row(1, _sigmoid, lambda y, dy, a: (dy * (y * (1.0 - y)),)),
    "softplus": Row(1, lambda a: np.logaddexp(np.zeros_like(a), a), lambda y, dy, a: (dy * sigmoid(a),)),
}


@register
@dataclass(frozen=True)
class Pointwise(Op):
    """A function of `TABLE`, applied to each element."""

    name: ClassVar[str] = "pointwise"
    function: str

    def shape(self, *inputs: Shape) -> Shape:
        if self.function not in TABLE:
            raise ShapeError(f"unknown pointwise function {self.function!r}; known are {', '.join(sorted(TABLE))}")
        row = TABLE[self.function]
        if len(inputs) != row.arity:
            raise ShapeError(f"{self.function} takes {row.arity} values. Received: {len(inputs)}")
        try:
            return np.broadcast_shapes(*inputs)
        except ValueError:
            raise ShapeError(
                f"{self.function} cannot combine shapes {' and '.join(map(str, inputs))}: "
                "dimensions must be equal or 1, counted from the last"
            ) from None

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return np.asarray(TABLE[self.function].reference(*inputs))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        received = TABLE[self.function].gradient(y, dy, *y.inputs)
        return tuple(None if g is None else sum_to(g, v.shape) for g, v in zip(received, y.inputs, strict=True))


@register
@dataclass(frozen=True)
class Broadcast(Op):
    """Repeat a value to a larger shape, as NumPy's `broadcast_to`."""

    name: ClassVar[str] = "broadcast"
    arity: ClassVar[int | None] = 1
    target: Shape

    def shape(self, *inputs: Shape) -> Shape:
        if np.broadcast_shapes(inputs[0], tuple(self.target)) != tuple(self.target):
            raise ShapeError(f"cannot broadcast shape {inputs[0]} to {tuple(self.target)}")
        return tuple(self.target)

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return np.array(np.broadcast_to(inputs[0], self.target))

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        low.pointwise((), constants_or_buffers(low, y.inputs), [low.result(y)], (0,), "broadcast")

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (sum_to(dy, y.inputs[0].shape),)


def sum_to(value: Value, shape: Shape) -> Value:
    """Undo broadcasting: sum `value` over the dimensions in which `shape` was repeated."""
    from convolve.ops.reduce import reshape_to, sum

    if value.shape == shape:
        return value
    if len(value.shape) < len(shape) or any(a == 1 != b for a, b in zip(value.shape[::-1], shape[::-1], strict=False)):
        return sum_to(broadcast(value, np.broadcast_shapes(value.shape, shape)), shape)
    lead = len(value.shape) - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and value.shape[lead + i] != 1)
    return reshape_to(sum(value, axes), shape)


def broadcast(value: Value, shape: Shape) -> Value:
    return value if value.shape == shape else apply(Broadcast(shape), value)


def _function(name: str) -> Function:
    def call(*inputs: Value | float) -> Value:
        return apply(Pointwise(name), *(constant(v) for v in inputs))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`{name}` of each element; shapes broadcast as in NumPy."
    return call


maximum: Function = _function("maximum")
minimum: Function = _function("minimum")
absolute: Function = _function("absolute")
clip: Function = _function("clip")
"""min(max(x, low), high) of each element. The gradient needs the result alone: where it is a bound, that takes it."""
sign: Function = _function("sign")
floor: Function = _function("floor")
ceil: Function = _function("ceil")
round: Function = _function("round")
sqrt: Function = _function("sqrt")
square: Function = _function("square")
relu: Function = _function("relu")
greater: Function = _function("greater")
greater_equal: Function = _function("greater_equal")
less: Function = _function("less")
less_equal: Function = _function("less_equal")
equal: Function = _function("equal")
where: Function = _function("where")
cast: Function = _function("cast")
exp: Function = _function("exp")
expm1: Function = _function("expm1")
log: Function = _function("log")
tanh: Function = _function("tanh")
erf: Function = _function("erf")
sigmoid: Function = _function("sigmoid")
softplus: Function = _function("softplus")
