"""Reductions of a formula: along rows, and down columns."""

from __future__ import annotations

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
    """One number a row: `out[row]` over the row's inner elements."""

    kind: str
    formula: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        names = (*self.formula.in_memory, "out")
        tables = (*(f"{name}_table:i4" for name in names), *(f"{name}_row:int" for name in names))
        return (*SPACE, *self.formula.arguments, "out:f4", *tables)

    def emit(self, k: Kernel) -> None:
        constants = {i: k.splat(k.args[f"in{i}"]) for i in self.formula.indices("constant")}
        with rows(k, (*self.formula.in_memory, "out")) as (at, inner):
            known = constants | {i: at[f"in{i}"].splat() for i in self.formula.indices("scalar")}

            def value(index: Expr, mask: Mask | None) -> Expr:
                inputs = [
                    known[i] if i in known else (at[f"in{i}"] + index).vector(mask)
                    for i in range(len(self.formula.inputs))
                ]
                return self.formula.evaluate(k, inputs)[0]

            at["out"].store(across(k, self.kind, inner, value))


def across(k: Kernel, kind: str, inner: Expr, value) -> Expr:  # type: ignore[no-untyped-def]
    """Reduce `value(index, mask)` over 0..inner-1 in `LANES` virtual lanes, then those lanes pairwise."""
    lanes = k.target.lanes
    identity = k.constant(START[kind])
    combine = FUNCTIONS[STEP[kind]]
    sums = [k.variable(identity) for _ in range(LANES // lanes)]
    whole = inner - inner % LANES
    with k.range(whole, step=LANES) as index:
        for v, total in enumerate(sums):
            total.set(combine(k, total.get(), value(index + v * lanes, None)))
    for v, total in enumerate(sums):
        left = inner - whole - v * lanes
        with k.when(left > 0):
            mask = k.lane_mask(left)
            last = k.select(mask, value(whole + v * lanes, mask), identity)
            total.set(combine(k, total.get(), last))
    parts = [k.lane(total.get(), i) for total in sums for i in range(lanes)]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [scalar(k, STEP[kind], a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]


def scalar(k: Kernel, function: str, a: Expr, b: Expr) -> Expr:
    """A pointwise function of two numbers."""
    if function == "add":
        return a + b
    larger = k.select(b > a, b, k.select(b.differs(b), b, a))
    return k.select(a.differs(a), a, larger)


@dataclass(frozen=True)
class ColumnReduce:
    """One number a column: piece (o, slice) reduces its segments' rows into `out[o, slice, output, column]`."""

    kind: str
    formula: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        names = self.formula.in_memory
        tables = (*(f"{name}_table:i4" for name in names), *(f"{name}_row:int" for name in names))
        return (*SPACE, "slices:int", "out_size:int", *self.formula.arguments, "out:f4", *tables)

    def emit(self, k: Kernel) -> None:
        lanes = k.target.lanes
        outer, part = k.piece // k.slices, k.piece % k.slices
        first, last = share(part, k.slices, k.segments)
        constants = {i: k.splat(k.args[f"in{i}"]) for i in self.formula.indices("constant")}
        combine = FUNCTIONS[STEP[self.kind]]
        outputs = [k.out + (k.piece * k.out_size + j * k.inner) for j in range(len(self.formula.outputs))]

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
