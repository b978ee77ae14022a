"""What a person gives the page: a file (an image, a sound, an array) or a drawing, as a sample of an input."""

from __future__ import annotations

import math

import numpy as np

from convolve.data.images import decode_image
from convolve.data.npz import parse_npy
from convolve.data.waves import decode_wave
from convolve.errors import DataError, FileError
from convolve.graph import Shape
from convolve.page.subject import Subject

MOST_UPLOADED = 16 * 1024 * 1024
"""Bytes of a file that is dropped onto the page."""
NPY, WAV = b"\x93NUMPY", b"RIFF"
"""How files of arrays and of sounds begin."""


def sample_of(subject: Subject, number: int, content: bytes, name: str) -> np.ndarray:
    """A file's contents as a sample of the net's input of that number, (1, *shape); what it is, its bytes tell.

    Raises:
        FileError, DataError, ShapeError: it is too large, damaged, of another kind or shape.
    """
    like = subject.given[number]
    if len(content) > MOST_UPLOADED:
        raise FileError(f"{name}: has more than {MOST_UPLOADED >> 20} MB; choose a smaller file")
    made = read_sample(content, name, like.shape[1:], subject.rate)[None]
    if content.startswith(NPY):
        return _fitting(made, like, name)
    if content.startswith(WAV):
        return _in_range(subject, number, 127.5 * (1 + made)) if like.dtype == np.uint8 else made
    return _in_range(subject, number, made)


def read_sample(content: bytes, name: str, shape: Shape, rate: int | None) -> np.ndarray:
    """An image (uint8), a sound (float32 from -1 to 1) or an array of NumPy's (as it is) as a sample of this shape.

    Raises:
        FileError, DataError, ShapeError: it is damaged, of another kind or shape.
    """
    if content.startswith(NPY):
        made = parse_npy(name, content)
        if made.size != math.prod(shape) or made.dtype.kind not in "buif":
            raise DataError(f"{name}: expected numbers of shape {shape}. Received: {made.dtype} of shape {made.shape}")
        return made.reshape(shape)
    if content.startswith(WAV) and len(shape) == 2:
        return decode_wave(content, *shape, name, rate)
    return decode_image(content, shape, name)


def drawn(subject: Subject, number: int, drawing: np.ndarray) -> np.ndarray:
    """A drawing in bytes, brought to the range of the samples."""
    shape = subject.given[number].shape[1:]
    if drawing.dtype != np.uint8 or drawing.shape != shape:
        raise DataError(f"expected a drawing of {shape} in bytes. Received: {drawing.dtype} of {drawing.shape}")
    return _in_range(subject, number, drawing[None])


def _in_range(subject: Subject, number: int, pictures: np.ndarray) -> np.ndarray:
    """Values of 0 to 255 as the samples hold them."""
    if subject.given[number].dtype == np.uint8:
        return pictures.astype(np.uint8)
    low, high = subject.ranges[number]
    return np.asarray(low + pictures * np.float32((high - low) / 255), np.float32)


def _fitting(made: np.ndarray, like: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(made).all():
        raise DataError(f"{name}: holds NaN or infinity")
    if like.dtype == np.uint8 and not (made.min() >= 0 and made.max() <= 255):
        raise DataError(f"{name}: expected values from 0 to 255. Received: {made.min():g} to {made.max():g}")
    return made.astype(like.dtype)
