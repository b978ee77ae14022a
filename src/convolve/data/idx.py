"""IDX, the format of MNIST: two zero bytes, a type, a rank, the sizes as big-endian uint32, then the values.

A header is never believed: what it claims is held against what the file can hold before anything is allocated.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convolve.data.dataset import Dataset, channels_last, numbered_classes
from convolve.errors import FileError

_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MOST_DIMENSIONS = 8
_BLOCK = 1 << 20

# Deflate packs at most 1032 bytes into one: nothing in a .gz (or a .zip) can be larger than this times the file.
DEFLATE = 1032

# How the four files of a set in MNIST's manner are called, each with or without .gz and with - or . before "idx".
_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an IDX file, gzipped or plain, in the machine's byte order.

    Raises:
        FileError: the file is missing, truncated, too long, damaged or no IDX file; the message names it and says what
            was found and what was expected.
    """
    path = Path(path)
    with opened(path) as (stream, most):
        head = stream.read(4)
        dtype = _TYPES.get(head[2]) if len(head) == 4 and head[:2] == b"\0\0" else None
        if dtype is None:
            types = ", ".join(f"{code:#04x}" for code in _TYPES)
            raise FileError(
                f"{path}: not an IDX file: starts with the bytes {head.hex(' ') or '(none)'}; expected 00 00, a type "
                f"({types}) and the number of dimensions."
            )
        if not 1 <= head[3] <= _MOST_DIMENSIONS:
            raise FileError(f"{path}: claims {head[3]} dimensions; expected 1 to {_MOST_DIMENSIONS}. It is damaged.")
        sizes = stream.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise FileError(f"{path}: ends within its header, after {4 + len(sizes)} bytes. Get the whole file.")
        shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
        claim = f"its header claims {'x'.join(map(str, shape))} values of {dtype.itemsize} bytes"
        wanted = math.prod(shape) * dtype.itemsize
        if wanted == 0:
            raise FileError(f"{path}: is empty: {claim}. Expected at least one value.")
        if wanted > most:
            raise FileError(f"{path}: {claim}, but a file of this size holds at most {most:,} bytes. It is damaged.")
        data = _read_up_to(stream, wanted + 1)
    if len(data) != wanted:
        found = f"only {len(data):,} bytes follow" if len(data) < wanted else "more bytes follow"
        raise FileError(f"{path}: {claim}, {wanted:,} bytes, but {found}. It is truncated or damaged: get it anew.")
    array: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_idx(
    train: Sequence[str | os.PathLike[str]],
    test: Sequence[str | os.PathLike[str]] | None = None,
    *,
    name: str,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """The set in a pair (images, labels) of IDX files to train on, and perhaps a pair to test on.

    Images of (n, height, width) get their one channel. Without `classes`, the classes are called "0", "1", ...

    Raises:
        FileError: a file that `read_idx` does not take.
        DataError, ShapeError: what `Dataset` does not take.
    """
    x_train, y_train = map(read_idx, train)
    x_test, y_test = map(read_idx, test) if test else (None, None)
    return Dataset(
        name,
        channels_last(x_train),
        y_train,
        None if x_test is None else channels_last(x_test),
        y_test,
        classes or numbered_classes(f"{name}: labels", y_train, y_test),
    )


def idx_files(folder: Path) -> list[Path]:
    """The IDX files of a folder in MNIST's naming: four, the two to train on, or none.

    Raises:
        FileError: images without their labels, or labels without their images.
    """
    found = [_find(folder, part) for part in _PARTS]
    pairs = [found[:2], found[2:]]
    for pair, names in zip(pairs, (_PARTS[:2], _PARTS[2:]), strict=True):
        if (pair[0] is None) != (pair[1] is None):
            here, missing = names if pair[1] is None else names[::-1]
            raise FileError(f"{folder}: has {here} but not {missing}; expected both, plain or as .gz.")
    if pairs[0][0] is None and pairs[1][0] is not None:
        raise FileError(f"{folder}: has the test files but not {_PARTS[0]} and {_PARTS[1]}; expected them, too.")
    return [path for path in found if path is not None]


@contextmanager
def opened(path: Path, gunzip: bool = True) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, int]]:
    """A file's bytes, gunzipped if its content is gzip's (and `gunzip`), and the most bytes that there can be.

    Raises:
        FileError: the file cannot be read or, at any time inside the block, turns out to be damaged.
    """
    try:
        with path.open("rb") as raw:
            packed = gunzip and raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            size = os.fstat(raw.fileno()).st_size
            if packed:
                with gzip.open(raw) as stream:
                    yield stream, size * DEFLATE
            else:
                yield raw, size
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}). Check the name and the file.") from error
    except (EOFError, zlib.error) as error:
        raise FileError(f"{path}: its gzip packing is truncated or damaged ({error}). Get the file anew.") from error


def _read_up_to(stream: IO[bytes] | gzip.GzipFile, limit: int) -> bytearray:
    """Block by block, so that memory follows what is there and not what was asked for."""
    data = bytearray()
    while len(data) < limit and (block := stream.read(min(_BLOCK, limit - len(data)))):
        data += block
    return data


def _find(folder: Path, part: str) -> Path | None:
    stems = (part, part.replace("-idx", ".idx"))
    return next((p for s in stems for p in (folder / f"{s}.gz", folder / s) if p.is_file()), None)
