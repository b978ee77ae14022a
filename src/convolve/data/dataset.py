"""A labelled set of images, checked once when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convolve.data.arrays import as_labels, as_rows, as_shares, as_targets
from convolve.errors import DataError, ShapeError
from convolve.source import Rows, Source, subset

# The word for one sample, by the number of its spatial dimensions.
_SAMPLES = {1: "signals", 2: "images", 3: "volumes"}

Task = Literal["classify", "labels", "regress", "segment", "autoencode"]
TASKS: tuple[Task, ...] = get_args(Task)
"""What is to be learnt: a class, several labels at once, values, a class for each place, or the sample itself."""

# More classes than this are taken for a mistake (values in place of class numbers) when nothing names them.
_MOST_CLASSES = 2**16


@dataclass(frozen=True)
class Skipped:
    """A file that a set was made without, and why."""

    file: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and their classes, with a part to train on and, nearly always, a part to test on.

    The arrays are made canonical here: images (n, *spatial, channels) as uint8 or float32 (other number types become
    float32), labels (n,) as int64, each in range(len(classes)). Where the `task` is another, y are

    * "labels", several at once: zeros and ones (n, classes), float32;
    * "regress": values (n, classes), float32; `classes` are the values' names;
    * "segment": a class for each place, (n, *spatial), uint8, or int32 where there are more than 256 classes; where
      memory does not hold them, a `convolve.source.Source` of int32;
    * "autoencode": anything; what is to be given back is the sample.

    `x_test` and `y_test` are None only where a source has
    no test part; `split` makes one. `x_validation` and `y_validation` are what the owner chose to be watched while
    training; nearly always None. In place of an array of images a `convolve.source.Source` may stand.

    Sets that come from files have their names, one a sample, in `train_files` and `test_files`, and in `skipped` those
    that could not be read. `rate` is how many samples a second sounds have, where that is known.

    Raises:
        DataError: an empty set, labels out of range, unequal counts, a NaN or an infinity, parts that do not match.
        ShapeError: images without a channel axis, or values that are not numbers.

    >>> import numpy as np
    >>> Dataset("dots", np.zeros((6, 8, 8, 1), np.uint8), [0, 1, 0, 1, 0, 1], None, None, ("small", "large"))
    Dataset('dots': 6 training images, 8x8x1, 2 classes)
    """

    name: str
    x_train: Rows
    y_train: Any
    x_test: Rows | None
    y_test: Any | None
    classes: tuple[str, ...]
    x_validation: Rows | None = None
    y_validation: Any | None = None
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    rate: int | None = None
    task: Task = "classify"

    def __post_init__(self) -> None:
        if not self.classes:
            raise DataError(f"{self.name}: received no class names; expected one a class.")
        self._canonicalise("train")
        for part in ("validation", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if (x is None) != (y is None):
                raise DataError(f"{self.name}: received only one of x_{part} and y_{part}; expected both or neither.")
            if x is None:
                continue
            self._canonicalise(part)
            other, train = (f"{x.dtype} of {_by(x.shape[1:])}" for x in (getattr(self, f"x_{part}"), self.x_train))
            if other != train:
                raise DataError(
                    f"{self.name}: received {part} images as {other}, training images as {train}; expected the same "
                    "for both."
                )

    def _canonicalise(self, part: str) -> None:
        x_name, y_name = f"x_{part}", f"y_{part}"
        x = as_rows(getattr(self, x_name), name=f"{self.name}: {x_name}")
        if len(x.shape) < 3 or 0 in x.shape:
            raise ShapeError(
                f"{self.name}: {x_name}: received shape {x.shape}; expected (n, *spatial, channels), none of it zero. "
                f"Give grey images their one channel by {x_name}[..., None]."
            )
        y = self._targets(getattr(self, y_name), x.shape, f"{self.name}: {y_name}")
        object.__setattr__(self, x_name, x)
        object.__setattr__(self, y_name, y)

    def _targets(self, y: Any, shape: tuple[int, ...], name: str) -> Any:
        """Targets of samples of this shape, canonical."""
        count = len(self.classes)
        if self.task == "labels":
            return as_shares(y, (shape[0], count), name=name)
        if self.task == "regress":
            return as_targets(y, (shape[0], count), name=name)
        if self.task == "segment":
            return _as_masks(y, shape[:-1], count, name)
        return as_labels(y, shape[0], count, name=name)

    @property
    def strata(self) -> NDArray[Any]:
        """What each of two parts of the training samples should have its share of: classes, where there are some."""
        return self.y_train if len(self.y_train.shape) == 1 else np.zeros(len(self.y_train), np.int64)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, (*spatial, channels): what a model for this set takes."""
        return self.x_train.shape[1:]

    def describe(self) -> str:
        """One line, such as "60,000 training and 10,000 test images, 28x28x1, 10 classes"."""
        parts = {"training": self.x_train, "validation": self.x_validation, "test": self.x_test}
        *first, last = [f"{len(x):,} {word}" for word, x in parts.items() if x is not None]
        counts = f"{', '.join(first)} and {last}" if first else last
        samples = _SAMPLES.get(len(self.input_shape) - 1, "samples")
        what = {"labels": "label", "regress": "value"}.get(self.task, "class")
        plural = {"class": "classes"}.get(what, f"{what}s")
        classes = f"1 {what}" if len(self.classes) == 1 else f"{len(self.classes):,} {plural}"
        classes += {"segment": " of places", "labels": ", several at once"}.get(self.task, "")
        return f"{counts} {samples}, {_by(self.input_shape)}, {classes}"

    def split(self, fraction: float = 0.2, seed: int = 0) -> Dataset:
        """The same set with a part of its training images held out as the test part.

        The choice is `held_out`'s: the same images on every machine, and of each class its share.

        Raises:
            DataError: there is a test part already, or the set is too small to be divided.

        >>> import numpy as np
        >>> dots = Dataset("dots", np.zeros((10, 8, 8, 1), np.uint8), [0, 1] * 5, None, None, ("small", "large"))
        >>> dots.split(0.2).describe()
        '8 training and 2 test images, 8x8x1, 2 classes'
        """
        if self.x_test is not None:
            raise DataError(f"{self.name}: has a test part of {len(self.x_test):,} images already; no second is made.")
        train, test = held_out(self.strata, fraction, seed, name=self.name)
        return replace(
            self,
            x_train=subset(self.x_train, train),
            y_train=subset(self.y_train, train),
            x_test=subset(self.x_train, test),
            y_test=subset(self.y_train, test),
            train_files=tuple(self.train_files[i] for i in train) if self.train_files else (),
            test_files=tuple(self.train_files[i] for i in test) if self.train_files else (),
        )

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: {self.describe()})"


def held_out(
    labels: ArrayLike, fraction: float = 0.2, seed: int = 0, *, name: str = "labels"
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two sorted arrays of indices, to train on and to hold out: of every class its share, chosen by `seed`.

    A class of two or more gives at least one to each side; a class of one is trained on. The draw uses the raw bits of
    a counter-based generator, whose stream NumPy guarantees, and so never changes.

    Raises:
        DataError: a fraction that is not between 0 and 1, or no class with two images.

    >>> train, test = held_out([0, 0, 0, 0, 1, 1, 1, 1], fraction=0.25)
    >>> len(train), len(test)
    (6, 2)
    """
    if not 0 < fraction < 1:
        raise DataError(f"{name}: received a fraction of {fraction} to hold out; expected one between 0 and 1.")
    classes = np.asarray(labels)
    order = np.lexsort((np.random.Philox(seed).random_raw(len(classes)), classes))
    groups = np.split(order, np.flatnonzero(np.diff(classes[order])) + 1)
    test = np.sort(np.concatenate([group[: _share(len(group), fraction)] for group in groups]))
    if len(test) == 0:
        raise DataError(
            f"{name}: received at most one image a class; expected two or more, to train on one and to test on another."
        )
    return np.setdiff1d(order, test), test


def as_task(dataset: Dataset, task: Task | None) -> Dataset:
    """The same samples for another task, where that makes sense.

    Samples can always be given back (autoencode). Classes are labels of which there is one, and numbers where their
    names are.

    Raises:
        DataError: the set does not have what the task needs.
    """
    if task is None or task == dataset.task:
        return dataset
    parts: dict[str, Any] = {part: getattr(dataset, part) for part in ("y_train", "y_validation", "y_test")}
    made: dict[str, Any]
    if task == "autoencode":
        flat = len(dataset.y_train.shape) == 1 and dataset.task == "classify"
        made = {k: y if flat or y is None else np.zeros(len(y), np.int64) for k, y in parts.items()}
        return replace(dataset, **made, task=task, classes=dataset.classes if flat else ("all",))
    if dataset.task == "classify" and task == "labels":
        one = np.eye(len(dataset.classes), dtype=np.float32)
        made = {k: None if y is None else one[y] for k, y in parts.items()}
        return replace(dataset, **made, task=task)
    if dataset.task == "classify" and task == "regress" and all(map(is_number, dataset.classes)):
        values = np.array([float(name) for name in dataset.classes], np.float32)[:, None]
        made = {k: None if y is None else values[y] for k, y in parts.items()}
        return replace(dataset, **made, task=task, classes=("value",))
    raise DataError(f"{dataset.name}: is a set for --task {dataset.task}; its targets are none for --task {task}.")


def is_number(text: str) -> bool:
    """Whether a word is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _as_masks(given: Any, shape: tuple[int, ...], classes: int, name: str) -> Any:
    y = given if isinstance(given, Source) else np.asarray(given)
    if y.shape != shape:
        raise ShapeError(f"{name}: received shape {y.shape}; expected a class for each place, {shape}.")
    if not isinstance(y, np.ndarray):
        return y
    if y.dtype.kind not in "bui" or int(y.min()) < 0 or int(y.max()) >= classes:
        raise DataError(f"{name}: received {y.dtype} from {y.min()} to {y.max()}; expected classes 0 to {classes - 1}.")
    return np.require(y, np.uint8 if classes <= 256 else np.int32, ["C", "A"])


def numbered_classes(name: str, *labels: NDArray[Any] | None) -> tuple[str, ...]:
    """Names for classes that have none: "0", "1", ... up to the largest label of all arrays that there are.

    Raises:
        DataError: a label so large that it cannot be a class number.
        ShapeError: labels that are not numbers.
    """
    arrays = [as_labels(y, y.shape[0] if y.ndim else 0, name=name) for y in labels if y is not None]
    top = max((int(y.max()) for y in arrays if len(y)), default=0)
    if top >= _MOST_CLASSES:
        raise DataError(f"{name}: received label {top:,}; expected class numbers 0, 1, 2, ... below {_MOST_CLASSES:,}.")
    return tuple(str(i) for i in range(top + 1))


def channels_last(x: NDArray[Any]) -> NDArray[Any]:
    """The channel axis that files of grey images and plain signals leave out.

    (n, length) and (n, height, width) get one channel; (n, height, width, channels) and more are taken as they are.
    """
    return x[..., None] if x.ndim in (2, 3) else x


def _share(count: int, fraction: float) -> int:
    return min(max(1, round(fraction * count)), count - 1)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
