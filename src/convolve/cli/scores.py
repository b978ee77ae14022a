"""What a model gets right and what it confuses, counted from its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.augment import Augmentation
from convolve.cli.output import percent, printable
from convolve.errors import ShapeError
from convolve.model import Model
from convolve.ops.softmax import Softmax
from convolve.source import Rows
from convolve.view.text import table

MOST_CLASSES = 30
"""Classes that a table lists; of more, those that are recognised worst."""
MOST_PAIRS = 5
MOST_MISTAKES = 24


@dataclass(frozen=True)
class Confused:
    """Images of class `true` that were taken for `predicted`: `count` of `of`."""

    true: str
    predicted: str
    count: int
    of: int


@dataclass(frozen=True)
class Mistake:
    """An image taken for another class: its number, its file's name, and how probable the true class was thought."""

    index: int
    true: str
    predicted: str
    probability: float
    name: str | None = None


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


@dataclass(frozen=True, eq=False)
class Scores:
    """Counts [true class, predicted class] over labelled images, the mean cross-entropy, and the worst mistakes."""

    counts: NDArray[np.int64]
    loss: float
    classes: tuple[str, ...]
    worst: tuple[Mistake, ...] = ()

    @classmethod
    def of(
        cls,
        model: Model,
        x: Rows,
        y: np.ndarray,
        classes: tuple[str, ...],
        views: Sequence[Augmentation] = (),
        names: Sequence[str] = (),
    ) -> Scores:
        """Let a model classify images whose classes, and perhaps files' names, are known."""
        made = probabilities(model, x, views)
        size = made.shape[-1]
        counts = np.bincount(y * size + made.argmax(-1), minlength=size * size).reshape(size, size)
        with np.errstate(divide="ignore"):
            loss = -np.log(made[np.arange(len(y)), y]).mean()
        worst = tuple(_worst(made, y, classes, names))
        return cls(counts.astype(np.int64), float(loss), classes, worst)

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        return int(np.trace(self.counts))

    @property
    def accuracy(self) -> float:
        return self.right / self.images

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
        return {
            "images": self.images,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "classes": [{"class": c.name, "images": c.images, "right": c.right} for c in self.by_class()],
            "confused": [vars(pair) for pair in self.confused()],
        }

    def class_table(self) -> str:
        """Each class that there are images of: how many, how many of them right."""
        rows: list[dict[str, Any]] = self.as_dict()["classes"]
        shown = rows
        if len(rows) > MOST_CLASSES:
            shown = sorted(rows, key=lambda c: c["right"] / c["images"])[:MOST_CLASSES]
        text = table(
            ("class", "images", "right", "accuracy"),
            [
                (printable(c["class"]), f"{c['images']:,}", f"{c['right']:,}", percent(c["right"] / c["images"]))
                for c in shown
            ],
        )
        left = len(rows) - len(shown)
        return text + (f"\n{left:,} more classes are recognised better; --json has all" if left else "")

    def confused_table(self) -> str:
        """The most confused pairs, as a table under a sentence."""
        wrong = self.images - self.right
        if not wrong:
            return f"all {self.images:,} images are classified rightly"
        pairs = self.confused(MOST_PAIRS)
        text = table(
            ("true class", "taken for", "images", "of"),
            [(printable(p.true), printable(p.predicted), f"{p.count:,}", f"{p.of:,}") for p in pairs],
            left=2,
        )
        return f"{wrong:,} of {self.images:,} images are classified wrongly, most often:\n\n{text}"


def _worst(
    made: NDArray[np.float64], y: np.ndarray, classes: tuple[str, ...], names: Sequence[str]
) -> Iterator[Mistake]:
    """Mistakes, those first whose true class was thought least probable."""
    true, taken = made[np.arange(len(y)), y], made.argmax(-1)
    wrong = np.flatnonzero(taken != y)
    for i in wrong[np.argsort(true[wrong], kind="stable")][:MOST_MISTAKES].tolist():
        yield Mistake(i, classes[y[i]], classes[taken[i]], float(true[i]), names[i] if names else None)


def probabilities(model: Model, x: Rows, views: Sequence[Augmentation] = ()) -> NDArray[np.float64]:
    """The probability of each class for each image: softmax of the net's outputs, unless the net ends in one.

    With `views`, flips and shifts, their mean over the views of each image.

    Raises:
        ShapeError: the net's output is not one value a class.
    """
    if len(model.output_shape) != 1:
        raise ShapeError(
            f"this model's output has shape {model.output_shape}; expected one value a class, as a last Dense has"
        )
    outputs = np.asarray(model.predict(x, augment=views, targets="classes"), np.float64)
    if isinstance(model.network.forward(1).output.op, Softmax):
        return outputs
    grown = np.exp(outputs - outputs.max(-1, keepdims=True))
    return np.asarray(grown / grown.sum(-1, keepdims=True))
