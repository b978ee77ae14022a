"""What people hand over becomes canonical, or the error says what was wrong with it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convolve.data.arrays import as_classes, as_images, as_labels, as_shares, as_targets
from convolve.errors import DataError, ShapeError

SHAPE = (4, 5, 1)
VALUES = np.arange(3 * 4 * 5).reshape(3, 4, 5, 1) % 2


def assert_canonical(x: np.ndarray, dtype: type) -> None:
    assert x.dtype == dtype
    assert x.dtype.isnative
    assert x.flags.c_contiguous
    assert x.flags.aligned


@pytest.mark.parametrize(
    "dtype", ["f8", "f4", ">f4", "<f4", ">f8", "f2", "i1", "i2", ">i4", "i8", "u2", "u4", ">u8", "?"]
)
def test_every_other_number_type_becomes_float32(dtype: str) -> None:
    x = as_images(VALUES.astype(dtype), SHAPE)
    assert_canonical(x, np.float32)
    np.testing.assert_array_equal(x, VALUES)


def test_uint8_stays_and_nothing_right_is_copied() -> None:
    for dtype in (np.uint8, np.float32):
        given_ = VALUES.astype(dtype)
        given_.setflags(write=False)
        assert as_images(given_, SHAPE) is given_
        assert np.shares_memory(as_images(given_[..., 0], SHAPE), given_)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_any_memory_layout(dtype: type) -> None:
    big = np.zeros((6, 8, 5, 1), dtype)
    big[::2, ::2] = VALUES
    unaligned = np.frombuffer(b"\0" + VALUES.astype(dtype).tobytes(), dtype, offset=1).reshape(VALUES.shape)
    for x in (
        big[::2, ::2],
        np.asfortranarray(VALUES.astype(dtype)),
        VALUES.astype(dtype)[:, ::-1][:, ::-1],
        unaligned,
    ):
        assert_canonical(as_images(x, SHAPE), np.uint8 if dtype == np.uint8 else np.float32)
        np.testing.assert_array_equal(as_images(x, SHAPE), VALUES)


def test_lists_and_the_missing_channel_axis() -> None:
    x = as_images(VALUES[..., 0].tolist(), SHAPE)
    assert_canonical(x, np.float32)
    np.testing.assert_array_equal(x, VALUES)
    assert as_images(np.zeros((2, 7)), (7, 1)).shape == (2, 7, 1)
    assert as_images(np.zeros((2, 3, 4, 5)), (3, 4, 5, 1)).shape == (2, 3, 4, 5, 1)


@pytest.mark.parametrize(
    ("shape", "wanted", "words"),
    [
        ((3, 4, 5), (4, 5, 3), r"received shape \(3, 4, 5\); expected \(n, 4, 5, 3\), channels last"),
        ((3, 1, 4, 5), (4, 5, 1), r"expected \(n, 4, 5, 1\) or \(n, 4, 5\).* Resize or transpose"),
        ((4, 5, 1), (4, 5, 1), r"x\[None\]"),
        ((4, 5), (4, 5, 1), r"x\[None\]"),
        ((), (4, 5, 1), r"received shape \(\)"),
        ((4,), None, "expected a batch"),
    ],
)
def test_wrong_shapes(shape: tuple[int, ...], wanted: tuple[int, ...] | None, words: str) -> None:
    with pytest.raises(ShapeError, match=f"^x: .*{words}"):
        as_images(np.zeros(shape), wanted)


@pytest.mark.parametrize(
    "values",
    [
        ["cat", "dog"],
        [1j, 2j],
        [None, 1],
        np.array([[1, 2], [3, 4]], object),
        [[1, 2], [3]],
        np.zeros(2, "M8[s]"),
        "text",
    ],
    ids=repr,
)
def test_what_is_no_number(values: object) -> None:
    for convert in (
        lambda: as_images(values, (2, 1), name="photos"),
        lambda: as_labels(values, 2, name="photos"),
        lambda: as_targets(values, (2,), name="photos"),
        lambda: as_shares(values, (2,), name="photos"),
        lambda: as_classes(values, (2, 3), name="photos"),
    ):
        with pytest.raises(ShapeError, match=r"^photos: received .*expected"):
            convert()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_the_first_value_that_is_not_finite_is_named(bad: float) -> None:
    x = np.zeros((3, 4, 5, 1))
    x[1, 2, 3, 0] = x[2, 0, 0, 0] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=rf"x: received {bad} at index \(1, 2, 3, 0\)".replace("+", r"\+")):
            as_images(x, SHAPE)
        with pytest.raises(DataError, match="at index"):
            as_targets(x, (3, 4, 5, 1))


def test_no_images() -> None:
    with pytest.raises(DataError, match=r"x: received no images \(shape \(0, 4, 5, 1\)\)"):
        as_images(np.zeros((0, 4, 5, 1)), SHAPE)


@given(st.lists(st.integers(0, 9), min_size=1), st.sampled_from(["u1", "i1", ">i2", "u8", "f4", ">f8"]), st.booleans())
def test_labels_of_any_type(labels: list[int], dtype: str, column: bool) -> None:
    y = np.array(labels, dtype)
    result = as_labels(y[:, None] if column else y, len(labels), 10)
    assert result.dtype == np.int64
    assert result.tolist() == labels


def test_labels_that_are_right_are_not_copied() -> None:
    y = np.arange(3, dtype=np.int64)
    assert as_labels(y, 3) is y


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 1, 10, -1], "label 10 at index 2; expected whole numbers 0 to 9, as there are 10 classes"),
        ([0, -1, 10, 0], "label -1 at index 1"),
        ([0, 1.5, 2, 3], r"label 1\.5 at index 1"),
        ([0, 1, np.nan, 3], "label nan at index 2"),
        ([0, 1, np.inf, 3], "label inf at index 2"),
        (np.array([0, 0, 0, 2**64 - 1], np.uint64), "at index 3"),
        (np.array([0, -128, 0, 0], np.int8), "at index 1"),
        ([0, 1, 2], "3 labels for 4 images"),
    ],
)
def test_labels_out_of_range(y: object, words: str) -> None:
    with pytest.raises(DataError, match=f"^y: received .*{words}"):
        as_labels(y, 4, 10)


def test_labels_without_a_number_of_classes() -> None:
    assert as_labels([True, False], 2).tolist() == [1, 0]
    assert as_labels(np.array([127], np.int8), 1).tolist() == [127]
    with pytest.raises(DataError, match=r"expected whole numbers 0, 1, 2, \.\.\."):
        as_labels([1e20], 1)


def test_one_hot_labels_are_told_how_to_become_numbers() -> None:
    with pytest.raises(ShapeError, match=r"y: received shape \(4, 10\).*y\.argmax\(axis=1\)"):
        as_labels(np.zeros((4, 10)), 4, 10)
    with pytest.raises(ShapeError, match=r"numpy\.unique"):
        as_labels(["cat", "dog"], 2)


def test_targets() -> None:
    y = as_targets(np.arange(4, dtype=">i2"), (4, 1))
    assert_canonical(y, np.float32)
    assert y.tolist() == [[0], [1], [2], [3]]
    with pytest.raises(ShapeError, match=r"y: received shape \(4, 2\); expected \(4, 1\)"):
        as_targets(np.zeros((4, 2)), (4, 1))


ROWS = {1: (), 2: (5,), 3: (4, 3), 4: (2, 3, 2)}


@given(st.sampled_from([*ROWS.values()]), st.sampled_from(["u1", "i1", ">i2", "u8", "i8", "f4", ">f8"]), st.booleans())
def test_a_label_for_each_row_of_the_output(rows: tuple[int, ...], dtype: str, column: bool) -> None:
    y = np.random.default_rng(0).integers(0, 9, (6, *rows)).astype(dtype)
    result = as_classes(y[..., None] if column else y, (6, *rows, 9))
    assert_canonical(result, np.int32)
    np.testing.assert_array_equal(result, y)


@given(st.sampled_from([*ROWS.values()]), st.sampled_from([">f2", "f4", "f8"]), st.integers(2, 9))
def test_probabilities_for_each_row_of_the_output(rows: tuple[int, ...], dtype: str, classes: int) -> None:
    y = np.random.default_rng(0).dirichlet(np.ones(classes), (6, *rows)).astype(dtype)
    result = as_classes(y, (6, *rows, classes))
    assert_canonical(result, np.float32)
    np.testing.assert_array_equal(result, y.astype(np.float32))


def test_one_hot_integers_are_probabilities() -> None:
    assert as_classes(np.eye(3, dtype=int), (3, 3)).dtype == np.float32
    assert as_classes([[True, False]], (1, 2)).tolist() == [[1, 0]]
    assert as_classes([[0], [0]], (2, 1)).dtype == np.int32


@pytest.mark.parametrize(
    ("y", "shape", "words"),
    [
        (3, (2, 3), r"received shape \(\); expected labels \(2,\)"),
        ([[0, 1]], (2, 3), r"received shape \(1, 2\); expected labels \(2,\), .*or probabilities \(2, 3\)\.$"),
        (np.zeros((2, 5)), (2, 4, 3), r"expected labels \(2, 4\), one for each row .*or probabilities \(2, 4, 3\)\.$"),
        (np.zeros(2), (2, 4, 3), "For one label an image, end the net in Dense or GlobalAvgPool"),
        (np.zeros((3, 4)), (2, 4, 3), "3 labels for 2 images"),
        (np.full((2, 4), 3), (2, 4, 3), r"label 3 at index \(0, 0\); expected whole numbers 0 to 2"),
        ([[0, 0.5]], (1, 2, 3), r"label 0\.5 at index \(0, 1\)"),
        ([[0.5, 0.4]], (1, 2), "numbers that sum to 0.9 at index 0; expected probabilities"),
        (np.full((1, 3, 2), 0.6), (1, 3, 2), r"sum to 1.2 at index \(0, 0\)"),
        ([[2, -1]], (1, 2), r"received -1.0 at index \(0, 1\); probabilities are 0 or more"),
        ([[0.5, np.nan]], (1, 2), r"received nan at index \(0, 1\)"),
    ],
)
def test_what_is_neither_a_label_nor_a_probability(y: object, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises((ShapeError, DataError), match=f"^y: .*{words}"):
        as_classes(y, shape)


def test_probabilities_may_be_rounded() -> None:
    y = np.full((1, 3), 0.3333)
    assert as_classes(y, (1, 3)).shape == (1, 3)
    with pytest.raises(DataError, match=r"sum to 0\.9987 at"):
        as_classes(np.full((1, 3), 0.3329), (1, 3))


def test_shares() -> None:
    y = as_shares(np.array([0, 255], np.uint8) // 255, (2, 1))
    assert_canonical(y, np.float32)
    assert y.tolist() == [[0], [1]]
    with pytest.raises(
        DataError, match=r"y: received 1\.5 at index \(1, 0\); expected numbers from 0 \(no\) to 1 \(yes\)"
    ):
        as_shares([1, 1.5], (2, 1))
    with pytest.raises(DataError, match=r"received -0\.5 at index \(0, 1\)"):
        as_shares([[0, -0.5]], (1, 2))
    with pytest.raises(ShapeError, match=r"received shape \(2, 2\); expected \(2, 1\)"):
        as_shares(np.zeros((2, 2)), (2, 1))
    with pytest.raises(DataError, match="received nan"):
        as_shares([np.nan], (1, 1))
