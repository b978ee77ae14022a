"""Convolution and the fully-connected layer: one op at any rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convolve.errors import ShapeError
from convolve.graph import Value, apply
from convolve.layers.base import Layer, Scope, one, spatial
from convolve.ops.convolution import Convolution
from convolve.window import Pads, Window, resolve


@dataclass(frozen=True)
class Conv(Layer):
    """Convolution over any number of spatial dimensions.

    x (batch, *spatial, channels) -> (batch, *output, filters), with weight (filters, *kernel, channels) and bias
    (filters,):

        y[n, r, f] = bias[f] + sum over taps i in 0..k-1 and channels c of  x[n, r * stride - lo + i * dilation, c] *
        weight[f, i, c]

    (a cross-correlation, called convolution). `kernel_size=3` means 3 in every dimension, a tuple fixes the rank;
    `padding` is "same", "valid", an int, or a (lo, hi) pair a dimension.

    >>> from convolve import Model
    >>> Model(Conv(8, 3, stride=2), input_shape=(28, 28, 1)).output_shape
    (14, 14, 8)
    >>> Model(Conv(8, 3), input_shape=(100, 2)).parameters["conv1.weight"].shape
    (8, 3, 2)

    Raises:
        ShapeError: the input has no spatial dimension, another rank than `kernel_size`, or is smaller than the window.
    """

    filters: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: str | int | Pads = "same"
    dilation: int | tuple[int, ...] = 1
    bias: bool = True
    init: str = "he_normal"
    name: str | None = None

    def window(self, scope: Scope, x: Value) -> Window:
        return window_over(scope, x, self.kernel_size, self.stride, self.dilation, self.padding)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        if self.filters < 1:
            raise ShapeError(f"{scope.title}: filters must be at least 1. Received: filters={self.filters}")
        window = self.window(scope, x)
        channels = x.shape[-1]
        weight = scope.parameter(
            "weight",
            (self.filters, *window.kernel, channels),
            self.init,
            channels * window.taps,
            self.filters * window.taps,
        )
        y = apply(Convolution(window), x, weight)
        return y + scope.parameter("bias", (self.filters,), "zeros", decay=False) if self.bias else y


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
    init: str = "he_normal"
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
        y = apply(Convolution(Window((), (), (), ())), x, weight)
        return y + scope.parameter("bias", (self.units,), "zeros", decay=False) if self.bias else y


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
    window = resolve(kernel_size, stride, dilation, padding, size)
    output = window.output(size)
    if math.prod(output) < 1 or min(output) < 1:
        raise ShapeError(
            f"{scope.title}: its window spans {window.extent} with pads {window.pads}, larger than its input; use "
            f'padding="same", a smaller kernel or fewer poolings before it. Received: spatial size {size}'
        )
    return window
