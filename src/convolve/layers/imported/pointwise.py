"""Operators that work on each element, and those that choose between elements at one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from convolve import layers, ops
from convolve.deferred import Deferred
from convolve.errors import ShapeError
from convolve.graph import Value
from convolve.layers.base import Construction, Layer, Scope
from convolve.layers.imported.graph import DTYPES, Node, Stored
from convolve.layers.imported.site import Operand, Result, Site, handles
from convolve.layers.imported.trigonometry import arc_tangent, sine

if TYPE_CHECKING:
    from convolve.layers.pooling import power
else:
    power = Deferred("convolve.layers.pooling:power")

Unary = Callable[[Node, Value], Value]


def _layer(make: Callable[[Node], Layer]) -> Unary:
    """A function that is a layer without arrays."""
    return lambda node, x: make(node).build(Scope(Construction(training=False)), x)


def _clamped(x: Value, low: float, high: float) -> Value:
    return ops.clip(x, low, high)


def _signed(node: Node, x: Value, negative: Value) -> Value:
    return ops.where(ops.greater(x, 0.0), x, negative)


def _gelu(node: Node, x: Value) -> Value:
    if node.word("approximate", "none") == "tanh":
        return x * 0.5 * (ops.tanh((x + x * ops.square(x) * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)
    return _layer(lambda n: layers.GELU())(node, x)


def _celu(node: Node, x: Value) -> Value:
    alpha = node.number("alpha", 1.0)
    return _signed(node, x, ops.expm1(ops.minimum(x, 0.0) * (1 / alpha)) * alpha)


def _selu(node: Node, x: Value) -> Value:
    alpha, gamma = node.number("alpha", 1.6732632423543772), node.number("gamma", 1.0507009873554805)
    return ops.where(ops.greater(x, 0.0), x * gamma, ops.expm1(ops.minimum(x, 0.0)) * (alpha * gamma))


def _hard_sigmoid(node: Node, x: Value) -> Value:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    if not alpha > 0:
        return _clamped(x * alpha + beta, 0.0, 1.0)
    return _clamped(x + beta / alpha, 0.0, 1 / alpha) * alpha  # as the layer has it


def _shrink(node: Node, x: Value) -> Value:
    lambd, bias = node.number("lambd", 0.5), node.number("bias", 0.0)
    small = ops.where(ops.less(x, -lambd), x + bias, 0.0)
    return ops.where(ops.greater(x, lambd), x - bias, small)


def _odd(x: Value, size: Value) -> Value:
    """The function of |x| with the sign of x."""
    return ops.where(ops.less(x, 0.0), -size, size)


UNARY: dict[str, Unary] = {
    "Relu": lambda n, x: ops.relu(x),
    "LeakyRelu": _layer(lambda n: layers.LeakyReLU(n.number("alpha", 0.01))),
    "Elu": _layer(lambda n: layers.ELU(n.number("alpha", 1.0))),
    "Mish": _layer(lambda n: layers.Mish()),
    "HardSwish": _layer(lambda n: layers.HardSwish()),
    "Sigmoid": lambda n, x: ops.sigmoid(x),
    "Tanh": lambda n, x: ops.tanh(x),
    "Exp": lambda n, x: ops.exp(x),
    "Log": lambda n, x: ops.log(x),
    "Sqrt": lambda n, x: ops.sqrt(x),
    "Abs": lambda n, x: ops.absolute(x),
    "Neg": lambda n, x: -x,
    "Sign": lambda n, x: ops.sign(x),
    "Floor": lambda n, x: ops.floor(x),
    "Ceil": lambda n, x: ops.ceil(x),
    "Round": lambda n, x: ops.round(x),
    "Erf": lambda n, x: ops.erf(x),
    "Softplus": lambda n, x: ops.softplus(x),
    "Reciprocal": lambda n, x: 1.0 / x,
    "ThresholdedRelu": lambda n, x: ops.where(ops.greater(x, n.number("alpha", 1.0)), x, 0.0),
    "HardSigmoid": _hard_sigmoid,
    "Softsign": lambda n, x: x / (ops.absolute(x) + 1.0),
    "Swish": lambda n, x: x * ops.sigmoid(x * n.number("alpha", 1.0)),
    "Celu": _celu,
    "Selu": _selu,
    "Gelu": _gelu,
    "Shrink": _shrink,
    "Sin": lambda n, x: sine(x, 0),
    "Cos": lambda n, x: sine(x, 1),
    "Tan": lambda n, x: sine(x, 0) / sine(x, 1),
    "Asin": lambda n, x: arc_tangent(x / ops.sqrt((1.0 - x) * (1.0 + x))),
    "Acos": lambda n, x: math.pi / 2 - arc_tangent(x / ops.sqrt((1.0 - x) * (1.0 + x))),
    "Atan": lambda n, x: arc_tangent(x),
    "Sinh": lambda n, x: _odd(x, (ops.expm1(ops.absolute(x)) - ops.expm1(-ops.absolute(x))) * 0.5),
    "Cosh": lambda n, x: (ops.exp(x) + ops.exp(-x)) * 0.5,
    "Asinh": lambda n, x: _odd(x, ops.log(ops.absolute(x) + ops.sqrt(ops.square(x) + 1.0))),
    "Acosh": lambda n, x: ops.log(x + ops.sqrt((x - 1.0) * (x + 1.0))),
    "Atanh": lambda n, x: ops.log((1.0 + x) / (1.0 - x)) * 0.5,
}
"""Functions of one element, by operator."""
TESTS: dict[str, Unary] = {
    "Not": lambda n, x: ops.equal(x, 0.0),
    "IsNaN": lambda n, x: 1.0 - ops.equal(x, x),
    "IsInf": lambda n, x: (
        ops.equal(x, math.inf) * float(n.integer("detect_positive", 1))
        + ops.equal(x, -math.inf) * float(n.integer("detect_negative", 1))
    ),
}
"""Those that are true or false."""


@handles(*UNARY)
def _unary(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    return t.like(UNARY[s.node.op](s.node, t.value))


@handles(*TESTS)
def _test(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    return t.like(TESTS[s.node.op](s.node, t.value), "bool")


def truncated(x: Value) -> Value:
    """Towards zero."""
    return ops.where(ops.less(x, 0.0), ops.ceil(x), ops.floor(x))


@handles("Div")
def _divide(s: Site, a: Operand, b: Operand) -> Result:
    [x, y], made = s.aligned([a, placed(s, a, b)], "scale")
    return made.like(truncated(x / y) if "int" in made.dtype else x / y)


@handles("Mod")
def _modulo(s: Site, a: Operand, b: Operand) -> Result:
    [x, y], made = s.aligned([a, b])
    if s.node.integer("fmod", 0):
        return made.like(x - y * truncated(x / y))
    # As in Python: a zero has the sign of what it is divided by, of which an infinite one is no multiple.
    left = x - y * ops.floor(x / y)
    left = ops.where(ops.equal(ops.absolute(y), math.inf), ops.where(ops.less(x * ops.sign(y), 0.0), y, x), left)
    return made.like(ops.where(ops.equal(left, 0.0), ops.where(ops.less(y, 0.0), -0.0, 0.0), left))


@handles("Pow")
def _power(s: Site, a: Operand, b: Operand) -> Result:
    if isinstance(b, np.ndarray) and b.size == 1:
        t, exponent = s.tensor(a), float(b.ravel()[0])
        if exponent.is_integer() and 1 <= exponent <= 16:
            return t.like(power(t.value, exponent))
        if exponent == 0.5:
            return t.like(ops.sqrt(t.value))
        if exponent == -1:
            return t.like(1.0 / t.value)
    [x, y], made = s.aligned([a, placed(s, a, b)])
    size = ops.exp(y * ops.log(ops.absolute(x)))
    size = ops.where(ops.equal(y, 0.0), 1.0, size)
    whole, odd = ops.equal(y, ops.floor(y)), 1.0 - ops.equal(y * 0.5, ops.floor(y * 0.5))
    negative = ops.where(whole, ops.where(odd, -size, size), math.nan)
    result = ops.where(ops.less(x, 0.0), negative, size)
    return made.like(ops.round(result) if "int" in made.dtype else result)


BINARY: dict[str, tuple[Callable[[Value, Value], Value], str | None]] = {
    "Add": (lambda a, b: a + b, "bias"),
    "Sub": (lambda a, b: a - b, "bias"),
    "Mul": (lambda a, b: a * b, "scale"),
    "PRelu": (lambda a, b: ops.where(ops.greater(a, 0.0), a, a * b), "slope"),
    "Equal": (ops.equal, None),
    "Greater": (ops.greater, None),
    "GreaterOrEqual": (ops.greater_equal, None),
    "Less": (ops.less, None),
    "LessOrEqual": (ops.less_equal, None),
    "And": (lambda a, b: a * b, None),
    "Or": (ops.maximum, None),
    "Xor": (lambda a, b: ops.absolute(a - b), None),
}
"""Functions of two elements, and what a weight among them is called."""
TRUTHS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not")


def placed(s: Site, a: Operand, b: Operand) -> Operand:
    """The second operand as it broadcasts. Before opset 7 it lay along the first one's dimensions from `axis` on."""
    slopes = s.node.op == "PRelu" and len(b.shape) == 1 and len(a.shape) > 1
    if s.opset >= 7 or not (slopes or (s.node.integer("broadcast", 0) and s.node.get("axis") is not None)):
        return b
    axis = 1 if slopes else s.node.integer("axis", 0) % max(1, len(a.shape))
    shape = (*b.shape, *(1,) * (len(a.shape) - axis - len(b.shape)))
    if isinstance(b, Stored):
        return replace(b, shape=shape)
    return b.reshape(shape) if isinstance(b, np.ndarray) else b.reshaped(shape)


@handles(*BINARY)
def _binary(s: Site, a: Operand, b: Operand) -> Result:
    function, role = BINARY[s.node.op]
    [x, y], made = s.aligned([a, placed(s, a, b)], role)
    return made.like(function(x, y), "bool" if s.node.op in TRUTHS else None)


@handles("Sum", "Mean", "Max", "Min")
def _several(s: Site, *inputs: Operand) -> Result:
    joins: dict[str, Callable[[Value, Value], Value]] = {
        "Max": ops.maximum,
        "Min": ops.minimum,
    }
    values, made = s.aligned(inputs)
    total = reduce(joins.get(s.node.op, lambda a, b: a + b), values)
    return made.like(total * (1 / len(values)) if s.node.op == "Mean" else total)


@handles("Where")
def _where(s: Site, condition: Operand, a: Operand, b: Operand) -> Result:
    values, made = s.aligned([condition, a, b])
    dtype = next((str(x.dtype) for x in (a, b) if isinstance(x, np.ndarray)), getattr(a, "dtype", "float32"))
    return made.like(ops.where(*values), dtype)


def _number(s: Site, given: Operand | None, name: str) -> float | None:
    """A bound that is one number, as an input or as an attribute."""
    if isinstance(given, np.ndarray) and given.size == 1:
        return float(given.item())
    number = s.node.get(name)
    return float(number) if given is None and isinstance(number, (int, float)) else None


@handles("Clip")
def _clip(s: Site, x: Operand, low: Operand | None = None, high: Operand | None = None) -> Result:
    made = s.tensor(x)
    fixed = [_number(s, given, name) for given, name in ((low, "min"), (high, "max"))]
    if fixed[0] is not None and fixed[1] is not None:
        return made.like(ops.clip(made.value, *fixed))
    for bound, name, function in ((low, "min", ops.maximum), (high, "max", ops.minimum)):
        number = s.node.get(name)
        if bound is not None:
            values, made = s.aligned([made, bound])
            made = made.like(function(*values))
        elif isinstance(number, (int, float)):
            made = made.like(function(made.value, float(number)))
    return made


@handles("Identity")
def _same(s: Site, x: Operand) -> Result:
    return x


@handles("Dropout", known=(1, 2))
def _dropout(s: Site, x: Operand, ratio: Operand | None = None, training: Operand | None = None) -> Result:
    t = s.tensor(x)
    rate = float(s.known(ratio, "ratio").item()) if ratio is not None else s.node.number("ratio", 0.5)
    if rate and training is not None and s.known(training, "training_mode").any():
        raise ShapeError("training_mode is set: random numbers are drawn in fit only")
    return [t.like(layers.Dropout(rate).build(s.scope, t.value)), np.broadcast_to(np.True_, t.shape)]


@handles("Cast", "CastLike")
def _cast(s: Site, x: Operand, like: Operand | None = None) -> Result:
    t = s.tensor(x)
    to = s.node.word("to", "float32") if like is None else getattr(like, "dtype", "float32")
    if str(to) not in DTYPES:
        raise ShapeError(f"casts to {to}; known are {', '.join(DTYPES)}")
    if to == "bool":
        return t.like(1.0 - ops.equal(t.value, 0.0), "bool")
    return t.like(truncated(t.value) if "int" in str(to) and "float" in t.dtype else t.value, str(to))
