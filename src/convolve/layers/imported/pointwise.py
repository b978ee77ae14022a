"""Operators that work on each element, and those that choose between elements at one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import numpy as np

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Value
from convolve.layers.imported.graph import DTYPES, Node
from convolve.layers.imported.site import Operand, Result, Site, handles

Unary = Callable[[Node, Value], Value]


def _clamped(x: Value, low: float, high: float) -> Value:
    return ops.clip(x, low, high)


def _signed(node: Node, x: Value, negative: Value) -> Value:
    return ops.where(ops.greater(x, 0.0), x, negative)


def _gelu(node: Node, x: Value) -> Value:
    if node.word("approximate", "none") == "tanh":
        return x * 0.5 * (ops.tanh((x + x * ops.square(x) * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)
    return x * (ops.erf(x * math.sqrt(0.5)) * 0.5 + 0.5)


def _elu(node: Node, x: Value) -> Value:
    alpha = node.number("alpha", 1.0)
    return _signed(node, x, (ops.exp(ops.minimum(x, 0.0)) - 1.0) * alpha)


def _celu(node: Node, x: Value) -> Value:
    alpha = node.number("alpha", 1.0)
    return _signed(node, x, (ops.exp(ops.minimum(x, 0.0) * (1 / alpha)) - 1.0) * alpha)


def _selu(node: Node, x: Value) -> Value:
    alpha, gamma = node.number("alpha", 1.6732632423543772), node.number("gamma", 1.0507009873554805)
    return _signed(node, x, (ops.exp(ops.minimum(x, 0.0)) - 1.0) * alpha) * gamma


def _shrink(node: Node, x: Value) -> Value:
    lambd, bias = node.number("lambd", 0.5), node.number("bias", 0.0)
    small = ops.where(ops.less(x, -lambd), x + bias, 0.0)
    return ops.where(ops.greater(x, lambd), x - bias, small)


UNARY: dict[str, Unary] = {
    "Relu": lambda n, x: ops.relu(x),
    "Sigmoid": lambda n, x: ops.sigmoid(x),
    "Tanh": lambda n, x: ops.tanh(x),
    "Exp": lambda n, x: ops.exp(x),
    "Log": lambda n, x: ops.log(x),
    "Sqrt": lambda n, x: ops.sqrt(x),
    "Abs": lambda n, x: ops.absolute(x),
    "Neg": lambda n, x: -x,
    "Sign": lambda n, x: ops.sign(x),
    "Erf": lambda n, x: ops.erf(x),
    "Softplus": lambda n, x: ops.softplus(x),
    "Reciprocal": lambda n, x: 1.0 / x,
    "Not": lambda n, x: ops.equal(x, 0.0),
    "LeakyRelu": lambda n, x: _signed(n, x, x * n.number("alpha", 0.01)),
    "ThresholdedRelu": lambda n, x: ops.where(ops.greater(x, n.number("alpha", 1.0)), x, 0.0),
    "HardSigmoid": lambda n, x: _clamped(x * n.number("alpha", 0.2) + n.number("beta", 0.5), 0.0, 1.0),
    "HardSwish": lambda n, x: x * _clamped(x * (1 / 6) + 0.5, 0.0, 1.0),
    "Softsign": lambda n, x: x / (ops.absolute(x) + 1.0),
    "Mish": lambda n, x: x * ops.tanh(ops.softplus(x)),
    "Swish": lambda n, x: x * ops.sigmoid(x * n.number("alpha", 1.0)),
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "Gelu": _gelu,
    "Shrink": _shrink,
}
"""Functions of one element, by operator."""


@handles(*UNARY)
def _unary(s: Site, x: Operand) -> Result:
    t = s.tensor(x)
    return t.like(UNARY[s.node.op](s.node, t.value))


BINARY: dict[str, tuple[Callable[[Value, Value], Value], str | None]] = {
    "Add": (lambda a, b: a + b, "bias"),
    "Sub": (lambda a, b: a - b, "bias"),
    "Mul": (lambda a, b: a * b, "scale"),
    "Div": (lambda a, b: a / b, "scale"),
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


@handles(*BINARY)
def _binary(s: Site, a: Operand, b: Operand) -> Result:
    function, role = BINARY[s.node.op]
    [x, y], made = s.aligned([a, b], role)
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


@handles("Dropout")
def _dropout(s: Site, x: Operand, ratio: Operand | None = None, training: Operand | None = None) -> Result:
    from convolve.layers.norms import Dropout

    t = s.tensor(x)
    rate = float(s.known(ratio, "ratio").item()) if ratio is not None else s.node.number("ratio", 0.5)
    return t.like(Dropout(rate).build(s.scope, t.value))


@handles("Cast", "CastLike")
def _cast(s: Site, x: Operand, like: Operand | None = None) -> Result:
    t = s.tensor(x)
    to = s.node.word("to", "float32") if like is None else getattr(like, "dtype", "float32")
    if str(to) not in DTYPES:
        raise ShapeError(f"casts to {to}; known are {', '.join(DTYPES)}")
    if to == "bool":
        return t.like(1.0 - ops.equal(t.value, 0.0), "bool")
    return t.like(t.value, str(to))
