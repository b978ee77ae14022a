"""Segmentation: counts over places, intersection over union of each class."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from convolve.cli.output import percent, printable
from convolve.cli.scores.base import SHOWN, Mistake, Scores, Table, softmax, worst_of
from convolve.errors import ShapeError
from convolve.metrics import confusion_matrix, f1_of, iou_of
from convolve.model import Model
from convolve.training.losses import Targets

TURN = (5**0.5 - 1) / 2
"""From one class's hue to the next's: however many there are, none lie close together."""


@dataclass(eq=False)
class MaskScores(Scores):
    """Counts [true class, predicted class] over all places, and the samples with the largest share of wrong ones."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    targets: ClassVar[Targets] = "classes"
    metric: ClassVar[str] = "iou"
    shows: ClassVar[tuple[str, ...]] = ("wanted", "given")

    def check(self, model: Model) -> None:
        if len(model.output_shape) != len(model.input_shape):
            raise ShapeError(
                f"this model's output has shape {model.output_shape}; expected a value a class for each place of "
                f"{model.input_shape[:-1]}, as unet gives"
            )

    def add(self, output: NDArray[np.float64], target: NDArray[Any], first: int) -> None:
        made, size = softmax(output), output.shape[-1]
        taken, y = made.argmax(-1), target.astype(np.int64)
        counts = confusion_matrix(y, taken, size)
        self.counts = counts + (self.counts if self.counts.size else 0)
        true = np.take_along_axis(made, y[..., None], -1)[..., 0].reshape(len(y), -1)
        with np.errstate(divide="ignore"):
            self.total_loss += float(-np.log(true).mean(1).sum())
        self.samples += len(y)
        wrong = (taken != y).reshape(len(y), -1).mean(1)
        self.remember(self._blurred(first + i, float(wrong[i])) for i in worst_of(wrong) if wrong[i])

    def beside(self, sample: NDArray[Any], output: NDArray[Any], target: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """The true mask and the one that is given, each class in its colour."""
        return tuple(coloured(mask, len(self.classes)) for mask in (target, output.argmax(-1)))

    def _blurred(self, index: int, wrong: float) -> Mistake:
        return Mistake(index, f"{percent(wrong)} of its places are wrong", self._name(index), wrong)

    def metrics(self) -> dict[str, float]:
        right, there, taken = np.diag(self.counts), self.counts.sum(1), self.counts.sum(0)
        return {
            "loss": self.loss,
            "accuracy": float(right.sum() / there.sum()),
            "iou": float(np.nanmean(iou_of(self.counts))),
            "f1_macro": f1_of(right, there, taken),
        }

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, with each class."""
        places = self.counts.sum(1)
        rows = zip(self.classes, places, iou_of(self.counts), strict=True)
        classes = [{"class": name, "places": int(n), "iou": float(one)} for name, n, one in rows]
        return super().as_dict() | {"classes": classes}

    def tables(self) -> list[Table]:
        right, there, taken = np.diag(self.counts), self.counts.sum(1), self.counts.sum(0)
        f1 = f1_of(right, there, taken, None)
        rows = [
            (
                printable(name),
                percent(float(there[i] / there.sum())),
                percent(float(right[i] / max(1, there[i]))),
                f"{one:.4f}",
                f"{f1[i]:.4f}",
            )
            for i, (name, one) in enumerate(zip(self.classes, iou_of(self.counts), strict=True))
        ]
        return [Table("Classes", ("class of places", "of all", "recall", "IoU", "F1 (Dice)"), rows)]

    def mistakes(self) -> Table | None:
        rows = [(m.called, percent(m.badness)) for m in self.worst[:SHOWN]]
        return Table("Worst", ("sample", "wrong places"), rows) if rows else None

    def sentence(self) -> str:
        return f"of {self.samples:,} samples the worst are:"


def coloured(mask: NDArray[Any], classes: int) -> NDArray[np.uint8]:
    """A mask (*spatial,) as a picture: class 0 black, the others in colours of their own; of signals as heights.

    >>> coloured(np.array([[0, 1]]), 2).tolist()
    [[[0, 0, 0], [242, 94, 85]]]
    >>> coloured(np.array([0, 1, 2]), 3)[:, 0].tolist()
    [0, 127, 255]
    """
    if mask.ndim == 1:
        colours = [[255 * number // max(1, classes - 1)] for number in range(classes)]
    else:
        hues = [hsv_to_rgb((0.01 + number * TURN) % 1, 0.65, 0.95) for number in range(classes - 1)]
        colours = [[0, 0, 0], *([round(255 * part) for part in hue] for hue in hues)]
    return np.array(colours, np.uint8)[mask.astype(np.intp)]
