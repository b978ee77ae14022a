"""Pooling layers."""

from __future__ import annotations

from dataclasses import dataclass

from convolve.errors import ShapeError
from convolve.graph import Value, apply
from convolve.layers.base import Layer, Scope, one, spatial
from convolve.layers.convolution import window_over
from convolve.ops import mean
from convolve.ops.pool import Pool
from convolve.window import Pads, Window


@dataclass(frozen=True)
class MaxPool(Layer):
    """Largest value of each window, channel by channel: (batch, *spatial, channels) -> (batch, *output, channels).

    `stride` defaults to the window's size. Padding never wins; NaN does.

    >>> from convolve import Model
    >>> Model(MaxPool(2), input_shape=(28, 28, 8)).output_shape
    (14, 14, 8)
    """

    pool_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int | Pads = "valid"
    name: str | None = None

    def window(self, scope: Scope, x: Value) -> Window:
        return _window(scope, x, self.pool_size, self.stride, self.padding)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return apply(Pool("max", self.window(scope, x)), x)


@dataclass(frozen=True)
class AvgPool(Layer):
    """Mean of each window, channel by channel; padding counts only with `count_padding`.

    >>> from convolve import Model
    >>> Model(AvgPool(3, stride=2, padding="same"), input_shape=(9, 4)).output_shape
    (5, 4)
    """

    pool_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int | Pads = "valid"
    count_padding: bool = False
    name: str | None = None

    def window(self, scope: Scope, x: Value) -> Window:
        return _window(scope, x, self.pool_size, self.stride, self.padding)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return apply(Pool("avg", self.window(scope, x), self.count_padding), x)


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """Mean over all positions: (batch, *spatial, channels) -> (batch, channels).

    >>> from convolve import Model
    >>> Model(GlobalAvgPool(), input_shape=(7, 7, 512)).output_shape
    (512,)
    """

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        spatial(scope, x, "GlobalAvgPool")
        return mean(x, tuple(range(1, len(x.shape) - 1)))


def _window(
    scope: Scope,
    x: Value,
    size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None,
    padding: str | int | Pads,
) -> Window:
    window = window_over(scope, x, size, size if stride is None else stride, 1, padding)
    for (lo, hi), extent in zip(window.pads, window.extent, strict=True):
        if max(lo, hi) >= extent:
            raise ShapeError(
                f"{scope.title}: padding {window.pads} is as large as the window {window.kernel}: some windows would "
                "see nothing but padding"
            )
    return window
