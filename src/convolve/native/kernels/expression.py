"""Formulas: pointwise arithmetic as data, inside a kernel's spec.

A formula is a list of steps over its inputs. Gemm epilogues, pointwise sweeps and the prologues of reductions all
carry one, so that a chain of pointwise ops costs one pass over memory, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel
from convolve.native.kernels.functions import FUNCTIONS


@dataclass(frozen=True)
class Formula:
    """Steps `(function, operand, ...)`; operands number the inputs first, then the steps.

    An input is `vector:f4` (or `:u1`, `:i4`: loaded along the inner dimension), `scalar:f4` (one element for the whole
    inner run), `channel` (one value a column, the same for all rows), `constant` (a number in the call's arguments)
    or `sum` (what a product has accumulated).
    """

    inputs: tuple[str, ...]
    steps: tuple[tuple[str | int, ...], ...]
    outputs: tuple[int, ...]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Kernel arguments the inputs need: pointers and constants."""
        made = []
        for i, kind in enumerate(self.inputs):
            if kind == "constant":
                made.append(f"in{i}:float")
            elif kind == "channel":
                made.append(f"in{i}:f4")
            elif kind != "sum":
                made.append(f"in{i}:{kind.split(':')[1]}")
        return tuple(made)

    def indices(self, prefix: str) -> tuple[int, ...]:
        """Positions of the inputs whose kind begins with `prefix`."""
        return tuple(i for i, kind in enumerate(self.inputs) if kind.startswith(prefix))

    @property
    def in_memory(self) -> tuple[str, ...]:
        """Names of the inputs that are read from memory."""
        return tuple(f"in{i}" for i, kind in enumerate(self.inputs) if ":" in kind)

    def evaluate(self, k: Kernel, values: Sequence[Expr]) -> list[Expr]:
        """Emit all steps over the inputs' values; returns the outputs' values."""
        known = list(values)
        for function, *operands in self.steps:
            known.append(FUNCTIONS[str(function)](k, *(known[int(o)] for o in operands)))
        return [known[o] for o in self.outputs]
