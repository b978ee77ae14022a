"""Inputs and outputs of nets, as they are declared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from convolve.errors import ShapeError


@dataclass(frozen=True)
class Port:
    """An input or output of a net: its name, its whole shape, its element type.

    In a shape, a word stands for a dimension that is known when the net is called; equal words are equal sizes.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    fixed: bool = False
    """Whether the program depends on its elements, not on its shape alone: sizes, axes and indices are such."""

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.shape))}) of {self.dtype}"

    def sized(self, words: Mapping[str, int]) -> Port:
        """With sizes for words behind the batch."""
        sizes = (words.get(n, n) if isinstance(n, str) else n for n in self.shape[1:])
        return replace(self, shape=(*self.shape[:1], *sizes))


def sample_shape(port: Port) -> tuple[int, ...]:
    """The shape of one sample of an input.

    Raises:
        ShapeError: some of it is known only when the net is called.
    """
    sizes = port.shape[1:]
    if any(isinstance(n, str) for n in sizes):
        raise ShapeError(
            f"the net takes inputs of any size along some dimensions, {port}: say which is meant, by "
            "from_onnx(path, input_shape=...) without the batch"
        )
    return sizes  # type: ignore[return-value]


def row_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sample's results; of maps of a single position, that of a row.

    >>> row_of((10, 1, 1)), row_of((1, 1, 10)), row_of((10, 7, 7)), row_of((10,))
    ((10,), (10,), (10, 7, 7), (10,))
    """
    return (math.prod(shape),) if shape and sum(n != 1 for n in shape) <= 1 else shape
