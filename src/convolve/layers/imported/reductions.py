"""Reductions over dimensions."""

from __future__ import annotations

from collections.abc import Callable

from convolve import ops
from convolve.graph import Value
from convolve.layers.imported import folding
from convolve.layers.imported.site import Operand, Result, Site, handles
from convolve.layers.imported.windows import reduced

Axes = tuple[int, ...]


def _log_sum_exp(x: Value, axes: Axes) -> Value:
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    most = ops.max(x, axes)
    return ops.log(ops.sum(ops.exp(x - ops.reshape(most, kept)), axes)) + most


def _product(x: Value, axes: Axes) -> Value:
    """Halves multiplied with halves, axis by axis."""
    for axis in sorted(axes, reverse=True):
        while (size := x.shape[axis]) > 1:
            half = size // 2
            pairs = ops.cut(x, axis, 0, half) * ops.cut(x, axis, half, 2 * half)
            x = ops.concat(pairs, ops.cut(x, axis, 2 * half, size), axis=axis) if size % 2 else pairs
        x = ops.reshape(x, (*x.shape[:axis], *x.shape[axis + 1 :]))
    return x


REDUCTIONS: dict[str, Callable[[Value, Axes], Value]] = {
    "ReduceSum": ops.sum,
    "ReduceMean": ops.mean,
    "ReduceMax": ops.max,
    "ReduceMin": lambda x, axes: -ops.max(-x, axes),
    "ReduceL1": lambda x, axes: ops.sum(ops.absolute(x), axes),
    "ReduceL2": lambda x, axes: ops.sqrt(ops.sum(ops.square(x), axes)),
    "ReduceSumSquare": lambda x, axes: ops.sum(ops.square(x), axes),
    "ReduceProd": _product,
    "ReduceLogSum": lambda x, axes: ops.log(ops.sum(x, axes)),
    "ReduceLogSumExp": _log_sum_exp,
}
"""Reductions over axes, by operator."""


@handles(*REDUCTIONS, known=(1,))
def _reduce(s: Site, x: Operand, axes: Operand | None = None) -> Result:
    t = s.tensor(x)
    dims = folding.reduced_axes(s.node, t.rank, None if axes is None else s.known(axes, "axes"))
    over = tuple(sorted(a for d in dims for a in t.dims[d]))
    if not dims:
        return t
    y = REDUCTIONS[s.node.op](t.value, over)
    return reduced(t, over, y, dims, bool(s.node.integer("keepdims", 1)))
