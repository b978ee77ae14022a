"""What a model gets right, task by task: counted from its outputs batch by batch, and told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from convolve.augment import Augmentation
from convolve.cli.output import percent
from convolve.cli.scores.base import Scores
from convolve.cli.scores.classes import ClassScores
from convolve.cli.scores.labels import LabelScores
from convolve.cli.scores.masks import MaskScores
from convolve.cli.scores.rebuilt import RebuiltScores
from convolve.cli.scores.values import ValueScores
from convolve.data.dataset import Task
from convolve.model import Model
from convolve.source import Pairs, Rows

KINDS: dict[Task, type[Scores]] = {
    "classify": ClassScores,
    "labels": LabelScores,
    "regress": ValueScores,
    "segment": MaskScores,
    "autoencode": RebuiltScores,
}
WORDS = {
    "f1_micro": "F1 (micro)",
    "f1_macro": "F1 (macro)",
    "mae": "mean error",
    "r2": "R2",
    "iou": "mean IoU",
    "top_5": "top 5",
}
SHARES = ("accuracy", "top_5", "all_right")
__all__ = [
    "KINDS",
    "ClassScores",
    "LabelScores",
    "MaskScores",
    "RebuiltScores",
    "Scores",
    "ValueScores",
    "measured",
    "shown",
    "spoken",
    "told",
]


def spoken(metric: str) -> str:
    """A metric's name for people.

    >>> spoken("all_right"), spoken("iou")
    ('all right', 'mean IoU')
    """
    return WORDS.get(metric, metric.replace("_", " "))


def shown(metric: str, value: float) -> str:
    """Its value for people.

    >>> shown("accuracy", 0.98765), shown("mae", 12.34567)
    ('98.77%', '12.346')
    """
    return percent(value) if metric in SHARES else f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"


def told(scores: Scores) -> str:
    """The result in a sentence, and what went wrong below it."""
    wrong = scores.mistakes()
    return f"{scores.sentence()}\n\n{wrong}" if wrong else scores.sentence()


def with_mirror_images(metric: str, score: float) -> str:
    """What a model that was trained on mirrored samples, too, reaches by the mean over both.

    >>> with_mirror_images("accuracy", 0.9374)
    'Of means over a sample and its mirror image (--views flip), the test accuracy is 93.74%.'
    """
    return (
        f"Of means over a sample and its mirror image (--views flip), the test {spoken(metric)} is "
        f"{shown(metric, score)}."
    )


S = TypeVar("S", bound=Scores)


def measured(scores: S, model: Model, x: Rows, y: Any, views: Sequence[Augmentation] = ()) -> S:
    """The scores, with what a model makes of samples added. Samples of a source are read ahead.

    Raises:
        ShapeError: the model's output is not what the task needs.
    """
    scores.check(model)
    start, size = 0, model.batch_size(x)
    for samples, targets in Pairs(x, y).in_order(size):
        output = model.predict(samples, size, views, scores.targets)
        scores.add(np.asarray(output, np.float64), targets, start)
        start += len(output)
    return scores
