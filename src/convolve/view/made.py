"""How a value of a layer came about: the numbers that it is made of, for tables, pages and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

SHOWN = 8
"""Contributions that are printed."""
SMALL = 3
"""Channels of which whole patches are printed."""


class Made:
    """How a value came about. A subclass is a frozen dataclass; `sources` are the layers read, "" the net's input."""

    how: ClassVar[str]
    sources: tuple[str, ...]

    @property
    def total(self) -> float:
        """The value, computed from the numbers shown."""
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """The size of what is added up: rounding errors are small beside it, though not always beside the total."""
        return abs(self.total)

    def lines(self) -> Iterator[str]:
        """As text."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        names = (f.name for f in fields(self))  # type: ignore[arg-type]
        return {"how": self.how, "total": self.total} | {name: plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, eq=False)
class Products(Made):
    """A sum of products: of a convolution, transposed too, a fully-connected layer (whose kernel is ()), a resizing.

    total = sum over taps and channels of  patch * weights  + bias
    """

    how: ClassVar[str] = "products"
    sources: tuple[str, ...]
    patch: np.ndarray
    """What is read, (*kernel, channels), with 0 in padding."""
    weights: np.ndarray
    """The filter, (*kernel, channels)."""
    bias: float
    places: np.ndarray
    """Position of each tap in what is read, (*kernel, rank); in padding it lies outside."""
    inside: np.ndarray
    """Whether each tap reads a position, (*kernel): not padding, nor, where transposed, a place between strides."""
    first_channel: int = 0
    """The first of the channels read, where the filter sees one group of them."""
    winograd: bool = False
    """Whether predictions compute it by Winograd's algorithm, which adds up in another order."""

    @property
    def products(self) -> np.ndarray:
        """(*kernel, channels), float64."""
        return np.asarray(np.multiply(self.patch, self.weights, dtype=np.float64))

    @property
    def by_channel(self) -> np.ndarray:
        """The sum over the taps of each channel."""
        return np.asarray(self.products.reshape(-1, self.patch.shape[-1]).sum(0))

    @property
    def total(self) -> float:
        return float(self.products.sum()) + self.bias

    @property
    def scale(self) -> float:
        return float(np.abs(self.products).sum()) + abs(self.bias)

    def largest(self, count: int = SHOWN) -> list[tuple[tuple[int, ...], float, float, float]]:
        """The products that are largest without their sign: index in the patch, value, weight, product."""
        products = self.products
        order = np.argsort(-np.abs(products), axis=None, kind="stable")[:count]
        found = [tuple(int(i) for i in np.unravel_index(n, products.shape)) for n in order]
        return [(i, float(self.patch[i]), float(self.weights[i]), float(products[i])) for i in found]

    def lines(self) -> Iterator[str]:
        *kernel, channels = self.patch.shape
        if len(kernel) in (1, 2) and channels <= SMALL:
            for channel in range(channels):
                yield f"channel {self.first_channel + channel}: patch, filter, products; (0) is padding"
                yield from self._grid(channel)
        elif kernel:
            sums = self.by_channel
            yield f"sums of {math.prod(kernel)} products in each of {channels} channels, largest first"
            order = np.argsort(-np.abs(sums), kind="stable")[:SHOWN]
            yield from (f"  channel {self.first_channel + int(c):<6}{sums[c]:12.6g}" for c in order)
            rest = sums.sum() - sums[order].sum()
            yield from [f"  {len(sums) - SHOWN} others  {rest:12.6g}"] if len(sums) > SHOWN else []
        else:
            yield f"{channels} products, largest first"
            for (at,), x, w, product in self.largest():
                yield f"  {at:<8}{x:12.6g} * {w:12.6g} = {product:12.6g}"
        yield f"sum {self.total - self.bias:.6g} + bias {self.bias:.6g} = {self.total:.6g}"

    def _grid(self, channel: int) -> Iterator[str]:
        two = (1, *self.inside.shape)[-2:]
        parts = (a[..., channel].reshape(two) for a in (self.patch, self.weights, self.products))
        inside = self.inside.reshape(two)
        for i, rows in enumerate(zip(*parts, strict=True)):
            cells = [[f"{n:9.4g}" for n in row] for row in rows]
            cells[0] = [cell if known else f"{'(0)':>9}" for cell, known in zip(cells[0], inside[i], strict=True)]
            yield "  " + "   ".join("".join(row) for row in cells)


@dataclass(frozen=True, eq=False)
class Pooled(Made):
    """The largest, the mean or the sum of one channel's values in a window."""

    how: ClassVar[str] = "pooled"
    sources: tuple[str, ...]
    kind: str
    """`max`, `avg` or `sum`."""
    patch: np.ndarray
    """(*kernel), with 0 in padding."""
    places: np.ndarray
    """(*kernel, rank)."""
    inside: np.ndarray
    """(*kernel)."""
    channel: int
    winner: tuple[int, ...] | None
    """The tap of a maximum: the first in scan order, which takes the gradient."""
    divisor: float = 1.0

    @property
    def total(self) -> float:
        read = self.patch[self.inside].astype(np.float64)
        return float(read.max()) if self.kind == "max" else float(read.sum()) / self.divisor

    @property
    def scale(self) -> float:
        return (
            abs(self.total) if self.kind == "max" else float(np.abs(self.patch, dtype=np.float64).sum()) / self.divisor
        )

    def lines(self) -> Iterator[str]:
        values = ", ".join(f"{n:.6g}" for n in self.patch[self.inside][: 2 * SHOWN])
        more = ", ..." if self.inside.sum() > 2 * SHOWN else ""
        yield f"channel {self.channel}: {values}{more}"
        if self.winner is None:
            yield f"sum / {self.divisor:g} = {self.total:.6g}" if self.kind == "avg" else f"sum = {self.total:.6g}"
        else:
            place = tuple(int(n) for n in self.places[self.winner])
            yield f"largest at position {place}: {self.total:.6g}"


@dataclass(frozen=True, eq=False)
class Normalised(Made):
    """total = (x - mean) / sqrt(variance + epsilon) * scale + shift, where the scale is called `by`."""

    how: ClassVar[str] = "normalised"
    sources: tuple[str, ...]
    x: float
    mean: float
    variance: float
    by: float
    shift: float
    epsilon: float

    @property
    def total(self) -> float:
        return (self.x - self.mean) / math.sqrt(self.variance + self.epsilon) * self.by + self.shift

    @property
    def scale(self) -> float:
        factor = abs(self.by) / math.sqrt(self.variance + self.epsilon)
        return (abs(self.x) + abs(self.mean)) * factor + abs(self.shift)

    def lines(self) -> Iterator[str]:
        yield f"x {self.x:.6g}, mean {self.mean:.6g}, variance {self.variance:.6g}, epsilon {self.epsilon:g}"
        yield f"scale {self.by:.6g}, shift {self.shift:.6g}"
        yield f"(x - mean) / sqrt(variance + epsilon) * scale + shift = {self.total:.6g}"


@dataclass(frozen=True, eq=False)
class Shares(Made):
    """exp(x) over the sum of exp(x): of `logits`, number `index`."""

    how: ClassVar[str] = "shares"
    sources: tuple[str, ...]
    logits: np.ndarray
    index: int
    logarithm: bool = False

    @property
    def shares(self) -> np.ndarray:
        """Of all; their sum is 1."""
        powers = np.exp(self.logits.astype(np.float64) - self.logits.max())
        return np.asarray(powers / powers.sum())

    @property
    def total(self) -> float:
        share = float(self.shares[self.index])
        return math.log(share) if self.logarithm else share

    @property
    def scale(self) -> float:
        return max(1.0, abs(self.total))

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"shares": self.shares.tolist()}

    def lines(self) -> Iterator[str]:
        shares = self.shares
        for i in np.argsort(-shares, kind="stable")[:SHOWN]:
            yield f"  {int(i):<6}{self.logits[i]:10.4g}  {shares[i]:8.4f}  {'#' * round(40 * shares[i])}"


@dataclass(frozen=True, eq=False)
class Mapped(Made):
    """A function of one number: an activation."""

    how: ClassVar[str] = "mapped"
    sources: tuple[str, ...]
    x: float
    y: float
    """By the plain definitions of the ops."""
    of: Made | None = None
    """What `x` is made of, where that is no layer's result."""

    @property
    def total(self) -> float:
        return self.y

    @property
    def scale(self) -> float:
        return max(abs(self.x), abs(self.y))

    def lines(self) -> Iterator[str]:
        yield from self.of.lines() if self.of else ()
        yield f"in {self.x:.6g}, out {self.y:.6g}"


@dataclass(frozen=True, eq=False)
class Joined(Made):
    """Several numbers joined: the two sides of a residual block, added."""

    how: ClassVar[str] = "joined"
    sources: tuple[str, ...]
    function: str
    """`add`, `multiply` or another pointwise function."""
    terms: tuple[float, ...]
    """In the order of `names`."""
    names: tuple[str, ...]
    """The layer that each term comes from; several with commas, where it is made of several."""
    y: float

    @property
    def total(self) -> float:
        if self.function == "add":
            return math.fsum(self.terms)
        return math.prod(self.terms) if self.function == "multiply" else self.y

    @property
    def scale(self) -> float:
        return max(abs(self.y), *map(abs, self.terms))

    def lines(self) -> Iterator[str]:
        yield from (f"  {term:12.6g}  {name or 'input'}" for term, name in zip(self.terms, self.names, strict=True))
        yield f"{self.function}: {self.total:.6g}"


@dataclass(frozen=True, eq=False)
class Taken(Made):
    """Another layer's value, in another place: flattened, joined to other channels, cut out."""

    how: ClassVar[str] = "taken"
    sources: tuple[str, ...]
    position: tuple[int, ...]
    """Where it was."""
    x: float

    @property
    def total(self) -> float:
        return self.x

    def lines(self) -> Iterator[str]:
        yield f"{self.sources[0] or 'input'} {list(self.position)} = {self.x:.6g}"


@dataclass(frozen=True, eq=False)
class Computed(Made):
    """What is not told number by number: a layer of other ops, by their plain definitions."""

    how: ClassVar[str] = "computed"
    sources: tuple[str, ...]
    op: str
    y: float

    @property
    def total(self) -> float:
        return self.y

    def lines(self) -> Iterator[str]:
        yield f"by {self.op} of {', '.join(name or 'the input' for name in self.sources)}: {self.y:.6g}"


def plain(value: Any) -> Any:
    """A field as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Made):
        return value.as_dict()
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return value
