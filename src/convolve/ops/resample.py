"""Padding and resizing: one sparse linear map along each spatial dimension, and the maps turned round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import GRAIN, MOST_PIECES, Group, Lowering, offsets, table
from convolve.native.kernels.resample import Resample as ResampleKernel
from convolve.ops.reduce import mean, reshape_to
from convolve.program import Argument, At, Buffer
from convolve.window import Pads, padding_pairs, per_dimension

PADDINGS = ("constant", "reflect", "edge", "wrap")
RESIZINGS = ("nearest", "linear", "area")

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A sparse matrix: each entry's row, column and weight, in order of rows, then columns."""


@dataclass(frozen=True)
class Map:
    """How the `output` positions along one dimension are made of its `size` positions.

    Paddings put the positions at `lo`. Resizings, for position o of m made of n:

        nearest   x[floor(o n / m)]
        linear    between the two positions around (o + 1/2) n / m - 1/2, not beyond the first and the last
        area      the mean of x[floor(o n / m)] .. x[ceil((o + 1) n / m) - 1]
        table     the positions and weights of `rows`, one tuple of pairs for each o

    Raises:
        ShapeError: there is no such map; a reflection or a wrapped image that would have to be repeated, too.
    """

    kind: str
    size: int
    output: int
    lo: int = 0
    rows: tuple[tuple[tuple[int, float], ...], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in (*PADDINGS, *RESIZINGS, "table") or self.size < 1 or self.output < 1:
            raise ShapeError(f"no map {self.kind!r} from {self.size} to {self.output} positions")
        if len(self.rows) != (self.output if self.kind == "table" else 0) or not all(
            0 <= at < self.size for row in self.rows for at, _ in row
        ):
            raise ShapeError(f"a table of {len(self.rows)} rows does not make {self.output} of {self.size} positions")
        lo, hi = self.pads
        if min(lo, hi) < 0 or (self.kind in RESIZINGS and self.lo):
            raise ShapeError(f"{self.kind} makes no {self.output} positions of {self.size} with {self.lo} before them")
        if self.kind == "reflect" and max(lo, hi) >= self.size:
            raise ShapeError(
                f"reflection reaches {self.size - 1} positions into {self.size}, because the edge is not repeated. "
                f'Received: padding {(lo, hi)}; pad less, or with mode="edge"'
            )
        if self.kind == "wrap" and max(lo, hi) > self.size:
            raise ShapeError(
                f"wrapping around reaches {self.size} positions, once around. Received: padding {(lo, hi)}; pad less, "
                "or twice"
            )

    @property
    def pads(self) -> tuple[int, int]:
        """Positions before and behind those of the input; none where it is resized."""
        return (self.lo, self.output - self.size - self.lo) if self.kind in PADDINGS else (0, 0)

    def entries(self, transposed: bool = False) -> Entries:
        """The map as a sparse matrix (output, size), or its transpose.

        >>> Map("linear", 2, 4).entries()
        (array([0, 1, 1, 2, 2, 3]), array([0, 0, 1, 0, 1, 1]), array([1.  , 0.75, 0.25, 0.25, 0.75, 1.  ]))
        """
        rows, columns, weights = self._entries()
        if transposed:
            rows, columns = columns, rows
        order = np.lexsort((columns, rows))
        return rows[order], columns[order], weights[order]

    def _entries(self) -> Entries:
        n, m = self.size, self.output
        o = np.arange(m)
        if self.kind == "table":
            pairs = np.array([pair for row in self.rows for pair in row], np.float64).reshape(-1, 2)
            return o.repeat([len(row) for row in self.rows]), pairs[:, 0].astype(np.int64), pairs[:, 1]
        if self.kind == "linear":
            # In units of 1 / 2m, so that equal weights are equal numbers.
            low, rest = np.divmod(np.clip((2 * o + 1) * n - m, 0, 2 * m * (n - 1)), 2 * m)
            second = rest > 0
            weight = rest / (2 * m)
            return np.append(o, o[second]), np.append(low, low[second] + 1), np.append(1 - weight, weight[second])
        if self.kind == "area":
            first, last = o * n // m, -(-(o + 1) * n // m)
            count = last - first
            rows = o.repeat(count)
            within = np.arange(len(rows)) - (np.cumsum(count) - count).repeat(count)
            return rows, first.repeat(count) + within, (1 / count).repeat(count)
        at = o - self.lo
        if self.kind == "constant":
            inside = (at >= 0) & (at < n)
            o, at = o[inside], at[inside]
        elif self.kind == "reflect":
            at = n - 1 - np.abs(n - 1 - np.abs(at))
        elif self.kind == "edge":
            at = at.clip(0, n - 1)
        elif self.kind == "wrap":
            at = at % n
        else:
            at = o * n // m
        return o, at, np.ones(len(o))


@register
@dataclass(frozen=True)
class Resample(Op):
    """The maps along the spatial dimensions of x (n, *spatial, channels), one after the other, or their transposes.

    A transpose is the gradient: along each dimension, every position collects what it gave. Positions made of nothing
    (padding with a constant) hold `fill`.
    """

    name: ClassVar[str] = "resample"
    arity: ClassVar[int | None] = 1
    maps: tuple[Map, ...]
    transposed: bool = False
    fill: float = 0.0

    @property
    def pads(self) -> Pads | None:
        """Positions added at each end of each dimension, where the op does nothing else."""
        padding = not self.transposed and all(m.kind in PADDINGS for m in self.maps)
        return tuple(m.pads for m in self.maps) if padding else None

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        sizes = tuple((m.output, m.size) if self.transposed else (m.size, m.output) for m in self.maps)
        if len(x) != len(sizes) + 2 or x[1:-1] != tuple(n for n, _ in sizes):
            raise ShapeError(f"resampling of spatial size {tuple(n for n, _ in sizes)} over an input {x}")
        return (x[0], *(m for _, m in sizes), x[-1])

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        [x] = inputs
        y, missing = x, np.zeros((), bool)
        for axis, (map_, size) in enumerate(zip(self.maps, self.shape(x.shape)[1:-1], strict=True), 1):
            rows, columns, weights = map_.entries(self.transposed)
            source = np.moveaxis(y, axis, 0)
            made = np.zeros((size, *source.shape[1:]), x.dtype)
            np.add.at(made, rows, source[columns] * weights.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1)))
            y = np.moveaxis(made, 0, axis)
            missing = np.logical_or.outer(missing, np.bincount(rows, minlength=size) == 0)
        return np.where(missing[None, ..., None], np.asarray(self.fill, x.dtype), y)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (apply(Resample(self.maps, not self.transposed), dy),)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x = low.plain(y.inputs[0])
        if self.transposed and all(m.kind == "constant" for m in self.maps):
            start = x.start + sum(m.lo * s for m, s in zip(self.maps, x.strides[1:-1], strict=True))
            low.alias(y, replace(x, shape=y.shape, start=start, pads=()))
            return
        result, channels = low.result(y), x.shape[-1]
        rows, places = self._rows(x, result), offsets(result.shape[1:-1], result.strides[1:-1])
        made = rows.entries[rows.member] > 0
        if not made.all():
            first, count = runs(len(made), (places[~made], channels))
            spans = np.stack([result.start + places[~made][first], count * channels], 1)
            low.fill(result, spans, float(self.fill), "fill", disjoint=True)
        origin, place, member = rows.origin[made], places[made], rows.member[made]
        first, count = runs(max(1, GRAIN // channels), (origin, channels), (place, channels), (member, 0))
        kinds, pattern = np.unique(np.stack([member[first], count], 1), axis=0, return_inverse=True)
        of, begin = kinds[:, 0], np.cumsum(rows.entries) - rows.entries
        work = int(rows.entries[rows.member].sum()) * channels
        pieces = max(1, min(len(first), work // GRAIN, MOST_PIECES))
        arguments: dict[str, Argument] = {
            "x": At(x.memory, x.start),
            "y": At(result.memory, result.start),
            "x_image": x.strides[0],
            "y_image": result.strides[0],
            "pieces": pieces,
            "rows": len(first),
            "row": table(np.stack([origin[first], place[first], pattern.reshape(-1)], 1)),
            "pattern": table(np.stack([begin[of], rows.entries[of], kinds[:, 1] * channels], 1)),
            "offset": table(rows.offset),
            "weight": rows.weight.astype(np.float32),
        }
        name = "/".join(dict.fromkeys(m.kind for m in self.maps)) + (" gradient" if self.transposed else "")
        low.call(ResampleKernel(), arguments, pieces * x.shape[0], result, name, disjoint=True)

    def _rows(self, x: Buffer, y: Buffer) -> Rows:
        one = np.zeros(1, np.int64)
        rows = Rows(one, one, one + 1, one, np.ones(1))
        for map_, size, stride in zip(self.maps, y.shape[1:-1], x.strides[1:-1], strict=True):
            rows = rows.crossed(Rows.of(map_.entries(self.transposed), size, stride))
        return rows


@dataclass(frozen=True)
class Rows:
    """A sparse matrix whose rows share patterns: row m is pattern `member[m]`, moved to `origin[m]`.

    `entries` counts those of each pattern; `offset` and `weight` list them, one pattern behind the other.
    """

    origin: np.ndarray
    member: np.ndarray
    entries: np.ndarray
    offset: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, entries: Entries, size: int, stride: int) -> Rows:
        """The rows of one dimension of `size` positions, whose columns lie `stride` apart."""
        rows, columns, weight = entries
        count = np.bincount(rows, minlength=size)
        stop = np.cumsum(count)
        origin = np.where(count > 0, columns[np.minimum(stop - count, len(columns) - 1)], 0)
        offset = columns - origin[rows]
        known: dict[bytes, int] = {}
        first = [
            known.setdefault(offset[a:b].tobytes() + weight[a:b].tobytes(), row)
            for row, (a, b) in enumerate(zip(stop - count, stop, strict=True))
        ]
        shown, member = np.unique(first, return_inverse=True)
        kept = np.isin(rows, shown)
        return cls(origin * stride, member.reshape(-1), count[shown], offset[kept] * stride, weight[kept])

    def crossed(self, other: Rows) -> Rows:
        """Every row of this with every row of another: offsets add up, weights multiply."""
        patterns = len(other.entries)
        owner = np.arange(len(self.entries)).repeat(self.entries)
        others = np.arange(patterns).repeat(other.entries)
        order = np.argsort(np.add.outer(owner * patterns, others).ravel(), kind="stable")
        return Rows(
            np.add.outer(self.origin, other.origin).ravel(),
            np.add.outer(self.member * patterns, other.member).ravel(),
            np.multiply.outer(self.entries, other.entries).ravel(),
            np.add.outer(self.offset, other.offset).ravel()[order],
            np.multiply.outer(self.weight, other.weight).ravel()[order],
        )


def runs(most: int, *walks: tuple[np.ndarray, int]) -> tuple[np.ndarray, np.ndarray]:
    """First index and length of each run in which every table goes on by its step; none is longer than `most`.

    >>> runs(3, (np.array([0, 2, 4, 9, 11, 13, 15, 17]), 2))
    (array([0, 3, 6]), array([3, 3, 2]))
    """
    total = len(walks[0][0])
    apart = np.logical_or.reduce([np.diff(values) != step for values, step in walks])
    first = np.flatnonzero(np.append(True, apart))
    within = np.arange(total) - first.repeat(np.diff(np.append(first, total)))
    first = np.flatnonzero(within % most == 0)
    return first, np.diff(np.append(first, total))


def pad(value: Value, padding: int | Pads, mode: str = "constant", fill: float = 0.0) -> Value:
    """More positions at both ends of each spatial dimension of `value` (n, *spatial, channels).

    Args:
        padding: an int, or (lo, hi) for each dimension.
        mode: "constant" (`fill`), "reflect", "edge" or "wrap", as in NumPy's `pad`.

    Raises:
        ShapeError: another mode; negative padding; more than there is to reflect or to wrap around.
    """
    sizes = _spatial(value, "padding")
    _one_of(mode, PADDINGS)
    pads = padding_pairs(padding, len(sizes))
    if any(n < 0 for pair in pads for n in pair):
        raise ShapeError(f"padding must not be negative; ops.cut takes positions away. Received: padding={padding!r}")
    maps = tuple(Map(mode, n, lo + n + hi, lo) for n, (lo, hi) in zip(sizes, pads, strict=True))
    return apply(Resample(maps, fill=float(fill)), value)


def resize(value: Value, size: int | tuple[int, ...], mode: str = "nearest") -> Value:
    """`value` (n, *spatial, channels) with other spatial sizes.

    Args:
        size: an int, or the new size of each dimension.
        mode: "nearest"; "linear" (centres of positions at halves, ends repeated; bilinear and trilinear are the same
            along each dimension); "area", the mean of the positions that each one covers.

    Raises:
        ShapeError: another mode, or a size below 1.
    """
    sizes = _spatial(value, "resizing")
    _one_of(mode, RESIZINGS)
    wanted = per_dimension(size, len(sizes), "size")
    if mode == "area" and set(wanted) == {1}:
        return reshape_to(mean(value, range(1, len(sizes) + 1)), (value.shape[0], *wanted, value.shape[-1]))
    return apply(Resample(tuple(Map(mode, n, m) for n, m in zip(sizes, wanted, strict=True))), value)


def take(value: Value, axis: int, places: Sequence[int]) -> Value:
    """The places of one axis, in the order given: any may come several times, or not at all."""
    size = value.shape[axis]
    if not places or not all(0 <= p < size for p in places):
        raise ShapeError(f"takes places 0 to {size - 1} of axis {axis}, one or more. Received: {list(places)[:8]}")
    rows = tuple(((int(p), 1.0),) for p in places)
    return mapped(value, axis, Map("table", size, len(rows), rows=rows))


def mapped(value: Value, axis: int, along: Map, fill: float = 0.0) -> Value:
    """A map along one axis, whichever it is."""
    shape = value.shape
    flat = reshape_to(value, (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])))
    return reshape_to(apply(Resample((along,), fill=fill), flat), (*shape[:axis], along.output, *shape[axis + 1 :]))


def _spatial(value: Value, what: str) -> Shape:
    if len(value.shape) < 3:
        raise ShapeError(
            f"{what} needs (batch, *spatial, channels), at least one spatial dimension. "
            f"Received: input of shape {value.shape[1:]}"
        )
    return value.shape[1:-1]


def _one_of(mode: object, known: Sequence[str]) -> None:
    if mode not in known:
        raise ShapeError(f"mode must be one of {', '.join(known)}. Received: mode={mode!r}")
