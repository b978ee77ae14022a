"""Autoencoding: how far what is given back is from the sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from convolve.cli.scores.base import SHOWN, Mistake, Scores, Table, worst_of
from convolve.errors import ShapeError
from convolve.model import Model
from convolve.training.losses import Targets


@dataclass(eq=False)
class RebuiltScores(Scores):
    """Sums of squared and absolute errors, of values from 0 to 1 where samples are bytes."""

    absolute: float = 0.0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """Of targets: how many, their sum, and that of their squares."""

    targets: ClassVar[Targets] = "values"
    metric: ClassVar[str] = "mae"
    shows: ClassVar[tuple[str, ...]] = ("given back",)

    def check(self, model: Model) -> None:
        if model.output_shape != model.input_shape:
            raise ShapeError(
                f"this model's output has shape {model.output_shape}; expected {model.input_shape}, that of its input"
            )

    def add(self, output: NDArray[np.float64], target: NDArray[Any], first: int) -> None:
        true = target.astype(np.float64)
        errors = np.square(output - true).reshape(len(true), -1).mean(1)
        self.total_loss += float(errors.sum())
        self.absolute += float(np.abs(output - true).reshape(len(true), -1).mean(1).sum())
        self.sums = self.sums + np.array([true.size, true.sum(), np.square(true).sum()])
        self.samples += len(true)
        self.remember(self._strange(first + i, float(errors[i])) for i in worst_of(errors))

    def beside(self, sample: NDArray[Any], output: NDArray[Any], target: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """What is given back, as samples are."""
        if sample.dtype == np.uint8:
            return (np.clip(255 * output + 0.5, 0, 255).astype(np.uint8),)
        return (output.astype(np.float32),)

    def _strange(self, index: int, error: float) -> Mistake:
        return Mistake(index, f"mean squared error {error:.4g}", self._name(index), error)

    def metrics(self) -> dict[str, float]:
        count, total, squares = self.sums
        variance = squares / count - (total / count) ** 2
        return {
            "loss": self.loss,
            "mae": self.absolute / self.samples,
            "r2": float(1 - self.loss / variance) if variance > 0 else 0.0,
        }

    def tables(self) -> list[Table]:
        return []

    def mistakes(self) -> Table:
        rows = [(m.called, f"{m.badness:.4g}") for m in self.worst[:SHOWN]]
        return Table("Given back worst", ("sample", "mean squared error"), rows)

    def sentence(self) -> str:
        return f"of {self.samples:,} samples these are given back worst:"
