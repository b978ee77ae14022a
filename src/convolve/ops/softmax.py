"""Softmax over the last axis, and the cross-entropy of logits against integer labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import GRAIN, Group, Lowering
from convolve.native.kernels.softmax import Softmax as SoftmaxKernel
from convolve.ops.pointwise import broadcast
from convolve.ops.reduce import reshape_to, sum
from convolve.program import Argument, At, Buffer


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


@register
@dataclass(frozen=True)
class Softmax(Op):
    """exp(x) over the sum of exp(x) along the last axis."""

    name: ClassVar[str] = "softmax"
    arity: ClassVar[int | None] = 1

    def shape(self, *inputs: Shape) -> Shape:
        [x] = inputs
        if not x:
            raise ShapeError("softmax needs at least one dimension. Received: a single number")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return _softmax(inputs[0])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        weighted = sum(dy * y, -1)
        return (y * (dy - reshape_to(weighted, (*weighted.shape, 1))),)

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x = low.compact(y.inputs[0])
        low.write_compact(y, lambda result: _rows(low, "softmax", x, result, y.shape[-1], {}))


@register
@dataclass(frozen=True)
class CrossEntropy(Op):
    """Loss of each row: logits (n, classes), labels (n,) int32 -> (n,), with label smoothing."""

    name: ClassVar[str] = "cross_entropy"
    arity: ClassVar[int | None] = 2
    smoothing: float = 0.0

    def shape(self, *inputs: Shape) -> Shape:
        x, labels = inputs
        if len(x) != 2 or labels != x[:1]:
            raise ShapeError(f"cross_entropy takes logits (n, classes) and labels (n,). Received: {x} and {labels}")
        return x[:1]

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, labels = inputs
        shifted = x - x.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        chosen = logs[np.arange(len(x)), labels.astype(int)]
        return np.asarray(-(1 - self.smoothing) * chosen - self.smoothing * logs.mean(-1))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, labels = y.inputs
        return apply(CrossEntropyGradient(self.smoothing), x, labels, broadcast(dy, y.shape)), None

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, labels = y.inputs
        known = low.compact(labels)
        more: dict[str, Argument] = {"label": At(known.memory, known.start), "smoothing": self.smoothing}
        _rows(low, "loss", low.compact(x), low.result(y), 1, more)


@register
@dataclass(frozen=True)
class CrossEntropyGradient(Op):
    """(softmax(x) - target) * dy, row by row."""

    name: ClassVar[str] = "cross_entropy_gradient"
    arity: ClassVar[int | None] = 3
    smoothing: float = 0.0

    def shape(self, *inputs: Shape) -> Shape:
        x, labels, dy = inputs
        if CrossEntropy(self.smoothing).shape(x, labels) != dy:
            raise ShapeError(f"gradient of cross_entropy of {x} and labels {labels} from {dy}")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, labels, dy = inputs
        target = np.full_like(x, self.smoothing / x.shape[-1])
        target[np.arange(len(x)), labels.astype(int)] += 1 - self.smoothing
        return np.asarray((_softmax(x) - target) * dy[:, None])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        raise ShapeError("second derivatives of cross_entropy are not defined here; differentiate the loss once")

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, labels, dy = y.inputs
        known, scale = low.compact(labels), low.compact(dy)
        more: dict[str, Argument] = {
            "label": At(known.memory, known.start),
            "smoothing": self.smoothing,
            "scale": At(scale.memory, scale.start),
        }
        result = low.result(y)
        _rows(low, "gradient", low.compact(x), result, result.strides[0], more)


def _rows(low: Lowering, kind: str, x: Buffer, y: Buffer, y_row: int, more: dict[str, Argument]) -> None:
    inner = x.shape[-1]
    count = math.prod(x.shape[:-1])
    pieces = max(1, min(count, count * inner // (GRAIN // 8)))
    arguments: dict[str, Argument] = {
        "x": At(x.memory, x.start),
        "y": At(y.memory, y.start),
        "rows": count,
        "inner": inner,
        "pieces": pieces,
        "x_row": inner,
        "y_row": y_row,
    }
    low.call(SoftmaxKernel(kind), arguments | more, pieces, y, "by rows")
