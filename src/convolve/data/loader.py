"""Samples from files: read by threads, when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convolve.data.kinds import Form
from convolve.errors import FileError
from convolve.native.workers import default_threads

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


@dataclass(frozen=True, eq=False)
class Loader:
    """The samples of files, as a `convolve.source.Source`."""

    paths: tuple[Path, ...]
    form: Form

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.paths), *self.form.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.form.dtype)

    def __len__(self) -> int:
        return len(self.paths)

    def everything(self, strict: bool) -> tuple[NDArray[Any], dict[int, FileError]]:
        """All samples, and what is wrong with those that could not be read: their rows are to be left out.

        Raises:
            FileError: with `strict`, the first such error.
        """
        made = np.empty(self.shape, self.dtype)
        broken: dict[int, FileError] = {}

        def read(row: int) -> None:
            try:
                made[row] = self.form.read(self.paths[row])
            except FileError as error:
                if strict:
                    raise
                broken[row] = error

        with ThreadPoolExecutor(default_threads(), "convolve-files") as threads:
            for _ in threads.map(read, range(len(self))):
                pass
        return made, broken
