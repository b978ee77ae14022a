"""Samples from files: read by threads, when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convolve.data.copies import Copies
from convolve.data.files import Labelled
from convolve.data.kinds import Form
from convolve.errors import FileError
from convolve.native.workers import default_threads
from convolve.source import Rows, fingerprint, rows

T = TypeVar("T")


def attempted(function: Callable[[Path], T], paths: Sequence[Path], strict: bool) -> list[T | FileError]:
    """What a function makes of each file, by threads, or the error that it ended in; with `strict`, that is raised."""

    def attempt(path: Path) -> T | FileError:
        try:
            return function(path)
        except FileError as error:
            if strict:
                raise
            return error

    with ThreadPoolExecutor(default_threads(), "convolve-files") as threads:
        return list(threads.map(attempt, paths))


class Loader:
    """The samples of labelled files, as a `convolve.source.Source`.

    A file that turns out to be broken is stood in for by the next of its class, the same one each time, and listed in
    `broken`; with `strict` its error is raised.
    """

    def __init__(
        self, files: Sequence[Labelled], form: Form, strict: bool = False, copies: Copies | None = None
    ) -> None:
        self.files, self.form, self.strict = tuple(files), form, strict
        self.broken: dict[int, FileError] = {}
        self._copies = copies or Copies()

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.files), *self.form.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.form.dtype)

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(default_threads(), "convolve-files")

    def batch(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The samples of these files.

        Raises:
            FileError: with `strict`, a file that is broken; without, a class of which no file can be read.
        """
        made = np.empty((len(indices), *self.form.shape), self.dtype)

        def read(place: int) -> None:
            made[place] = self._stood_for(int(indices[place]))

        for _ in self._threads.map(read, range(len(indices))):
            pass
        return made

    def fingerprint(self) -> bytes:
        """A digest of the files' names, sizes and classes, and of the form."""
        digest = hashlib.sha256(repr(self.form).encode())
        for file in self.files:
            digest.update(f"\0{file.name}|{file.label}|{file.path.stat().st_size}".encode("utf-8", "surrogateescape"))
        return digest.digest()

    def everything(self) -> tuple[NDArray[Any], dict[int, FileError]]:
        """All samples, and what is wrong with those that could not be read: their rows are to be left out.

        Raises:
            FileError: with `strict`, the first such error.
        """
        made = np.empty(self.shape, self.dtype)

        def read(row: int) -> None:
            sample = self._read(row)
            if sample is not None:
                made[row] = sample

        for _ in self._threads.map(read, range(len(self))):
            pass
        return made, self.broken

    def check(self) -> dict[int, FileError]:
        """What is wrong with samples that cannot be read; nothing is kept but copies on disk.

        Raises:
            FileError: with `strict`, the first such error.
        """
        for _ in self._threads.map(lambda row: self._read(row) is None, range(len(self))):
            pass
        return self.broken

    def _read(self, row: int) -> NDArray[Any] | None:
        if row in self.broken:
            return None
        try:
            return self._copies.read(self.files[row].path, self.form)
        except FileError as error:
            if self.strict:
                raise
            self.broken[row] = error
            return None

    def _stood_for(self, row: int) -> NDArray[Any]:
        """A row's sample, or that of the next file of its class that can be read."""
        sample = self._read(row)
        if sample is not None:
            return sample
        for other in self._others(row):
            sample = self._read(other)
            if sample is not None:
                return sample
        raise self.broken[row]

    def _others(self, row: int) -> list[int]:
        alike = [i for i, file in enumerate(self.files) if file.label == self.files[row].label and i != row]
        return [i for i in alike if i > row] + [i for i in alike if i < row]


@dataclass(frozen=True, eq=False)
class Numbered:
    """Masks as class numbers, int32: of each of the `values` that they hold, which grow, the number beside it."""

    masks: Rows
    values: NDArray[Any]
    numbers: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.masks.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32)

    def __len__(self) -> int:
        return len(self.masks)

    def batch(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The masks of these numbers."""
        found = np.searchsorted(self.values, rows(self.masks, indices))
        return np.asarray(self.numbers[found], np.int32)

    def fingerprint(self) -> bytes:
        """A digest of the masks' files, values and numbers."""
        held = self.values.astype(np.int64).tobytes() + self.numbers.astype(np.int64).tobytes()
        return hashlib.sha256(fingerprint(self.masks) + held).digest()


def renumbered(y: Any, places: NDArray[Any]) -> Any:
    """Labels, or masks, by other class numbers: those at the places of theirs."""
    return places[y] if isinstance(y, np.ndarray) else replace(y, numbers=places[y.numbers])
