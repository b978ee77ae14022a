"""Classification: accuracy, top 5, F1 and who is taken for whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from convolve.cli.output import percent, printable
from convolve.cli.scores.base import Mistake, Scores, Table, softmax, worst_of
from convolve.metrics import f1_of, in_top
from convolve.model import Model
from convolve.ops.layout import unmoved
from convolve.ops.softmax import Softmax
from convolve.training.losses import Targets

MOST_CLASSES = 30
"""Classes that a table lists; of more, those that are recognised worst."""
MOST_PAIRS = 5
TOP = 5


@dataclass(frozen=True)
class Confused:
    """Images of class `true` that were taken for `predicted`: `count` of `of`."""

    true: str
    predicted: str
    count: int
    of: int


@dataclass(frozen=True)
class Misread(Mistake):
    """An image taken for another class: the worse, the less probable the true class was thought."""

    true: str = ""
    predicted: str = ""

    @property
    def probability(self) -> float:
        return -self.badness


@dataclass(frozen=True)
class OfClass:
    """How a class fares: of its images so many are right, and `taken` images are taken for it."""

    name: str
    images: int
    right: int
    taken: int

    @property
    def recall(self) -> float:
        return self.right / self.images

    @property
    def precision(self) -> float:
        return self.right / self.taken if self.taken else 0.0

    @property
    def f1(self) -> float:
        """2 * precision * recall / (precision + recall), 0 where nothing is right."""
        return 2 * self.right / (self.images + self.taken)


@dataclass(eq=False)
class ClassScores(Scores):
    """Counts [true class, predicted class] over labelled images, the mean cross-entropy, and the worst mistakes."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    in_top: int = 0
    probable: bool = False
    """Whether the net's outputs are probabilities already."""

    targets: ClassVar[Targets] = "classes"
    metric: ClassVar[str] = "accuracy"

    def check(self, model: Model) -> None:
        super().check(model)
        self.probable = isinstance(unmoved(model.network.forward(1).output).op, Softmax)

    def add(self, output: NDArray[np.float64], target: NDArray[Any], first: int) -> None:
        made, size = output if self.probable else softmax(output), output.shape[-1]
        taken, y = made.argmax(-1), target.astype(np.int64)
        counts = np.bincount(y * size + taken, minlength=size * size).reshape(size, size)
        self.counts = counts + (self.counts if self.counts.size else 0)
        true = made[np.arange(len(y)), y]
        with np.errstate(divide="ignore"):
            self.total_loss += float(-np.log(true).sum())
        self.samples += len(y)
        self.in_top += int(in_top(y, made, TOP).sum())
        wrong = np.flatnonzero(taken != y)
        mistaken = wrong[worst_of(-true[wrong])].tolist()
        self.remember(self._misread(first + i, int(y[i]), int(taken[i]), float(true[i])) for i in mistaken)

    def _misread(self, index: int, true: int, taken: int, probability: float) -> Misread:
        names = self.classes[true], self.classes[taken]
        said = f"{names[0]} taken for {names[1]}: {percent(probability)} for what is true"
        return Misread(index, said, self._name(index), -probability, *names)

    @property
    def images(self) -> int:
        return self.samples

    @property
    def right(self) -> int:
        return int(np.trace(self.counts))

    @property
    def accuracy(self) -> float:
        return self.right / self.images

    def metrics(self) -> dict[str, float]:
        f1 = f1_of(np.diag(self.counts), self.counts.sum(1), self.counts.sum(0))
        found = {"loss": self.loss, "accuracy": self.accuracy, "f1_macro": f1}
        return found | ({"top_5": self.in_top / self.images} if len(self.classes) > TOP else {})

    def by_class(self) -> list[OfClass]:
        """Each class that there are images of."""
        rows = zip(self.classes, self.counts.sum(1), np.diag(self.counts), self.counts.sum(0), strict=True)
        return [OfClass(name, int(images), int(right), int(taken)) for name, images, right, taken in rows if images]

    def confused(self, most: int | None = None) -> list[Confused]:
        """Pairs of classes, the most frequent first."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)][:most]
        pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
        return [
            Confused(self.classes[i], self.classes[j], int(wrong[i, j]), int(self.counts[i].sum())) for i, j in pairs
        ]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, with each class that there are images of."""
        return super().as_dict() | {
            "classes": [{"class": c.name, "images": c.images, "right": c.right, "f1": c.f1} for c in self.by_class()],
            "confused": [vars(pair) for pair in self.confused()],
        }

    def tables(self) -> list[Table]:
        """Each class that there are images of: how many, how many of them right."""
        found = self.by_class()
        shown = found if len(found) <= MOST_CLASSES else sorted(found, key=lambda c: c.recall)[:MOST_CLASSES]
        rows = [
            (printable(c.name), f"{c.images:,}", f"{c.right:,}", percent(c.recall), percent(c.precision), f"{c.f1:.4f}")
            for c in shown
        ]
        left = len(found) - len(shown)
        note = f"{left:,} more classes are recognised better; --json has all" if left else ""
        return [Table("Classes", ("class", "images", "right", "accuracy", "precision", "F1"), rows, note=note)]

    def mistakes(self) -> Table | None:
        """The most confused pairs."""
        rows = [
            (printable(p.true), printable(p.predicted), f"{p.count:,}", f"{p.of:,}") for p in self.confused(MOST_PAIRS)
        ]
        return Table("Confusion", ("true class", "taken for", "images", "of"), rows, left=2) if rows else None

    def sentence(self) -> str:
        wrong = self.images - self.right
        if not wrong:
            return f"all {self.images:,} images are classified rightly"
        return f"{wrong:,} of {self.images:,} images are classified wrongly, most often:"
