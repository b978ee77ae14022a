"""Optimizers, written in ops: what a parameter becomes, given its gradient and the state kept for it.

Weight decay is decoupled (Loshchilov and Hutter, 2019): it shrinks the parameter itself by rate * weight_decay, and
leaves out biases and norms. `clip` bounds the global norm of all gradients (Pascanu et al., 2013). `LayerRates` lets
some layers learn slower than others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from convolve import ops
from convolve.errors import ConvolveError
from convolve.graph import Value
from convolve.ops.convolution import inner

State = Callable[[str], Value]
Updates = list[tuple[Value, Value]]
Role = Literal["weight", "head", "other"]
"""Of a parameter: a layer's weight, that of the last layer of several, or what weight decay leaves out."""


class Optimizer:
    """Base of optimizers; a subclass is a frozen dataclass with a `rate`."""

    rate: float
    weight_decay: float
    clip: float | None

    def numbers(self, step: int) -> dict[str, float]:
        """Numbers that change from step to step, counted from 0, other than the rate."""
        return {}

    def factor(self, name: str) -> float:
        """By what the rate is multiplied for a parameter of this name."""
        return 1.0

    def check(self, names: Iterable[str]) -> None:
        """Refuse a net whose parameters, called so, the optimizer was not made for."""

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], role: Role
    ) -> Updates:
        """New values of the parameter and of its state, as (leaf, value) pairs."""
        raise NotImplementedError

    def _check(self, fractions: Sequence[str] = (), positive: Sequence[str] = ()) -> None:
        """Refuse numbers that make no sense, in the fields all optimizers have and in those named."""
        name = type(self).__name__
        for field in ("rate", *positive):
            if not 0 < getattr(self, field) < math.inf:
                raise ConvolveError(f"{name}: {field} must be positive. Received: {field}={getattr(self, field)!r}")
        for field in fractions:
            if not 0 <= getattr(self, field) < 1:
                value = getattr(self, field)
                raise ConvolveError(f"{name}: {field} must be from 0 to below 1. Received: {field}={value!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ConvolveError(
                f"{name}: weight_decay must not be negative. Received: weight_decay={self.weight_decay!r}"
            )
        if self.clip is not None and not self.clip > 0:
            raise ConvolveError(f"{name}: clip must be positive or None. Received: clip={self.clip!r}")

    def _decayed(self, parameter: Value, rate: Value, role: Role) -> Value:
        return parameter * (1.0 - rate * self.weight_decay) if role != "other" and self.weight_decay else parameter


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
        self._check(("momentum",))
        if self.nesterov and not self.momentum:
            raise ConvolveError("SGD: nesterov needs a momentum, for instance momentum=0.9. Received: momentum=0")

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], role: Role
    ) -> Updates:
        start = self._decayed(parameter, rate, role)
        if not self.momentum:
            return [(parameter, start - rate * gradient)]
        old = state("momentum")
        velocity = old * self.momentum + gradient
        direction = gradient + velocity * self.momentum if self.nesterov else velocity
        return [(old, velocity), (parameter, start - rate * direction)]


@dataclass(frozen=True)
class Adam(Optimizer):
    """Steps of the size of the rate, gradients scaled by running moments (Kingma and Ba, 2015).

        m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
        p = p - rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)   at step t, from 1

    Unlike PyTorch's Adam, weight decay is decoupled here, too: a weight_decay makes this AdamW.
    """

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check(("beta1", "beta2"), ("epsilon",))

    def numbers(self, step: int) -> dict[str, float]:
        return {
            "correction1": 1 / (1 - self.beta1 ** (step + 1)),
            "correction2": 1 / math.sqrt(1 - self.beta2 ** (step + 1)),
        }

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], role: Role
    ) -> Updates:
        old1, old2 = state("moment1"), state("moment2")
        first = _blend(old1, gradient, self.beta1)
        second = _blend(old2, ops.square(gradient), self.beta2)
        size = ops.sqrt(second) * numbers["correction2"] + self.epsilon
        moved = self._decayed(parameter, rate, role) - (rate * numbers["correction1"]) * (first / size)
        return [(old1, first), (old2, second), (parameter, moved)]


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with a decoupled weight decay of 0.01 (Loshchilov and Hutter, 2019)."""

    weight_decay: float = 0.01


@dataclass(frozen=True)
class Muon(Adam):
    """Momentum whose matrices are made nearly orthogonal (Jordan et al., 2024), so that every direction is learnt.

        b = momentum * b + g;  d = g + momentum * b
        p = p - rate * 0.2 sqrt(max(rows, columns)) * orthogonal(d)

    The weights of convolutions and dense layers are seen as matrices, a row a filter. By the factor, a step is as long
    as one of AdamW's (Liu et al., 2025; PyTorch's `match_rms_adamw`), and rates and weight decays for AdamW fit. The
    last layer's weight, whose rows are classes, takes Adam's steps, and so do biases and norms.

    >>> Muon(0.01).weight_decay
    0.01
    """

    momentum: float = 0.95
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        self._check(("beta1", "beta2", "momentum"), ("epsilon",))

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], role: Role
    ) -> Updates:
        if role != "weight" or len(parameter.shape) < 2:
            return super().update(parameter, gradient, rate, state, numbers, role)
        old = state("momentum")
        velocity = old * self.momentum + gradient
        rows, columns = parameter.shape[0], math.prod(parameter.shape[1:])
        matrix = ops.reshape(gradient + velocity * self.momentum, (rows, columns))
        direction = ops.reshape(_orthogonal(matrix), parameter.shape)
        step = direction * (0.2 * math.sqrt(max(rows, columns)))
        return [(old, velocity), (parameter, self._decayed(parameter, rate, role) - rate * step)]


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Gradients over the root of their running mean square (Tieleman and Hinton, 2012), as PyTorch's RMSprop.

        v = rho * v + (1 - rho) * g^2;  d = g / (sqrt(v) + epsilon);  b = momentum * b + d;  p = p - rate * b

    `centered` takes the running mean off: sqrt(v - m^2) with m = rho * m + (1 - rho) * g (Graves, 2013). `rho` is
    PyTorch's alpha, 0.99 there.
    """

    rate: float = 1e-3
    rho: float = 0.9
    epsilon: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check(("rho", "momentum"), ("epsilon",))

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], role: Role
    ) -> Updates:
        old = state("square")
        square = _blend(old, ops.square(gradient), self.rho)
        updates, spread = [(old, square)], square
        if self.centered:
            old = state("mean")
            mean = _blend(old, gradient, self.rho)
            updates.append((old, mean))
            spread = ops.maximum(square - ops.square(mean), 0.0)  # rounding may leave less than nothing
        direction = gradient / (ops.sqrt(spread) + self.epsilon)
        if self.momentum:
            old = state("momentum")
            direction = old * self.momentum + direction
            updates.append((old, direction))
        return [*updates, (parameter, self._decayed(parameter, rate, role) - rate * direction)]


@dataclass(frozen=True)
class Lion(Optimizer):
    """The sign of a blend of momentum and gradient (Chen et al., 2023): every element moves by the rate.

        c = beta1 * m + (1 - beta1) * g;  p = p - rate * (sign(c) + weight_decay * p);  m = beta2 * m + (1 - beta2) * g

    Its authors advise a rate 3 to 10 times below AdamW's, and a weight decay as much above.
    """

    rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check(("beta1", "beta2"))

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], role: Role
    ) -> Updates:
        old = state("momentum")
        direction = ops.sign(_blend(old, gradient, self.beta1))
        moved = self._decayed(parameter, rate, role) - rate * direction
        return [(old, _blend(old, gradient, self.beta2)), (parameter, moved)]


@dataclass(frozen=True)
class LayerRates(Optimizer):
    """Another optimizer, whose rate is multiplied by a factor in some layers.

    Args:
        optimizer: what makes the steps.
        factors: by the path of a layer or of a block around it, as the summary has it, or by a parameter's name; the
            longest that fits counts, and elsewhere the rate is as it is.

    >>> slow = LayerRates(AdamW(1e-3), {"conv1": 0.1, "conv1.bias": 0.2})
    >>> slow.factor("conv1.weight"), slow.factor("conv1.bias"), slow.factor("dense1.weight")
    (0.1, 0.2, 1.0)
    """

    optimizer: Optimizer
    factors: Mapping[str, float] | tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        pairs = tuple((str(path), float(factor)) for path, factor in dict(self.factors).items())
        object.__setattr__(self, "factors", pairs)  # hashable: programs are known by their optimizer
        for path, factor in pairs:
            if not 0 < factor < math.inf:
                raise ConvolveError(
                    f"LayerRates: a factor must be positive; see Model.freeze. Received: {path} {factor}"
                )

    @classmethod
    def falling(cls, optimizer: Optimizer, names: Iterable[str], lowest: float = 0.1) -> LayerRates:
        """Rates that fall from the last layer down: by the same factor from each to the one before it.

        Of n layers with parameters the i-th, from 0, has the factor lowest ** (1 - i / (n - 1)): `lowest` in the first,
        1 in the last. What is near the pixels is of use for other pictures, too, and changes least (after the
        discriminative fine-tuning of Howard and Ruder, 2018).

        Args:
            optimizer: what makes the steps.
            names: of the parameters, from the input on: `model.parameters`.
            lowest: the first layer's factor.

        >>> falling = LayerRates.falling(SGD(0.1), ["conv1.weight", "conv1.bias", "conv2.weight", "dense1.weight"])
        >>> [round(factor, 3) for _, factor in falling.factors]
        [0.1, 0.316, 1.0]
        """
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        steps = max(1, len(layers) - 1)
        return cls(optimizer, {path: lowest ** (1 - i / steps) for i, path in enumerate(layers)})

    @property
    def rate(self) -> float:  # type: ignore[override]
        return self.optimizer.rate

    @property
    def clip(self) -> float | None:  # type: ignore[override]
        return self.optimizer.clip

    def numbers(self, step: int) -> dict[str, float]:
        return self.optimizer.numbers(step)

    def factor(self, name: str) -> float:
        fitting = [(len(path), factor) for path, factor in dict(self.factors).items() if _within(name, path)]
        return self.optimizer.factor(name) * (max(fitting)[1] if fitting else 1.0)

    def check(self, names: Iterable[str]) -> None:
        known = list(names)
        for path, _ in dict(self.factors).items():
            if not any(_within(name, path) for name in known):
                raise ConvolveError(
                    f"LayerRates: no layer with parameters is called {path!r}. There are {', '.join(known)}"
                )
        self.optimizer.check(known)

    def update(
        self, parameter: Value, gradient: Value, rate: Value, state: State, numbers: dict[str, Value], role: Role
    ) -> Updates:
        return self.optimizer.update(parameter, gradient, rate, state, numbers, role)


def _within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _blend(old: Value, new: Value, keep: float) -> Value:
    """A running mean that keeps a part of the old."""
    return old * keep + new * (1 - keep)


QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of s, s^3 and s^5; so often repeated, it brings singular values between 0.003 and 1 to 0.7 to 1.2 (Jordan et al.)."""


def _orthogonal(d: Value) -> Value:
    """d (rows, columns) with singular values near 1: x = (a + b x x^T + c (x x^T)^2) x, again and again.

    The factors are polynomials of the first x x^T, so that they commute: their product, `scale` times the identity and
    `rest`, is found among matrices of the shorter side, and multiplies x once.
    """
    if d.shape[0] > d.shape[1]:
        return ops.transpose(_orthogonal(ops.transpose(d, (1, 0))), (1, 0))
    a, b, c = QUINTIC
    x = d / (ops.sqrt(ops.sum(ops.square(d))) + 1e-7)
    gram = inner(x, x)
    powers = gram * b + inner(gram, gram) * c
    scale, rest = a, powers
    for _ in range(ITERATIONS - 1):
        half = gram * a + inner(powers, gram)
        gram = half * a + inner(powers, half)
        powers = gram * b + inner(gram, gram) * c
        scale, rest = scale * a, rest * a + powers * scale + inner(powers, rest)
    return x * scale + inner(rest, ops.transpose(x, (1, 0)))


def clipped(gradients: list[Value], limit: float) -> list[Value]:
    """Gradients scaled down together so that their global norm is at most `limit`."""
    total = ops.sum(ops.square(gradients[0]))
    for gradient in gradients[1:]:
        total = total + ops.sum(ops.square(gradient))
    factor = ops.minimum(limit / (ops.sqrt(total) + 1e-12), 1.0)
    return [gradient * factor for gradient in gradients]
