"""What people hand over, made canonical once, at the boundary.

Behind these functions an image batch is C-contiguous, native, finite and either uint8 or float32; labels are int64;
targets are float32. No later line asks again.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convolve.errors import DataError, ShapeError

Images: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"
Labels: TypeAlias = "NDArray[np.int64]"


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
    if isinstance(y, np.ndarray) and _are_labels(y, n, classes or 2**31):
        return y
    array = _numbers(y, name, "Class names become numbers by names, y = numpy.unique(y, return_inverse=True).")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ShapeError(
            f"{name}: received shape {array.shape}; expected one class number an image, ({n},). "
            f"One-hot rows become numbers by {name}.argmax(axis=1)."
        )
    if len(array) != n:
        raise DataError(f"{name}: received {len(array):,} labels for {n:,} images; expected one each.")
    top = (classes or 2**31) - 1
    wrong = (array < 0) | (array > top)
    if array.dtype.kind == "f":
        wrong |= array != np.floor(array)  # true for NaN as well
    if wrong.any():
        index = int(wrong.argmax())
        wanted = f"0 to {top}, as there are {classes} classes" if classes else "0, 1, 2, ..."
        raise DataError(
            f"{name}: received label {array[index]} at index {index}; expected whole numbers {wanted}. "
            "Classes are counted from 0."
        )
    return np.require(array, np.int64, ["C", "A"])


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


def _is_canonical(x: NDArray[Any], input_shape: tuple[int, ...] | None) -> bool:
    """Whether there is nothing to do: the common case of a training loop, in a few microseconds."""
    fits = x.shape[1:] == input_shape and x.flags.c_contiguous and x.flags.aligned and len(x) > 0
    if not fits or x.dtype != np.float32:
        return fits and x.dtype == np.uint8
    return math.isfinite(x.min()) and math.isfinite(x.max())


def _are_labels(y: NDArray[Any], n: int, classes: int) -> bool:
    """Whether there is nothing to do. As unsigned numbers, labels below zero are the largest of all."""
    fits = y.dtype == np.int64 and y.shape == (n,) and n > 0 and y.flags.c_contiguous
    return fits and bool(y.view(np.uint64).max() < classes)


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
        index = tuple(int(i) for i in np.unravel_index(int((~np.isfinite(result)).argmax()), result.shape))
        raise DataError(
            f"{name}: received {array[index]} at index {index}; expected finite numbers that float32 can hold. "
            "Repair or drop that sample."
        )
    return result
