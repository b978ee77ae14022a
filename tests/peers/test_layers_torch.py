"""Sliding layers against PyTorch over any legal attributes: rank, sizes, kernel, stride, dilation, padding, groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from helpers import normal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convolve import AvgPool, Conv, ConvTranspose, LpPool, MaxPool, ops
from peers.test_ops_torch import built, compare, convolve_with, function, outputs

torch: Any = pytest.importorskip("torch")

LARGEST = {1: 30, 2: 12, 3: 7}
Pair = tuple[int, int]


@dataclass(frozen=True)
class Slide:
    """What a window does over an input: one entry a dimension, and padding as people write it."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str | int | tuple[Pair, ...]

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def extent(self) -> tuple[int, ...]:
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def pads(self, totals: Sequence[int]) -> tuple[Pair, ...]:
        """Padding made explicit; "same" pads so much a dimension, the odd position at the high end."""
        if self.padding == "valid":
            return ((0, 0),) * self.rank
        if isinstance(self.padding, int):
            return ((self.padding,) * 2,) * self.rank
        if isinstance(self.padding, tuple):
            return self.padding
        halves = [(t // 2, t - t // 2) for t in totals]
        return tuple(pair if self.padding == "same" else pair[::-1] for pair in halves)

    @property
    def over(self) -> tuple[Pair, ...]:
        """Of a window over the input: "same" makes ceil(size / stride) positions."""
        ends = [(-(-n // s) - 1) * s + e for n, s, e in zip(self.size, self.stride, self.extent, strict=True)]
        return self.pads([max(0, end - n) for end, n in zip(ends, self.size, strict=True)])


@st.composite
def slides(draw: st.DrawFn) -> Slide:
    rank = draw(st.integers(1, 3))

    def each(least: int, most: int) -> tuple[int, ...]:
        return draw(st.tuples(*[st.integers(least, most)] * rank))

    pairs = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    padding = draw(st.sampled_from(["same", "same_lower", "valid"]) | st.integers(0, 3) | pairs)
    return Slide(each(1, LARGEST[rank]), each(1, 4), each(1, 3), each(1, 3), padding)


def padded(x: Any, pads: Sequence[Pair], value: float = 0.0) -> Any:
    """More positions at the ends, or fewer."""
    return torch.nn.functional.pad(x, [n for pair in reversed(pads) for n in pair], value=value)


GROUPS = st.sampled_from(
    [(1, 3, 5), (1, 8, 17), (2, 4, 6), (3, 3, 3), (3, 3, 6), (5, 10, 5), (16, 16, 16), (4, 32, 20)]
)
"""Groups, channels and filters."""


@given(slides(), GROUPS, st.booleans())
@settings(max_examples=60)
def test_any_convolution(slide: Slide, groups: tuple[int, int, int], depthwise: bool) -> None:
    count, channels, filters = groups
    pads, size = slide.over, slide.size
    assume(all(n + sum(pair) >= e for n, pair, e in zip(size, pads, slide.extent, strict=True)))
    given = "depthwise" if depthwise and count == channels else count
    layer = Conv(filters, slide.kernel, slide.stride, slide.padding, slide.dilation, groups=given)
    compare(
        built(layer, "weight", "bias"),
        lambda x, w, b: convolve_with(slide.rank)(
            padded(x, pads), w, b, stride=slide.stride, dilation=slide.dilation, groups=count
        ),
        *(normal((2, *size, channels)), normal((filters, *slide.kernel, channels // count), 1), normal((filters,), 2)),
        kinds="ipp",
    )


@given(slides(), GROUPS, st.booleans(), st.data())
@settings(max_examples=60)
def test_any_transposed_convolution(slide: Slide, groups: tuple[int, int, int], depthwise: bool, data: Any) -> None:
    """PyTorch makes all of it; what padding cuts off is cut off here, output padding is put behind."""
    count, channels, filters = groups
    most = [max(pair) - 1 for pair in zip(slide.stride, slide.dilation, strict=True)]
    extra = data.draw(st.tuples(*[st.integers(0, n) for n in most]))
    whole = [(n - 1) * s + e for n, s, e in zip(slide.size, slide.stride, slide.extent, strict=True)]
    grown = [n * s for n, s in zip(slide.size, slide.stride, strict=True)]
    pads = slide.pads([max(0, n - m) for n, m in zip(whole, grown, strict=True)])
    size = [n - lo - hi for n, (lo, hi) in zip(whole, pads, strict=True)]
    if slide.padding in ("same", "same_lower"):
        size = grown
    size = [n + more for n, more in zip(size, extra, strict=True)]
    assume(min(size) >= 1 and all(lo < n for n, (lo, _) in zip(whole, pads, strict=True)))
    ends = [(-lo, m - (n - lo)) for n, m, (lo, _) in zip(whole, size, pads, strict=True)]
    given = "depthwise" if depthwise and count == channels else count
    layer = ConvTranspose(
        filters, slide.kernel, slide.stride, slide.padding, slide.dilation, output_padding=extra, groups=given
    )
    transposed: Any = getattr(torch.nn.functional, f"conv_transpose{slide.rank}d")

    def theirs(x: Any, w: Any, b: Any) -> Any:
        made = padded(transposed(x, w, None, slide.stride, 0, 0, count, slide.dilation), ends)
        return made + b.reshape(-1, *[1] * slide.rank)

    compare(
        built(layer, "weight", "bias"),
        theirs,
        *(normal((2, *slide.size, channels)), normal((channels, *slide.kernel, filters // count), 1)),
        normal((filters,), 2),
        kinds="ipp",
    )


@given(slides(), st.booleans(), st.sampled_from([1, 3, 17]), st.sampled_from([1, 2, 3, 2.5]))
@settings(max_examples=60)
def test_any_pool(slide: Slide, ceil_mode: bool, channels: int, p: float) -> None:
    """PyTorch slides without padding over what was padded, far enough for the windows that ceil mode adds."""
    rank, size = slide.rank, slide.size
    pads = slide.over
    largest = MaxPool(slide.kernel, slide.stride, slide.padding, slide.dilation, ceil_mode)
    average = AvgPool(slide.kernel, slide.stride, slide.padding, False, slide.dilation, ceil_mode)
    norm = LpPool(slide.kernel, slide.stride, slide.padding, p, slide.dilation, ceil_mode)
    counts = []
    for n, (lo, hi), k, s, d, e in zip(
        size, pads, slide.kernel, slide.stride, slide.dilation, slide.extent, strict=True
    ):
        count, more = ((n + lo + hi - e) // s + 1, -(-(n + lo + hi - e) // s) + 1)
        counts.append(more if ceil_mode and (more - 1) * s < n + lo else count)
        seen = [any(0 <= o * s - lo + i * d < n for i in range(k)) for o in range(counts[-1])]
        assume(seen and all(seen))
    x = normal((2, *size, channels))
    at = outputs(largest, x.shape)
    assert [part.stop for part in at[2:]] == counts
    behind = tuple((lo, hi + s + e) for (lo, hi), s, e in zip(pads, slide.stride, slide.extent, strict=True))

    further = [(0, s + e) for s, e in zip(slide.stride, slide.extent, strict=True)]

    def sums(v: Any) -> Any:
        ones = torch.ones(1, 1, *slide.kernel, dtype=v.dtype)
        planes = v.flatten(0, 1)[:, None]
        made = convolve_with(rank)(planes, ones, stride=slide.stride, dilation=slide.dilation)
        return made[:, 0].unflatten(0, v.shape[:2])[at]

    def theirs(v: Any) -> Any:
        beyond = padded(v, behind, -math.inf)
        top = function("max_pool", rank)(beyond, slide.kernel, slide.stride, 0, slide.dilation)[at]
        asked = padded(padded(torch.ones_like(v), pads, 1.0), further)
        total, inside, counted = sums(padded(v, behind)), sums(padded(torch.ones_like(v), behind)), sums(asked)
        power = sums(padded(v.abs() ** p, behind)) ** (1 / p)
        return torch.cat([top, total / inside, total / counted, power], 1)

    layers = (largest, average, replace(average, count_padding=True), norm)
    compare(lambda v: ops.concat(*(built(layer)(v) for layer in layers)), theirs, x)
