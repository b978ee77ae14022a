"""The vector functions against float64: every exponent, the special values, the same bits at every vector width."""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from convolve.native.builder import Expr, Kernel
from convolve.native.cache import dispatch
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.pointwise import Pointwise
from convolve.native.target import Target, host

Array = np.ndarray[Any, Any]

ULP = 4  # promised
INF, NAN = math.inf, math.nan
LEAST = 2.0**-149  # the least subnormal number
NORMAL = 2.0**-126
SWEEP = np.arange(0, 2**32, 977, dtype=np.uint32).view(np.float32)
with np.errstate(invalid="ignore"):
    SWEEP64 = SWEEP.astype(np.float64)


def erf(x: Array) -> Array:
    """In float64; `math.erf` only where erf is neither 2x / sqrt(pi) nor 1."""
    y = np.where(np.isnan(x), x, np.sign(x))
    small = np.abs(x) < 2.0**-16
    y[small] = x[small] * (2 / math.sqrt(math.pi))
    middle = ~small & (np.abs(x) < 4.2)
    y[middle] = [math.erf(v) for v in x[middle].tolist()]
    return y


REFERENCE: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "tanh": np.tanh,
    "erf": erf,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
}
SPECIAL: dict[str, dict[float, float]] = {
    "exp": {
        **dict.fromkeys([0.0, LEAST, -LEAST], 1.0),
        **dict.fromkeys([88.72284, 1e30, INF], INF),
        **dict.fromkeys([-104.0, -1e30, -INF], 0.0),
        -103.9: LEAST,
        NAN: NAN,
    },
    "expm1": {
        **{x: x for x in (0.0, LEAST, -LEAST, 2.0**-30, -(2.0**-30), INF, NAN)},
        **dict.fromkeys([88.72284, 1e30], INF),
        **dict.fromkeys([-18.0, -1e30, -INF], -1.0),
    },
    "log": {0.0: -INF, 1.0: 0.0, INF: INF, **dict.fromkeys([-LEAST, -1.0, -INF, NAN], NAN)},
    "tanh": {0.0: 0.0, LEAST: LEAST, NAN: NAN, **dict.fromkeys([9.1, 1e30, INF], 1.0)},
    "erf": {0.0: 0.0, LEAST: LEAST, NAN: NAN, **dict.fromkeys([3.95, 1e30, INF], 1.0)},
    "sigmoid": {
        **dict.fromkeys([0.0, LEAST, -LEAST], 0.5),
        **dict.fromkeys([17.5, 1e30, INF], 1.0),
        **dict.fromkeys([-104.0, -1e30, -INF], 0.0),
        -103.9: LEAST,
        NAN: NAN,
    },
    "softplus": {
        **{x: x for x in (30.0, 1e30, INF, NAN)},
        **dict.fromkeys([0.0, LEAST, -LEAST], math.log(2.0)),
        **dict.fromkeys([-104.0, -1e30, -INF], 0.0),
        -103.9: LEAST,
    },
}


def call(address: int, arguments: dict[str, int]) -> None:
    slots = (ctypes.c_int64 * len(arguments))(*arguments.values())
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(address)(slots, 0, None)


def native(name: str, x: Array, target: Target | None = None) -> Array:
    """The kernel's values: one segment of one row."""
    spec = Pointwise(Formula(("vector:f4",), ((name, 0),), (1,)))
    y, table = np.empty_like(x), np.zeros(1, np.int32)
    known: dict[str, int] = {"segments": 1, "pieces": 1, "mid": 1, "last_mid": 1, "inner": x.size, "last_inner": x.size}
    known |= {"in0": x.ctypes.data, "out0": y.ctypes.data, "in0_row": 0, "out0_row": 0}
    known |= {"in0_table": table.ctypes.data, "out0_table": table.ctypes.data}
    labels = [declared.split(":")[0] for declared in spec.arguments]
    call(dispatch(spec, target), {label: known[label] for label in labels})
    return y


@dataclass(frozen=True)
class Swept:
    """A function's true and native values over the sweep."""

    name: str
    true: Array
    got: Array


@pytest.fixture(scope="module", params=REFERENCE)
def swept(request: pytest.FixtureRequest) -> Swept:
    with np.errstate(all="ignore"):
        return Swept(request.param, REFERENCE[request.param](SWEEP64), native(request.param, SWEEP))


def ulps(got: Array, true: Array) -> Array:
    """Distance in units in the last place of the true value; infinite where only one of the two is a number."""
    with np.errstate(all="ignore"):
        rounded = true.astype(np.float32)
        unit = np.ldexp(1.0, np.maximum(np.frexp(np.where(np.isfinite(true), true, 1.0))[1] - 24, -149))
        distance: Array = np.abs(got - true) / unit
    same = (got == rounded) | (np.isnan(got) & np.isnan(true))
    distance[same & ~np.isfinite(rounded)] = 0
    distance[np.isnan(distance)] = INF
    return distance


def test_accuracy(swept: Swept) -> None:
    distance = ulps(swept.got, swept.true)
    worst = distance.argmax()
    assert distance[worst] <= ULP, f"{swept.name}({SWEEP[worst]}) = {swept.got[worst]}, not {swept.true[worst]}"
    if swept.name in {"tanh", "erf", "sigmoid"}:
        assert np.nanmax(np.abs(swept.got)) == 1


def test_accuracy_without_fma(swept: Swept) -> None:
    got = native(swept.name, SWEEP[::7].copy(), replace(host(), fma=False))
    assert ulps(got, swept.true[::7]).max() <= ULP


@pytest.mark.parametrize("name", REFERENCE)
def test_special_values(name: str) -> None:
    x, expected = (np.array(list(v), np.float32) for v in (SPECIAL[name], SPECIAL[name].values()))
    np.testing.assert_array_equal(native(name, x), expected)


def test_log_of_minus_zero() -> None:
    assert native("log", np.array([-0.0], np.float32))[0] == -INF


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_functions_are_odd_to_the_bit(name: str) -> None:
    x = np.abs(SWEEP[~np.isnan(SWEEP)][::7])
    assert np.array_equal(native(name, -x).view(np.uint32), (-native(name, x)).view(np.uint32))
    assert native(name, np.zeros(1, np.float32)).view(np.uint32) == 0


def test_same_bits_at_every_width(swept: Swept) -> None:
    number = ~np.isnan(swept.got)
    for lanes in [n for n in (4, 8) if n < host().lanes]:
        got = native(swept.name, SWEEP, replace(host(), lanes=lanes))
        assert np.array_equal(got[number].view(np.uint32), swept.got[number].view(np.uint32))
        assert np.isnan(got[~number]).all()


@dataclass(frozen=True)
class ControlWord:
    """Sets this thread's MXCSR."""

    arguments: tuple[str, ...] = ("word:u1",)

    def emit(self, k: Kernel) -> None:
        k.intrinsic("llvm.x86.sse.ldmxcsr", None, [Expr(k, k.args["word"].value)])


@contextmanager
def flushed() -> Iterator[None]:
    """Subnormal operands and results are zero, as in the threads that train."""
    address = dispatch(ControlWord())
    words = np.array([0x9FC0, 0x1F80], np.uint32)
    call(address, {"word": words[:1].ctypes.data})
    try:
        yield
    finally:
        call(address, {"word": words[1:].ctypes.data})


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="sets a register of x86")
def test_accuracy_with_subnormal_numbers_flushed(swept: Swept) -> None:
    x, true = SWEEP[::3].copy(), swept.true[::3].copy()
    native(swept.name, x[:8])  # compile first, in the usual mode
    with flushed():
        got = native(swept.name, x)
    with np.errstate(divide="ignore"):
        true[np.abs(SWEEP64[::3]) < NORMAL] = REFERENCE[swept.name](np.zeros(1))
    assert not got[np.abs(got) < NORMAL].any()
    may_vanish = np.abs(true) < NORMAL * (1 + ULP * 2.0**-23)
    assert ulps(got, true)[(got != 0) | ~may_vanish].max() <= ULP
