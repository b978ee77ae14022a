"""Layers that change where values stand: their shape, what is around them, how many positions there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Shape, Value, apply
from convolve.layers.base import Layer, Scope, one, spatial
from convolve.ops.reduce import Reshape as ReshapeOp
from convolve.window import Pads, per_dimension


@dataclass(frozen=True)
class Flatten(Layer):
    """(batch, *spatial, channels) -> (batch, features), in scan order with channels fastest."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return apply(ReshapeOp((-1, x.size // x.shape[0])), x)


@dataclass(frozen=True)
class Reshape(Layer):
    """(batch, ...) -> (batch, *shape): the same elements of each sample in the same order, channels fastest.

    One entry may be -1: what the others leave.

    >>> from convolve import Model
    >>> Model(Reshape((7, 7, -1)), input_shape=(784,)).output_shape
    (7, 7, 16)

    Raises:
        ShapeError: the sample has another number of elements; more than one entry is -1.
    """

    shape: Shape
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        given = self.shape
        entries = isinstance(given, (tuple, list)) and bool(given) and all(isinstance(n, Integral) for n in given)
        if not entries or any(n < 1 and n != -1 for n in given) or list(given).count(-1) > 1:
            raise ShapeError(
                f"{scope.title}: shape holds the sizes of one sample, each at least 1, without the batch; one may be "
                f"-1, as in (7, 7, -1). Received: shape={given!r}"
            )
        features, rest = x.size // x.shape[0], math.prod(abs(n) for n in given)
        if features % rest or (-1 not in given and rest != features):
            raise ShapeError(
                f"{scope.title}: a sample of shape {x.shape[1:]} has {features:,} elements, which do not fit. "
                f"Received: shape={given!r}"
            )
        return ops.reshape(x, (x.shape[0], *(features // rest if n == -1 else int(n) for n in given)))


@dataclass(frozen=True)
class Pad(Layer):
    """More positions around: (batch, *spatial, channels) -> (batch, *(lo + size + hi), channels).

    `padding` is an int, or a (lo, hi) pair a dimension; `mode` says what stands there, as in NumPy's `pad`:

    >>> from convolve import Model
    >>> row = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1)
    >>> for mode in ("constant", "reflect", "edge", "wrap"):
    ...     padded = Model(Pad(2, mode), input_shape=(4, 1)).predict(row)
    ...     print(f"{mode:8} 1234 -> {''.join(f'{v:.0f}' for v in padded.ravel())}")
    constant 1234 -> 00123400
    reflect  1234 -> 32123432
    edge     1234 -> 11123444
    wrap     1234 -> 34123412

    A constant is `value`, which may be infinite. Convolutions pad with zeros themselves: `Conv(padding=...)`.

    Raises:
        ShapeError: negative padding, another mode, or more than there is to reflect (size - 1) or to wrap (size).
    """

    padding: int | Pads
    mode: str = "constant"
    value: float = 0.0
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return ops.pad(one(inputs, scope), self.padding, self.mode, self.value)


@dataclass(frozen=True)
class Upsample(Layer):
    """`scale` times as many positions: (batch, *spatial, channels) -> (batch, *(scale * size), channels).

    `scale` is an int, or one a dimension. "nearest" repeats each position; "linear" goes straight from the centre of
    one to that of the next (bilinear over images, trilinear over volumes), the ends repeated: PyTorch's
    `align_corners=False`.

    >>> from convolve import Model
    >>> for mode in ("nearest", "linear"):
    ...     print(Model(Upsample(2, mode), input_shape=(2, 1)).predict(np.array([[[0], [4]]], np.float32)).ravel())
    [0. 0. 4. 4.]
    [0. 1. 3. 4.]

    Raises:
        ShapeError: a scale below 1, another mode, or an input without spatial dimensions.
    """

    scale: int | tuple[int, ...] = 2
    mode: str = "nearest"
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        size = spatial(scope, x, "Upsample")
        scale = per_dimension(self.scale, len(size), "scale")
        if self.mode not in ("nearest", "linear"):
            raise ShapeError(f'{scope.title}: mode must be "nearest" or "linear". Received: mode={self.mode!r}')
        return ops.resize(x, tuple(n * s for n, s in zip(size, scale, strict=True)), self.mode)
