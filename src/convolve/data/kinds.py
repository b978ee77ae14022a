"""Kinds of files that are samples: images, sounds, arrays. A kind makes a form of headers; a form reads files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convolve.data import images, nifti, waves
from convolve.data.nifti import suffix_of
from convolve.data.npz import read_npy
from convolve.data.waves import Wave
from convolve.errors import DataError, FileError, ShapeError

Size = int | tuple[int, ...] | None

LONGEST = 64
"""The longest side an image is given when nobody says which: what a CPU trains on in minutes."""
MOST_SAMPLES = 2**16
"""The most values a second's worth of sound is given when nobody says how many: eight seconds of 8 kHz."""


class Form(Protocol):
    """What all files of a set are brought to. A frozen dataclass: its `repr` says what a result depends on."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, (*spatial, channels)."""

    @property
    def dtype(self) -> str: ...

    def read(self, path: Path) -> NDArray[Any]:
        """A file's sample.

        Raises:
            FileError: the file is damaged or does not suit.
        """


class Kind(Protocol):
    """Files of some suffixes."""

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    def probe(self, path: Path) -> Any:
        """What the file's header says.

        Raises:
            FileError: the file is damaged or of another kind.
        """

    def form(self, train: Sequence[Any], others: Sequence[Any], size: Size, rate: int | None = None) -> Form:
        """What the files to train on, and then all others, are brought to; `size` and `rate` are what was asked for.

        Raises:
            DataError: such a size cannot be.
        """


@dataclass(frozen=True)
class ImageForm:
    """Pictures of one size, uint8."""

    shape: tuple[int, int, int]
    dtype: str = "uint8"

    def read(self, path: Path) -> NDArray[Any]:
        return images.read_image(path, self.shape)


@dataclass(frozen=True)
class WaveForm:
    """Sounds of one rate and length, float32 of -1 to 1."""

    rate: int
    length: int
    channels: int
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, int]:
        return self.length, self.channels

    def read(self, path: Path) -> NDArray[Any]:
        return waves.read_wave(path, self.rate, self.length, self.channels)


@dataclass(frozen=True)
class ArrayForm:
    """Arrays of one shape and type."""

    shape: tuple[int, ...]
    dtype: str

    def read(self, path: Path) -> NDArray[Any]:
        array = _with_channel(read_array(path))
        if array.shape != self.shape:
            raise FileError(
                f"{path}: holds an array of {array.shape}; expected {self.shape}, as most files of the set have it."
            )
        if array.dtype.kind not in "buif" or (self.dtype == "uint8" and array.dtype != np.uint8):
            raise FileError(f"{path}: holds values of type {array.dtype}; expected {self.dtype}, as the others have.")
        made = array.astype(self.dtype)
        if not np.isfinite(made).all():
            raise FileError(f"{path}: holds values that are not finite numbers. Save it anew.")
        return made


@dataclass(frozen=True)
class Images:
    """Image files. They stay grey if all are, and else become RGB."""

    suffixes: tuple[str, ...] = images.SUFFIXES

    def probe(self, path: Path) -> tuple[int, int, bool]:
        return images.probe(path)

    def form(self, train: Sequence[Any], others: Sequence[Any], size: Size, rate: int | None = None) -> ImageForm:
        grey = all(is_grey for *_, is_grey in (*train, *others))
        height, width = _common_size([(h, w) for h, w, _ in train]) if size is None else _pair(size)
        return ImageForm((height, width, 1 if grey else 3))


@dataclass(frozen=True)
class Waves:
    """WAV files: at the most frequent rate, as long as nineteen of twenty are; one channel, unless all have as many."""

    suffixes: tuple[str, ...] = waves.SUFFIXES

    def probe(self, path: Path) -> Wave:
        return waves.probe_wave(path)

    def form(self, train: Sequence[Wave], others: Sequence[Wave], size: Size, rate: int | None = None) -> WaveForm:
        rate = rate or _most_frequent([header.rate for header in train])
        channels = {header.channels for header in (*train, *others)}
        if size is None:
            lengths = sorted(-(-header.length * rate // header.rate) for header in train)
            length = min(lengths[-(-len(lengths) * 19 // 20) - 1], MOST_SAMPLES)
        else:
            length = size if isinstance(size, int) else size[0] if len(size) == 1 else 0
        if length < 1:
            raise DataError(f"size: received {size}; expected the number of samples, one number, for sounds.")
        return WaveForm(rate, length, channels.pop() if len(channels) == 1 else 1)


@dataclass(frozen=True)
class Arrays:
    """.npy and NIfTI files of the most frequent shape: volumes (d, h, w) or (d, h, w, channels), images, or signals."""

    suffixes: tuple[str, ...] = (".npy", *nifti.SUFFIXES)

    def probe(self, path: Path) -> tuple[tuple[int, ...], str]:
        array = _with_channel(read_array(path))
        return array.shape, "uint8" if array.dtype == np.uint8 else "float32"

    def form(self, train: Sequence[Any], others: Sequence[Any], size: Size, rate: int | None = None) -> ArrayForm:
        types = {dtype for _, dtype in (*train, *others)}
        shape = _most_frequent([shape for shape, _ in train])
        if size is not None and size not in (shape[:-1], *shape[:-1]):
            raise DataError(f"size: received {size}, but most arrays are of {shape}; arrays are not resized.")
        return ArrayForm(shape, "uint8" if types == {"uint8"} else "float32")


KINDS: tuple[Kind, ...] = (Images(), Waves(), Arrays())
SUFFIXES = tuple(suffix for kind in KINDS for suffix in kind.suffixes)


def kind_of(suffix: str) -> Kind:
    """The kind of files of this suffix, one of `SUFFIXES`."""
    return next(kind for kind in KINDS if suffix in kind.suffixes)


def form_for(suffix: str, shape: tuple[int, ...], dtype: str, rate: int | None = None) -> Form:
    """What files of this suffix are brought to for a model of samples of a shape and type; of sounds, of a rate.

    Raises:
        ShapeError: no such file becomes a sample of this shape.

    >>> form_for(".wav", (8000, 1), "float32", 8000)
    WaveForm(rate=8000, length=8000, channels=1, dtype='float32')
    """
    if suffix in Images().suffixes and len(shape) == 3:
        return ImageForm(shape)
    if suffix in Waves().suffixes and len(shape) == 2 and rate is not None:
        return WaveForm(rate, *shape)
    if suffix in Arrays().suffixes:
        return ArrayForm(shape, dtype)
    missing = " at a rate that its file does not name" if suffix in Waves().suffixes and len(shape) == 2 else ""
    raise ShapeError(
        f"a file that ends in {suffix or '(nothing)'} cannot become an input of shape {shape}{missing}; expected an "
        "image for (height, width, channels), a WAV file for (length, channels), or an array as .npy. "
        "Give such a model arrays."
    )


def for_masks(form: Form, asked: bool) -> Form:
    """A form for samples with masks: of images the sides are made multiples of 8, unless they were `asked` for."""
    if not isinstance(form, ImageForm) or asked:
        return form
    height, width, channels = form.shape
    return ImageForm((max(8, round(height / 8) * 8), max(8, round(width / 8) * 8), channels))


@dataclass(frozen=True)
class MaskForm:
    """Masks as they lie on samples of a form."""

    samples: Form
    dtype: str = "int32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.samples.shape[:-1]

    def read(self, path: Path) -> NDArray[Any]:
        return read_mask(path, self.samples)


def read_mask(path: Path, form: Form) -> NDArray[np.int64]:
    """A mask as a sample of this form has it: a value for each place, (*spatial,).

    Raises:
        FileError: it is damaged, or does not lie on such a sample.
    """
    if isinstance(form, ImageForm):
        return images.read_mask(path, form.shape[:2]).astype(np.int64)
    array = read_array(path)
    if array.dtype.kind == "f" and (array == np.floor(array)).all():  # as many programs save masks
        array = array.astype(np.int64)
    if array.shape != form.shape[:-1] or array.dtype.kind not in "bui":
        raise FileError(
            f"{path}: holds {array.dtype} of shape {array.shape}; expected whole numbers {form.shape[:-1]}."
        )
    return array.astype(np.int64)


def read_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file, or the voxels of a NIfTI file.

    Raises:
        FileError: it cannot be read, or an extra is missing.
    """
    return nifti.read_nifti(path) if suffix_of(path) in nifti.SUFFIXES else read_npy(path)


def _with_channel(array: NDArray[Any]) -> NDArray[Any]:
    """Volumes, images and signals of one channel leave its axis out; arrays of four axes or more have it."""
    return array[..., None] if array.ndim < 4 else array


def _most_frequent(values: Sequence[Any]) -> Any:
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value))


def _common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The median height and the median width, both made smaller by one factor if the longer is more than `LONGEST`."""
    height, width = (sorted(side)[(len(side) - 1) // 2] for side in zip(*sizes, strict=True))
    factor = min(1.0, LONGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise DataError(f"size: received {size}; expected a height and a width of at least 1.")
    return pair[0], pair[1]
