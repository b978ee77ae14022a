"""Pooling windows and their gradients: gathers, each result written once, so that work is split anywhere.

A table of gathers has a row for each position of the result: (offset of the first source, offset of the result, where
its list begins, how long it is). Lists hold offsets from the first source. Positions that gather alike share one;
windows at the border have shorter lists, so that margins are never read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask, Pointer
from convolve.native.kernels.functions import FUNCTIONS
from convolve.native.kernels.gemm import share

GROUPS = (4, 2, 1)
"""Vectors of channels that go through a list together."""


@dataclass(frozen=True)
class Pool:
    """`max` (NaN wins), or `sum`: what the window's positions add up to, over its divisor."""

    kind: str

    @property
    def arguments(self) -> tuple[str, ...]:
        divisor = ("divisor:f4",) if self.kind == "sum" else ()
        tables = ("windows:int", "window:i4", "taps:i4", "channels:int")
        return ("x:f4", "y:f4", "x_image:int", "y_image:int", "pieces:int", *tables, *divisor)

    def emit(self, k: Kernel) -> None:
        image, part = k.piece // k.pieces, k.piece % k.pieces
        x, y = k.x + image * k.x_image, k.y + image * k.y_image
        first, last = share(part, k.pieces, k.windows)
        join = FUNCTIONS["maximum" if self.kind == "max" else "add"]
        with k.range(last, first) as window:
            origin, result, taps, count = gather(k.window, window, k.taps)

            def pool(channel: Expr, vectors: int, mask: Mask | None) -> None:
                at, to = x + (origin + channel), y + (result + channel)
                values = [k.variable(v) for v in loaded(at, vectors)]
                with k.range(count, 1) as t:
                    for value, tap in zip(values, loaded(at + (taps + t).load(), vectors), strict=True):
                        value.set(join(k, value.get(), tap))
                made = [value.get() for value in values]
                if self.kind == "sum":
                    divisor = (k.divisor + window).splat()
                    made = [value / divisor for value in made]
                store(to, made, mask)

            over_channels(k, pool)


@dataclass(frozen=True)
class PoolGradient:
    """Each input position adds up what the windows that read it give: all to a winner (`max`), or equal shares (`sum`).

    A piece is a run of positions. For `max` it first notes in scratch who wins the windows that read them, as the
    winner's offset in x.
    """

    kind: str

    @property
    def arguments(self) -> tuple[str, ...]:
        tables = ("blocks:int", "block:i4", "position:i4", "readers:i4", "received:i4", "channels:int")
        common = ("dy:f4", "y:f4", "dy_image:int", "y_image:int", *tables)
        if self.kind == "max":
            return (*common, "x:f4", "x_image:int", "window:i4", "taps:i4", "here:i4")
        return (*common, "weight:f4")

    def emit(self, k: Kernel) -> None:
        image, block = k.piece // k.blocks, k.block + k.piece % k.blocks * 4
        dy, y = k.dy + image * k.dy_image, k.y + image * k.y_image
        first, last, first_window, last_window = ((block + i).load() for i in range(4))
        if self.kind == "max":
            self._winners(k, k.x + image * k.x_image, first_window, last_window)
        with k.range(last, first) as position:
            window, result, readers, count = gather(k.position, position, k.readers)
            zero = k.constant(0.0)
            here = k.splat(k.narrow((k.here + position).load())) if self.kind == "max" else zero

            def collect(channel: Expr, vectors: int, mask: Mask | None) -> None:
                totals = [k.variable(zero) for _ in range(vectors)]
                with k.range(count) as t:
                    reader = window + (readers + t).load()
                    given = loaded(dy + ((k.received + reader).load() + channel), vectors)
                    if self.kind == "max":
                        winners = loaded(k.scratch + ((reader - first_window) * k.channels + channel), vectors)
                        given = [
                            k.select(k.as_ints(winner).equals(here), value, zero)
                            for winner, value in zip(winners, given, strict=True)
                        ]
                    else:
                        weight = (k.weight + reader).splat()
                        given = [value * weight for value in given]
                    for total, value in zip(totals, given, strict=True):
                        total.set(total.get() + value)
                store(y + (result + channel), [total.get() for total in totals], mask)

            over_channels(k, collect)

    def _winners(self, k: Kernel, x: Pointer, first: Expr, last: Expr) -> None:
        """The first in scan order wins, or the first NaN."""
        with k.range(last, first) as window:
            origin, place, taps, count = gather(k.window, window, k.taps)

            def find(channel: Expr, vectors: int, mask: Mask | None) -> None:
                at = x + (origin + channel)
                best = [k.variable(value) for value in loaded(at, vectors)]
                winners = [k.variable(k.splat(k.narrow(origin))) for _ in best]
                with k.range(count, 1) as t:
                    tap = (taps + t).load()
                    here = k.splat(k.narrow(origin + tap))
                    for known, winner, value in zip(best, winners, loaded(at + tap, vectors), strict=True):
                        keep = (value <= known.get()) | known.get().differs(known.get())
                        known.set(k.select(keep, known.get(), value))
                        winner.set(k.select(keep, winner.get(), here))
                # What a last vector writes too much lies where the next window's winners will be.
                store(k.scratch + (place - first * k.channels + channel), [winner.get() for winner in winners], None)

            over_channels(k, find)


def gather(table: Pointer, index: Expr, lists: Pointer) -> tuple[Expr, Expr, Pointer, Expr]:
    """A row of a table of gathers: offsets of the first source and of the result, the list, and its length."""
    row = table + index * 4
    return row.load(), (row + 1).load(), lists + (row + 2).load(), (row + 3).load()


def over_channels(k: Kernel, body: Callable[[Expr, int, Mask | None], None]) -> None:
    """`body(channel, vectors, mask)` for all channels, several vectors at a time; a mask where the last is partial."""
    lanes = k.target.lanes
    start = k.lift(0)
    for vectors in GROUPS:
        step = vectors * lanes
        stop = k.channels - (k.channels - start) % step
        with k.range(stop, start, step) as channel:
            body(channel, vectors, None)
        start = stop
    with k.when(start < k.channels):
        body(start, 1, k.lane_mask(k.channels - start))


def loaded(at: Pointer, vectors: int) -> list[Expr]:
    return [(at + v * at.kernel.target.lanes).vector() for v in range(vectors)]


def store(to: Pointer, values: list[Expr], mask: Mask | None) -> None:
    for v, value in enumerate(values):
        (to + v * to.kernel.target.lanes).store_vector(value, mask)
