"""Sine, cosine and arc tangent of pointwise ops: reductions of Cody and Waite, polynomials of Cephes."""

from __future__ import annotations

import math
from functools import reduce

from convolve import ops
from convolve.graph import Value

HALF_PI = (1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8)
"""pi / 2 in three parts, of which the first two are exact times any small integer."""
SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
ARC = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)


def _polynomial(x: Value, coefficients: tuple[float, ...]) -> Value:
    """Highest power first (Horner)."""
    first, *others = coefficients
    return reduce(lambda total, c: total * x + c, others, x * 0.0 + first)


def sine(x: Value, quarter: int) -> Value:
    """The sine of x plus so many quarters of a turn; exact to some 1e-7 for |x| up to some thousands."""
    turns = ops.round(x * (2 / math.pi))
    rest = reduce(lambda left, part: left - turns * part, HALF_PI, x)
    z = ops.square(rest)
    sin = rest + rest * z * _polynomial(z, SINE)
    cos = 1.0 - z * 0.5 + ops.square(z) * _polynomial(z, COSINE)
    place = turns + float(quarter)
    place = place - ops.floor(place * 0.25) * 4.0
    odd = ops.equal(place, 1.0) + ops.equal(place, 3.0)
    size = ops.where(odd, cos, sin)
    return ops.where(ops.greater(place, 1.5), -size, size)


def arc_tangent(x: Value) -> Value:
    """The angle between -pi / 2 and pi / 2 whose tangent is x."""
    size = ops.absolute(x)
    steep, middle = ops.greater(size, math.tan(3 * math.pi / 8)), ops.greater(size, math.tan(math.pi / 8))
    flat = ops.where(middle, (size - 1.0) / (size + 1.0), size)
    z = ops.where(steep, -1.0 / size, flat)
    start = ops.where(steep, math.pi / 2, ops.where(middle, math.pi / 4, 0.0))
    squared = ops.square(z)
    angle = start + (z + z * squared * _polynomial(squared, ARC))
    return ops.where(ops.less(x, 0.0), -angle, angle)
