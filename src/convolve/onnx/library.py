"""The onnx package, which writes ONNX's files: an extra, imported when it is needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from convolve.errors import ConvolveError


def library() -> ModuleType:
    """The onnx package.

    Raises:
        ConvolveError: it is not installed; the message is the line that installs it.
    """
    try:
        return importlib.import_module("onnx")
    except ImportError:
        raise ConvolveError("writing ONNX files needs the onnx package: pip install 'convolve[onnx]'") from None
