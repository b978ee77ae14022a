"""What each pointwise function is in native code: one row a function, vectors in, a vector out.

The same names have their reference and gradient in `convolve.ops.pointwise`. Comparisons give 1.0 or 0.0.
"""

from __future__ import annotations

from collections.abc import Callable

from convolve.native.builder import Expr, Kernel
from convolve.native.kernels import transcendental


def _maximum(k: Kernel, a: Expr, b: Expr) -> Expr:
    """NaN wins, as in NumPy."""
    return k.select(b.differs(b), b, k.select(b > a, b, a))


def _minimum(k: Kernel, a: Expr, b: Expr) -> Expr:
    return k.select(b.differs(b), b, k.select(b < a, b, a))


def _relu(k: Kernel, a: Expr) -> Expr:
    return k.select(a <= 0.0, k.constant(0.0, a.type.count), a)


def _sign(k: Kernel, a: Expr) -> Expr:
    """NaN and zeros stay."""
    one = k.constant(1.0, a.type.count)
    return k.select(a > 0.0, one, k.select(a < 0.0, -one, a))


def _round(k: Kernel, a: Expr) -> Expr:
    """To the nearest integer, halves to the even one: from 2^23 on all floats are integers."""
    size, whole = k.unary("fabs", a), k.constant(2.0**23, a.type.count)
    rounded = k.select(a < 0.0, whole - (size + whole), (size + whole) - whole)
    return k.select(size < whole, rounded, a)


def _floor(k: Kernel, a: Expr) -> Expr:
    near = _round(k, a)
    return k.select(near > a, near - 1.0, near)


def _ceil(k: Kernel, a: Expr) -> Expr:
    near = _round(k, a)
    return k.select(near < a, near + 1.0, near)


def _truth(k: Kernel, condition: Expr) -> Expr:
    lanes = condition.type.count
    return k.select(condition, k.constant(1.0, lanes), k.constant(0.0, lanes))


FUNCTIONS: dict[str, Callable[..., Expr]] = {
    "add": lambda k, a, b: a + b,
    "subtract": lambda k, a, b: a - b,
    "multiply": lambda k, a, b: a * b,
    "divide": lambda k, a, b: a / b,
    "maximum": _maximum,
    "minimum": _minimum,
    "clip": lambda k, a, low, high: _minimum(k, _maximum(k, a, low), high),
    "negative": lambda k, a: -a,
    "absolute": lambda k, a: k.unary("fabs", a),
    "sign": _sign,
    "floor": _floor,
    "ceil": _ceil,
    "round": _round,
    "sqrt": lambda k, a: k.unary("sqrt", a),
    "square": lambda k, a: a * a,
    "relu": _relu,
    "greater": lambda k, a, b: _truth(k, a > b),
    "greater_equal": lambda k, a, b: _truth(k, a >= b),
    "less": lambda k, a, b: _truth(k, a < b),
    "less_equal": lambda k, a, b: _truth(k, a <= b),
    "equal": lambda k, a, b: _truth(k, a.equals(b)),
    "where": lambda k, c, a, b: k.select(c.differs(0.0), a, b),
    "cast": lambda k, a: a,
    "exp": transcendental.exp,
    "expm1": transcendental.expm1,
    "log": transcendental.log,
    "tanh": transcendental.tanh,
    "erf": transcendental.erf,
    "sigmoid": transcendental.sigmoid,
    "softplus": transcendental.softplus,
}
