"""A batch filled from the rows of a larger array, each seen through an affine map, toned, noised and with holes.

    Y[m][p] = tone[m]( sum over the 2^rank neighbours q of A[m] p of  weight(q) * X[row[m]][q] )

Weights are those of linear interpolation. All of a row is done by one piece, several places at a time but each
by itself, so that its bits depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any

import llvmlite.ir as ir

from convolve.native.builder import ELEMENTS, I8, I32, I64, Expr, Kernel, Pointer


@dataclass(frozen=True)
class Augment:
    """Rows of `dtype` ("u1" or "f4") and `rank` spatial dimensions; outside lies `fill`: zero, edge or reflect."""

    rank: int
    dtype: str
    fill: str

    @property
    def arguments(self) -> tuple[str, ...]:
        sizes = tuple(f"size{i}:int" for i in range(self.rank))
        return (
            *(f"x:{self.dtype}", f"y:{self.dtype}", "row:i8", "map:f4", *sizes, "channels:int"),
            *("tone:f4", "grey:f4", "noise:f4", "key:i8"),
            *("boxes:int", "box:i4", "value:f4"),
        )

    def emit(self, k: Kernel) -> None:
        sizes = [k.args[f"size{i}"] for i in range(self.rank)]
        strides = [k.channels]
        for size in sizes[:0:-1]:
            strides.insert(0, strides[0] * size)
        image = strides[0] * sizes[0]
        row = _Row(self, k, sizes, strides, k.x + (k.row + k.piece).load() * image, k.y + k.piece * image)
        row.fill()
        row.erase()


@dataclass(frozen=True)
class Mix:
    """Rows of a filled batch, each blended with another, and pasted over with a box of it.

    Y[m] = share[m] * X[m] + (1 - share[m]) * X[partner[m]],  and X[partner[m]] alone in box[m]
    """

    rank: int
    dtype: str

    @property
    def arguments(self) -> tuple[str, ...]:
        sizes = tuple(f"size{i}:int" for i in range(self.rank))
        return (f"x:{self.dtype}", f"y:{self.dtype}", "partner:i8", "share:f4", "box:i4", *sizes, "channels:int")

    def emit(self, k: Kernel) -> None:
        strides = [k.channels]
        for i in range(self.rank - 1, -1, -1):
            strides.insert(0, strides[0] * k.args[f"size{i}"])
        image, *strides = strides
        x, y = k.x + k.piece * image, k.y + k.piece * image
        other = k.x + (k.partner + k.piece).load() * image
        share = (k.share + k.piece).load()
        ours, theirs = k.splat(share), k.splat(1.0 - share)
        whole = image // k.target.lanes * k.target.lanes
        with k.range(whole, step=k.target.lanes) as at:
            value = ours * (x + at).vector() + theirs * (other + at).vector()
            (y + at).store_vector(_as_stored(k, self.dtype, value))
        with k.range(image, whole) as at:
            value = share * _single(k, x + at) + (1.0 - share) * _single(k, other + at)
            (y + at).store(_as_stored(k, self.dtype, value))
        box = k.box + k.piece * (2 * self.rank)
        with ExitStack() as loops:
            at = k.lift(0)
            for i, stride in enumerate(strides):
                first, last = ((box + (2 * i + j)).load() for j in range(2))
                at = at + loops.enter_context(k.range(last, first)) * stride
            channel = loops.enter_context(k.range(k.channels))
            pasted = k.ir.load((other + (at + channel)).value, typ=ELEMENTS[self.dtype])
            (y + (at + channel)).store(Expr(k, pasted))


@dataclass(frozen=True)
class _Row:
    """One row in the making."""

    spec: Augment
    k: Kernel
    sizes: list[Expr]
    strides: list[Expr]
    x: Pointer
    y: Pointer

    def fill(self) -> None:
        k, rank, lanes = self.k, self.spec.rank, self.k.target.lanes
        maps = k.map + k.piece * (rank * (rank + 1))
        factors = [[(maps + (i * (rank + 1) + j)).load() for j in range(rank + 1)] for i in range(rank)]
        tone = k.tone + k.piece * 3
        own, mixed, bias = k.splat(tone.load()), (tone + 1).load(), k.splat((tone + 2).load())
        amplitude = (k.noise + k.piece).load()
        key = (k.key + k.piece).load()
        low, high = k.splat(k.narrow(key)), k.splat(k.narrow(_logical(k, key, 32)))
        count = Expr(k, ir.Constant(k.vector_type(), list(map(float, range(lanes)))))
        steps = Expr(k, ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))) * k.splat(k.narrow(k.channels))
        with ExitStack() as loops:
            outer = [loops.enter_context(k.range(size)) for size in self.sizes[:-1]]
            first = loops.enter_context(k.range(self.sizes[-1], step=lanes))
            along = k.splat(k.to_float(first)) + count
            coordinates = []
            for i in range(rank):
                total = factors[i][rank]
                for j, place in enumerate(outer):
                    total = total + factors[i][j] * k.to_float(place)
                coordinates.append(k.splat(total) + k.splat(factors[i][rank - 1]) * along)
            taps = self._taps(coordinates)
            at, left = self._offset([*outer, first]), self.sizes[-1] - first
            grey = k.variable(bias)
            with k.when(mixed.differs(0.0)), k.range(k.channels) as channel:
                share = (k.grey + channel).splat()
                grey.set(grey.get() + k.splat(mixed) * (share * self._seen(taps, channel)))
            constant = grey.get()
            with k.range(k.channels) as channel:
                value = k.variable(own * self._seen(taps, channel) + constant)
                with k.when(amplitude.differs(0.0)):
                    number = k.splat(k.narrow(at + channel)) + steps
                    value.set(value.get() + k.splat(amplitude) * _nearly_normal(k, number, low, high))
                self._store_apart(at + channel, value.get(), left)

    def _taps(self, coordinates: Sequence[Expr]) -> list[tuple[list[Expr], Expr]]:
        """The offsets in each lane, and the weights, of each neighbour.

        Those outside have weight 0, or stand for one inside; so do those of lanes beyond the row's end.
        """
        k = self.k
        sides = []
        for coordinate, size, stride in zip(coordinates, self.sizes, self.strides, strict=True):
            floor = k.unary("floor", coordinate)
            upper = coordinate - floor
            lower = 1.0 - upper
            first = Expr(k, k.ir.fptosi(floor.value, ir.VectorType(I32, k.target.lanes)))
            sides.append([self._neighbour(first + n, w, size, stride) for n, w in enumerate((lower, upper))])
        taps = []
        for chosen in product(*sides):
            (offset, weight), *others = chosen
            for further, factor in others:
                offset, weight = offset + further, weight * factor
            each = [Expr(k, k.ir.sext(k.lane(offset, lane).value, I64)) for lane in range(k.target.lanes)]
            taps.append((each, weight))
        return taps

    def _neighbour(self, index: Expr, weight: Expr, size: Expr, stride: Expr) -> tuple[Expr, Expr]:
        k = self.k
        zero, last = k.lift(0, index.type), k.splat(k.narrow(size - 1))
        steps = k.splat(k.narrow(stride))
        if self.spec.fill == "reflect":
            period = k.splat(k.narrow(k.select(size > 1, (size - 1) * 2, k.lift(1))))
            rest = Expr(k, k.ir.srem(index.value, period.value))
            rest = k.select(rest < 0, rest + period, rest)
            return k.select(rest > last, period - rest, rest) * steps, weight
        clamped = k.select(index < 0, zero, index)
        clamped = k.select(clamped < last, clamped, last)
        if self.spec.fill == "zero":
            weight = k.select(clamped.equals(index), weight, k.constant(0.0))
        return clamped * steps, weight

    def _offset(self, places: Sequence[Expr]) -> Expr:
        total = places[0] * self.strides[0]
        for place, stride in zip(places[1:], self.strides[1:], strict=True):
            total = total + place * stride
        return total

    def _seen(self, taps: Sequence[tuple[list[Expr], Expr]], channel: Expr) -> Expr:
        total: Expr | None = None
        for offsets, weight in taps:
            part = weight * self._gathered(offsets, channel)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _gathered(self, offsets: Sequence[Expr], channel: Expr) -> Expr:
        """The elements at these offsets, a lane each, as floats."""
        k, element = self.k, ELEMENTS[self.spec.dtype]
        made: Any = ir.Constant(ir.VectorType(element, len(offsets)), ir.Undefined)
        for lane, offset in enumerate(offsets):
            loaded = k.ir.load((self.x + (offset + channel)).value, typ=element)
            made = k.ir.insert_element(made, loaded, I32(lane))
        return Expr(k, made if self.spec.dtype == "f4" else k.ir.uitofp(made, k.vector_type(len(offsets))))

    def _store_apart(self, at: Expr, value: Expr, left: Expr) -> None:
        """Store the first `left` lanes, as far apart as a row's places are."""
        k = self.k
        stored = _as_stored(k, self.spec.dtype, value)
        places = [self.y + (at + k.channels * lane) for lane in range(k.target.lanes)]
        with k.either(left >= k.target.lanes) as (whole, part):
            with whole:
                for lane, place in enumerate(places):
                    place.store(k.lane(stored, lane))
            with part:
                for lane, place in enumerate(places):
                    with k.when(left > lane):
                        place.store(k.lane(stored, lane))

    def erase(self) -> None:
        k, rank = self.k, self.spec.rank
        with k.range(k.boxes) as number:
            which = k.piece * k.boxes + number
            stored = _as_stored(k, self.spec.dtype, (k.value + number).load())
            bounds = [[(k.box + (which * (2 * rank) + (2 * i + j))).load() for j in range(2)] for i in range(rank)]
            with ExitStack() as loops:
                places = [loops.enter_context(k.range(last, first)) for first, last in bounds]
                at = self._offset(places)
                with k.range(k.channels) as channel:
                    (self.y + (at + channel)).store(stored)


def _as_stored(k: Kernel, dtype: str, value: Expr) -> Expr:
    """A number, or a vector, as the result holds it: bytes are rounded, and stay between 0 and 255."""
    if dtype == "f4":
        return value
    low, high = k.lift(0.0, value.type), k.lift(255.0, value.type)
    value = k.select(value > 0.0, value, low)
    value = k.unary("floor", k.select(value < 255.0, value, high) + 0.5)
    kind = ir.VectorType(I8, value.type.count) if isinstance(value.type, ir.VectorType) else I8
    return Expr(k, k.ir.fptoui(value.value, kind))


def _single(k: Kernel, place: Pointer) -> Expr:
    """One element, as a float."""
    loaded = place.load()
    return loaded if loaded.is_float else k.to_float(loaded)


def _nearly_normal(k: Kernel, number: Expr, low: Expr, high: Expr) -> Expr:
    """The sum of four uniform numbers, of mean 0 and standard deviation 1, of an element: `dropout`'s hash, twice."""
    total: Expr | None = None
    for half in range(2):
        h = ((number * 2 + half) * -0x61C88647) ^ low
        h = (h ^ _logical(k, h, 16)) * -0x7A143593
        h = ((h ^ _logical(k, h, 13)) ^ high) * -0x3D4D51CB
        h = h ^ _logical(k, h, 16)
        part = (h & 0xFFFF) + _logical(k, h, 16)
        total = part if total is None else total + part
    assert total is not None
    floats = Expr(k, k.ir.sitofp(total.value, k.vector_type(total.type.count)))
    return (floats - 2.0 * 65535) * NOISE_SCALE


NOISE_SCALE = 3.0**0.5 / 65536


def _logical(k: Kernel, z: Expr, bits: int) -> Expr:
    return Expr(k, k.ir.lshr(z.value, k.lift(bits, z.type).value))
