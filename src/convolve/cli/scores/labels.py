"""Several labels at once: each is there where its logit is positive, and counted by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from convolve.cli.output import percent, printable
from convolve.cli.scores.base import SHOWN, Mistake, Scores, Table, worst_of
from convolve.metrics import f1_of
from convolve.training.losses import Targets

Counts = NDArray[np.int64]


def _none() -> Counts:
    return np.zeros(0, np.int64)


@dataclass(eq=False)
class LabelScores(Scores):
    """Of each label how often it is right, there, and said; of samples how many have all labels right."""

    right: Counts = field(default_factory=_none)
    there: Counts = field(default_factory=_none)
    said: Counts = field(default_factory=_none)
    alike: Counts = field(default_factory=_none)
    """Decisions that are right, yes or no."""
    whole: int = 0

    targets: ClassVar[Targets] = "shares"
    metric: ClassVar[str] = "f1_micro"

    def add(self, output: NDArray[np.float64], target: NDArray[Any], first: int) -> None:
        taken, true = output > 0, target > 0.5
        counts = (taken & true, true, taken, taken == true)
        old = (self.right, self.there, self.said, self.alike)
        sums = (c.sum(0) + (o if o.size else 0) for c, o in zip(counts, old, strict=True))
        self.right, self.there, self.said, self.alike = sums
        right = (taken == true).all(1)
        self.whole += int(right.sum())
        losses = (np.logaddexp(0, -output) + (1 - target) * output).mean(1)
        self.total_loss += float(losses.sum())
        self.samples += len(output)
        wrong = np.flatnonzero(~right)
        for i in wrong[worst_of(losses[wrong])].tolist():
            said = f"{self._named(true[i])}, said to be {self._named(taken[i])}"
            self.remember([Mistake(first + i, said, self._name(first + i), float(losses[i]))])

    def _named(self, there: NDArray[np.bool_]) -> str:
        """
        >>> LabelScores(("cat", "dog"))._named(np.array([True, True])), LabelScores(("cat",))._named(np.array([False]))
        ('cat and dog', 'none')
        """
        return " and ".join(name for name, is_there in zip(self.classes, there, strict=True) if is_there) or "none"

    def metrics(self) -> dict[str, float]:
        counts = (self.right, self.there, self.said)
        return {
            "loss": self.loss,
            "accuracy": int(self.alike.sum()) / (self.samples * len(self.classes)),
            "f1_micro": f1_of(*counts, "micro"),
            "f1_macro": f1_of(*counts, "macro"),
            "all_right": self.whole / self.samples,
        }

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, with each label."""
        f1 = f1_of(self.right, self.there, self.said, None)
        rows = zip(self.classes, self.there, self.said, self.right, f1, strict=True)
        keys = ("label", "images", "said", "right", "f1")
        labels = [dict(zip(keys, (n, int(t), int(s), int(r), float(f)), strict=True)) for n, t, s, r, f in rows]
        return super().as_dict() | {"labels": labels}

    def tables(self) -> list[Table]:
        f1 = f1_of(self.right, self.there, self.said, None)
        rows = [
            (
                printable(name),
                *(f"{int(n):,}" for n in (there, said, right)),
                *(percent(right / max(1, n)) for n in (there, said)),
                f"{one:.4f}",
            )
            for name, there, said, right, one in zip(self.classes, self.there, self.said, self.right, f1, strict=True)
        ]
        return [Table("Labels", ("label", "images", "said", "right", "recall", "precision", "F1"), rows)]

    def mistakes(self) -> Table | None:
        rows = [(printable(m.called), printable(m.said)) for m in self.worst[:SHOWN]]
        return Table("Farthest off", ("sample", "labels"), rows, left=2) if rows else None

    def sentence(self) -> str:
        return f"{self.whole:,} of {self.samples:,} images have all their labels right, and no other"
