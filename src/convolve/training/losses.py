"""Losses, written in ops. One's own loss is a function (output, target) -> scalar Value.

>>> from convolve import Dense, Model, ops
>>> import numpy as np
>>> def log_cosh(output, target):
...     d = output - target
...     return ops.mean(ops.log((ops.exp(d) + ops.exp(-d)) * 0.5))
>>> model = Model(Dense(1), input_shape=(2,))
>>> float(model.evaluate(np.zeros((4, 2)), np.zeros((4, 1)), loss=log_cosh)["loss"])
0.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convolve import ops
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Value, apply
from convolve.ops.softmax import CrossEntropy as CrossEntropyOp
from convolve.ops.softmax import Softmax

LossFunction = Callable[[Value, Value], Value]


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy of logits (n, classes) against labels (n,), with label smoothing (Szegedy et al., 2016)."""

    smoothing: float = 0.0
    labels = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ConvolveError(f"smoothing must be from 0 to below 1. Received: smoothing={self.smoothing}")

    def __call__(self, output: Value, target: Value) -> Value:
        if isinstance(output.op, Softmax):
            raise ShapeError(
                "cross_entropy takes logits, and this net ends in Softmax: remove that layer (predict gives "
                "logits then, classify the labels)"
            )
        if len(output.shape) != 2:
            raise ShapeError(
                f"cross_entropy needs logits (batch, classes): end the net in Dense or GlobalAvgPool. "
                f"Received: output of shape {output.shape[1:]}"
            )
        return ops.mean(apply(CrossEntropyOp(self.smoothing), output, target))


@dataclass(frozen=True)
class MeanSquaredError:
    """Mean of (output - target)^2 over everything."""

    labels = False

    def __call__(self, output: Value, target: Value) -> Value:
        return ops.mean(ops.square(output - target))


cross_entropy = CrossEntropy
mse = MeanSquaredError
NAMES: dict[str, LossFunction] = {"cross_entropy": CrossEntropy(), "mse": MeanSquaredError()}


def resolve(loss: str | LossFunction) -> LossFunction:
    """A loss by its name, or a function as it is."""
    if callable(loss):
        return loss
    if loss not in NAMES:
        raise ConvolveError(f"loss must be one of {', '.join(NAMES)} or a function. Received: loss={loss!r}")
    return NAMES[loss]


def takes_labels(loss: LossFunction) -> bool:
    """Whether targets are integer labels; a function of one's own gets targets of the output's shape."""
    return bool(getattr(loss, "labels", False))
