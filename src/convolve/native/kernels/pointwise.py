"""One sweep of a formula over memory.

The space is a table of segments, `mid` rows in each, `inner` consecutive elements in a row. Each operand has its own
offset a segment (from a table) and its own stride a row, so that margins, broadcasting and any rank are a matter of
tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask, Pointer
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.gemm import share

SPACE = ("segments:int", "pieces:int", "mid:int", "last_mid:int", "inner:int", "last_inner:int")
"""Arguments that describe the space every sweep runs over."""


@dataclass(frozen=True)
class Pointwise:
    """The formula; outputs are vectors along the inner dimension."""

    formula: Formula

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands in memory."""
        return (*self.formula.in_memory, *(f"out{i}" for i in range(len(self.formula.outputs))))

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *SPACE,
            *self.formula.arguments,
            *(f"out{i}:f4" for i in range(len(self.formula.outputs))),
            *(f"{name}_table:i4" for name in self.operands),
            *(f"{name}_row:int" for name in self.operands),
        )

    def emit(self, k: Kernel) -> None:
        lanes = k.target.lanes
        constants = {i: k.splat(k.args[f"in{i}"]) for i in self.formula.indices("constant")}
        with rows(k, self.operands) as (at, inner):
            known = constants | {i: at[f"in{i}"].splat() for i in self.formula.indices("scalar")}

            def body(index: Expr, mask: Mask | None) -> None:
                values = [
                    known[i] if i in known else (at[f"in{i}"] + index).vector(mask)
                    for i in range(len(self.formula.inputs))
                ]
                for i, value in enumerate(self.formula.evaluate(k, values)):
                    (at[f"out{i}"] + index).store_vector(value, mask)

            whole = inner - inner % lanes
            with k.range(whole, step=lanes) as index:
                body(index, None)
            with k.when(whole < inner):
                body(whole, k.lane_mask(inner - whole))


@contextmanager
def rows(k: Kernel, operands: Sequence[str]) -> Iterator[tuple[dict[str, Pointer], Expr]]:
    """All rows of this piece's segments: each operand's address, and the row's length."""
    first, last = share(k.piece, k.pieces, k.segments)
    with k.range(last, first) as segment:
        starts, mid, inner = segment_start(k, segment, operands)
        with k.range(mid) as row:
            yield {name: start + row * k.args[f"{name}_row"] for name, start in starts.items()}, inner


def segment_start(k: Kernel, segment: Expr, operands: Sequence[str]) -> tuple[dict[str, Pointer], Expr, Expr]:
    """Where each operand's segment begins, its rows and its row length; the last segment may be shorter."""
    final = segment.equals(k.segments - 1)
    starts = {name: k.args[name] + (k.args[f"{name}_table"] + segment).load() for name in operands}
    return starts, k.select(final, k.last_mid, k.mid), k.select(final, k.last_inner, k.inner)
