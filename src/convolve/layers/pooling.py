"""Pooling layers: over windows that slide, and over all positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Value, apply
from convolve.layers.base import Layer, Scope, one, spatial
from convolve.layers.convolution import fitting_window
from convolve.ops.pool import Pool
from convolve.window import Pads, Window, per_dimension, resolve


@dataclass(frozen=True)
class MaxPool(Layer):
    """Largest value of each window, channel by channel: (batch, *spatial, channels) -> (batch, *output, channels).

        y[n, r, c] = max over i in 0..pool_size-1 of  x[n, r * stride - lo + i * dilation, c]

    `stride` defaults to the window's size; `padding` is "same", "same_lower", "valid", an int, or a (lo, hi) pair a
    dimension. Padding never wins; NaN does. Among equals the first in scan order takes the gradient.

    With n positions in and windows that span e = dilation * (pool_size - 1) + 1, a dimension has

        output = (n + lo + hi - e) // stride + 1

    positions. `ceil_mode` rounds the quotient up instead: a last window may reach beyond the padding, if it begins
    within the input or the low padding (as in PyTorch and ONNX).

    >>> from convolve import Model
    >>> Model(MaxPool(2), input_shape=(28, 28, 8)).output_shape
    (14, 14, 8)
    >>> Model(MaxPool(3, stride=2, ceil_mode=True), input_shape=(8, 4)).output_shape
    (4, 4)

    Raises:
        ShapeError: the input has no spatial dimension or another rank than the window, is smaller than it, or a
            window sees nothing but padding.
    """

    pool_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int | Pads = "valid"
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        window, _ = _window(self, scope, x)
        return apply(Pool("max", window), x)


@dataclass(frozen=True)
class AvgPool(Layer):
    """Mean of each window, channel by channel: (batch, *spatial, channels) -> (batch, *output, channels).

    Windows are those of `MaxPool`. The mean is over the positions inside the input; with `count_padding`, padding
    counts as zeros. What `ceil_mode` adds to the padding that was asked for never counts.

    >>> from convolve import Model
    >>> Model(AvgPool(3, stride=2, padding="same"), input_shape=(9, 4)).output_shape
    (5, 4)
    >>> x = np.array([1, 2, 3, 4, 5], np.float32).reshape(1, 5, 1)
    >>> Model(AvgPool(2, ceil_mode=True), input_shape=(5, 1)).predict(x).ravel()
    array([1.5, 3.5, 5. ], dtype=float32)

    Raises:
        ShapeError: as `MaxPool`.
    """

    pool_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int | Pads = "valid"
    count_padding: bool = False
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        window, asked = _window(self, scope, x)
        return apply(Pool("avg", window, asked if self.count_padding else ()), x)


@dataclass(frozen=True)
class LpPool(Layer):
    """The p-norm of each window, channel by channel: (batch, *spatial, channels) -> (batch, *output, channels).

        y = (sum of |x| ** p over the window) ** (1 / p)

    for a number p >= 1: a sum of magnitudes for 1, the length of a vector for 2, close to the largest magnitude for
    a large one (ONNX's LpPool; PyTorch's wherever x >= 0 and no window reaches beyond the input). Windows are those of
    `MaxPool`; padding adds nothing. Where a window is all zero its norm has no gradient; it is taken as zero.

    >>> from convolve import Model
    >>> x = np.array([3, -4, 0, 0], np.float32).reshape(1, 4, 1)
    >>> Model(LpPool(2), input_shape=(4, 1)).predict(x).ravel()
    array([5., 0.], dtype=float32)

    Raises:
        ShapeError: p is below 1 or not finite; otherwise as `MaxPool`.
    """

    pool_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: str | int | Pads = "valid"
    p: float = 2.0
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        if not 1 <= self.p < math.inf:
            raise ShapeError(f"{scope.title}: p must be a finite number of at least 1. Received: p={self.p}")
        window, _ = _window(self, scope, x)
        total = apply(Pool("sum", window), power(ops.absolute(x), self.p))
        return power(total, 1 / self.p)


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """Mean over all positions: (batch, *spatial, channels) -> (batch, channels).

    >>> from convolve import Model
    >>> Model(GlobalAvgPool(), input_shape=(7, 7, 512)).output_shape
    (512,)
    """

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return ops.mean(*_positions(self, scope, inputs))


@dataclass(frozen=True)
class GlobalMaxPool(Layer):
    """Largest value over all positions: (batch, *spatial, channels) -> (batch, channels).

    NaN wins. Equals share the gradient evenly.

    >>> from convolve import Model
    >>> Model(GlobalMaxPool(), input_shape=(100, 8)).output_shape
    (8,)
    """

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return ops.max(*_positions(self, scope, inputs))


@dataclass(frozen=True)
class AdaptiveAvgPool(Layer):
    """Mean over `output_size` even shares of the positions: (batch, *spatial, channels) -> (batch, *output, channels).

    `output_size` is an int, or one a dimension, where None keeps the size. Position o of m made of n is the mean of
    those from floor(o n / m) to ceil((o + 1) n / m) - 1, as in PyTorch. With 1, a channel's mean stays a map of one
    position, which convolutions read and maps are multiplied with.

    >>> from convolve import Model
    >>> Model(AdaptiveAvgPool((7, None)), input_shape=(20, 30, 8)).output_shape
    (7, 30, 8)

    Raises:
        ShapeError: a size below 1, or as many sizes as there are not spatial dimensions.
    """

    output_size: int | tuple[int | None, ...]
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        sizes, wanted = spatial(scope, x, "AdaptiveAvgPool"), self.output_size
        if isinstance(wanted, (tuple, list)) and len(wanted) == len(sizes):
            wanted = tuple(n if m is None else m for n, m in zip(sizes, wanted, strict=True))
        return ops.resize(x, per_dimension(wanted, len(sizes), "output_size"), "area")  # type: ignore[arg-type]


def _window(layer: MaxPool | AvgPool | LpPool, scope: Scope, x: Value) -> tuple[Window, Pads]:
    """A layer's window over its input, and the padding that was asked for: ceil mode may add to it."""
    size = spatial(scope, x, "a window")
    kernel = per_dimension(layer.pool_size, len(size), "pool_size")
    stride = kernel if layer.stride is None else layer.stride
    asked = resolve(kernel, stride, layer.dilation, layer.padding, size)
    return fitting_window(scope, asked.ceiled(size) if layer.ceil_mode else asked, size), asked.pads


def _positions(layer: Layer, scope: Scope, inputs: tuple[Value, ...]) -> tuple[Value, tuple[int, ...]]:
    """A layer's only input, and its spatial axes."""
    x = one(inputs, scope)
    return x, tuple(range(1, 1 + len(spatial(scope, x, type(layer).__name__))))


def power(value: Value, exponent: float) -> Value:
    """value ** exponent for values from 0 on; the gradient at 0 is 0, but for exponent 1."""
    if exponent == 1:
        return value
    if float(exponent).is_integer():
        whole = ops.square(power(value, exponent // 2))
        return whole * value if exponent % 2 else whole
    zero = ops.equal(value, 0.0)
    base = ops.where(zero, 1.0, value)
    return ops.where(zero, 0.0, ops.sqrt(base) if exponent == 0.5 else ops.exp(ops.log(base) * exponent))
