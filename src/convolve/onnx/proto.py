"""ONNX files as bytes: read, parsed, and their arrays found.

A file is not trusted: what it says of sizes is held against what it holds before anything is made of it.
"""

from __future__ import annotations

import math
import mmap
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from convolve.errors import ConvolveError, FileError
from convolve.onnx.wire import Message, decode

MOST_BYTES = 2**31 - 1
"""What an ONNX file may have: its format counts in 31 bits."""
MOST_DIMENSIONS = 32
EXTERNAL = 1
"""TensorProto.EXTERNAL: the elements lie in another file."""


ELEMENTS = dict(
    enumerate(("float32", "uint8", "int8", "uint16", "int16", "int32", "int64"), 1),
) | {9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16"}
"""Element types by TensorProto.DataType, those whose elements are known."""
READ_AT_ONCE = 1 << 24
"""Bytes of a file that stay in memory after they were read, at most."""


class Pages:
    """What of a mapped file was read, and lies in memory until it is let go of."""

    def __init__(self, data: memoryview) -> None:
        self._mapped, self._read = data.obj, 0

    def note(self, size: int) -> None:
        """Count bytes that somebody reads."""
        self._read += size

    def release(self) -> None:
        """Let go of what was read, if it was much; it can be read again."""
        mapped = self._mapped
        if self._read > READ_AT_ONCE and isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
            self._read = 0


class Source:
    """A parsed file: its bytes, and where the files lie that it may name."""

    def __init__(self, data: memoryview, folder: Path | None) -> None:
        self.model = decode(data, Message("model"))
        self.folder = folder
        self.pages = Pages(data)

    def array(self, tensor: Message) -> np.ndarray:
        """The elements of a tensor of the file, as NumPy has them."""
        shape = shape_of(tensor.dims, f"constant {tensor.name}")
        kind = ELEMENTS.get(tensor.data_type)
        if kind is None:
            raise FileError(f"constant {tensor.name}: its elements are of no type that is known")
        dtype = np.dtype("uint16" if kind == "bfloat16" else kind)
        array = self._elements(tensor, dtype, math.prod(shape)).reshape(shape)
        return (array.astype(np.uint32) << 16).view(np.float32) if kind == "bfloat16" else array

    def _elements(self, tensor: Message, dtype: np.dtype[Any], size: int) -> np.ndarray:
        if tensor.data_location == EXTERNAL:
            return self._outside(tensor, dtype, size)
        if tensor.has("raw_data"):
            data = tensor.raw_data
            self.pages.note(len(data))
            if len(data) != size * dtype.itemsize:
                raise FileError(
                    f"constant {tensor.name}: {size:,} elements of {dtype} are {size * dtype.itemsize:,} bytes. "
                    f"Received: {len(data):,}"
                )
            return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
        values: list[float] = next((v for v in _fields(tensor) if len(v)), [])
        if len(values) != size:
            raise FileError(f"constant {tensor.name}: has {size:,} elements. Received: {len(values):,} numbers")
        if dtype.name in ("float16", "uint16"):  # float16 and bfloat16 are kept as the integers of their bits
            return (np.asarray(values, np.int64) & 0xFFFF).astype(np.uint16).view(dtype)
        return np.asarray(values).astype(dtype)

    def _outside(self, tensor: Message, dtype: np.dtype[Any], size: int) -> np.ndarray:
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
        return np.fromfile(path, dtype.newbyteorder("<"), size, offset=offset).astype(dtype, copy=False)


def _fields(tensor: Message) -> Iterator[Any]:
    """Where a tensor may have its elements as numbers."""
    yield from (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)


def shape_of(dims: Any, what: str) -> tuple[int, ...]:
    """Sizes that can be those of an array."""
    shape = tuple(int(n) for n in dims[: MOST_DIMENSIONS + 1])
    if len(shape) > MOST_DIMENSIONS or any(n < 0 for n in shape) or math.prod(shape) > MOST_BYTES:
        raise FileError(f"{what}: no array has the shape {shape[:8]}{' ...' if len(shape) > 8 else ''}")
    return shape


def parse(source: str | Path | bytes) -> Source:
    """The model of a file or of its bytes.

    Raises:
        FileError: the file cannot be read, is no ONNX model, or has more nodes than any net.
    """
    folder = None if isinstance(source, bytes) else Path(source).parent
    data = contents(source)
    try:
        found = Source(data, folder)
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"is no whole ONNX file ({error}). It is truncated, damaged or of another kind") from None
    if not found.model.graph.output:
        raise FileError("holds no graph with an output. It is truncated, damaged or of another kind")
    if found.model.graph.has("sparse_initializer"):
        raise FileError("has sparse constants, which are not supported; make them dense")
    return found


def contents(source: str | Path | bytes) -> memoryview:
    """A file's bytes, where the system has them.

    Raises:
        FileError: it cannot be read, or is too large to be a net.
    """
    if isinstance(source, bytes):
        return memoryview(source)
    path = Path(source)
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


@contextmanager
def named_after(source: str | Path | bytes) -> Iterator[None]:
    """Let errors begin with the file's name."""
    try:
        yield
    except ConvolveError as error:
        raise type(error)(str(error) if isinstance(source, bytes) else f"{source}: {error}") from None
