"""An ONNX graph as a value: what a file says, in dataclasses that JSON can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Shape

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""What an attribute of a node holds."""
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("float32", "float64", "float16", "bool", *INTEGERS)
"""Element types of values. All but known ones are computed in float32: integers are exact up to 2 ** 24."""


@dataclass(frozen=True)
class Node:
    """An operator: what it is called in the net, its type, the names of what it reads ("" for nothing) and makes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()

    def get(self, name: str, default: Attribute | None = None) -> Attribute | None:
        """An attribute, or `default` where it is not given."""
        return next((value for key, value in self.attributes if key == name), default)

    def integer(self, name: str, default: int) -> int:
        value = self.get(name, default)
        if not isinstance(value, int):
            raise ShapeError(f"attribute {name} must be an integer. Received: {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.get(name, default)
        if not isinstance(value, (int, float)):
            raise ShapeError(f"attribute {name} must be a number. Received: {value!r}")
        return float(value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        value = self.get(name)
        if value is not None and not (isinstance(value, tuple) and all(isinstance(v, int) for v in value)):
            raise ShapeError(f"attribute {name} must be a list of integers. Received: {value!r}")
        return value  # type: ignore[return-value]

    def word(self, name: str, default: str) -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            raise ShapeError(f"attribute {name} must be a string. Received: {value!r}")
        return value


@dataclass(frozen=True)
class Number:
    """A small constant: its elements in scan order."""

    name: str
    dtype: str
    shape: Shape
    values: tuple[int, ...] | tuple[float, ...]

    def array(self) -> np.ndarray:
        if self.dtype not in DTYPES or math.prod(self.shape) != len(self.values):
            raise ShapeError(
                f"constant {self.name} needs {self.shape} elements of a known type. "
                f"Received: {len(self.values)} of {self.dtype!r}"
            )
        return np.array(self.values, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Stored:
    """A constant of float32 that the network keeps as an array: a weight, usually."""

    name: str
    shape: Shape
