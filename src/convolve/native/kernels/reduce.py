"""Reductions of a formula: along rows, and down columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.functions import FUNCTIONS
from convolve.native.kernels.gemm import share
from convolve.native.kernels.pointwise import SPACE, rows, segment_start

LANES = 16
"""Virtual lanes of a sum across lanes: the same on every target, so that its bits are."""
START = {"sum": 0.0, "max": float("-inf")}
STEP = {"sum": "add", "max": "maximum"}
BLOCK = 4


@dataclass(frozen=True)
class RowReduce:
    """One number a row: `out[output, row]` over the row's inner elements; outputs lie `plane` apart."""

    kind: str
    formula: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        names = (*self.formula.in_memory, "out")
        tables = (*(f"{name}_table:i4" for name in names), *(f"{name}_row:int" for name in names))
        return (*SPACE, "plane:int", *self.formula.arguments, "out:f4", *tables)

    def emit(self, k: Kernel) -> None:
        constants = {i: k.splat(k.args[f"in{i}"]) for i in self.formula.indices("constant")}
        with rows(k, (*self.formula.in_memory, "out")) as (at, inner):
            known = constants | {i: at[f"in{i}"].splat() for i in self.formula.indices("scalar")}

            def values(index: Expr, mask: Mask | None) -> list[Expr]:
                inputs = [
                    known[i] if i in known else (at[f"in{i}"] + index).vector(mask)
                    for i in range(len(self.formula.inputs))
                ]
                return self.formula.evaluate(k, inputs)

            for j, total in enumerate(across_each(k, self.kind, inner, len(self.formula.outputs), values)):
                (at["out"] + j * k.plane).store(total)


def across(k: Kernel, kind: str, inner: Expr, value: Callable[[Expr, Mask | None], Expr]) -> Expr:
    """Reduce `value(index, mask)` over 0..inner-1 in `LANES` virtual lanes, then those lanes pairwise."""
    [total] = across_each(k, kind, inner, 1, lambda index, mask: [value(index, mask)])
    return total


def across_each(
    k: Kernel, kind: str, inner: Expr, count: int, values: Callable[[Expr, Mask | None], list[Expr]]
) -> list[Expr]:
    """`across` for so many values at once."""
    lanes = k.target.lanes
    identity = k.constant(START[kind])
    combine = FUNCTIONS[STEP[kind]]
    sums = [[k.variable(identity) for _ in range(LANES // lanes)] for _ in range(count)]
    whole = inner - inner % LANES
    with k.range(whole, step=LANES) as index:
        for v in range(LANES // lanes):
            for total, value in zip(sums, values(index + v * lanes, None), strict=True):
                total[v].set(combine(k, total[v].get(), value))
    for v in range(LANES // lanes):
        left = inner - whole - v * lanes
        with k.when(left > 0):
            mask = k.lane_mask(left)
            for total, value in zip(sums, values(whole + v * lanes, mask), strict=True):
                total[v].set(combine(k, total[v].get(), k.select(mask, value, identity)))
    return [_pairwise(k, kind, [part.get() for part in total]) for total in sums]


def _pairwise(k: Kernel, kind: str, parts: list[Expr]) -> Expr:
    """Reduce the lanes of vectors: the first half with the second, until one is left."""
    combine = FUNCTIONS[STEP[kind]]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [combine(k, a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
    [left] = parts
    while left.type.count > 2:
        left = combine(k, *k.halves(left))
    return k.lane(combine(k, left, k.shuffle(left, (1, 0))), 0)


@dataclass(frozen=True)
class ColumnReduce:
    """One number a column: piece (o, slice) reduces its segments' rows into `out[output, o, slice, column]`.

    Outputs lie `plane` apart.
    """

    kind: str
    formula: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        names = self.formula.in_memory
        tables = (*(f"{name}_table:i4" for name in names), *(f"{name}_row:int" for name in names))
        return (*SPACE, "slices:int", "plane:int", *self.formula.arguments, "out:f4", *tables)

    def emit(self, k: Kernel) -> None:
        lanes = k.target.lanes
        outer, part = k.piece // k.slices, k.piece % k.slices
        first, last = share(part, k.slices, k.segments)
        constants = {i: k.splat(k.args[f"in{i}"]) for i in self.formula.indices("constant")}
        combine = FUNCTIONS[STEP[self.kind]]
        outputs = [k.out + (k.piece * k.inner + j * k.plane) for j in range(len(self.formula.outputs))]

        def columns(starts, mid: Expr, index: Expr, width: int, fresh: Expr, mask: Mask | None) -> None:  # type: ignore[no-untyped-def]
            sums = [
                [
                    k.variable(k.select(fresh, k.constant(START[self.kind]), (out + (index + v * lanes)).vector(mask)))
                    for v in range(width)
                ]
                for out in outputs
            ]
            with k.range(mid) as row:
                at = {name: start + row * k.args[f"{name}_row"] for name, start in starts.items()}
                known = constants | {i: at[f"in{i}"].splat() for i in self.formula.indices("scalar")}
                for v in range(width):
                    inputs = [
                        known[i] if i in known else (at[f"in{i}"] + (index + v * lanes)).vector(mask)
                        for i in range(len(self.formula.inputs))
                    ]
                    for total, value in zip(sums, self.formula.evaluate(k, inputs), strict=True):
                        total[v].set(combine(k, total[v].get(), value))
            for out, total in zip(outputs, sums, strict=True):
                for v in range(width):
                    (out + (index + v * lanes)).store_vector(total[v].get(), mask)

        with k.range(last, first) as segment:
            starts, mid, _ = segment_start(k, outer * k.segments + segment, self.formula.in_memory)
            fresh = segment.equals(first)
            wide = k.inner - k.inner % (BLOCK * lanes)
            with k.range(wide, step=BLOCK * lanes) as index:
                columns(starts, mid, index, BLOCK, fresh, None)
            with k.range(k.inner, wide, step=lanes) as index:
                columns(starts, mid, index, 1, fresh, k.lane_mask(k.inner - index))
