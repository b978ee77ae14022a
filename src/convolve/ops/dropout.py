"""Dropout with counter-based random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import GRAIN, Group, Lowering
from convolve.native.kernels.dropout import Dropout as DropoutKernel
from convolve.program import Argument, At, Buffer


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


@register
@dataclass(frozen=True)
class Dropout(Op):
    """Zero elements of x with probability `rate` and scale the others by 1 / (1 - rate).

    An element's fate depends on (seed, step), the second input (2,) int64, on `layer`, and on its place in the batch.
    The gradient is the same op on dy (Srivastava et al., 2014).
    """

    name: ClassVar[str] = "dropout"
    arity: ClassVar[int | None] = 2
    rate: float
    layer: int

    @property
    def threshold(self) -> int:
        return round(self.rate * 2**24)

    def shape(self, *inputs: Shape) -> Shape:
        x, random = inputs
        if not 0 <= self.rate < 1 or random != (2,) or not x:
            raise ShapeError(f"dropout of {x} at rate {self.rate} by random numbers of shape {random}")
        return x

    def dtype(self, *inputs: str) -> str:
        if inputs[1] != "i8":
            raise ShapeError(f"dropout's (seed, step) are 64-bit integers. Received: {inputs[1]}")
        return "f4"

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, random = inputs
        with np.errstate(over="ignore"):
            seed, step = np.asarray(random).astype(np.int64).view(np.uint64)
            key = _mix(_mix(np.asarray([seed])) + step)
            rows = _mix(_mix(key + np.uint64(self.layer)) + np.arange(len(x)).astype(np.uint64))
            low, high = rows.astype(np.uint32), (rows >> np.uint64(32)).astype(np.uint32)
            element = np.arange(x[0].size, dtype=np.uint32)
            h = (element * np.uint32(0x9E3779B9)) ^ low[:, None]
            h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6D)
            h = ((h ^ (h >> np.uint32(13))) ^ high[:, None]) * np.uint32(0xC2B2AE35)
            h = h ^ (h >> np.uint32(16))
        kept = ((h >> np.uint32(8)) >= self.threshold).reshape(x.shape)
        return np.where(kept, x * x.dtype.type(1 / (1 - self.rate)), 0).astype(x.dtype)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return apply(Dropout(self.rate, self.layer), dy, y.inputs[1]), None

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        x, random = low.compact(y.inputs[0]), low.buffer(y.inputs[1])
        images = x.shape[0]
        inner = y.size // images
        parts = max(1, min(64, inner // GRAIN))

        def write(result: Buffer) -> None:
            arguments: dict[str, Argument] = {
                "x": At(x.memory, x.start),
                "y": At(result.memory, result.start),
                "random": At(random.memory),
                "layer": self.layer,
                "threshold": self.threshold,
                "scale": 1 / (1 - self.rate),
                "inner": inner,
                "parts": parts,
            }
            low.call(DropoutKernel(), arguments, images * parts, result, "counter-based")

        low.write_compact(y, write)
