"""Losses, written in ops, by name ("dice") or made with options (`dice(epsilon=0.1)`).

One's own loss is a function (output, target) -> scalar Value with targets of the output's shape; a subclass of `Loss`
may ask for others.

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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from convolve import ops
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Shape, Value, apply, leaf
from convolve.ops.layout import unmoved
from convolve.ops.pointwise import Pointwise
from convolve.ops.softmax import CrossEntropy as CrossEntropyOp
from convolve.ops.softmax import Softmax

LossFunction = Callable[[Value, Value], Value]
Targets = Literal["values", "shares", "classes"]


class Loss:
    """Base of losses: a subclass is a frozen dataclass, so that equal losses share their programs."""

    name: ClassVar[str]

    def targets(self, output_shape: Shape) -> Targets:
        """What the loss compares an output of this shape (without the batch) with.

        `values`: numbers of the output's shape, (n, *output_shape), float32. `shares`: likewise, from 0 to 1.
        `classes`: labels, one for each row of the output's last axis, (n, *spatial), int32, or instead probabilities
        of the classes, of the output's shape, float32.

        Raises:
            ShapeError: the loss makes no sense for such an output.
        """
        return "values"

    def __call__(self, output: Value, target: Value) -> Value:
        """The mean loss of a batch, one number."""
        return ops.mean(self.terms(output, target))

    def terms(self, output: Value, target: Value) -> Value:
        """What the loss is the mean of, (batch, *spatial, 1 or channels): `Weighted` weighs them.

        Raises:
            ConvolveError: the loss is no such mean.
        """
        raise ConvolveError(f"{self.name} is no mean over samples, so that these cannot be weighted: use another loss")


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Mean cross-entropy of logits (batch, *spatial, classes) against labels or probabilities.

    Targets are labels (batch, *spatial), integers, or probabilities (batch, *spatial, classes), as mixup and
    distillation make them: `fit`, `evaluate`, `step` and `gradients` go by the shape. With p = softmax(logits), target
    t (one-hot where it is a label), smoothing s (Szegedy et al., 2016) and class weights w:

        loss = -sum over rows and classes c of  w[c] * ((1 - s) * t[c] + s / classes) * log p[c]  /  total

    `total` is the number of rows or, for labels with class weights, the sum of the labels' weights (so in PyTorch; a
    batch whose labels all weigh nothing has loss 0).

    >>> CrossEntropy(smoothing=0.1, class_weights=[1, 2]).class_weights
    (1.0, 2.0)
    """

    name: ClassVar[str] = "cross_entropy"
    smoothing: float = 0.0
    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ConvolveError(f"smoothing must be from 0 to below 1. Received: smoothing={self.smoothing}")
        if self.class_weights is not None:
            weights = _weights("class_weights", self.class_weights)
            if not any(weights):
                raise ConvolveError("class_weights are all 0: give at least one class a weight")
            object.__setattr__(self, "class_weights", weights)

    def targets(self, output_shape: Shape) -> Targets:
        classes = _classes(self, output_shape)
        if classes == 1:
            raise ShapeError(
                "cross_entropy over one class is always 0: use binary_cross_entropy for yes or no, mse for a number. "
                f"Received: output of shape {output_shape}"
            )
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ShapeError(
                f"cross_entropy has {len(self.class_weights)} class_weights, one a class. "
                f"Received: output of shape {output_shape}"
            )
        return "classes"

    def __call__(self, output: Value, target: Value) -> Value:
        _take_logits(self, output)
        labelled = target.dtype == "i4"
        if labelled and self.class_weights is None:
            return ops.mean(apply(CrossEntropyOp(self.smoothing), output, target))
        shares = _shares(target, output.shape[-1])
        total: Value | float = output.size / output.shape[-1]
        wanted = shares * (1 - self.smoothing) + self.smoothing / output.shape[-1] if self.smoothing else shares
        if self.class_weights is not None:
            weights = ops.vector(self.class_weights)
            wanted = wanted * weights
            if labelled:
                weight = ops.sum(shares * weights)
                total = ops.where(ops.greater(weight, 0.0), weight, math.inf)
        return -ops.sum(wanted * ops.log_softmax(output)) / total

    def terms(self, output: Value, target: Value) -> Value:
        """A term a row; `target` are probabilities. Class weights are not known here: make them weights of samples."""
        if self.class_weights is not None:
            raise ConvolveError("cross_entropy: give class_weights or weights of samples, not both; multiply them")
        _take_logits(self, output)
        wanted = target * (1 - self.smoothing) + self.smoothing / output.shape[-1]
        return ops.reshape(-ops.sum(wanted * ops.log_softmax(output), -1), (*output.shape[:-1], 1))


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Mean cross-entropy of logits x against targets t from 0 to 1 of the output's shape, for each output by itself.

        loss = mean of  -(positive_weight * t * log sigmoid(x) + (1 - t) * log(1 - sigmoid(x)))

    computed from softplus, finite for any finite logit. `positive_weight` is PyTorch's pos_weight: a number, or one a
    channel; above 1 it makes up for rare positives.
    """

    name: ClassVar[str] = "binary_cross_entropy"
    positive_weight: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        weights = _weights("positive_weight", np.atleast_1d(self.positive_weight))
        object.__setattr__(self, "positive_weight", weights if np.ndim(self.positive_weight) else weights[0])

    def targets(self, output_shape: Shape) -> Targets:
        several = isinstance(self.positive_weight, tuple)
        if several and output_shape[-1:] != np.shape(self.positive_weight):
            raise ShapeError(
                f"binary_cross_entropy has {np.size(self.positive_weight)} numbers as positive_weight, one a channel. "
                f"Received: output of shape {output_shape}"
            )
        return "shares"

    def terms(self, output: Value, target: Value) -> Value:
        _take_logits(self, output)
        positive = ops.softplus(-output)
        given = self.positive_weight
        if given != 1:
            weight = ops.constant(given) if isinstance(given, float) else ops.vector(given)
            positive = positive * (target * (weight - 1.0) + 1.0)
        return (1.0 - target) * output + positive


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean of (output - target)^2 over everything."""

    name: ClassVar[str] = "mse"

    def terms(self, output: Value, target: Value) -> Value:
        return ops.square(output - target)


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """Mean of |output - target| over everything."""

    name: ClassVar[str] = "mae"

    def terms(self, output: Value, target: Value) -> Value:
        return ops.absolute(output - target)


@dataclass(frozen=True)
class Huber(Loss):
    """Mean over d = output - target of  d^2 / 2  where |d| is at most delta,  delta * (|d| - delta / 2)  beyond.

    (Huber, 1964.) Squares near the target, and no outlier pulls harder than delta.
    """

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ConvolveError(f"huber: delta must be positive. Received: delta={self.delta!r}")

    def terms(self, output: Value, target: Value) -> Value:
        size = ops.absolute(output - target)
        near = ops.minimum(size, self.delta)
        return near * (size - near * 0.5)


@dataclass(frozen=True)
class Dice(Loss):
    """Soft Dice loss of logits (batch, *spatial, channels), for segmentation at any rank (Milletari et al., 2016).

    With one channel, p = sigmoid(logits) and targets t from 0 to 1 of the output's shape; with several, p =
    softmax(logits) over the channels and t labels (batch, *spatial) or probabilities of the output's shape. Each class
    counts alike, however few its positions; sums run over the batch and all positions:

        loss = mean over classes of  1 - (2 * sum p t + epsilon) / (sum p + sum t + epsilon)

    (Milletari et al. square p and t in the denominator.) `epsilon` lets a class that is nowhere, and seen nowhere,
    cost nothing. As a ratio of sums over a batch, the loss is no mean over its samples.
    """

    name: ClassVar[str] = "dice"
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ConvolveError(f"dice: epsilon must be positive. Received: epsilon={self.epsilon!r}")

    def targets(self, output_shape: Shape) -> Targets:
        return "shares" if _classes(self, output_shape) == 1 else "classes"

    def __call__(self, output: Value, target: Value) -> Value:
        one = _take_logits(self, output) == "shares"
        shares = target if one else _shares(target, output.shape[-1])
        found = ops.sigmoid(output) if one else apply(Softmax(), output)
        places = tuple(range(len(output.shape) - 1))
        common, all_found, all_true = (ops.sum(v, places) for v in (found * shares, found, shares))
        return 1.0 - ops.mean((common * 2.0 + self.epsilon) / (all_found + all_true + self.epsilon))


@dataclass(frozen=True)
class Weighted(Loss):
    """A loss whose samples weigh differently: mean of  weight * term  over the terms of `loss`.

    Targets are those of `loss` (probabilities in place of labels) with the weight behind them, (batch, *spatial,
    channels + 1), so that a position may have a weight of its own; with weights of mean 1 the loss keeps its size.

    >>> import numpy as np
    >>> from convolve.graph import evaluate
    >>> output, target = (leaf("input", name, (2, k)) for name, k in (("x", 1), ("y", 2)))
    >>> given = {"x": np.zeros((2, 1)), "y": np.array([[3.0, 0.5], [1.0, 1.5]])}
    >>> evaluate([Weighted(mse())(output, target)], given)  # (0.5 * 9 + 1.5 * 1) / 2
    [array(3.)]
    """

    name: ClassVar[str] = "weighted"
    loss: Loss = MeanSquaredError()

    def terms(self, output: Value, target: Value) -> Value:
        axis, last = len(target.shape) - 1, target.shape[-1] - 1
        return self.loss.terms(output, ops.cut(target, axis, 0, last)) * ops.cut(target, axis, last, last + 1)


cross_entropy = CrossEntropy
binary_cross_entropy = BinaryCrossEntropy
mse = MeanSquaredError
mae = MeanAbsoluteError
huber = Huber
dice = Dice
NAMES: dict[str, type[Loss]] = {
    cls.name: cls for cls in (CrossEntropy, BinaryCrossEntropy, MeanSquaredError, MeanAbsoluteError, Huber, Dice)
}


def resolve(loss: str | LossFunction) -> LossFunction:
    """A loss by its name, or a function as it is."""
    if callable(loss):
        return loss
    if loss not in NAMES:
        raise ConvolveError(f"loss must be one of {', '.join(NAMES)} or a function. Received: loss={loss!r}")
    return NAMES[loss]()


def balanced(labels: ArrayLike, classes: int | None = None) -> tuple[float, ...]:
    """Class weights that let every class count alike: n / (classes * images of the class); 0 for a class of none.

    Args:
        labels: class numbers, of any shape.
        classes: how many there are; by default up to the largest label.

    >>> balanced([0, 0, 0, 1])
    (0.6666666666666666, 2.0)
    """
    counts = np.bincount(np.asarray(labels).ravel(), minlength=classes or 0)
    there = counts > 0
    return tuple(np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0.0).tolist())


def targets(loss: LossFunction, output_shape: Shape) -> Targets:
    """What targets a loss takes for an output of this shape; a plain function takes values."""
    return loss.targets(output_shape) if isinstance(loss, Loss) else "values"


def target_leaf(y: np.ndarray) -> Value:
    """Canonical targets as a loss meets them in a graph."""
    return leaf("input", "y", y.shape, {np.dtype(np.int32): "i4", np.dtype(np.float32): "f4"}[y.dtype])


def mean_output(outputs: Sequence[np.ndarray], kind: Targets, probabilities: bool = False) -> np.ndarray:
    """One output for several of the same samples, of what a loss with targets of this kind takes.

    Of classes and shares, probabilities are averaged and given as logits: the logarithms of the mean of softmax, the
    logit of the mean of sigmoid. Values are averaged as they are, and so are outputs that are `probabilities` already.

    >>> mean_output([np.array([[0.0, 0.0]]), np.array([[0.0, 100.0]])], "classes").round(3)
    array([[-1.386, -0.288]])
    """
    made = np.stack(outputs).astype(np.float64)
    if kind == "values" or probabilities:
        mean = made.mean(0)
    elif kind == "classes":
        top = made.max(-1, keepdims=True)
        logs = made - top - np.log(np.exp(made - top).sum(-1, keepdims=True))
        mean = np.logaddexp.reduce(logs, 0) - np.log(len(made))
    else:
        yes, no = (np.logaddexp.reduce(-np.logaddexp(0, signed), 0) for signed in (-made, made))
        mean = yes - no
    return np.asarray(mean, outputs[0].dtype)


def hits(loss: LossFunction, output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where the output decides as the target does: an array of truths, empty where there is nothing to decide.

    The most probable class of each row against the label (or the most probable class), or a logit's sign against
    a target above or below one half.
    """
    kind = targets(loss, output.shape[1:])
    if kind == "values":
        return np.empty(0, bool)
    if kind == "shares":
        return np.asarray((output > 0) == (target > 0.5))
    return np.asarray(output.argmax(-1) == (target if target.ndim < output.ndim else target.argmax(-1)))


def _classes(loss: Loss, output_shape: Shape) -> int:
    if not output_shape:
        raise ShapeError(f"{loss.name} needs logits (batch, *spatial, classes). Received: output of shape ()")
    return output_shape[-1]


def _take_logits(loss: Loss, output: Value) -> Targets:
    """What targets the loss takes for logits; refuses what are probabilities already."""
    for op, layer in ((Softmax(), "Softmax"), (Pointwise("sigmoid"), "Sigmoid")):
        if unmoved(output).op == op:
            raise ShapeError(
                f"{loss.name} takes logits, and this net ends in {layer}: remove that layer (predict gives logits "
                "then, classify the labels), or let replace_head(classes) end the net anew"
            )
    return loss.targets(output.shape[1:])


def _shares(target: Value, classes: int) -> Value:
    """Probabilities as they are, labels one-hot."""
    if target.dtype == "f4":
        return target
    return ops.equal(ops.reshape(target, (*target.shape, 1)), ops.vector(range(classes)))


def _weights(what: str, given: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    try:
        weights = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        weights = np.empty(0)
    if weights.ndim != 1 or not weights.size or not all(0 <= w < math.inf for w in weights):
        raise ConvolveError(f"{what} are numbers in a row, none of them negative. Received: {what}={given!r}")
    return tuple(weights.tolist())
