"""A convolution in Winograd's tiles and the max-pool behind it: its windows lie within tiles, so no map is written."""

from __future__ import annotations

from dataclasses import replace

from convolve.lowering import Group, Lowering
from convolve.ops.convolution import Convolution
from convolve.ops.pool import Pool


def pools(first: Group, second: Group, exact: bool, fixed: bool) -> bool:
    """Whether `second` is a max-pool whose windows lie within the tiles in which `first` is computed."""
    a, b = first.anchor, second.anchor
    if a is None or b is None or exact or len(first.outputs) != 1 or b.inputs[0] is not first.outputs[0]:
        return False
    if not (isinstance(a.op, Convolution) and isinstance(b.op, Pool) and b.op.kind == "max"):
        return False
    tiling = a.op.tiling(*(v.shape for v in a.inputs), fixed=fixed)
    return tiling is not None and tiling.holds(b.op.window)


def lower_pooled(first: Group, second: Group, low: Lowering) -> None:
    """Both groups as one product."""
    assert first.anchor is not None
    assert isinstance(first.anchor.op, Convolution)
    first.anchor.op.lower(replace(first, outputs=second.outputs, pooled=True), low)
