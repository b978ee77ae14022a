"""A batch filled from the rows of a larger array, each seen through an affine map, toned, noised and with holes.

    Y[m][p] = tone[m]( sum over the 2^rank neighbours q of A[m] p of  weight(q) * X[row[m]][q] )

Weights are those of linear interpolation. All of a row is done by one piece, element by element, so that its bits
depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

from convolve.native.builder import F32, I8, I64, Expr, Kernel, Pointer


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
class _Row:
    """One row in the making."""

    spec: Augment
    k: Kernel
    sizes: list[Expr]
    strides: list[Expr]
    x: Pointer
    y: Pointer

    def fill(self) -> None:
        k, rank = self.k, self.spec.rank
        maps = k.map + k.piece * (rank * (rank + 1))
        factors = [[(maps + (i * (rank + 1) + j)).load() for j in range(rank + 1)] for i in range(rank)]
        tone = k.tone + k.piece * 3
        own, mixed, bias = (tone.load(), (tone + 1).load(), (tone + 2).load())
        amplitude = (k.noise + k.piece).load()
        key = (k.key + k.piece).load()
        low, high = k.narrow(key), k.narrow(_logical(k, key, 32))
        with ExitStack() as loops:
            places = [loops.enter_context(k.range(size)) for size in self.sizes]
            coordinates = []
            for i in range(rank):
                total = factors[i][rank]
                for j in range(rank):
                    total = total + factors[i][j] * k.to_float(places[j])
                coordinates.append(total)
            taps = self._taps(coordinates)
            at = self._offset(places)
            grey = k.variable(bias)
            with k.when(mixed.differs(0.0)), k.range(k.channels) as channel:
                grey.set(grey.get() + mixed * ((k.grey + channel).load() * self._seen(taps, channel)))
            constant = grey.get()
            with k.range(k.channels) as channel:
                value = k.variable(own * self._seen(taps, channel) + constant)
                with k.when(amplitude.differs(0.0)):
                    number = k.narrow(at + channel)
                    value.set(value.get() + amplitude * _nearly_normal(k, number, low, high))
                self._store(self.y + (at + channel), value.get())

    def _taps(self, coordinates: Sequence[Expr]) -> list[tuple[Expr, Expr]]:
        """(offset, weight) of each neighbour; those outside have weight 0, or stand for one inside."""
        k = self.k
        sides = []
        for coordinate, size, stride in zip(coordinates, self.sizes, self.strides, strict=True):
            floor = k.unary("floor", coordinate)
            upper = coordinate - floor
            lower = 1.0 - upper
            first = Expr(k, k.ir.fptosi(floor.value, I64))
            sides.append([self._neighbour(first + n, w, size, stride) for n, w in enumerate((lower, upper))])
        taps = []
        for chosen in product(*sides):
            (offset, weight), *others = chosen
            for further, factor in others:
                offset, weight = offset + further, weight * factor
            taps.append((offset, weight))
        return taps

    def _neighbour(self, index: Expr, weight: Expr, size: Expr, stride: Expr) -> tuple[Expr, Expr]:
        k, last, zero = self.k, size - 1, self.k.lift(0)
        if self.spec.fill == "reflect":
            period = k.select(size > 1, last * 2, k.lift(1))
            rest = Expr(k, k.ir.srem(index.value, period.value))
            rest = k.select(rest < 0, rest + period, rest)
            return k.select(rest > last, period - rest, rest) * stride, weight
        clamped = k.minimum(k.select(index < 0, zero, index), last)
        if self.spec.fill == "zero":
            weight = k.select(clamped.equals(index), weight, k.lift(0.0, F32))
        return clamped * stride, weight

    def _offset(self, places: Sequence[Expr]) -> Expr:
        total = places[0] * self.strides[0]
        for place, stride in zip(places[1:], self.strides[1:], strict=True):
            total = total + place * stride
        return total

    def _seen(self, taps: Sequence[tuple[Expr, Expr]], channel: Expr) -> Expr:
        total: Expr | None = None
        for offset, weight in taps:
            part = weight * self._load(self.x + (offset + channel))
            total = part if total is None else total + part
        assert total is not None
        return total

    def _load(self, place: Pointer) -> Expr:
        loaded = place.load()
        return loaded if loaded.is_float else self.k.to_float(loaded)

    def _store(self, place: Pointer, value: Expr) -> None:
        k = self.k
        if self.spec.dtype == "f4":
            place.store(value)
            return
        low, high = k.lift(0.0, F32), k.lift(255.0, F32)
        value = k.select(value > 0.0, value, low)
        value = k.unary("floor", k.select(value < 255.0, value, high) + 0.5)
        place.store(Expr(k, k.ir.fptoui(value.value, I8)))

    def erase(self) -> None:
        k, rank = self.k, self.spec.rank
        with k.range(k.boxes) as number:
            which = k.piece * k.boxes + number
            value = (k.value + number).load()
            bounds = [[(k.box + (which * (2 * rank) + (2 * i + j))).load() for j in range(2)] for i in range(rank)]
            with ExitStack() as loops:
                places = [loops.enter_context(k.range(last, first)) for first, last in bounds]
                at = self._offset(places)
                with k.range(k.channels) as channel:
                    self._store(self.y + (at + channel), value)


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
    return (Expr(k, k.ir.sitofp(total.value, F32)) - 2.0 * 65535) * NOISE_SCALE


NOISE_SCALE = 3.0**0.5 / 65536


def _logical(k: Kernel, z: Expr, bits: int) -> Expr:
    return Expr(k, k.ir.lshr(z.value, k.lift(bits, z.type).value))
