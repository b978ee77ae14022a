"""Normalisation and dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Leaf, Value, apply, constant
from convolve.layers.base import Layer, Scope, one, spatial
from convolve.ops.dropout import Dropout as DropoutOp
from convolve.ops.norm import group_normalize, moments, normalize


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
    axes = tuple(range(len(x.shape) - 1))
    if isinstance(mean.op, Leaf) and isinstance(variance.op, Leaf):
        found = [ops.reshape(v, (channels,)) for v in moments(x, axes)]
        kept = 1 - decay
        scope.update(mean, mean * decay + found[0] * kept)
        scope.update(variance, variance * decay + found[1] * (count / (count - 1) * kept))
    return normalize(x, axes, epsilon, scale, shift)


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalise the channels of each position, in training and otherwise (Ba, Kiros and Hinton, 2016).

        y = (x - mean) / sqrt(variance + epsilon) * scale + shift

    `axes` are what mean and variance are taken over, and what scale and shift are learnt for: counted with the batch,
    which is axis 0 and stays, or from the end. So (1, 2, 3) normalises all of a picture, with a scale for each of its
    numbers; `GroupNorm(1)` does with one for each channel.

    >>> from convolve import Model
    >>> Model(LayerNorm(), input_shape=(2,)).predict(np.array([[3, 5]], np.float32)).round(3)
    array([[-1.,  1.]], dtype=float32)

    Raises:
        ShapeError: an axis is the batch, comes twice or does not exist; there is but one value along them.
    """

    axes: int | tuple[int, ...] = -1
    epsilon: float = 1e-5
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        axes = self.over(scope, x)
        sizes = tuple(x.shape[a] for a in axes)
        _several(scope, x, math.prod(sizes), "axes that hold more than one")
        scale = scope.parameter("scale", sizes, "ones", decay=False)
        shift = scope.parameter("shift", sizes, "zeros", decay=False)
        kept = tuple(n if i in axes else 1 for i, n in enumerate(x.shape))
        return normalize(x, axes, self.epsilon, ops.reshape(scale, kept), ops.reshape(shift, kept))

    def over(self, scope: Scope, x: Value) -> tuple[int, ...]:
        """The axes that are normalised, in order and counted from the batch."""
        rank = len(x.shape)
        given = self.axes if isinstance(self.axes, (tuple, list)) else (self.axes,)
        axes = sorted(int(a) % rank for a in given if isinstance(a, Integral) and -rank <= a < rank)
        if not given or len(set(axes)) < len(given) or axes[0] == 0:
            raise ShapeError(
                f"{scope.title}: axes are one or several from 1 to {rank - 1} or from the end; axis 0 is the batch. "
                f"Received: axes={self.axes!r}"
            )
        return tuple(axes)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Normalise each group of channels of a sample, over all positions (Wu and He, 2018).

        y = (x - mean) / sqrt(variance + epsilon) * scale + shift

    with scale and shift learnt for each channel. It needs no batch and does the same in training and otherwise.

    >>> from convolve import Model
    >>> Model(GroupNorm(2), input_shape=(16, 16, 8)).parameters["group_norm1.scale"].shape
    (8,)

    Raises:
        ShapeError: `groups` does not divide the channels, or a group has but one value.
    """

    groups: int
    epsilon: float = 1e-5
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        channels = x.shape[-1]
        if not isinstance(self.groups, Integral) or self.groups < 1 or channels % self.groups:
            raise ShapeError(
                f"{scope.title}: groups must be a positive int that divides the {channels} channels. "
                f"Received: groups={self.groups!r}"
            )
        _several(scope, x, x.size // (x.shape[0] * self.groups), "fewer groups")
        scale = scope.parameter("scale", (channels,), "ones", decay=False)
        shift = scope.parameter("shift", (channels,), "zeros", decay=False)
        return group_normalize(x, int(self.groups), self.epsilon, scale, shift)


@dataclass(frozen=True)
class InstanceNorm(Layer):
    """Normalise each channel of a sample, over all positions (Ulyanov, Vedaldi and Lempitsky, 2016).

        y = (x - mean) / sqrt(variance + epsilon)

    With `affine` that is followed by a scale and a shift, learnt for each channel.

    Raises:
        ShapeError: the input has no spatial dimension, or one position.
    """

    affine: bool = False
    epsilon: float = 1e-5
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        size, channels = spatial(scope, x, "InstanceNorm"), x.shape[-1]
        _several(scope, x, math.prod(size), "larger images")
        if not self.affine:
            return group_normalize(x, channels, self.epsilon, 1.0, 0.0)
        scale = scope.parameter("scale", (channels,), "ones", decay=False)
        shift = scope.parameter("shift", (channels,), "zeros", decay=False)
        return group_normalize(x, channels, self.epsilon, scale, shift)


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zero values with probability `rate`, scale the rest by 1 / (1 - rate) (Srivastava et al., 2014).

    With `channels`, all positions of a sample's channel share one fate: neighbours know too much of each other for a
    single one to be missed (spatial dropout; Tompson et al., 2015).

    Raises:
        ShapeError: `rate` is not from 0 to below 1.
    """

    rate: float = 0.5
    channels: bool = False
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        if not 0 <= self.rate < 1:
            raise ShapeError(f"{scope.title}: rate must be from 0 to below 1. Received: rate={self.rate}")
        number = scope.number()
        if not scope.training or self.rate == 0:
            return x
        op, random = DropoutOp(self.rate, number), scope.construction.random
        if not self.channels:
            return apply(op, x, random)
        batch, *size, channels = x.shape
        kept = apply(op, ops.broadcast(constant(1.0), (batch, channels)), random)
        return x * ops.reshape(kept, (batch, *(1 for _ in size), channels))


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


def _several(scope: Scope, x: Value, count: int, instead: str) -> None:
    """Refuse to normalise one value: it has no variance."""
    if count < 2:
        raise ShapeError(
            f"{scope.title}: one value has no variance to normalise by; use {instead}. "
            f"Received: input of shape {x.shape[1:]}"
        )
