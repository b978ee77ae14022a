"""Optimizers, written in ops: what a parameter becomes, given its gradient and the state kept for it.

Weight decay is decoupled (Loshchilov and Hutter, 2019): it shrinks the parameter itself by rate * weight_decay, and
leaves out biases and norms. `clip` bounds the global norm of all gradients (Pascanu et al., 2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from convolve import ops
from convolve.errors import ConvolveError
from convolve.graph import Value

State = Callable[[str], Value]
Updates = list[tuple[Value, Value]]


class Optimizer:
    """Base of optimizers; a subclass is a frozen dataclass with a `rate`."""

    rate: float
    weight_decay: float
    clip: float | None

    def numbers(self, step: int) -> dict[str, float]:
        """Numbers that change from step to step, counted from 0, other than the rate."""
        return {}

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], decay: bool
    ) -> Updates:
        """New values of the parameter and of its state, as (leaf, value) pairs."""
        raise NotImplementedError

    def _check(self) -> None:
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ConvolveError(f"{type(self).__name__}: the rate must be positive. Received: rate={self.rate!r}")
        if self.weight_decay < 0:
            raise ConvolveError(
                f"{type(self).__name__}: weight_decay must not be negative. Received: {self.weight_decay!r}"
            )
        if self.clip is not None and not self.clip > 0:
            raise ConvolveError(f"{type(self).__name__}: clip must be positive or None. Received: clip={self.clip!r}")

    def _decayed(self, parameter: Value, rate: Value, decay: bool) -> Value:
        return parameter * (1.0 - rate * self.weight_decay) if decay and self.weight_decay else parameter


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as PyTorch's: v = momentum * v + g; p = p - rate * v.

    `nesterov` steps along g + momentum * v instead (Sutskever et al., 2013).
    """

    rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check()
        if not 0 <= self.momentum < 1:
            raise ConvolveError(f"SGD: momentum must be from 0 to below 1. Received: momentum={self.momentum}")
        if self.nesterov and not self.momentum:
            raise ConvolveError("SGD: nesterov needs a momentum, for instance momentum=0.9. Received: momentum=0")

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], decay: bool
    ) -> Updates:
        start = self._decayed(parameter, rate, decay)
        if not self.momentum:
            return [(parameter, start - rate * gradient)]
        old = state("momentum")
        velocity = old * self.momentum + gradient
        direction = gradient + velocity * self.momentum if self.nesterov else velocity
        return [(old, velocity), (parameter, start - rate * direction)]


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), its moments corrected for their start at zero."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check()
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConvolveError(f"AdamW: {name} must be from 0 to below 1. Received: {getattr(self, name)}")

    def numbers(self, step: int) -> dict[str, float]:
        return {
            "correction1": 1 / (1 - self.beta1 ** (step + 1)),
            "correction2": 1 / math.sqrt(1 - self.beta2 ** (step + 1)),
        }

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], decay: bool
    ) -> Updates:
        old1, old2 = state("moment1"), state("moment2")
        first = old1 * self.beta1 + gradient * (1 - self.beta1)
        second = old2 * self.beta2 + ops.square(gradient) * (1 - self.beta2)
        size = ops.sqrt(second) * numbers["correction2"] + self.epsilon
        moved = self._decayed(parameter, rate, decay) - (rate * numbers["correction1"]) * (first / size)
        return [(old1, first), (old2, second), (parameter, moved)]


def clipped(gradients: list[Value], limit: float) -> list[Value]:
    """Gradients scaled down together so that their global norm is at most `limit`."""
    total = ops.sum(ops.square(gradients[0]))
    for gradient in gradients[1:]:
        total = total + ops.sum(ops.square(gradient))
    factor = ops.minimum(limit / (ops.sqrt(total) + 1e-12), 1.0)
    return [gradient * factor for gradient in gradients]
