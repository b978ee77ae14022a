"""Window arithmetic: everything about where a sliding window starts, ends and what it covers.

One frozen `Window` answers for shape inference, kernels, pooling divisors, summaries and receptive fields,
at any number of spatial dimensions. For one dimension with input size `n`, kernel `k`, stride `s`, dilation `d`
and padding `(lo, hi)`:

    extent = d * (k - 1) + 1                       what a window spans
    output = (n + lo + hi - extent) // s + 1       how many windows fit
    window o covers the input indices  o * s - lo + i * d,   i in 0..k-1

(Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from numbers import Integral

import numpy as np

from convolve.errors import ShapeError

Pads = tuple[tuple[int, int], ...]
Reach = tuple[np.ndarray, np.ndarray, int]
"""For each position of a dimension: the first position of the other side that it meets, how many, how far apart."""


@dataclass(frozen=True)
class Window:
    """A window that slides over `rank` spatial dimensions, its padding already explicit.

    >>> w = Window(kernel=(3, 3), stride=(2, 2), dilation=(1, 1), pads=((1, 1), (1, 1)))
    >>> w.output((28, 27))
    (14, 14)
    >>> w.extent
    (3, 3)
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pads

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Number of positions in the window."""
        return int(np.prod(self.kernel, dtype=np.int64))

    @property
    def extent(self) -> tuple[int, ...]:
        """How many input positions a window spans, per dimension."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def output(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Output size over an input of `size`; below 1 where no window fits."""
        return tuple(
            (n + lo + hi - e) // s + 1
            for n, (lo, hi), e, s in zip(size, self.pads, self.extent, self.stride, strict=True)
        )

    def dropped(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Padded input positions behind the last window, per dimension: read by nobody."""
        return tuple(
            (n + lo + hi - e) % s for n, (lo, hi), e, s in zip(size, self.pads, self.extent, self.stride, strict=True)
        )

    def offsets(self) -> tuple[tuple[int, ...], ...]:
        """Input offset of every tap relative to the window's start, in scan order (last dimension fastest)."""
        steps = (range(0, k * d, d) for k, d in zip(self.kernel, self.dilation, strict=True))
        return tuple(product(*steps))

    def covers(self, window: tuple[int, ...]) -> np.ndarray:
        """The input position of every tap of a window, (*kernel, rank); those outside of the input are padding.

        >>> Window((3,), (2,), (1,), ((1, 1),)).covers((0,)).ravel()
        array([-1,  0,  1])
        """
        taps = np.moveaxis(np.indices(self.kernel), 0, -1) * np.array(self.dilation, np.int64)
        low = np.array([pair[0] for pair in self.pads], np.int64)
        return np.asarray(taps + np.array(window, np.int64) * np.array(self.stride, np.int64) - low)

    def covered(self, position: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """For every tap, the window that has it on an input position, (*kernel, rank), and whether there is one.

        Strides leave out some; a window may lie outside of those that there are.

        >>> windows, there = Window((3,), (2,), (1,), ((1, 1),)).covered((2,))
        >>> windows.ravel(), there
        (array([1, 1, 0]), array([False,  True, False]))
        """
        low = np.array([pair[0] for pair in self.pads], np.int64)
        taps = np.moveaxis(np.indices(self.kernel), 0, -1) * np.array(self.dilation, np.int64)
        distance, stride = np.array(position, np.int64) + low - taps, np.array(self.stride, np.int64)
        return distance // stride, (distance % stride == 0).all(-1)

    def reads(self, size: tuple[int, ...]) -> list[Reach]:
        """Per dimension and window: the first input position it reads, how many, and how far apart these are.

        >>> Window((3,), (1,), (1,), ((1, 1),)).reads((4,))
        [(array([0, 0, 1, 2]), array([2, 3, 3, 2]), 1)]
        """
        result = []
        for n, o, k, s, d, (lo, _) in zip(
            size, self.output(size), self.kernel, self.stride, self.dilation, self.pads, strict=True
        ):
            start = np.arange(o) * s - lo
            first = np.clip(-(start // d), 0, k)
            last = np.clip(-((start - n) // d), 0, k)
            result.append((start + first * d, np.maximum(0, last - first), d))
        return result

    def readers(self, size: tuple[int, ...]) -> list[Reach]:
        """Per dimension and input position: the first window that reads it, how many do, and how far apart these are.

        >>> Window((3,), (2,), (1,), ((1, 1),)).readers((4,))
        [(array([0, 0, 1, 1]), array([1, 2, 1, 1]), 1)]
        """
        result = []
        for n, o, e, s, d, (lo, _) in zip(
            size, self.output(size), self.extent, self.stride, self.dilation, self.pads, strict=True
        ):
            place = np.arange(n) + lo
            step = d // math.gcd(s, d)
            least = np.maximum(0, -((e - 1 - place) // s))
            # Of `step` windows in a row one at most has a tap at this place: the others' fall between their taps.
            fits = (place[:, None] - (least[:, None] + np.arange(step)) * s) % d == 0
            first = least + fits.argmax(1)
            count = (np.minimum(place // s, o - 1) - first) // step + 1
            result.append((first, np.where(fits.any(1), np.maximum(0, count), 0), step))
        return result

    def ceiled(self, size: tuple[int, ...]) -> Window:
        """The window with as much more padding at the high ends as lets a last, partial window in: ceil mode.

            output = ceil((n + lo + hi - extent) / stride) + 1

        but for a window that would start beyond the input and its low padding (the rule of PyTorch, and of ONNX).

        >>> Window((2,), (2,), (1,), ((0, 0),)).ceiled((5,)).pads
        ((0, 1),)
        """
        pads = []
        for n, (lo, hi), e, s in zip(size, self.pads, self.extent, self.stride, strict=True):
            room = n + lo + hi - e
            more = -room % s
            pads.append((lo, hi + more if room + more < n + lo else hi))
        return replace(self, pads=tuple(pads))

    def painting(self, positions: tuple[int, ...], size: tuple[int, ...]) -> tuple[Window, tuple[int, ...]]:
        """The window over a result of `size` that `positions` of a transposed convolution paint, and how much of it.

        Padding at the high ends becomes what is cut off there; behind what strides can reach nothing is painted.

        >>> Window((3,), (2,), (1,), ((1, 1),)).painting((4,), (8,))
        (Window(kernel=(3,), stride=(2,), dilation=(1,), pads=((1, 0),)), (8,))
        """
        pads, painted = [], []
        for n, e, s, (lo, _), wanted in zip(positions, self.extent, self.stride, self.pads, size, strict=True):
            reached = (n - 1) * s + e - lo
            pads.append((lo, max(0, reached - wanted)))
            painted.append(min(wanted, reached + s - 1))
        return replace(self, pads=tuple(pads)), tuple(painted)

    def transposed_pads(self, size: tuple[int, ...]) -> Pads:
        """Margins an output gradient needs so that the gradient of the input is a plain gather over it.

        The input position p receives from output o, tap i where p = o * s - lo + i * d.
        """
        result = []
        for n, o, e, s, (lo, _) in zip(size, self.output(size), self.extent, self.stride, self.pads, strict=True):
            first = -((e - 1 - lo) // s) if e - 1 - lo >= 0 else (lo - e + 1 + s - 1) // s
            last = (n - 1 + lo) // s
            result.append((max(0, -first), max(0, last - (o - 1))))
        return tuple(result)


def per_dimension(value: int | tuple[int, ...], rank: int, what: str) -> tuple[int, ...]:
    """Spread an int over `rank` dimensions; check a tuple's length and that every entry is an int of at least 1.

    >>> per_dimension(3, 2, "kernel_size")
    (3, 3)
    """
    listed = (value,) * rank if isinstance(value, Integral) else value
    if not isinstance(listed, (tuple, list)) or not all(isinstance(v, Integral) for v in listed):
        raise ShapeError(f"{what} must be an int, or one int a spatial dimension. Received: {what}={value!r}")
    result = tuple(int(v) for v in listed)
    if len(result) != rank:
        raise ShapeError(
            f"{what} has {len(result)} entries, the input has {rank} spatial dimensions. Received: {what}={value!r}"
        )
    if any(v < 1 for v in result):
        raise ShapeError(f"{what} must be at least 1 in every dimension. Received: {what}={value}")
    return result


def padding_pairs(padding: object, rank: int, words: str = "") -> Pads:
    """Padding as a pair a dimension; an int is that of every end. `words` are what else the caller takes.

    >>> padding_pairs(1, 2)
    ((1, 1), (1, 1))
    """
    pairs = ((padding, padding),) * rank if isinstance(padding, Integral) else padding
    if not (
        isinstance(pairs, (tuple, list))
        and len(pairs) == rank
        and all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs)
        and all(isinstance(n, Integral) for pair in pairs for n in pair)
    ):
        raise ShapeError(
            f"padding must be {words}an int or {rank} pairs (lo, hi), one a spatial dimension. "
            f"Received: padding={padding!r}"
        )
    return tuple((int(lo), int(hi)) for lo, hi in pairs)


def resolve(
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    padding: str | int | tuple[tuple[int, int], ...],
    size: tuple[int, ...],
) -> Window:
    """Make a window explicit for an input of spatial `size`.

    `same` pads so that the output has ceil(size / stride) positions, the odd one at the high end; `same_lower` puts it
    at the low end.

    >>> resolve(3, 2, 1, "same", (28, 28)).pads
    ((0, 1), (0, 1))
    >>> resolve(3, 1, 1, "valid", (28,)).output((28,))
    (26,)
    """
    rank = len(size)
    kernel = per_dimension(kernel, rank, "kernel_size")
    stride = per_dimension(stride, rank, "stride")
    dilation = per_dimension(dilation, rank, "dilation")
    pads: Pads
    if padding == "valid":
        pads = ((0, 0),) * rank
    elif padding in ("same", "same_lower"):
        halves = [
            (total // 2, total - total // 2)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
            for total in [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)]
        ]
        pads = tuple(pair if padding == "same" else pair[::-1] for pair in halves)
    else:
        pads = padding_pairs(padding, rank, '"same", "same_lower", "valid", ')
    if any(p < 0 for pair in pads for p in pair):
        raise ShapeError(f"padding must not be negative. Received: padding={padding!r}")
    return Window(kernel, stride, dilation, pads)
