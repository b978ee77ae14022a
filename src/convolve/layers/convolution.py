"""Convolution, the transposed one and the fully-connected layer: one op at any rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

from convolve.errors import ShapeError
from convolve.graph import Value
from convolve.layers.base import Layer, Scope, one, spatial
from convolve.ops.convolution import convolve, inner, transposed
from convolve.window import Pads, Window, per_dimension, resolve


@dataclass(frozen=True)
class Conv(Layer):
    """Convolution over any number of spatial dimensions.

    x (batch, *spatial, channels) -> (batch, *output, filters), with weight (filters, *kernel, channels / groups) and
    bias (filters,):

        y[n, r, f] = bias[f] + sum over taps i in 0..k-1 and channels c of  x[n, r * stride - lo + i * dilation, c] *
        weight[f, i, c]

    (a cross-correlation, called convolution). `kernel_size=3` means 3 in every dimension, a tuple fixes the rank;
    `padding` is "same", "same_lower" (an odd position goes to the low end), "valid", an int, or a (lo, hi) pair a
    dimension. With `groups`, filters and channels are cut into as many equal parts, and each part of the filters sees
    its own part of the channels; "depthwise" is one group a channel.

    >>> from convolve import Model
    >>> Model(Conv(8, 3, stride=2), input_shape=(28, 28, 1)).output_shape
    (14, 14, 8)
    >>> Model(Conv(8, 3), input_shape=(100, 2)).parameters["conv1.weight"].shape
    (8, 3, 2)
    >>> Model(Conv(32, 3, groups="depthwise"), input_shape=(9, 9, 16)).parameters["conv1.weight"].shape
    (32, 3, 3, 1)

    Raises:
        ShapeError: the input has no spatial dimension, another rank than `kernel_size`, or is smaller than the window;
            the groups do not divide channels and filters.
    """

    filters: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: str | int | Pads = "same"
    dilation: int | tuple[int, ...] = 1
    bias: bool = True
    init: str | float = "he_normal"
    groups: int | str = 1
    name: str | None = None

    def window(self, scope: Scope, x: Value) -> Window:
        return window_over(scope, x, self.kernel_size, self.stride, self.dilation, self.padding)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        window, channels = self.window(scope, x), x.shape[-1]
        groups = _groups(scope, self.groups, self.filters, channels)
        weight = scope.parameter(
            "weight",
            (self.filters, *window.kernel, channels // groups),
            self.init,
            channels // groups * window.taps,
            self.filters // groups * window.taps,
        )
        return _biased(scope, convolve(x, weight, window, groups), self.bias)


@dataclass(frozen=True)
class ConvTranspose(Layer):
    """Transposed convolution: every input value paints its channel's picture, `stride` apart; pictures add up.

    x (batch, *spatial, channels) -> (batch, *output, filters), with weight (channels, *kernel, filters / groups) and
    bias (filters,):

        y[n, r * stride - lo + i * dilation, f] += x[n, r, c] * weight[c, i, f]      for all taps i and channels c

    It is the gradient of the input of a `Conv` from `filters` to `channels` with the same weight (Dumoulin and Visin,
    2016, chapter 4). A dimension of n positions becomes

        (n - 1) * stride + dilation * (k - 1) + 1 - lo - hi + output_padding

    `padding` is what is cut off each end: "valid" for none, an int, (lo, hi) pairs, or "same" and "same_lower", with
    which it becomes n * stride + output_padding. `output_padding` adds positions at the high end, fewer than the stride
    or the dilation; those that nothing paints hold the bias.

    >>> from convolve import Model
    >>> Model(ConvTranspose(8, 2, stride=2), input_shape=(14, 14, 16)).output_shape
    (28, 28, 8)
    >>> Model(ConvTranspose(1, 4, stride=3, padding=1), input_shape=(10, 2)).output_shape
    (29, 1)

    Raises:
        ShapeError: as `Conv`; `output_padding` is too large; more is cut off than there is.
    """

    filters: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: str | int | Pads = "same"
    dilation: int | tuple[int, ...] = 1
    output_padding: int | tuple[int, ...] = 0
    bias: bool = True
    init: str | float = "he_normal"
    groups: int | str = 1
    name: str | None = None

    def window(self, scope: Scope, x: Value) -> tuple[Window, tuple[int, ...]]:
        """The window that slides over the output, and the output's spatial size."""
        size = spatial(scope, x, "a window")
        grown = tuple(n * s for n, s in zip(size, per_dimension(self.stride, len(size), "stride"), strict=True))
        window = resolve(self.kernel_size, self.stride, self.dilation, self.padding, grown)
        extra = self._extra(scope, window)
        if isinstance(self.padding, str) and self.padding != "valid":
            output = tuple(n + e for n, e in zip(grown, extra, strict=True))
            return window.painting(size, output)[0], output
        painted = [(n - 1) * s + e for n, s, e in zip(size, window.stride, window.extent, strict=True)]
        output = tuple(n - lo - hi + more for n, (lo, hi), more in zip(painted, window.pads, extra, strict=True))
        if min(output) < 1 or any(lo >= n for n, (lo, _) in zip(painted, window.pads, strict=True)):
            raise ShapeError(
                f"{scope.title}: padding {window.pads} cuts off more than the {size} positions and windows of "
                f"{window.extent} make; use less. Received: padding={self.padding!r}"
            )
        return window.painting(size, output)[0], output

    def _extra(self, scope: Scope, window: Window) -> tuple[int, ...]:
        given = self.output_padding
        extra = given if isinstance(given, (tuple, list)) else (given,) * window.rank
        below = [max(pair) for pair in zip(window.stride, window.dilation, strict=True)]
        fits = len(extra) == window.rank and all(isinstance(e, Integral) for e in extra)
        if not fits or not all(0 <= e < most for e, most in zip(extra, below, strict=True)):
            raise ShapeError(
                f"{scope.title}: output_padding must be at least 0 and below the stride {window.stride} or the "
                f"dilation {window.dilation} in each of {window.rank} dimensions. Received: output_padding={given!r}"
            )
        return tuple(int(e) for e in extra)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        (window, size), channels = self.window(scope, x), x.shape[-1]
        groups = _groups(scope, self.groups, self.filters, channels)
        weight = scope.parameter(
            "weight",
            (channels, *window.kernel, self.filters // groups),
            self.init,
            channels // groups * window.taps / math.prod(window.stride),  # so many taps reach an output on average
            self.filters // groups * window.taps,
        )
        return _biased(scope, transposed(x, weight, window, size, groups), self.bias)


@dataclass(frozen=True)
class Dense(Layer):
    """Fully-connected layer: x (batch, features) -> (batch, units), y = W x + bias with weight (units, features).

    >>> from convolve import Model
    >>> Model(Dense(10, bias=False), input_shape=(784,)).parameters["dense1.weight"].shape
    (10, 784)

    Raises:
        ShapeError: the input still has spatial dimensions (put `Flatten()` before it).
    """

    units: int
    bias: bool = True
    init: str | float = "he_normal"
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        if self.units < 1:
            raise ShapeError(f"{scope.title}: units must be at least 1. Received: units={self.units}")
        if len(x.shape) != 2:
            raise ShapeError(
                f"{scope.title}: Dense needs flat features (batch, features); put Flatten() before it. "
                f"Received: input of shape {x.shape[1:]}"
            )
        features = x.shape[1]
        weight = scope.parameter("weight", (self.units, features), self.init, features, self.units)
        return _biased(scope, inner(x, weight), self.bias)


def _groups(scope: Scope, groups: int | str, filters: int, channels: int) -> int:
    """Into how many groups filters and channels are cut."""
    if filters < 1:
        raise ShapeError(f"{scope.title}: filters must be at least 1. Received: filters={filters}")
    count = channels if groups == "depthwise" else groups
    if not isinstance(count, Integral) or count < 1:
        raise ShapeError(f'{scope.title}: groups must be a positive int or "depthwise". Received: groups={groups!r}')
    if channels % count or filters % count:
        raise ShapeError(
            f"{scope.title}: groups must divide both the {channels} channels of the input and the {filters} filters. "
            f"Received: groups={groups!r}"
        )
    return int(count)


def _biased(scope: Scope, y: Value, bias: bool) -> Value:
    return y + scope.parameter("bias", y.shape[-1:], "zeros", decay=False) if bias else y


def window_over(
    scope: Scope,
    x: Value,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    padding: str | int | Pads,
) -> Window:
    """The explicit window of a layer over its input; refuses one that does not fit in."""
    size = spatial(scope, x, "a window")
    return fitting_window(scope, resolve(kernel_size, stride, dilation, padding, size), size)


def fitting_window(scope: Scope, window: Window, size: tuple[int, ...]) -> Window:
    """The window itself; refuses one that is larger than its input."""
    output = window.output(size)
    if math.prod(output) < 1 or min(output) < 1:
        raise ShapeError(
            f"{scope.title}: its window spans {window.extent} with pads {window.pads}, larger than its input; use "
            f'padding="same", a smaller kernel or fewer poolings before it. Received: spatial size {size}'
        )
    return window
