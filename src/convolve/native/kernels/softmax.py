"""Softmax, its logarithm and the cross-entropy of labels, row by row: shifted by the row's maximum against overflow.

With p = softmax(x), target t = (1 - s) onehot + s / n (label smoothing s; Szegedy et al., 2016):

    log softmax = x - log sum exp x           loss = log sum exp x - sum t x           gradient = (p - t) * scale
"""

from __future__ import annotations

from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask, Pointer
from convolve.native.kernels import transcendental
from convolve.native.kernels.gemm import share
from convolve.native.kernels.reduce import across


@dataclass(frozen=True)
class Softmax:
    """`softmax`, `log_softmax` and `gradient` give a row for a row, `loss` gives one number."""

    kind: str

    @property
    def arguments(self) -> tuple[str, ...]:
        common = ("x:f4", "y:f4", "rows:int", "inner:int", "pieces:int")
        labels = ("label:i4", "smoothing:float") if self.kind in ("loss", "gradient") else ()
        return (*common, *labels, *(("scale:f4",) if self.kind == "gradient" else ()))

    def emit(self, k: Kernel) -> None:
        first, last = share(k.piece, k.pieces, k.rows)
        with k.range(last, first) as row:
            x, y = k.x + row * k.inner, k.y + (row if self.kind == "loss" else row * k.inner)
            top = k.splat(across(k, "max", k.inner, lambda index, mask: (x + index).vector(mask)))

            def power(index: Expr, mask: Mask | None, x: Pointer = x, top: Expr = top) -> Expr:
                return transcendental.exp(k, (x + index).vector(mask) - top)

            total = k.splat(across(k, "sum", k.inner, power))
            if self.kind == "loss":
                self._loss(k, x, y, row, k.lane(top, 0), total)
            elif self.kind == "log_softmax":
                self._logarithms(k, x, y, top, total)
            else:
                self._row(k, y, row, power, total)

    def _loss(self, k: Kernel, x: Pointer, y: Pointer, row: Expr, top: Expr, total: Expr) -> None:
        logits = across(k, "sum", k.inner, lambda index, mask: (x + index).vector(mask) - k.splat(top))
        chosen = (x + (k.label + row).load()).load() - top
        smooth = k.smoothing / k.to_float(k.inner)
        log_total = k.lane(transcendental.log(k, total), 0)
        y.store(log_total - (1.0 - k.smoothing) * chosen - smooth * logits)

    def _logarithms(self, k: Kernel, x: Pointer, y: Pointer, top: Expr, total: Expr) -> None:
        log_total = transcendental.log(k, total)
        with k.range(k.inner, step=k.target.lanes) as index:
            mask = k.lane_mask(k.inner - index)
            (y + index).store_vector((x + index).vector(mask) - top - log_total, mask)

    def _row(self, k: Kernel, y: Pointer, row: Expr, power, total: Expr) -> None:  # type: ignore[no-untyped-def]
        lanes = k.target.lanes
        gradient = self.kind == "gradient"
        scale = (k.scale + row).load() if gradient else None
        with k.range(k.inner, step=lanes) as index:
            mask = k.lane_mask(k.inner - index)
            value = power(index, mask) / total
            if scale is not None:
                value = (value - k.splat(k.smoothing / k.to_float(k.inner))) * k.splat(scale)
            (y + index).store_vector(value, mask)
        if scale is not None:
            chosen = y + (k.label + row).load()
            chosen.store(chosen.load() - (1.0 - k.smoothing) * scale)
