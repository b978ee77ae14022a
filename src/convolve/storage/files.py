"""Files of tensors with a header: safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import reprlib
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from convolve.errors import FileError

FORMAT_VERSION = 1
READABLE = (1,)
"""Versions of the format that `load` reads: every one there ever was."""


def save(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], header: Mapping[str, object]) -> None:
    """Write tensors and a header to a safetensors file: whole, or not at all. Equal contents are equal files.

    Args:
        path: of the file, which may exist; a link is followed.
        tensors: by name, float32 (int64 for the state of random numbers).
        header: anything that JSON can hold; `format_version` is added.

    Raises:
        FileError: the file cannot be written. What was there before is unchanged, and nothing else is left.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(f"{folder.name}/a.safetensors", {"x": np.ones(2, np.float32)}, {"net": None})
    >>> load(f"{folder.name}/a.safetensors")
    ({'x': array([1., 1.], dtype=float32)}, {'format_version': 1, 'net': None})
    >>> folder.cleanup()
    """
    with _named(path):
        data = dumps(tensors, header)
    write(path, data)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Give a file, which may exist, new contents: whole, or not at all; a link is followed.

    Raises:
        FileError: the file cannot be written. What was there before is unchanged, and nothing else is left.
    """
    try:
        _replace(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise FileError(f"{path}: cannot be written ({_reason(error)}). {_advice(error)}") from None


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the header of a file that `save` wrote.

    Raises:
        FileError: the file is missing, damaged, of another kind or of another version; the message says which.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder or a device")
        data = Path(path).read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        raise FileError(f"{path}: cannot be read ({_reason(error)}). Check the name") from None
    with _named(path):
        return loads(data)


def dumps(tensors: Mapping[str, np.ndarray], header: Mapping[str, object]) -> bytes:
    """What `save` writes, as bytes.

    Raises:
        FileError: a tensor or the header is nothing that a file can hold.
    """
    arrays = {}
    for name, array in sorted(tensors.items()):
        if array.dtype not in DTYPES:
            raise FileError(f"tensor {name!r}: expected float32 or int64. Received: {array.dtype}")
        arrays[name] = np.asarray(array, order="C")
    try:
        text = json.dumps(
            {**header, "format_version": FORMAT_VERSION}, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return safetensors.numpy.save(arrays, {KEY: text})
    except (TypeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise FileError(
            f"the header or a name cannot be written ({error}). JSON holds finite numbers, strings, true, false, null, "
            "lists, and objects with strings as keys"
        ) from None


def loads(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `load` reads, from bytes."""
    try:
        tensors = safetensors.numpy.load(data)
    except KeyError as error:
        raise FileError(f"holds a tensor of type {error}; expected float32 or int64") from None
    except (safetensors.SafetensorError, ValueError, MemoryError) as error:
        raise FileError(
            f"is no whole safetensors file ({error}). It is truncated, damaged or of another kind: save or get it anew"
        ) from None
    header = _header(data)
    for name, array in tensors.items():
        if array.dtype not in DTYPES:
            raise FileError(f"tensor {name!r}: expected float32 or int64. Received: {array.dtype}")
    return dict(sorted(tensors.items())), header


KEY = "convolve"
"""The one metadata key."""
DTYPES = (np.float32, np.int64)


def _header(data: bytes) -> dict[str, Any]:
    """The JSON under our key, from a file that safetensors found whole: 8 bytes of length, then JSON, then tensors."""
    size = int.from_bytes(data[:8], "little")
    try:
        text = (json.loads(data[8 : 8 + size]).get("__metadata__") or {}).get(KEY)
        if text is None:
            raise FileError(
                f"is a safetensors file without the metadata key {KEY!r}: not written by convolve. Load it with the "
                "library that wrote it"
            )
        header = json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"its metadata {KEY!r} is not the JSON that convolve writes ({error}). It is damaged") from None
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is not int or version not in READABLE:
        raise FileError(
            f"expected format_version {' or '.join(map(str, READABLE))}, which this version of convolve reads. "
            f"Received: {reprlib.repr(version)}; a newer convolve may read it"
        )
    return dict(header)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice among {reprlib.repr([key for key, _ in pairs])}")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


@contextlib.contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors begin with the file's name."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{path}: {error}") from None


def _replace(path: Path, data: bytes) -> None:
    """Give a file new contents at once: a reader, or a machine that stops, sees the old ones or the new ones."""
    if path.exists() and not path.is_file():
        raise IsADirectoryError(errno.EISDIR, "it is a folder or a device")
    temporary = path.parent / f".convolve-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every platform can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


ADVICE: dict[int | None, str] = {
    errno.ENOENT: "Make the folder first, or choose another one",
    errno.ENOTDIR: "A part of its folder's name is a file: choose another folder",
    errno.EISDIR: "Give the name of a file",
    errno.ENOSPC: "Make room on the disk, or choose another one",
    errno.EDQUOT: "Make room in your quota, or choose another disk",
    errno.EFBIG: "The system's limit for files is lower: raise it, or choose another disk",
}


def _advice(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return f"{ADVICE.get(number, 'Choose a place where you may write')}; what was there before is unchanged"


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
