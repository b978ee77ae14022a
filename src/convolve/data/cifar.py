"""CIFAR's binary files: records of one label byte (CIFAR-100: two) and 32x32 red, then green, then blue values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convolve.data.dataset import Dataset
from convolve.errors import FileError

CIFAR10 = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR100 = ("train.bin", "test.bin")
_NAMES = {CIFAR10: "batches.meta.txt", CIFAR100: "fine_label_names.txt"}
_VALUES = 3 * 32 * 32


def cifar_files(folder: Path) -> tuple[str, ...]:
    """The names of CIFAR's files in a folder: those of CIFAR-10 or of CIFAR-100, whole or not, or none."""
    return next((names for names in (CIFAR10, CIFAR100) if any((folder / name).is_file() for name in names)), ())


def load_cifar(folder: Path) -> Dataset:
    """The set in a folder with the binary files of CIFAR-10 or CIFAR-100 (its 100 fine classes), the test file last.

    Classes are named by batches.meta.txt or fine_label_names.txt where that lies beside them.

    Raises:
        FileError: a file is missing or is not a whole number of records.
    """
    names = cifar_files(folder)
    parts = []
    for name in names:
        path = folder / name
        try:
            parts.append(np.fromfile(path, np.uint8))
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror}). Expected {', '.join(names)}.") from error
    many = names == CIFAR100
    labels = folder / _NAMES[names]
    words = tuple(labels.read_text("utf-8").split()) if labels.is_file() else ()
    try:
        return cifar(folder.resolve().name, parts, words or tuple(map(str, range(100 if many else 10))), 1 + many)
    except FileError as error:
        raise FileError(f"{folder}: {error}") from None


def cifar(name: str, parts: Sequence[NDArray[np.uint8]], classes: tuple[str, ...], labels: int = 1) -> Dataset:
    """The set in the bytes of some files, the last of which is the test part; of several labels the last counts.

    Raises:
        FileError: bytes that are not a whole number of records.
    """
    records = []
    for number, part in enumerate(parts, 1):
        if part.size == 0 or part.size % (labels + _VALUES):
            raise FileError(
                f"{name}: file {number} holds {part.size:,} bytes; expected records of {labels + _VALUES:,} each. "
                "It is truncated or damaged: get it anew."
            )
        records.append(part.reshape(-1, labels + _VALUES))
    train, test = np.concatenate(records[:-1]), records[-1]
    return Dataset(name, *_split(train, labels), *_split(test, labels), classes)


def _split(records: NDArray[np.uint8], labels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, labels - 1].astype(np.int64)
