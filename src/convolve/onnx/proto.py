"""ONNX files as bytes: read, parsed, and their arrays found. Needs the `onnx` package.

A file is not trusted: what it says of sizes is held against what it holds before anything is made of it.
"""

from __future__ import annotations

import math
import mmap
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convolve.errors import FileError
from convolve.onnx.library import library
from convolve.onnx.wire import parted

MOST_BYTES = 2**31 - 1
"""What an ONNX file may have: its format counts in 31 bits."""
MOST_DIMENSIONS = 32
EXTERNAL = 1
"""TensorProto.EXTERNAL: the elements lie in another file."""


@dataclass(frozen=True)
class Source:
    """A parsed file, and where the files lie that it may name."""

    model: Any
    weights: Mapping[int, memoryview]
    """Elements of initialisers that were left where they are, by place."""
    folder: Path | None

    def array(self, tensor: Any, raw: memoryview | None = None) -> np.ndarray:
        """The elements of a tensor of the file, as NumPy has them; `raw` are its bytes where it has not got them."""
        shape = shape_of(tensor.dims, f"constant {tensor.name}")
        dtype = element_type(tensor.data_type)
        if dtype is None or (dtype.kind not in "fiub" and dtype.name != "bfloat16"):
            raise FileError(f"constant {tensor.name}: its elements are of no type that is known")
        size = math.prod(shape)
        if tensor.data_location == EXTERNAL:
            return self._outside(tensor, dtype, size).reshape(shape)
        if raw is not None or tensor.HasField("raw_data"):
            data = tensor.raw_data if raw is None else raw
            if len(data) != size * dtype.itemsize:
                raise FileError(
                    f"constant {tensor.name}: {size:,} elements of {dtype} are {size * dtype.itemsize:,} bytes. "
                    f"Received: {len(data):,}"
                )
            return np.frombuffer(data, _little(dtype)).astype(dtype, copy=False).reshape(shape)
        values = next((v for v in _fields(tensor) if len(v)), ())
        if len(values) != size:
            raise FileError(f"constant {tensor.name}: has {size:,} elements. Received: {len(values):,} numbers")
        if dtype.name in ("float16", "bfloat16"):  # kept as the integers of their bits
            return (np.asarray(values, np.int64) & 0xFFFF).astype(np.uint16).view(dtype).reshape(shape)
        wide = np.asarray(values)
        return wide.astype(dtype).reshape(shape)

    def _outside(self, tensor: Any, dtype: np.dtype[Any], size: int) -> np.ndarray:
        """Elements from another file, in the folder of this one or below it."""
        told = {entry.key: entry.value for entry in tensor.external_data}
        name = f"constant {tensor.name}"
        if self.folder is None:
            raise FileError(f"{name}: lies in another file, {told.get('location')!r}; give the path, not the bytes")
        path = (self.folder / told.get("location", "")).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            raise FileError(
                f"{name}: expected a file in the folder of the net. Received: location {told.get('location')!r}"
            )
        try:
            offset, length = int(told.get("offset", 0)), int(told.get("length", size * dtype.itemsize))
        except ValueError:
            raise FileError(f"{name}: offset and length are numbers. Received: {told}") from None
        whole = path.stat().st_size
        if not 0 <= offset <= whole - length or length != size * dtype.itemsize:
            raise FileError(
                f"{name}: {size * dtype.itemsize:,} bytes are not at {offset:,} of {path.name}, which has {whole:,}"
            )
        return np.fromfile(path, _little(dtype), size, offset=offset).astype(dtype, copy=False)


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type as files have it: the least significant byte first."""
    return dtype.newbyteorder("<") if dtype.kind in "fiub" else dtype


def _fields(tensor: Any) -> Iterator[Any]:
    """Where a tensor may have its elements as numbers."""
    yield from (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)


def shape_of(dims: Any, what: str) -> tuple[int, ...]:
    """Sizes that can be those of an array."""
    shape = tuple(int(n) for n in dims[: MOST_DIMENSIONS + 1])
    if len(shape) > MOST_DIMENSIONS or any(n < 0 for n in shape) or math.prod(shape) > MOST_BYTES:
        raise FileError(f"{what}: no array has the shape {shape[:8]}{' ...' if len(shape) > 8 else ''}")
    return shape


def element_type(number: int) -> np.dtype[Any] | None:
    """The NumPy type of an element type; None where there is none."""
    try:
        found: np.dtype[Any] = np.dtype(library().helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, TypeError):
        return None
    return found


def parse(source: str | Path | bytes) -> Source:
    """The model of a file or of its bytes.

    Raises:
        ConvolveError: the `onnx` package is missing.
        FileError: the file cannot be read, is no ONNX model, or has more nodes than any net.
    """
    onnx = library()
    from google.protobuf.message import DecodeError

    folder = None if isinstance(source, bytes) else Path(source).parent
    data = memoryview(source) if isinstance(source, bytes) else _bytes(Path(source))
    model = onnx.ModelProto()
    try:
        rest, weights = parted(data)
        model.ParseFromString(rest)
    except (DecodeError, ValueError) as error:
        raise FileError(f"is no whole ONNX file ({error}). It is truncated, damaged or of another kind") from None
    if not model.HasField("graph") or not model.graph.output:
        raise FileError("holds no graph with an output. It is truncated, damaged or of another kind")
    if model.graph.sparse_initializer:
        raise FileError("has sparse constants, which are not supported; make them dense")
    return Source(model, weights, folder)


def _bytes(path: Path) -> memoryview:
    """A file's bytes, where the system has them."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FileError("cannot be read (it is a folder or a device). Give the name of a file")
        if found.st_size > MOST_BYTES:
            raise FileError(f"has {found.st_size:,} bytes; an ONNX file has at most {MOST_BYTES:,}")
        if not found.st_size:
            raise FileError("is empty. It is truncated, damaged or of another kind")
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError, MemoryError) as error:
        if isinstance(error, FileError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or "it does not fit into memory"
        raise FileError(f"cannot be read ({reason}). Check the name") from None
