"""Rows that are made when they are asked for: what stands in for an array that memory does not hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray


@runtime_checkable
class Source(Protocol):
    """Samples by number. `Model.fit`, `evaluate` and `predict` take one in place of an array.

    Anything with these four will do: a reader of a database, a generator of pictures. The same numbers must give the
    same bits each time, or a run cannot be repeated. `batch` is called from one other thread while the net trains.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *spatial, channels), as of the array that this stands for."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or float32."""

    def __len__(self) -> int: ...

    def batch(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The samples of these numbers, in this order: a new contiguous array (len(indices), *spatial, channels)."""


Rows: TypeAlias = "NDArray[Any] | Source"
"""Samples in memory, or made when asked for."""


@dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of a source, in an order of its own."""

    source: Source
    indices: NDArray[np.intp] = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.indices), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Those rows, by their numbers here."""
        return self.source.batch(self.indices[indices])


def subset(x: Rows, indices: ArrayLike) -> Rows:
    """Some rows: of an array at once, of a source when they are asked for.

    >>> subset(np.arange(4) * 10, [3, 1])
    array([30, 10])
    """
    chosen = np.asarray(indices, np.intp)
    if isinstance(x, np.ndarray):
        return x[chosen]
    return Subset(x.source, x.indices[chosen]) if isinstance(x, Subset) else Subset(x, chosen)


def batch(x: Rows, start: int, stop: int) -> NDArray[Any]:
    """Rows start to stop as an array; fewer at the end.

    >>> batch(np.arange(5), 3, 9)
    array([3, 4])
    """
    return x[start:stop] if isinstance(x, np.ndarray) else x.batch(np.arange(start, min(stop, len(x))))
