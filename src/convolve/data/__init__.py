"""Labelled sets of images: known ones by name, and people's own files.

>>> from convolve import data
>>> data.load("mnist").describe()
'60,000 training and 10,000 test images, 28x28x1, 10 classes'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolve.data.dataset import Dataset, Skipped
    from convolve.data.images import read_image
    from convolve.data.known import is_files, load, names
    from convolve.data.waves import read_wave

_HOMES = {"Dataset": "dataset", "Skipped": "dataset", "read_image": "images", "read_wave": "waves"} | dict.fromkeys(
    ("is_files", "load", "names"), "known"
)
__all__ = ["Dataset", "Skipped", "is_files", "load", "names", "read_image", "read_wave"]


def __getattr__(name: str) -> Any:
    """Names are found when first used: arrays are made ready without what reads files."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"convolve.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'convolve.data' has no attribute {name!r}")
