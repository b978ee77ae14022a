"""Normalisation and dropout."""

from __future__ import annotations

from dataclasses import dataclass

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Leaf, Value, apply
from convolve.layers.base import Layer, Scope, one
from convolve.ops.dropout import Dropout as DropoutOp
from convolve.ops.layout import row
from convolve.ops.norm import BatchNormalize, moments


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalise each channel over the batch in training, by running statistics otherwise (Ioffe and Szegedy, 2015).

        y = (x - mean) / sqrt(variance + epsilon) * scale + shift

    Running values keep `decay` of the old (PyTorch's momentum is 1 - decay) and take the unbiased variance.

    Raises:
        ShapeError: in training, a channel has but one value: it has no variance.
    """

    decay: float = 0.9
    epsilon: float = 1e-5
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        channels = x.shape[-1]
        scale = scope.parameter("scale", (channels,), "ones", decay=False)
        shift = scope.parameter("shift", (channels,), "zeros", decay=False)
        mean = scope.statistic("mean", (channels,), 0.0)
        variance = scope.statistic("variance", (channels,), 1.0)
        return batch_norm(scope, x, scale, shift, mean, variance, self.decay, self.epsilon)


def batch_norm(
    scope: Scope, x: Value, scale: Value, shift: Value, mean: Value, variance: Value, decay: float, epsilon: float
) -> Value:
    """The layer's ops on its arrays; in training, `mean` and `variance` move if they are statistics."""
    if not scope.training:
        return (x - mean) * (scale / ops.sqrt(variance + epsilon)) + shift
    channels = x.shape[-1]
    count = x.size // channels
    if count < 2:
        raise ShapeError(
            f"{scope.title}: batch norm needs more than one value a channel in training; use a larger batch or "
            f"another norm. Received: one value a channel, shape {x.shape}"
        )
    found = moments(x)
    unbiased = row(found, 1) * (count / (count - 1))
    if isinstance(mean.op, Leaf) and isinstance(variance.op, Leaf):
        scope.update(mean, mean * decay + row(found, 0) * (1 - decay))
        scope.update(variance, variance * decay + unbiased * (1 - decay))
    return apply(BatchNormalize(epsilon), x, found, scale, shift)


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zero values with probability `rate`, scale the rest by 1 / (1 - rate) (Srivastava et al., 2014)."""

    rate: float = 0.5
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        if not 0 <= self.rate < 1:
            raise ShapeError(f"{scope.title}: rate must be from 0 to below 1. Received: rate={self.rate}")
        number = scope.number()
        if not scope.training or self.rate == 0:
            return x
        return apply(DropoutOp(self.rate, number), x, scope.construction.random)


@dataclass(frozen=True)
class Normalize(Layer):
    """(x - mean) / std with fixed numbers, one or a channel each: preprocessing that a saved model carries.

    >>> from convolve import Model
    >>> import numpy as np
    >>> Model(Normalize(mean=0.0, std=255.0), input_shape=(1, 1, 1)).predict(np.full((1, 1, 1, 1), 51, np.uint8)).item()
    0.20000000298023224
    """

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 255.0
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        mean, std = self._constant(scope, x, self.mean, "mean"), self._constant(scope, x, self.std, "std")
        return (x - mean) / std

    def _constant(self, scope: Scope, x: Value, given: float | tuple[float, ...], what: str) -> Value | float:
        if isinstance(given, (int, float)):
            return float(given)
        if len(given) != x.shape[-1]:
            raise ShapeError(f"{scope.title}: {what} has {len(given)} entries for {x.shape[-1]} channels: {given}")
        return ops.vector(given)
