"""Regression: how far values are off, and how much of their variance is explained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from convolve.cli.output import printable
from convolve.cli.scores.base import SHOWN, Mistake, Scores, Table, worst_of
from convolve.metrics import r2_of
from convolve.training.losses import Targets

Floats = NDArray[np.float64]


def _none() -> Floats:
    return np.zeros((0, 0))


@dataclass(frozen=True)
class Missed(Mistake):
    """A sample whose value is far off, measured in the value's deviation."""

    true: tuple[float, ...] = ()
    predicted: tuple[float, ...] = ()


@dataclass(eq=False)
class ValueScores(Scores):
    """True and predicted values, (samples, values): a few numbers a sample, so all are kept."""

    true: Floats = field(default_factory=_none)
    found: Floats = field(default_factory=_none)

    targets: ClassVar[Targets] = "values"
    metric: ClassVar[str] = "mae"

    def add(self, output: NDArray[np.float64], target: NDArray[Any], first: int) -> None:
        true = target.astype(np.float64)
        self.true = np.concatenate([self.true, true]) if self.samples else true
        self.found = np.concatenate([self.found, output]) if self.samples else output
        self.samples += len(true)
        self.total_loss += float(np.square(output - true).mean(1).sum())

    def metrics(self) -> dict[str, float]:
        residual, total = self._squares()
        off = np.abs(self.found - self.true)
        return {"loss": self.loss, "mae": float(off.mean()), "r2": r2_of(residual, total)}

    def _squares(self) -> tuple[Floats, Floats]:
        return np.square(self.found - self.true).sum(0), np.square(self.true - self.true.mean(0)).sum(0)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, with each value."""
        rows = [{"value": row[0], "mae": row[1], "rmse": row[2], "r2": row[3]} for row in self._rows()]
        return super().as_dict() | {"values": rows}

    def _rows(self) -> list[tuple[str, float, float, float]]:
        residual, total = self._squares()
        off = np.abs(self.found - self.true).mean(0)
        return [
            (
                name,
                float(off[i]),
                float(np.sqrt(residual[i] / self.samples)),
                r2_of(residual[i : i + 1], total[i : i + 1]),
            )
            for i, name in enumerate(self.classes)
        ]

    def tables(self) -> list[Table]:
        rows = [(printable(name), f"{mae:.5g}", f"{rmse:.5g}", f"{r2:.4f}") for name, mae, rmse, r2 in self._rows()]
        return [Table("Values", ("value", "mean error", "root mean square", "R2"), rows)]

    @property
    def worst(self) -> list[Missed]:
        deviation = np.where(self.true.std(0) > 0, self.true.std(0), 1.0)
        off = (np.abs(self.found - self.true) / deviation).max(1)
        made = []
        for i in worst_of(off):
            true, found = (tuple(v[i].tolist()) for v in (self.true, self.found))
            said = f"{_row(true)}, said to be {_row(found)}"
            made.append(Missed(i, said, self._name(i), float(off[i]), true, found))
        return made

    def mistakes(self) -> Table:
        rows = [(m.called, _row(m.true), _row(m.predicted)) for m in self.worst[:SHOWN]]
        return Table("Farthest off", ("sample", "true", "predicted"), rows)

    def sentence(self) -> str:
        return f"{self.metrics()['r2']:.1%} of the variance of {self.samples:,} samples is explained; farthest off are:"


def _row(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.6g}" for v in values)
