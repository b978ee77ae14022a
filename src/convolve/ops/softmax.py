"""Softmax over the last axis, its logarithm, and the cross-entropy of logits against integer labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import GRAIN, MOST_PIECES, Group, Lowering
from convolve.native.kernels.softmax import Softmax as SoftmaxKernel
from convolve.ops.pointwise import broadcast, exp
from convolve.ops.reduce import reshape_to, sum
from convolve.program import Argument, At, Buffer


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


class _Rows(Op):
    """An op that makes a row along the last axis of a row."""

    arity: ClassVar[int | None] = 1

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        if not x:
            raise ShapeError(f"{self.name} needs at least one dimension. Received: a single number")
        return x

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x = low.compact(y.inputs[0])
        low.write_compact(y, lambda result: _rows(low, self.name, x, result, {}))


@register
@dataclass(frozen=True)
class Softmax(_Rows):
    """exp(x) over the sum of exp(x) along the last axis."""

    name: ClassVar[str] = "softmax"

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(_log_softmax(inputs[0])))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (y * (dy - _row_sums(dy * y)),)


@register
@dataclass(frozen=True)
class LogSoftmax(_Rows):
    """x minus the logarithm of the sum of exp(x) along the last axis."""

    name: ClassVar[str] = "log_softmax"

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return _log_softmax(inputs[0])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return (dy - exp(y) * _row_sums(dy),)


def _row_sums(value: Value) -> Value:
    """Sums along the last axis, which stays with size 1."""
    return reshape_to(sum(value, -1), (*value.shape[:-1], 1))


def log_softmax(value: Value) -> Value:
    """Logarithms of the softmax along the last axis, finite for any finite logits."""
    return apply(LogSoftmax(), value)


class _Labelled(Op):
    """An op on logits (*rows, classes) and their labels (*rows,), 32-bit integers that kernels trust to be classes."""

    smoothing: float

    def rows(self, x: Shape, labels: Shape) -> Shape:
        if len(x) < 2 or labels != x[:-1]:
            raise ShapeError(
                f"cross_entropy takes logits (*rows, classes), labels (*rows,). Received: {x} and {labels}"
            )
        return labels

    def dtype(self, *inputs: str) -> str:
        if inputs[1] != "i4":
            raise ShapeError(f"cross_entropy takes labels that are 32-bit integers. Received: type {inputs[1]}")
        return "f4"

    def arguments(self, low: Lowering, labels: Value) -> dict[str, Argument]:
        known = low.compact(labels)
        return {"label": At(known.memory, known.start), "smoothing": self.smoothing}


@register
@dataclass(frozen=True)
class CrossEntropy(_Labelled):
    """Loss of each row: logits (*rows, classes), labels (*rows,) int32 -> (*rows,), with label smoothing."""

    name: ClassVar[str] = "cross_entropy"
    arity: ClassVar[int | None] = 2
    smoothing: float = 0.0

    def shape(self, *inputs: Shape) -> Shape:
        return self.rows(*inputs)

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        logs = _log_softmax(inputs[0])
        chosen = np.take_along_axis(logs, inputs[1][..., None].astype(int), -1)[..., 0]
        return np.asarray(-(1 - self.smoothing) * chosen - self.smoothing * logs.mean(-1))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, labels = y.inputs
        return apply(CrossEntropyGradient(self.smoothing), x, labels, broadcast(dy, y.shape)), None

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, labels = low.compact(y.inputs[0]), self.arguments(low, y.inputs[1])
        low.write_compact(y, lambda result: _rows(low, "loss", x, result, labels))


@register
@dataclass(frozen=True)
class CrossEntropyGradient(_Labelled):
    """(softmax(x) - target) * dy, row by row."""

    name: ClassVar[str] = "cross_entropy_gradient"
    arity: ClassVar[int | None] = 3
    smoothing: float = 0.0

    def shape(self, *inputs: Shape) -> Shape:
        x, labels, dy = inputs
        if self.rows(x, labels) != dy:
            raise ShapeError(f"gradient of cross_entropy of {x} and labels {labels} from {dy}")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, labels, dy = inputs
        chosen = np.arange(x.shape[-1]) == labels[..., None]
        target = (1 - self.smoothing) * chosen.astype(x.dtype) + self.smoothing / x.shape[-1]
        return np.asarray((np.exp(_log_softmax(x)) - target) * dy[..., None])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        raise ShapeError("second derivatives of cross_entropy are not defined here; differentiate the loss once")

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, scale = low.compact(y.inputs[0]), low.compact(y.inputs[2])
        more = self.arguments(low, y.inputs[1]) | {"scale": At(scale.memory, scale.start)}
        low.write_compact(y, lambda result: _rows(low, "gradient", x, result, more))


def _rows(low: Lowering, kind: str, x: Buffer, y: Buffer, more: dict[str, Argument]) -> None:
    """A kernel over rows of x and y that lie one behind the other."""
    inner = x.shape[-1]
    count = math.prod(x.shape[:-1])
    pieces = max(1, min(count, MOST_PIECES, count * inner // (GRAIN // 8)))
    arguments: dict[str, Argument] = {
        "x": At(x.memory, x.start),
        "y": At(y.memory, y.start),
        "rows": count,
        "inner": inner,
        "pieces": pieces,
    }
    low.call(SoftmaxKernel(kind), arguments | more, pieces, y, "by rows")
