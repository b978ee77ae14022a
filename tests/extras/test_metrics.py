"""Metrics are those of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convolve import metrics
from convolve.errors import ShapeError

peer = pytest.importorskip("sklearn.metrics")
RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.integers(0, 7, 200), RANDOM.integers(0, 6, 200)  # class 6 is never predicted
LABELS = RANDOM.integers(0, 2, (50, 4)) * [1, 1, 1, 0], RANDOM.integers(0, 2, (50, 4))
NOWHERE = LABELS[0], LABELS[1] * [1, 1, 1, 0]
VALUES = RANDOM.standard_normal((40, 3)), RANDOM.standard_normal((40, 3))
CASES: list[tuple[Callable[..., Any], str, tuple[Any, Any], dict[str, Any], dict[str, Any]]] = [
    (metrics.accuracy, "accuracy_score", CLASSES, {}, {}),
    (metrics.confusion_matrix, "confusion_matrix", CLASSES, {}, {}),
    *((metrics.f1_score, "f1_score", CLASSES, {"average": a}, {"zero_division": 0}) for a in ("macro", "micro", None)),
    *((metrics.f1_score, "f1_score", LABELS, {"average": a}, {"zero_division": 0}) for a in ("macro", "micro", None)),
    (metrics.f1_score, "f1_score", NOWHERE, {"average": None}, {"zero_division": 0}),
    (metrics.mean_absolute_error, "mean_absolute_error", VALUES, {}, {}),
    (metrics.mean_squared_error, "mean_squared_error", VALUES, {}, {}),
    (metrics.r2_score, "r2_score", VALUES, {}, {}),
    (metrics.r2_score, "r2_score", (VALUES[0][:, 0], VALUES[1][:, 0]), {}, {}),
    (metrics.r2_score, "r2_score", (np.ones(5), np.ones(5)), {}, {}),
    (metrics.r2_score, "r2_score", (np.ones(5), np.zeros(5)), {}, {}),
    (metrics.iou, "jaccard_score", CLASSES, {}, {"average": None}),
]


@pytest.mark.parametrize(
    ("ours", "name", "arrays", "options", "theirs"), CASES, ids=[f"{n}-{i}" for i, (_, n, *_) in enumerate(CASES)]
)
def test_the_same_number(
    ours: Callable[..., Any], name: str, arrays: tuple[Any, Any], options: dict[str, Any], theirs: dict[str, Any]
) -> None:
    wanted = getattr(peer, name)(*arrays, **options, **theirs)
    np.testing.assert_allclose(ours(*arrays, **options), wanted, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k(k: int) -> None:
    y = RANDOM.integers(0, 8, 100)
    for scores in (RANDOM.standard_normal((100, 8)), RANDOM.integers(0, 3, (100, 8))):  # the latter with many alike
        wanted = peer.top_k_accuracy_score(y, scores, k=k, labels=np.arange(8))
        assert metrics.top_k_accuracy(y, scores, k) == pytest.approx(wanted)


def test_a_class_that_is_nowhere_has_no_iou() -> None:
    found = metrics.iou([0, 0], [0, 0], classes=2)
    assert found[0] == 1
    assert np.isnan(found[1])


def test_what_does_not_match() -> None:
    with pytest.raises(ShapeError, match=r"as many predictions as truths"):
        metrics.accuracy([0, 1], [0])
    with pytest.raises(ShapeError, match=r"classes \(n,\) and scores"):
        metrics.top_k_accuracy([0, 1], [0.5, 0.5])
