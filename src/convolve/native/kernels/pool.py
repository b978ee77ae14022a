"""Pooling windows and their gradients, over tables of clamped windows.

Every output position knows its window's origin and its class: the taps that lie inside the image, as a list of offsets.
Windows at the border have classes of their own, so margins are never read.
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask, Pointer
from convolve.native.kernels.functions import FUNCTIONS
from convolve.native.kernels.gemm import share

TABLES = ("windows:int", "window:i4", "taps:i4", "channels:int")
"""`window`: (offset of the origin in x, offset of the result in y, first tap, taps) of each window."""


@dataclass(frozen=True)
class Pool:
    """`max` (first in scan order, NaN wins) or `avg` (sum of the taps over the class's divisor)."""

    kind: str

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("x:f4", "y:f4", "x_image:int", "y_image:int", "divisor:f4", "pieces:int", *TABLES)

    def emit(self, k: Kernel) -> None:
        image, part = k.piece // k.pieces, k.piece % k.pieces
        x, y = k.x + image * k.x_image, k.y + image * k.y_image
        first, last = share(part, k.pieces, k.windows)
        with k.range(last, first) as window:
            origin, result, taps, count = window_of(k, window)
            with k.range(k.channels, step=k.target.lanes) as channel:

                def one(width_mask: Mask | None, at: Pointer, to: Pointer) -> None:
                    value = k.variable((at + (taps + 0).load()).vector())
                    with k.range(count, 1) as t:
                        tap = (at + (taps + t).load()).vector()
                        join = "maximum" if self.kind == "max" else "add"
                        value.set(FUNCTIONS[join](k, value.get(), tap))
                    made = value.get()
                    if self.kind == "avg":
                        made = made / (k.divisor + window).splat()
                    to.store_vector(made, width_mask)

                at, to = x + (origin + channel), y + (result + channel)
                left = k.channels - channel
                with k.either(left >= k.target.lanes) as (whole, rest):
                    with whole:
                        one(None, at, to)
                    with rest:
                        one(k.lane_mask(left), at, to)


@dataclass(frozen=True)
class PoolGradient:
    """Give `dy` to the winner (`max`) or to all taps (`avg`). Overlapping windows add to a zeroed result."""

    kind: str
    overlap: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        images = ("x_image:int", "dy_image:int", "y_image:int")
        return ("x:f4", "dy:f4", "y:f4", *images, "divisor:f4", "y_window:i4", *TABLES)

    def emit(self, k: Kernel) -> None:
        x, dy, y = k.x + k.piece * k.x_image, k.dy + k.piece * k.dy_image, k.y + k.piece * k.y_image
        with k.range(k.windows) as window:
            origin, result, taps, count = window_of(k, window)
            target = (k.y_window + window * 2).load()
            own = (k.y_window + (window * 2 + 1)).load()
            with k.range(k.channels, step=k.target.lanes) as channel:
                left = k.channels - channel
                with k.either(left >= k.target.lanes) as (whole, rest):
                    for branch, masked in ((whole, False), (rest, True)):
                        with branch:
                            self._window(
                                k,
                                x + (origin + channel),
                                dy + (result + channel),
                                y + (target + channel),
                                (taps, k.taps + own, count, window),
                                k.lane_mask(left) if masked else None,
                            )

    def _window(
        self,
        k: Kernel,
        x: Pointer,
        dy: Pointer,
        y: Pointer,
        window: tuple[Pointer, Pointer, Expr, Expr],
        mask: Mask | None,
    ) -> None:
        taps, own, count, index = window
        received = dy.vector()
        zero = k.constant(0.0)
        winner = None
        if self.kind == "avg":
            received = received / (k.divisor + index).splat()
        else:
            best = k.variable((x + taps.load()).vector())
            found = k.variable(zero)
            with k.range(count, 1) as t:
                value = (x + (taps + t).load()).vector()
                better = (value > best.get()) | (value.differs(value) & best.get().equals(best.get()))
                best.set(k.select(better, value, best.get()))
                found.set(k.select(better, k.splat(k.to_float(t)), found.get()))
            winner = found.get()
        with k.range(count) as t:
            place = y + (own + t).load()
            share_ = received
            if winner is not None:
                share_ = k.select(winner.equals(k.splat(k.to_float(t))), received, zero)
            if self.overlap:
                share_ = share_ + place.vector()
            place.store_vector(share_, mask)


def window_of(k: Kernel, window: Expr) -> tuple[Expr, Expr, Pointer, Expr]:
    """Offsets of a window in x and y, its taps, and how many they are."""
    entry = k.window + window * 4
    return entry.load(), (entry + 1).load(), k.taps + (entry + 2).load(), (entry + 3).load()
