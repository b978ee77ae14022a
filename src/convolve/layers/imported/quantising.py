"""Quantisation: numbers rounded to 8 or 16 bits and back, carried as float32."""

from __future__ import annotations

import numpy as np

from convolve import ops
from convolve.errors import ShapeError
from convolve.layers.imported import folding
from convolve.layers.imported.graph import Node
from convolve.layers.imported.shaping import taken
from convolve.layers.imported.site import Operand, Result, Site, handles
from convolve.layers.imported.tensor import Tensor

RANGES = {name: (np.iinfo(name).min, np.iinfo(name).max) for name in ("int8", "uint8", "int16", "uint16", "int32")}


def along(node: Node, x: Operand, factor: Operand | None) -> Operand | None:
    """Scales or zero points as they broadcast to x: one number, one a place of the axis, or one a block of it."""
    if factor is None or len(factor.shape) == 0 or factor.shape == (1,):
        return factor
    rank = len(x.shape)
    axis = folding.axis_of(node, rank, 1)
    if len(factor.shape) == 1:
        shape = tuple(n if d == axis else 1 for d, n in enumerate(x.shape))
        return factor.reshape(shape) if isinstance(factor, np.ndarray) else _tensor(factor).reshaped(shape)
    block = node.integer("block_size", 0)
    if block < 1 or len(factor.shape) != rank:
        raise ShapeError(f"scales of shape {factor.shape} for values of shape {x.shape} need a block_size")
    places = [i // block for i in range(x.shape[axis])]
    return np.take(factor, places, axis) if isinstance(factor, np.ndarray) else taken(_tensor(factor), axis, places)


def _tensor(factor: Operand) -> Tensor:
    if not isinstance(factor, Tensor):
        raise ShapeError(f"scales must be numbers or computed values. Received: {factor}")
    return factor


@handles("QuantizeLinear")
def _quantize(s: Site, x: Operand, scale: Operand, zero: Operand | None = None) -> Result:
    dtype = _type(s, zero, "output_dtype", "uint8")
    low, high = RANGES[dtype]
    [value, factor], made = s.aligned([x, _needed(along(s.node, x, scale))])
    made = made.like(ops.round(value / factor))
    if zero is not None:
        [value, shift], made = s.aligned([made, _needed(along(s.node, x, zero))])
        made = made.like(value + shift)
    return made.like(ops.minimum(ops.maximum(made.value, float(low)), float(high)), dtype)


@handles("DequantizeLinear")
def _dequantize(s: Site, x: Operand, scale: Operand, zero: Operand | None = None) -> Result:
    made = s.tensor(x)
    if zero is not None:
        [value, shift], made = s.aligned([made, _needed(along(s.node, x, zero))])
        made = made.like(value - shift)
    [value, factor], made = s.aligned([made, _needed(along(s.node, x, scale))])
    return made.like(value * factor, "float32")


@handles("DynamicQuantizeLinear")
def _dynamic(s: Site, x: Operand) -> Result:
    """uint8 over the range of x, which holds 0."""
    t = s.tensor(x)
    high = ops.maximum(ops.max(t.value), 0.0)
    low = ops.minimum(-ops.max(-t.value), 0.0)
    scale = (high - low) * (1 / 255)
    zero = ops.round(ops.minimum(ops.maximum(-low / scale, 0.0), 255.0))
    y = ops.minimum(ops.maximum(ops.round(t.value / scale) + zero, 0.0), 255.0)
    return [t.like(y, "uint8"), Tensor(scale, ()), Tensor(zero, (), "uint8")]


def _type(s: Site, zero: Operand | None, attribute: str, default: str) -> str:
    given = getattr(zero, "dtype", None) if zero is not None else s.node.get(attribute) or default
    if str(given) not in RANGES:
        raise ShapeError(f"quantises to {given}; known are {', '.join(RANGES)}")
    return str(given)


def _needed(x: Operand | None) -> Operand:
    if x is None:
        raise ShapeError("needs a scale")
    return x


@folding.folds("DequantizeLinear")
def _fold_dequantize(node: Node, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
    factor, shift = along(node, x, scale), along(node, x, zero)
    wide = x.astype(np.float32) - (0 if shift is None else np.asarray(shift, np.float32))
    return wide * np.asarray(factor, np.float32)
