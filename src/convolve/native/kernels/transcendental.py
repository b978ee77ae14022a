"""Vector exp, expm1, log, tanh, erf, sigmoid and softplus, within 2.4 ulp over the whole range of float32.

Only what every CPU rounds alike (add, subtract, multiply, divide, fma, integer arithmetic, select), so the bits depend
neither on the vector width nor on the CPU, as long as it has fma. No branches and no tables: all lanes go the same way.
Subnormal numbers are served too where the thread does not flush them.

The polynomials are minimax fits of our own: Lawson's iteration on Chebyshev nodes (for exp Remez exchange) against
mpmath, the coefficients rounded to float32 one after another from the constant up, the others fitted again each time.
The errors given are the largest over every 61st of the 2^32 bit patterns, in ulp of the true value; without fma, where
`Kernel.fma` rounds twice, none is above 2.4 either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convolve.native.builder import Expr, Kernel


def _hex(coefficients: str) -> tuple[float, ...]:
    """Highest power first, as `float.hex` writes them."""
    return tuple(float.fromhex(c) for c in coefficients.split())


ROUND, ROUND_BITS = 1.5 * 2**23, 0x4B400000
"""A small float plus ROUND is rounded to an integer, and its bits are that integer plus ROUND_BITS."""

LOG2_HIGH, LOG2_LOW = _hex("0x1.63p-1 -0x1.bd0106p-13")
"""log 2 in two parts, from Cephes: the first is 355/512, exact times any exponent."""

# p of each function's docstring, and q of erf
EXP = _hex("0x1.6ab92cp-10 0x1.123d76p-7 0x1.55585ap-5 0x1.55548cp-3 0x1.fffffcp-2 1 1")
LOG = _hex(
    "0x1.1f2438p-3 -0x1.3b0e5cp-3 0x1.1ea94cp-3 -0x1.503884p-3 0x1.99d3a8p-3 -0x1.001450p-2 "
    "0x1.5554fcp-2 -0x1.ffffd6p-2"
)
TANH = _hex("-0x1.9921a2p-8 0x1.58e518p-6 -0x1.b91e7ep-5 0x1.110ceep-3 -0x1.55554ap-2")
ERF = _hex("-0x1.3ac5a8p-11 0x1.476884p-8 -0x1.b6939p-6 0x1.ce1b0ep-4 -0x1.8126eap-2 0x1.06eba6p-3")
ERFC_ROOT = _hex(
    "-0x1.dd3372p-16 0x1.21451ap-12 0x1.dbde94p-14 -0x1.4ff4acp-7 0x1.37e16ep-5 -0x1.2ed89cp-7 -0x1.9be2a6p-4 "
    "-0x1.2902c8p-2 0x1.005e58p0"
)


def exp(k: Kernel, x: Expr) -> Expr:
    """2^n p(x - n log 2), Cody and Waite's reduction, p of degree 6. Error 0.86 ulp."""
    return _bounded_exp(k, _at_most(k, x, 89.0))  # it is infinity there


def expm1(k: Kernel, x: Expr) -> Expr:
    """2^n (p(x - n log 2) - 1) + (2^n - 1), where exp's p gives up the 1 that it ends with. Error 1.42 ulp."""
    rest, n = _reduced(k, k.select(x < -18.0, k.constant(-18.0, x.type.count), _at_most(k, x, 89.0)))
    p = k.fma(rest * rest, _horner(k, rest, EXP[:-2]), rest)
    half = n >> 1  # 2^n in two factors, of which one waits: infinity comes last
    second = _power_of_two(k, n - half)
    return k.fma(second, p, second - _power_of_two(k, -half)) * _power_of_two(k, half)


def log(k: Kernel, x: Expr) -> Expr:
    """e log 2 + f + f^2 p(f), p of degree 7, for x = 2^e (1 + f) with f in [-1/3, 1/3]. Error 1.06 ulp."""
    lanes = x.type.count
    subnormal = x < 2.0**-126
    bits = k.as_ints(k.select(subnormal, x * 2.0**23, x))
    e = (bits - 0x3F2AAAAB) >> 23  # from 2/3 on, whose bits these are
    f = k.as_floats(bits - (e << 23)) - 1.0
    bias = k.select(subnormal, k.constant(ROUND + 23.0, lanes), k.constant(ROUND, lanes))
    exponent = k.as_floats(e + ROUND_BITS) - bias
    finite = k.fma(exponent, k.constant(math.log(2.0), lanes), k.fma(f * f, _horner(k, f, LOG), f))
    infinity = k.constant(math.inf, lanes)
    below = k.select(x.equals(0.0), -infinity, k.constant(math.nan, lanes))
    return k.select(x > 0.0, k.select(x < infinity, finite, infinity), below)


def tanh(k: Kernel, x: Expr) -> Expr:
    """x + x^3 p(x^2), p of degree 4, up to 0.55; 1 - 2 / (exp(2|x|) + 1) beyond. Error 1.48 ulp."""
    lanes = x.type.count
    size, square = k.unary("fabs", x), x * x
    near = k.fma(size * square, _horner(k, square, TANH), size)
    p, n = _split_exp(k, _at_most(k, size + size, 20.0))
    one, two = k.constant(1.0, lanes), k.constant(2.0, lanes)
    far = one - two / k.fma(p, _power_of_two(k, n), one)
    return _with_sign(k, k.select(size > 0.55, far, near), x)


def erf(k: Kernel, x: Expr) -> Expr:
    """x + x p(x^2), p of degree 5, up to 0.92; 1 - q(|x|)^4, q of degree 8, beyond. Error 1.73 ulp.

    The fourth root of 1 - erf is so much smoother than 1 - erf itself that q saves four degrees and an exponential.
    """
    size = k.unary("fabs", x)
    near = k.fma(size, _horner(k, x * x, ERF), size)
    root = _horner(k, _at_most(k, size, 4.0), ERFC_ROOT)
    square = root * root
    far = k.constant(1.0, x.type.count) - square * square
    return _with_sign(k, k.select(size > 0.92, far, near), x)


def sigmoid(k: Kernel, x: Expr) -> Expr:
    """1 / (1 + e) or, below 0, e / (1 + e), with e = exp(-|x|). Error 2.36 ulp."""
    one = k.constant(1.0, x.type.count)
    e = _bounded_exp(k, -k.unary("fabs", x))
    return k.select(x < 0.0, e, one) / (e + one)


def softplus(k: Kernel, x: Expr) -> Expr:
    """max(x, 0) + log(1 + e), e = exp(-|x|): `log` of 1 + f or, where e is beyond 1/3, of 2 (1 + f). Error 2.13 ulp."""
    e = _bounded_exp(k, -k.unary("fabs", x))
    large = e > 1 / 3
    f = k.select(large, (e - 1.0) * 0.5, e)
    rest = k.fma(f * f, _horner(k, f, LOG), f)
    size = k.select(large, rest + math.log(2.0), rest)
    return k.select(x > 0.0, x + size, size)


def _bounded_exp(k: Kernel, x: Expr) -> Expr:
    """exp(x) for x up to 89."""
    p, n = _split_exp(k, k.select(x < -104.0, k.constant(-104.0, x.type.count), x))  # it is 0 there
    half = n >> 1  # 2^n in two factors, for results near both ends of the range
    return p * _power_of_two(k, half) * _power_of_two(k, n - half)


def _split_exp(k: Kernel, x: Expr) -> tuple[Expr, Expr]:
    """p and n of exp(x) = p * 2^n, p in [0.7, 1.42]."""
    rest, n = _reduced(k, x)
    return _horner(k, rest, EXP), n


def _reduced(k: Kernel, x: Expr) -> tuple[Expr, Expr]:
    """x - n log 2, at most log(2) / 2 either way, and n."""
    lanes = x.type.count
    shifted = k.fma(x, k.constant(math.log2(math.e), lanes), k.constant(ROUND, lanes))
    whole = shifted - ROUND
    rest = k.fma(whole, k.constant(-LOG2_LOW, lanes), k.fma(whole, k.constant(-LOG2_HIGH, lanes), x))
    return rest, k.as_ints(shifted) - ROUND_BITS


def _power_of_two(k: Kernel, n: Expr) -> Expr:
    return k.as_floats((n + 127) << 23)


def _horner(k: Kernel, x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial, highest power first."""
    total = k.constant(coefficients[0], x.type.count)
    for coefficient in coefficients[1:]:
        total = k.fma(total, x, k.constant(coefficient, x.type.count))
    return total


def _at_most(k: Kernel, x: Expr, bound: float) -> Expr:
    """The lesser of the two. NaN stays."""
    return k.select(x > bound, k.constant(bound, x.type.count), x)


def _with_sign(k: Kernel, size: Expr, x: Expr) -> Expr:
    """`size`, which is not negative, with the sign of x."""
    return k.as_floats(k.as_ints(size) | (k.as_ints(x) & -(2**31)))
