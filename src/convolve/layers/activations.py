"""Activations: pointwise functions as layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convolve import ops
from convolve.graph import Value, apply
from convolve.layers.base import Layer, Scope, one
from convolve.ops.softmax import Softmax as SoftmaxOp


@dataclass(frozen=True)
class ReLU(Layer):
    """max(0, x). NaN stays NaN."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return ops.relu(one(inputs, scope))


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """x where positive, `slope` * x elsewhere (Maas et al., 2013)."""

    slope: float = 0.01
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return ops.where(ops.greater(x, 0.0), x, x * self.slope)


@dataclass(frozen=True)
class Sigmoid(Layer):
    """1 / (1 + exp(-x))."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return ops.sigmoid(one(inputs, scope))


@dataclass(frozen=True)
class Tanh(Layer):
    """Hyperbolic tangent."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return ops.tanh(one(inputs, scope))


@dataclass(frozen=True)
class GELU(Layer):
    """x * Phi(x) with the normal distribution's Phi, exact (Hendrycks and Gimpel, 2016)."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return x * (ops.erf(x * math.sqrt(0.5)) * 0.5 + 0.5)


@dataclass(frozen=True)
class SiLU(Layer):
    """x * sigmoid(x) (Elfwing et al., 2018)."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return x * ops.sigmoid(x)


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x) over its sum along the channels. Losses take logits: a net trained with cross_entropy needs no Softmax.

    >>> from convolve import Model
    >>> import numpy as np
    >>> Model(Softmax(), input_shape=(2,)).predict(np.zeros((1, 2), np.float32))
    array([[0.5, 0.5]], dtype=float32)
    """

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return apply(SoftmaxOp(), x)
