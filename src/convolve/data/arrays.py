"""What people hand over, made canonical once, at the boundary.

Behind these functions an image batch is C-contiguous, native, finite and either uint8 or float32; a data set's labels
are int64; what a loss compares with is int32 (labels) or float32. No later line asks again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from convolve.errors import DataError, ShapeError
from convolve.source import Source

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Images: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"
Labels: TypeAlias = "NDArray[np.int64]"
TOLERANCE = 1e-3
"""How far from 1 the sum of probabilities may be: float16 is good enough."""
NAMES_TO_NUMBERS = "Class names become numbers by names, y = numpy.unique(y, return_inverse=True)."


def as_images(x: ArrayLike, input_shape: tuple[int, ...] | None = None, *, name: str = "x") -> Images:
    """A batch of images (n, *spatial, channels) as uint8 or float32.

    uint8 stays uint8; any other integer, float or boolean type becomes float32. Nothing is scaled. An array that is
    right already comes back as it is, not copied, so the caller must not write into the result.

    With `input_shape` (a model's, without the batch axis) the shape is checked, and an image without a channel axis is
    one channel: (n, 28, 28) fits a model of (28, 28, 1).

    Args:
        x: array, or anything NumPy makes an array of; non-contiguous, byte-swapped and read-only arrays are fine.
        input_shape: (*spatial, channels) that the images must have.
        name: what the errors call the array.

    Raises:
        ShapeError: a shape that does not fit, or values that are not numbers.
        DataError: no images at all, or a NaN or an infinity; the message has the first one's index.

    >>> import numpy as np
    >>> as_images(np.zeros((5, 28, 28), np.int64), (28, 28, 1)).shape
    (5, 28, 28, 1)
    """
    if isinstance(x, np.ndarray) and _is_canonical(x, input_shape):
        return x
    array = _numbers(x, name)
    if input_shape is not None:
        array = _with_channels(array, input_shape, name)
    elif array.ndim < 2:
        raise ShapeError(
            f"{name}: received shape {array.shape}; expected a batch, (n, *spatial, channels). "
            f"A single image becomes a batch of one by {name}[None]."
        )
    if len(array) == 0:
        raise DataError(f"{name}: received no images (shape {array.shape}); expected at least one.")
    return np.require(array, requirements=["C", "A"]) if array.dtype == np.uint8 else _finite(array, name)


def as_rows(x: ArrayLike | Source, input_shape: tuple[int, ...] | None = None, *, name: str = "x") -> Images | Source:
    """`as_images`, or a source of such images as it is.

    Raises:
        ShapeError, DataError: as there; a source is asked for its shape and type only.
    """
    # An array is seen to be no source only after 20 microseconds: asked first, it costs nothing.
    if isinstance(x, np.ndarray) or not isinstance(x, Source):
        return as_images(x, input_shape, name=name)
    if x.dtype not in (np.uint8, np.float32) or (input_shape is not None and tuple(x.shape[1:]) != input_shape):
        raise ShapeError(
            f"{name}: received a source of {x.dtype}, shape {x.shape}; expected uint8 or float32, "
            f"{('n', *input_shape) if input_shape else '(n, *spatial, channels)'}."
        )
    if len(x) == 0:
        raise DataError(f"{name}: received a source without samples; expected at least one.")
    return x


def as_labels(y: ArrayLike, n: int, classes: int | None = None, *, name: str = "y") -> Labels:
    """Class numbers, (n,) or (n, 1), as int64 (n,).

    Args:
        y: integers, or floats without a fraction.
        n: how many there must be.
        classes: how many classes there are; None only asks for numbers from 0 up (and below 2**31).
        name: what the errors call the array.

    Raises:
        ShapeError: another shape (one-hot rows, for example), or values that are not numbers.
        DataError: another count, a fraction, or a label out of range; the message has the first one's index.

    >>> as_labels([[3.0], [1.0]], 2, classes=4)
    array([3, 1])
    """
    if isinstance(y, np.ndarray) and _are_labels(y, (n,), classes or 2**31):
        return y
    array = _without_column(_numbers(y, name, NAMES_TO_NUMBERS), 1)
    if array.ndim != 1:
        raise ShapeError(
            f"{name}: received shape {array.shape}; expected one class number an image, ({n},). "
            f"One-hot rows become numbers by {name}.argmax(axis=1)."
        )
    _check_labels(array, n, classes, name)
    return np.require(array, np.int64, ["C", "A"])


def as_classes(y: ArrayLike, shape: tuple[int, ...], *, name: str = "y") -> NDArray[np.int32] | NDArray[np.float32]:
    """Labels as int32 (n, *spatial), or probabilities of the classes as float32 (n, *spatial, classes).

    Args:
        y: one class number for each row of `shape`, with or without a last axis of one; or numbers of that very shape.
        shape: (n, *spatial, classes), the shape of the network's output.
        name: what the errors call the array.

    Raises:
        ShapeError: another shape, or values that are not numbers.
        DataError: a label that is no class, a probability below 0, or some that do not sum to 1 (within 0.001); the
            message has the first one's index.

    >>> as_classes([2, 0], (2, 3))
    array([2, 0], dtype=int32)
    >>> as_classes([[0.0, 0.25, 0.75], [1, 0, 0]], (2, 3))[0]
    array([0.  , 0.25, 0.75], dtype=float32)
    """
    *rows, classes = shape
    if isinstance(y, np.ndarray) and _are_labels(y, tuple(rows), classes):
        return y.astype(np.int32)
    array = _numbers(y, name, NAMES_TO_NUMBERS)
    if array.shape == shape and classes > 1:
        return _probabilities(array, name)
    array = _without_column(array, len(rows))
    if array.ndim != len(rows) or list(array.shape[1:]) != rows[1:]:
        raise ShapeError(
            f"{name}: received shape {array.shape}; expected labels {tuple(rows)}, one for each row of the network's "
            f"output, or probabilities {shape}."
            + (" For one label an image, end the net in Dense or GlobalAvgPool." if array.ndim < len(rows) else "")
        )
    _check_labels(array, rows[0], classes, name)
    return np.require(array, np.int32, ["C", "A"])


def as_targets(y: ArrayLike, shape: tuple[int, ...], *, name: str = "y") -> NDArray[np.float32]:
    """Values to fit (regression) as float32 of `shape`, the batch axis included.

    A last axis of one may be missing: (n,) fits a shape of (n, 1).

    Raises:
        ShapeError: another shape, or values that are not numbers.
        DataError: a NaN or an infinity; the message has the first one's index.

    >>> as_targets([1, 2, 3], (3, 1)).shape
    (3, 1)
    """
    array = _numbers(y, name)
    if (*array.shape, 1) == shape:
        array = array[..., None]
    if array.shape != shape:
        raise ShapeError(
            f"{name}: received shape {array.shape}; expected {shape}, the shape of the network's output. "
            "Change the last layer or the targets."
        )
    return _finite(array, name)


def as_shares(y: ArrayLike, shape: tuple[int, ...], *, name: str = "y") -> NDArray[np.float32]:
    """Yes, no or something between, 0 to 1, as float32 of `shape`; otherwise like `as_targets`.

    Raises:
        ShapeError: another shape, or values that are not numbers.
        DataError: a number below 0 or above 1; the message has the first one's index.

    >>> as_shares([True, False], (2, 1)).tolist()
    [[1.0], [0.0]]
    """
    array = as_targets(y, shape, name=name)
    if array.size and (array.min() < 0 or array.max() > 1):
        index = _first((array < 0) | (array > 1))
        raise DataError(
            f"{name}: received {array[index]} at index {_place(index)}; expected numbers from 0 (no) to 1 (yes). "
            "For values of any size use another loss, mse for instance."
        )
    return array


def _is_canonical(x: NDArray[Any], input_shape: tuple[int, ...] | None) -> bool:
    """Whether there is nothing to do: the common case of a training loop, in a few microseconds."""
    fits = x.shape[1:] == input_shape and x.flags.c_contiguous and x.flags.aligned and len(x) > 0
    if not fits or x.dtype != np.float32:
        return fits and x.dtype == np.uint8
    return math.isfinite(x.min()) and math.isfinite(x.max())


def _are_labels(y: NDArray[Any], shape: tuple[int, ...], classes: int) -> bool:
    """Whether there is nothing to do. As unsigned numbers, labels below zero are the largest of all."""
    fits = y.dtype == np.int64 and y.shape == shape and y.size > 0 and y.flags.c_contiguous
    return fits and bool(y.view(np.uint64).max() < classes)


def _without_column(array: NDArray[Any], rank: int) -> NDArray[Any]:
    """Drop a last axis of one beyond `rank`."""
    return array[..., 0] if array.ndim == rank + 1 and array.shape[-1] == 1 else array


def _check_labels(array: NDArray[Any], n: int, classes: int | None, name: str) -> None:
    """As many as images, and each a class."""
    if len(array) != n:
        raise DataError(f"{name}: received {len(array):,} labels for {n:,} images; expected one each.")
    top = (classes or 2**31) - 1
    wrong = (array < 0) | (array > top)
    if array.dtype.kind == "f":
        wrong |= array != np.floor(array)  # true for NaN as well
    if wrong.any():
        index = _first(wrong)
        wanted = f"0 to {top}, as there are {classes} classes" if classes else "0, 1, 2, ..."
        raise DataError(
            f"{name}: received label {array[index]} at index {_place(index)}; expected whole numbers {wanted}. "
            "Classes are counted from 0."
        )


def _probabilities(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    result = _finite(array, name)
    if result.size and result.min() < 0:
        index = _first(result < 0)
        raise DataError(f"{name}: received {result[index]} at index {_place(index)}; probabilities are 0 or more.")
    sums = result.sum(-1)
    wrong = np.abs(sums - 1) > TOLERANCE
    if wrong.any():
        index = _first(wrong)
        raise DataError(
            f"{name}: received numbers that sum to {sums[index]:.6g} at index {_place(index)}; expected probabilities, "
            "which sum to 1 over the classes. Divide them by their sum; of logits take the softmax."
        )
    return result


def _first(wrong: NDArray[Any]) -> tuple[int, ...]:
    """Index of the first true element."""
    return tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))


def _place(index: tuple[int, ...]) -> str:
    return str(index[0] if len(index) == 1 else index)


def _numbers(values: ArrayLike, name: str, advice: str = "") -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of unequal lengths
        raise ShapeError(
            f"{name}: received rows of unequal shapes ({error}); expected one array. Bring all to one shape."
        ) from error
    if array.dtype.kind not in "buif":
        advice = advice or "Convert it, for example by numpy.asarray(..., dtype=numpy.float32)."
        raise ShapeError(f"{name}: received values of type {array.dtype}; expected real numbers. {advice}")
    return array


def _with_channels(array: NDArray[Any], input_shape: tuple[int, ...], name: str) -> NDArray[Any]:
    if array.ndim > 0 and array.shape[1:] == input_shape:
        return array
    bare = input_shape[:-1]
    if input_shape[-1] == 1 and array.ndim > 0 and array.shape[1:] == bare:
        return array[..., None]
    accepted = [_batch_of(input_shape)] + ([_batch_of(bare)] if input_shape[-1] == 1 else [])
    single = array.shape in (input_shape, bare)
    raise ShapeError(
        f"{name}: received shape {array.shape}; expected {' or '.join(accepted)}, channels last. "
        + (f"A single image becomes a batch of one by {name}[None]." if single else "Resize or transpose the images.")
    )


def _batch_of(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['n', *map(str, shape)])})"


def _finite(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    """As float32; the minimum and the maximum carry a NaN and an infinity without a mask as large as the array."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.require(array, np.float32, ["C", "A"])
        finite = result.size == 0 or bool(np.isfinite(result.min()) and np.isfinite(result.max()))
    if not finite:
        index = _first(~np.isfinite(result))
        raise DataError(
            f"{name}: received {array[index]} at index {index}; expected finite numbers that float32 can hold. "
            "Repair or drop that sample."
        )
    return result
