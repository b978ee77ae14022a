"""ONNX files as bytes: read, parsed and checked. Needs the `onnx` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convolve.errors import FileError
from convolve.onnx.library import library

MOST_BYTES = 2**31 - 1
"""What protobuf can parse."""


def parse(source: str | Path | bytes) -> Any:
    """The model of a file or of its bytes.

    Raises:
        ConvolveError: the `onnx` package is missing.
        FileError: the file cannot be read or is no ONNX model.
    """
    onnx = library()
    from google.protobuf.message import DecodeError

    name = "the bytes" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise FileError(f"{name}: cannot be read ({error.strerror or error}). Check the name") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise FileError(
            f"{name}: is no whole ONNX file ({error}). It is truncated, damaged or of another kind"
        ) from None
    return model
