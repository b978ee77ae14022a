"""Matrix products: fully-connected layers, and products of values with each other."""

from __future__ import annotations

import math

import numpy as np

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Value
from convolve.layers.imported.site import Layout, Operand, Result, Site, handles
from convolve.layers.imported.tensor import Tensor
from convolve.ops.convolution import inner
from convolve.ops.layout import transpose
from convolve.ops.reduce import reshape_to


@handles("Gemm")
def _gemm(s: Site, a: Operand, b: Operand, c: Operand | None = None) -> Result:
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ShapeError(f"multiplies matrices. Received: shapes {a.shape} and {b.shape}")
    x = s.tensor(a)
    if s.node.integer("transA", 0):
        x = x.transposed((1, 0))
    made = product(s, x, b, 0 if s.node.integer("transB", 0) else 1)
    alpha, beta = s.node.number("alpha", 1.0), s.node.number("beta", 1.0)
    if alpha != 1:
        made = made.like(made.value * alpha)
    if c is not None and beta:
        [y, bias], made = s.aligned([made, c], "bias")
        made = made.like(y + (bias if beta == 1 else bias * beta))
    return made


@handles("MatMul")
def _matmul(s: Site, a: Operand, b: Operand) -> Result:
    if len(b.shape) == 2 and len(a.shape) > 1:
        return product(s, s.tensor(a), b, 1)
    x, y = s.tensor(a), s.tensor(b)
    lead, trail = x.rank == 1, y.rank == 1
    if not x.rank or not y.rank:
        raise ShapeError(f"multiplies matrices. Received: shapes {x.shape} and {y.shape}")
    x = x.reshaped((1, *x.shape)) if lead else x
    y = y.reshaped((*y.shape, 1)) if trail else y
    made = products(s, x, y)
    shape = made.shape
    if lead:
        shape = (*shape[:-2], *shape[-1:])
    return made.reshaped(shape[:-1] if trail else shape)


def product(s: Site, x: Tensor, w: Operand, units: int) -> Tensor:
    """x (..., features) times a matrix whose dimension `units` are the units, the other the features.

    Features may lie in another order than the file's: then the weight is brought to it.
    """
    features = w.shape[1 - units]
    if x.shape[-1] != features:
        raise ShapeError(f"features of an input of shape {x.shape} and weights of shape {w.shape} differ")
    axes = list(x.dims[-1])
    if not isinstance(w, Tensor):
        axes.sort()
    rows = [a for a in range(len(x.value.shape)) if a not in axes]
    flat = reshape_to(transpose(x.value, [*rows, *axes]), (x.value.size // features, features))
    y = inner(flat, _weight(s, x, w, units, axes))
    value = reshape_to(y, (*(x.value.shape[a] for a in rows), w.shape[units]))
    place = {a: i for i, a in enumerate(rows)}
    dims = (*(tuple(place[a] for a in of) for of in x.dims[:-1]), (len(rows),))
    return Tensor(value, dims)


def _weight(s: Site, x: Tensor, w: Operand, units: int, axes: list[int]) -> Value:
    """The matrix as (units, features), its features in the order of the axes."""
    if isinstance(w, Tensor):
        return w.arranged([(units,), (1 - units,)])
    sizes = tuple(x.value.shape[a] for a in x.dims[-1])
    parts = ((w.shape[0],), sizes) if units == 0 else (sizes, (w.shape[1],))
    first = 1 - units
    order = tuple(first + x.dims[-1].index(a) for a in axes)
    layout = Layout(parts, (0 if units == 0 else len(sizes), *order), (w.shape[units], math.prod(sizes)))
    return s.laid(w, "weight", layout)


def products(s: Site, x: Tensor, y: Tensor) -> Tensor:
    """Matrices of x (..., m, k) times those of y (..., k, n): one grouped product, a group for each pair."""
    m, k, n = x.shape[-2], x.shape[-1], y.shape[-1]
    if y.shape[-2] != k:
        raise ShapeError(f"matrices of shapes {x.shape} and {y.shape} do not fit")
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    rank, count = len(batch), math.prod(batch)
    x, y = (_repeated(t, batch) for t in (x, y))
    together = tuple(range(rank))
    left = reshape_to(x.arranged([(rank,), together, (rank + 1,)]), (m, count * k))
    right = reshape_to(y.arranged([together, (rank + 1,), (rank,)]), (count * n, k))
    made = reshape_to(inner(left, right, count), (m, *batch, n))
    return Tensor.laid(made, (rank, *range(rank), rank + 1))


def _repeated(t: Tensor, batch: tuple[int, ...]) -> Tensor:
    """Matrices repeated so that there is one for each index of `batch`."""
    whole = (*batch, *t.shape[-2:])
    if t.shape == whole:
        return t
    return Tensor.plain(ops.broadcast(t.in_order(), whole))
