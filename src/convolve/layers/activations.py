"""Activations: pointwise functions as layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convolve import ops
from convolve.errors import ShapeError
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
class PReLU(Layer):
    """x where positive, slope * x elsewhere, with a slope learnt for each channel (He et al., 2015).

    Slopes begin at `init`, and weight decay leaves them alone: it would make them zero, and this a ReLU.
    """

    init: float = 0.25
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        slope = scope.parameter("slope", x.shape[-1:], self.init, decay=False)
        return ops.where(ops.greater(x, 0.0), x, x * slope)


@dataclass(frozen=True)
class ELU(Layer):
    """x where positive, `alpha` * (exp(x) - 1) elsewhere (Clevert et al., 2016)."""

    alpha: float = 1.0
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        # The branch not taken is bounded: an infinite exponential there would make its gradient, times 0, a NaN.
        return ops.where(ops.greater(x, 0.0), x, ops.expm1(ops.minimum(x, 0.0)) * self.alpha)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
"""For these, mean 0 and variance 1 of what goes through a net of SELUs are a fixed point (Klambauer et al., 2017)."""


@dataclass(frozen=True)
class SELU(Layer):
    """ELU with the two numbers that make a net normalise itself (Klambauer et al., 2017); wants `lecun_normal`.

    y = 1.0507 * (x where positive, 1.6733 * (exp(x) - 1) elsewhere)
    """

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        below = ops.expm1(ops.minimum(x, 0.0)) * (SELU_SCALE * SELU_ALPHA)
        return ops.where(ops.greater(x, 0.0), x * SELU_SCALE, below)


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
class Mish(Layer):
    """x * tanh(softplus(x)) (Misra, 2019)."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        # tanh(log(1 + e)) is n / (n + 2) with n = e * (e + 2): one exponential. From 20 on it is 1 to the last bit.
        e = ops.exp(ops.minimum(x, 20.0))
        n = e * (e + 2.0)
        return x * (n / (n + 2.0))


@dataclass(frozen=True)
class Softplus(Layer):
    """log(1 + exp(x)), a smooth ReLU (Dugas et al., 2001)."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return ops.softplus(one(inputs, scope))


@dataclass(frozen=True)
class HardSigmoid(Layer):
    """min(max(x + 3, 0), 6) / 6, a sigmoid of straight lines (Howard et al., 2019)."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return _hard_sigmoid(one(inputs, scope))


@dataclass(frozen=True)
class HardSwish(Layer):
    """x * min(max(x + 3, 0), 6) / 6: SiLU with HardSigmoid for its sigmoid (Howard et al., 2019)."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return x * _hard_sigmoid(x)


def _hard_sigmoid(x: Value) -> Value:
    return ops.clip(x + 3.0, 0.0, 6.0) * (1 / 6)


@dataclass(frozen=True)
class Clip(Layer):
    """min(max(x, low), high); a bound of None is none. ReLU6 is `Clip(0, 6)`. NaN stays NaN.

    Raises:
        ShapeError: `low` is above `high`, or one of them is NaN.

    >>> from convolve import Model
    >>> import numpy as np
    >>> Model(Clip(0, 6), input_shape=(3,)).predict(np.array([[-1, 2, 7]], np.float32))
    array([[0., 2., 6.]], dtype=float32)
    """

    low: float | None = None
    high: float | None = None
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        y = one(inputs, scope)
        low, high = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        if not low <= high:
            raise ShapeError(f"{scope.title}: low must not be above high. Received: low={self.low}, high={self.high}")
        return y if low == -math.inf and high == math.inf else ops.clip(y, low, high)


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
