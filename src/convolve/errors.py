"""The errors convolve raises on purpose.

Every message says which layer or file is meant, what was received, what was expected and what to do.
The command line prints such a message as one sentence; anything else is a bug of ours.
"""

from __future__ import annotations


class ConvolveError(Exception):
    """Base of every error that a user can cause and mend."""


class ShapeError(ConvolveError, ValueError):
    """An array or a layer's input has a rank, shape or type that cannot work."""


class DataError(ConvolveError, ValueError):
    """Data are unusable: labels out of range, NaN in an image, an empty set."""


class FileError(ConvolveError, ValueError):
    """A file is missing, truncated, tampered with, or cannot be written."""


class DivergenceError(ConvolveError, ArithmeticError):
    """Training left the finite numbers; the last good parameters were kept."""
