"""The set itself: what it takes, what it says, how it is divided."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convolve.data import Dataset
from convolve.data.dataset import held_out, numbered_classes
from convolve.errors import DataError, ShapeError

X = np.zeros((10, 4, 4, 1), np.uint8)
Y = np.arange(10) % 2


def make(**changes: object) -> Dataset:
    parts = {"name": "dots", "x_train": X, "y_train": Y, "x_test": X[:4], "y_test": Y[:4], "classes": ("a", "b")}
    return Dataset(**(parts | changes))  # type: ignore[arg-type]


def test_describes_itself() -> None:
    assert make().describe() == "10 training and 4 test images, 4x4x1, 2 classes"
    assert make(x_test=None, y_test=None).describe() == "10 training images, 4x4x1, 2 classes"
    signals = make(x_train=np.zeros((1200, 8, 2)), y_train=np.zeros(1200), x_test=None, y_test=None, classes=("a",))
    assert signals.describe() == "1,200 training signals, 8x2, 1 class"
    assert "volumes" in make(x_train=X[..., None], x_test=X[:4, ..., None]).describe()
    assert repr(make()) == "Dataset('dots': 10 training and 4 test images, 4x4x1, 2 classes)"
    assert make().input_shape == (4, 4, 1)


def test_is_canonical_and_frozen() -> None:
    data = make(x_train=X.astype(">f8"), x_test=X[:4].astype(int), y_train=Y.astype(float)[:, None])
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int64
    assert data.y_train.shape == (10,)
    with pytest.raises(FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"x_train": X[:0], "y_train": Y[:0]}, DataError, "x_train: received no images"),
        ({"x_train": X[:, :0]}, ShapeError, r"x_train: received shape \(10, 0, 4, 1\)"),
        ({"x_train": X[:, :, 0, 0]}, ShapeError, r"x_train: received shape \(10, 4\).*\[\.\.\., None\]"),
        ({"y_train": Y[:9]}, DataError, "y_train: received 9 labels for 10 images"),
        ({"y_train": Y + 1}, DataError, "y_train: received label 2 at index 1; expected whole numbers 0 to 1"),
        ({"y_test": Y[:4] - 1}, DataError, "y_test: received label -1 at index 0"),
        ({"x_train": X + np.nan, "x_test": X[:4] + 0.5}, DataError, r"x_train: received nan at index \(0, 0, 0, 0\)"),
        ({"x_test": None}, DataError, "only one of x_test and y_test"),
        ({"x_test": X[:4] / 255}, DataError, "test images as float32 of 4x4x1, training images as uint8 of 4x4x1"),
        ({"x_test": X[:4, :3]}, DataError, "test images as uint8 of 3x4x1"),
        ({"classes": ()}, DataError, "no class names"),
    ],
)
def test_refuses(changes: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^dots: .*{words}"):
        make(**changes)


def test_split_is_a_partition() -> None:
    numbered = np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1)
    data = make(x_train=numbered, x_test=None, y_test=None)
    parts = data.split(0.4, seed=3)
    assert parts.describe() == "6 training and 4 test images, 2x2x1, 2 classes"
    assert parts.x_test is not None
    assert parts.y_test is not None
    both = np.concatenate([parts.x_train, parts.x_test])[:, 0, 0, 0]
    assert sorted(both.tolist()) == numbered[:, 0, 0, 0].tolist()
    assert ((both // 4) % 2).tolist() == np.concatenate([parts.y_train, parts.y_test]).tolist()
    with pytest.raises(DataError, match="has a test part of 4 images already"):
        parts.split()
    with pytest.raises(DataError, match=r"a fraction of 1\.5"):
        data.split(1.5)
    with pytest.raises(DataError, match="at most one image a class"):
        replace(data, x_train=numbered[:2], y_train=Y[:2]).split()


def test_the_draw_never_changes() -> None:
    assert held_out(Y, 0.4)[1].tolist() == [0, 3, 8, 9]
    assert held_out(Y, 0.4, seed=1)[1].tolist() == [0, 1, 2, 5]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_every_class_gives_its_share(labels: list[int], fraction: float, seed: int) -> None:
    y = np.array(labels)
    counts = np.bincount(y)
    if counts.max() < 2:
        with pytest.raises(DataError, match="at most one image a class"):
            held_out(y, fraction, seed)
        return
    train, test = held_out(y, fraction, seed)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(y)))
    for label, count in enumerate(counts.tolist()):
        held = int((y[test] == label).sum())
        assert abs(held - fraction * count) <= 1
        assert count < 2 or 1 <= held < count


def test_numbered_classes() -> None:
    assert numbered_classes("labels", np.array([0, 3]), None, np.array([4])) == ("0", "1", "2", "3", "4")
    with pytest.raises(DataError, match="labels: received label 2,000,000,000; expected class numbers"):
        numbered_classes("labels", np.array([0, 2_000_000_000]))
