"""Rows that are made when they are asked for: what stands in for an array that memory does not hold."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Read = TypeVar("Read")
AHEAD = 3
"""Batches of a source that are asked for before they are needed."""


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


@runtime_checkable
class Derived(Protocol):
    """Targets that are made of the samples: a source besides, but where both are wanted, samples are read once."""

    def of(self, samples: NDArray[Any]) -> NDArray[Any]:
        """The targets of these samples."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Samples and targets, read together."""

    x: Rows
    y: Any
    """An array, a source, or `Derived` of `x`."""

    def batch(self, indices: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The samples of these numbers, and their targets."""
        samples = rows(self.x, indices)
        return samples, self.y.of(samples) if isinstance(self.y, Derived) else rows(self.y, indices)

    def in_order(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """All of them, `size` at a time; where something must be read, ahead.

        >>> [(x.tolist(), y.tolist()) for x, y in Pairs(np.arange(3), np.array([1, 0, 1])).in_order(2)]
        [([0, 1], [1, 0]), ([2], [1])]
        """
        batches = (np.arange(i, min(i + size, len(self.x))) for i in range(0, len(self.x), size))
        if isinstance(self.x, np.ndarray) and isinstance(self.y, np.ndarray):
            return map(self.batch, batches)
        return ahead(self.batch, batches)


def rows(x: Rows, indices: ArrayLike) -> NDArray[Any]:
    """Rows of these numbers, as an array."""
    chosen = np.asarray(indices, np.intp)
    return x[chosen] if isinstance(x, np.ndarray) else x.batch(chosen)


def fingerprint(x: Rows) -> bytes:
    """A digest of samples, by which a resumed run knows its data: of an array its values, of a source its own word.

    A source that has no method `fingerprint` is known by its shape and type.
    """
    if isinstance(x, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data).digest()
    if isinstance(x, Subset):
        return hashlib.sha256(fingerprint(x.source) + x.indices.tobytes()).digest()
    own = getattr(x, "fingerprint", None)
    return own() if own else hashlib.sha256(f"{x.shape}|{x.dtype}".encode()).digest()


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


def in_order(x: Rows, size: int) -> Iterator[NDArray[Any]]:
    """All rows, `size` at a time; those of a source are read ahead.

    >>> [part.tolist() for part in in_order(np.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    starts = range(0, len(x), size)
    if isinstance(x, np.ndarray):
        return (x[i : i + size] for i in starts)
    return ahead(x.batch, (np.arange(i, min(i + size, len(x))) for i in starts))


def ahead(
    read: Callable[[NDArray[np.integer[Any]]], Read], batches: Iterable[NDArray[np.integer[Any]]]
) -> Iterator[Read]:
    """What is read of each batch of rows, by another thread, some batches before it is needed."""
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[Future[Read]] = deque()
    thread = ThreadPoolExecutor(1, "convolve-feed")
    try:
        for chosen in batches:
            waiting.append(thread.submit(read, chosen))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def joined(x: Rows, then: Rows) -> Rows:
    """The rows of one and then of the other.

    >>> joined(np.arange(2), np.arange(3))
    array([0, 1, 0, 1, 2])
    """
    if isinstance(x, np.ndarray) and isinstance(then, np.ndarray):
        return np.concatenate([x, then])
    return Joined(x, then)


@dataclass(frozen=True, eq=False)
class Joined:
    """The rows of one source, or array, after those of another."""

    first: Rows
    second: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.first.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.first.dtype

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def batch(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Those rows, counted through both."""
        made = np.empty((len(indices), *self.shape[1:]), self.dtype)
        late = indices >= len(self.first)
        for rows, chosen, start in ((self.first, ~late, 0), (self.second, late, len(self.first))):
            places = indices[chosen] - start
            made[chosen] = rows[places] if isinstance(rows, np.ndarray) else rows.batch(places)
        return made
