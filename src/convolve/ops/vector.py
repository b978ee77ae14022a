"""Numbers known when the graph is built, in a row: class weights, the classes themselves, one number a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import Group, Lowering
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.pointwise import Pointwise
from convolve.program import Argument, At


@register
@dataclass(frozen=True)
class Vector(Op):
    """The numbers of `values`, in order."""

    name: ClassVar[str] = "vector"
    arity: ClassVar[int | None] = 0
    values: tuple[float, ...]

    def shape(self, *inputs: Shape) -> Shape:
        if not self.values:
            raise ShapeError("a vector needs at least one number. Received: none")
        return (len(self.values),)

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return np.array(self.values, np.float64)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return ()

    def lower(self, group: Group, low: Lowering) -> None:
        """A copy from the call's own arguments."""
        assert group.anchor is not None
        result = low.result(group.anchor)
        numbers, here = np.array(self.values, np.float32), np.zeros(1, np.int32)
        arguments: dict[str, Argument] = {"segments": 1, "pieces": 1, "mid": 1, "last_mid": 1}
        arguments |= {"inner": len(numbers), "last_inner": len(numbers)}
        arguments |= {"in0": numbers, "in0_table": here, "in0_row": 0}
        arguments |= {"out0": At(result.memory, result.start), "out0_table": here, "out0_row": 0}
        low.call(Pointwise(Formula(("vector:f4",), (), (0,))), arguments, 1, result, "numbers")


def vector(values: Sequence[float]) -> Value:
    """Numbers as a value of one dimension; with others it broadcasts along the channels."""
    return apply(Vector(tuple(float(v) for v in values)))
