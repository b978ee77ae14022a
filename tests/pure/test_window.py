"""Window arithmetic against the enumeration of every (input position, window, tap)."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
from helpers import windows
from hypothesis import given
from hypothesis import strategies as st

from convolve.errors import ShapeError
from convolve.window import Reach, Window, resolve

Sized = tuple[Window, tuple[int, ...]]


def triples(window: Window, size: tuple[int, ...], axis: int) -> list[tuple[int, int, int]]:
    """All (input position, window, tap) of one dimension, the position in the input or in its margins."""
    n, (lo, hi) = size[axis], window.pads[axis]
    kernel, stride, dilation = window.kernel[axis], window.stride[axis], window.dilation[axis]
    found = []
    for o in range(n + lo + hi):
        taps = [o * stride - lo + i * dilation for i in range(kernel)]
        if taps[-1] < n + hi:
            found += [(p, o, i) for i, p in enumerate(taps)]
    return found


@given(windows(least=1))
def test_output_counts_the_windows_that_fit(sized: Sized) -> None:
    window, size = sized
    assert window.output(size) == tuple(len({o for _, o, _ in triples(window, size, a)}) for a in range(window.rank))


@given(windows(least=1))
def test_dropped_positions_lie_behind_the_last_window(sized: Sized) -> None:
    window, size = sized
    ends = [max(p for p, _, _ in triples(window, size, a)) + 1 for a in range(window.rank)]
    padded = [n + hi for n, (_, hi) in zip(size, window.pads, strict=True)]
    assert window.dropped(size) == tuple(n - end for n, end in zip(padded, ends, strict=True))


@given(windows(least=1))
def test_reads_and_readers_are_the_pairs_inside_the_input(sized: Sized) -> None:
    window, size = sized
    for axis, (reads, readers) in enumerate(zip(window.reads(size), window.readers(size), strict=True)):
        inside = sorted((o, p) for p, o, _ in triples(window, size, axis) if 0 <= p < size[axis])
        assert [(o, p) for o, places in enumerate(listed(reads)) for p in places] == inside
        assert sorted((o, p) for p, places in enumerate(listed(readers)) for o in places) == inside


def listed(reach: Reach) -> list[list[int]]:
    """Each position's partners."""
    first, count, apart = reach
    return [[int(a) + i * apart for i in range(n)] for a, n in zip(first, count, strict=True)]


@given(windows(least=1))
def test_ceil_mode_adds_the_window_that_what_is_left_over_would_begin(sized: Sized) -> None:
    """PyTorch's rule: ceil instead of floor, but each window begins within the input or its low padding."""
    window, size = sized
    made = window.ceiled(size)
    for axis, (n, (lo, hi), e, s) in enumerate(zip(size, window.pads, window.extent, window.stride, strict=True)):
        output = math.ceil((n + lo + hi - e) / s) + 1
        if (output - 1) * s >= n + lo:
            output = min(output, window.output(size)[axis])
        assert made.output(size)[axis] == output
        assert made.pads[axis][0] == lo
        assert made.dropped(size)[axis] == 0 or made.pads[axis] == window.pads[axis]


@given(windows(least=1))
def test_transposed_pads_hold_every_window_a_gradient_may_ask_for(sized: Sized) -> None:
    """Asked for: each o, inside the output or not, with p = o * s - lo + i * d for an input position p and a tap i."""
    window, size = sized
    margins = window.transposed_pads(size)
    for axis, (before, after) in enumerate(margins):
        n, o, (lo, _) = size[axis], window.output(size)[axis], window.pads[axis]
        steps = [p + lo - i * window.dilation[axis] for p in range(n) for i in range(window.kernel[axis])]
        asked = [step // window.stride[axis] for step in steps if step % window.stride[axis] == 0]
        narrowest = (max(0, -min(asked, default=0)), max(0, max(asked, default=0) - (o - 1)))
        assert before >= narrowest[0]
        assert after >= narrowest[1]
        if n >= window.stride[axis]:
            assert (before, after) == narrowest


@given(windows(least=1))
def test_offsets_are_the_taps_in_scan_order(sized: Sized) -> None:
    window, _ = sized
    taps = product(*(range(k) for k in window.kernel))
    expected = [tuple(i * d for i, d in zip(tap, window.dilation, strict=True)) for tap in taps]
    assert list(window.offsets()) == expected
    assert window.taps == len(expected)
    assert window.extent == tuple(last + 1 for last in expected[-1])


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_a_window_every_stride(size: int, kernel: int, stride: int, dilation: int) -> None:
    window = resolve(kernel, stride, dilation, "same", (size,))
    [(lo, hi)] = window.pads
    assert window.output((size,)) == (-(-size // stride),)
    assert hi - lo in (0, 1)
    if lo + hi:
        assert Window((kernel,), (stride,), (dilation,), ((lo, hi - 1),)).output((size,)) < window.output((size,))


def test_a_window_larger_than_its_input_has_no_output() -> None:
    assert resolve(5, 1, 1, "valid", (4,)).output((4,)) == (0,)
    assert resolve(5, 3, 2, "valid", (4,)).output((4,))[0] < 1


def test_padding_is_explicit_however_it_is_written() -> None:
    assert resolve(3, 1, 1, 2, (5, 5)).pads == ((2, 2), (2, 2))
    assert resolve(3, 1, 1, "valid", (5, 5)).pads == ((0, 0), (0, 0))
    assert resolve((3, 2), 1, 1, ((0, 1), (2, 3)), (5, 5)).pads == ((0, 1), (2, 3))
    assert resolve((3, 2), 1, 1, "same", (5, 5)).pads == ((1, 1), (0, 1))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (((3, 3, 3), 1, 1, "valid"), "kernel_size has 3 entries, the input has 2 .*Received"),
        (("3", 1, 1, "valid"), "kernel_size must be an int.*Received: kernel_size='3'"),
        ((3, 1.5, 1, "valid"), "stride must be an int.*Received: stride=1.5"),
        ((3, 1, (1, None), "valid"), "dilation must be an int.*Received"),
        ((3, (1,), 1, "valid"), "stride has 1 entries"),
        ((0, 1, 1, "valid"), "kernel_size must be at least 1"),
        ((3, 1, -1, "valid"), "dilation must be at least 1"),
        ((3, 1, 1, "reflect"), "Received: padding='reflect'"),
        ((3, 1, 1, ((1, 1),)), "2 pairs"),
        ((3, 1, 1, ((1, 1), (0, -1))), "must not be negative"),
        ((3, 1, 1, -1), "must not be negative"),
    ],
)
def test_a_window_that_cannot_be_says_what_it_received(arguments: tuple[Any, ...], part: str) -> None:
    with pytest.raises(ShapeError, match=part):
        resolve(*arguments, (8, 8))
