"""How good predictions are, as numbers: functions of NumPy arrays, named and counted as scikit-learn does.

Labels are class numbers from 0, of an image or of each of its pixels; for several labels at once they are zeros and
ones, (n, labels). What is 0 / 0, the F1 of a class that is nowhere, counts as 0.

>>> accuracy([0, 1, 1], [0, 1, 0])
0.6666666666666666
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convolve.errors import ShapeError

Counts = NDArray[np.int64]


def accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The share of labels that are right: of images, or of pixels; of several labels at once, of decisions."""
    true, taken = _alike(y_true, y_pred)
    return float(np.mean(true == taken))


def top_k_accuracy(y_true: ArrayLike, y_score: ArrayLike, k: int = 5) -> float:
    """The share of samples whose class (n,) is among the k of the highest score (n, classes).

    >>> top_k_accuracy([2, 0], [[0.5, 0.3, 0.2], [0.4, 0.5, 0.1]], k=2)
    0.5
    """
    return float(np.mean(in_top(np.asarray(y_true), np.asarray(y_score), k)))


def in_top(y: NDArray[Any], scores: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Whether each class is among the k of the highest score; of equal scores those of later classes count first."""
    if scores.ndim != 2 or y.shape != scores.shape[:1]:
        raise ShapeError(f"expected classes (n,) and scores (n, classes). Received: {y.shape} and {scores.shape}")
    own = np.take_along_axis(scores, y[:, None].astype(np.intp), 1)
    later = np.arange(scores.shape[1]) > y[:, None]
    before = (scores > own) | ((scores == own) & later)
    return np.asarray(before.sum(1) < k)


def confusion_matrix(y_true: ArrayLike, y_pred: ArrayLike, classes: int | None = None) -> Counts:
    """Counts [true class, predicted class], (classes, classes); by default of classes up to the largest label.

    >>> confusion_matrix([0, 1, 1], [0, 1, 0]).tolist()
    [[1, 0], [1, 1]]
    """
    true, taken = _alike(y_true, y_pred)
    size = classes or int(max(true.max(initial=0), taken.max(initial=0))) + 1
    pairs = true.ravel().astype(np.int64) * size + taken.ravel()
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


def f1_score(y_true: ArrayLike, y_pred: ArrayLike, average: str | None = "macro") -> Any:
    """The harmonic mean of precision and recall, 2 * right / (there + taken): of each class, or one for all.

    Args:
        y_true, y_pred: class numbers, or for several labels at once zeros and ones (n, labels).
        average: "macro", the mean of the classes that there are; "micro", of all counts together; None, each class's.

    >>> f1_score([0, 1, 1, 2], [0, 1, 2, 2]), f1_score([[1, 0], [1, 1]], [[1, 0], [0, 1]], average=None).round(3)
    (0.7777777777777777, array([0.667, 1.   ]))
    """
    true, taken = _alike(y_true, y_pred)
    if true.ndim == 2:
        right, there, found = (np.asarray(part.sum(0), np.int64) for part in (true * taken, true, taken))
    else:
        counts = confusion_matrix(true, taken)
        right, there, found = np.diag(counts), np.asarray(counts.sum(1)), np.asarray(counts.sum(0))
    return f1_of(right, there, found, average)


def f1_of(right: Counts, there: Counts, taken: Counts, average: str | None = "macro") -> Any:
    """`f1_score` of counts (classes,): how many are right, how many there are, how many are taken for the class."""
    if average == "micro":
        return float(_shares(2 * right.sum(), there.sum() + taken.sum()))
    each = _shares(2 * right, there + taken)
    if average is None:
        return each
    known = there + taken > 0
    return float(each[known].mean()) if known.any() else 0.0


def mean_absolute_error(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The mean of |y_pred - y_true| over everything."""
    true, taken = _alike(y_true, y_pred)
    return float(np.mean(np.abs(taken.astype(np.float64) - true)))


def mean_squared_error(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The mean of (y_pred - y_true)^2 over everything."""
    true, taken = _alike(y_true, y_pred)
    return float(np.mean(np.square(taken.astype(np.float64) - true)))


def r2_score(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The share of the variance that is explained: 1 - sum (y_pred - y_true)^2 / sum (y_true - mean)^2.

    Of several values a sample, (n, values), the mean of the values' own. Where the truth does not vary it is 1 if all
    is right, else 0.

    >>> r2_score([1.0, 2.0, 3.0], [1.0, 2.0, 2.0])
    0.5
    """
    true, taken = (part.reshape(len(part), -1).astype(np.float64) for part in _alike(y_true, y_pred))
    return r2_of(np.square(taken - true).sum(0), np.square(true - true.mean(0)).sum(0))


def r2_of(residual: NDArray[np.float64], total: NDArray[np.float64]) -> float:
    """`r2_score` of each value's sum of squared errors, and of squared deviations from its mean."""
    return float(np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), residual == 0).mean())


def iou(y_true: ArrayLike, y_pred: ArrayLike, classes: int | None = None) -> NDArray[np.float64]:
    """Intersection over union of each class (classes,): right / (there + taken - right); NaN where it is nowhere.

    Other than scikit-learn's jaccard_score, which says 0 there: `numpy.nanmean` is the mean IoU.

    >>> iou([[0, 0], [1, 1]], [[0, 1], [1, 1]]).round(3)
    array([0.5  , 0.667])
    """
    return iou_of(confusion_matrix(y_true, y_pred, classes))


def iou_of(counts: Counts) -> NDArray[np.float64]:
    """`iou` of counts [true class, predicted class]."""
    right, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    return np.where(union > 0, _shares(right, union), np.nan)


def _shares(part: Any, whole: Any) -> NDArray[np.float64]:
    """part / whole, 0 where there is nothing."""
    return np.asarray(part / np.maximum(whole, 1), np.float64)


def _alike(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    true, taken = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != taken.shape or not true.size:
        raise ShapeError(
            f"expected as many predictions as truths, one at least. Received: {taken.shape} for {true.shape}"
        )
    return true, taken
