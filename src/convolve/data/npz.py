"""NPZ: a zip of NumPy arrays called x_train, y_train, x_test, y_test.

The members are read here and not by `numpy.load`, which allocates what a header claims before it looks at what is
there, and whose errors do not name the file.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convolve.data.dataset import Dataset, Task, channels_last, numbered_classes
from convolve.data.idx import DEFLATE
from convolve.errors import FileError

if TYPE_CHECKING:
    from zipfile import ZipFile

_KEYS = ("x_train", "y_train", "x_test", "y_test")

# A .npy member: magic, version, the length of the text (2 bytes in version 1, then 4), the text, the values.
_HEAD = re.compile(rb"\x93NUMPY(?:\x01.(..)|[\x02\x03].(....))", re.DOTALL)
_TEXT = re.compile(
    rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \((\d{1,18}(?:, ?\d{1,18})*)?,?\),? *\}\s*"
)
_PLAIN = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|U\d{1,6})")


def load_npz(path: str | os.PathLike[str], task: Task | None = None) -> Dataset:
    """The set in a .npz with the arrays x_train, y_train, x_test and y_test, as `numpy.savez` writes it.

    Images are (n, height, width, channels), grey ones also (n, height, width); signals of one channel are (n, length).
    x_test and y_test may both be absent. An array of strings `classes` names the classes, which are otherwise called
    "0", "1", ... Other arrays are left alone. Nothing is unpickled.

    What y holds says what is to be learnt, unless `task` does: a class for each place of x (segment) where it has x's
    shape without channels; several labels at once where it has zeros and ones (n, labels), not one 1 in each row;
    values (regress) where it has a number that is not whole, or is (n, values); else a class (n,).

    Raises:
        FileError: the file is missing, truncated or damaged, an array is absent or holds objects.
        DataError, ShapeError: what `Dataset` does not take.
    """
    path = Path(path)
    arrays = _read(path)
    x_train, y_train = channels_last(arrays["x_train"]), arrays["y_train"]
    x_test, y_test = arrays.get("x_test"), arrays.get("y_test")
    found = _task_of(x_train, y_train) if task in (None, "autoencode") else task
    if found in ("labels", "regress"):
        y_train = y_train if y_train.ndim > 1 else y_train[:, None]
        y_test = y_test if y_test is None or y_test.ndim > 1 else y_test[:, None]
    if "classes" in arrays:
        classes = _class_names(path, arrays["classes"])
    elif found in ("labels", "regress"):
        count = y_train.shape[1]
        classes = ("value",) if (found, count) == ("regress", 1) else tuple(str(i) for i in range(count))
    else:
        segment = found == "segment"
        flat = [y.reshape(-1) if segment and y is not None else y for y in (y_train, y_test)]
        classes = numbered_classes(f"{path.name}: labels", *flat)
    return Dataset(
        path.name,
        x_train,
        y_train,
        None if x_test is None else channels_last(x_test),
        y_test,
        classes,
        task=found or "classify",
    )


def _task_of(x: NDArray[Any], y: NDArray[Any]) -> Task:
    """What targets are for, by their shape and their values."""
    if y.dtype.kind not in "buif" or not y.size:
        return "classify"
    if y.ndim > 1 and y.shape == x.shape[:-1]:
        return "segment"
    if y.ndim == 2 and y.shape[1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(1) != 1).any():
        return "labels"
    whole = y.dtype.kind != "f" or bool((y == np.floor(y)).all())
    return "classify" if whole or not np.isfinite(y).all() or y.ndim > 2 else "regress"


def _read(path: Path) -> dict[str, NDArray[Any]]:
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            _require_keys(path, names)
            return {key: _member(path, archive, key) for key in (*_KEYS, "classes") if key in names}
    except FileError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}). Check the name.") from error
    # zipfile says RuntimeError for a member that is encrypted, and lets struct's and zlib's errors pass.
    except (BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error) as error:
        raise FileError(
            f"{path}: is no whole .npz ({error}). It is truncated or damaged: get or save it anew."
        ) from error


def _require_keys(path: Path, names: list[str]) -> None:
    wanted = _KEYS if {"x_test", "y_test"} & set(names) else _KEYS[:2]
    missing = [key for key in wanted if key not in names]
    if missing:
        raise FileError(
            f"{path}: holds {', '.join(sorted(names)) or 'nothing'}; expected {', '.join(_KEYS)}, so "
            f"{' and '.join(missing)} must be added: numpy.savez_compressed(file, {missing[0]}=..., ...)."
        )


def _member(path: Path, archive: ZipFile, key: str) -> NDArray[Any]:
    from zipfile import ZIP_DEFLATED, ZIP_STORED

    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise FileError(f"{path}: {key} is packed by zip method {info.compress_type}; expected stored or deflated.")
    most = path.stat().st_size * (DEFLATE if info.compress_type == ZIP_DEFLATED else 1)
    if info.file_size > most:
        raise FileError(
            f"{path}: {key} claims {info.file_size:,} bytes, but a file of this size holds at most {most:,}."
        )
    return parse_npy(f"{path}: {key}", archive.read(info))


def read_npy(path: Path) -> NDArray[Any]:
    """The array in a .npy file. Nothing is unpickled.

    Raises:
        FileError: the file is missing, damaged, empty, or holds objects.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}). Check the name.") from error
    return parse_npy(str(path), data)


def parse_npy(name: str, data: bytes) -> NDArray[Any]:
    """The array in a .npy file's bytes; `name` is what the errors call it.

    Raises:
        FileError: the bytes are damaged, empty, or hold objects.
    """
    head = _HEAD.match(data)
    start = head.end() if head else 0
    end = start + int.from_bytes(head[1] or head[2], "little") if head else 0
    text = _TEXT.fullmatch(data[start:end])
    kind = text[1].decode("ascii", "replace") if text else "unknown"
    if text is None or not _PLAIN.fullmatch(kind):
        advice = "Objects would need unpickling, which is never done: save" if "O" in kind else "Save"
        raise FileError(f"{name} is of type {kind}; expected a plain array. {advice} it as numbers.")
    dtype = np.dtype(kind)
    shape = tuple(int(size) for size in (text[3] or b"").replace(b",", b" ").split())
    wanted = math.prod(shape) * dtype.itemsize
    if wanted == 0:
        raise FileError(f"{name} is empty (shape {shape} of {kind}); expected at least one value.")
    if wanted != len(data) - end:
        raise FileError(
            f"{name} claims shape {shape} of {dtype}, {wanted:,} bytes, but holds {len(data) - end:,}. "
            "It is damaged: get or save it anew."
        )
    return np.frombuffer(data, dtype, offset=end).reshape(shape, order="F" if text[2] == b"True" else "C")


def _class_names(path: Path, names: NDArray[Any]) -> tuple[str, ...]:
    try:
        return tuple(str(name) for name in names.ravel())
    except ValueError as error:  # four bytes that are no character
        raise FileError(f"{path}: classes are no strings ({error}); expected one name a class.") from error
