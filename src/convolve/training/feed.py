"""The batches of an epoch, one after the other: rows chosen, augmented, and where they must be made, made ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.augment import Pipeline
from convolve.source import Pairs, Rows, ahead

GROUP, GROUP_BYTES = 16, 1 << 22
"""Batches of an array that are augmented at once, and the bytes that these come to at most."""
MEASURED = 20
"""Steps over which waiting is measured, unless they take longer than ..."""
SECONDS = 5.0


@dataclass(eq=False)
class Feed:
    """Samples and targets for training, a batch at a time."""

    x: Rows
    y: Any
    """An array, a source, or `convolve.source.Derived` of `x`."""
    batch_size: int
    augment: Pipeline | None = None
    seed: int = 0
    threads: int | None = None
    waited: float = 0.0
    """Seconds that training stood still until a batch was there, its augmentation included."""

    def epoch(
        self, order: NDArray[np.integer[Any]], step: int = 0, first: int = 0
    ) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """(position, samples, targets) of each batch from the `first` on; the epoch begins with step number `step`."""
        left = order[first * self.batch_size :]
        made = self._of_array(left, step + first) if isinstance(self.x, np.ndarray) else self._ahead(left, step + first)
        for position in range(first, -(-len(order) // self.batch_size)):
            began = time.perf_counter()
            x, y = next(made)
            self.waited += time.perf_counter() - began
            yield position, x, labels_of(y)

    def _of_array(self, rows: NDArray[np.integer[Any]], step: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Batches of samples that lie in memory; they are augmented several at a time."""
        assert isinstance(self.x, np.ndarray)
        size = self.batch_size
        group = max(1, min(GROUP, GROUP_BYTES // max(1, size * self.x[:1].nbytes))) if self.augment else 1
        for first in range(0, len(rows), group * size):
            chosen = rows[first : first + group * size]
            number = step + first // size
            if self.augment is None or not isinstance(self.y, np.ndarray):
                x, y = Pairs(self.x, self.y).batch(chosen)
                if self.augment is not None:
                    x, y = self.augment.apply(x, y, self.seed, number, threads=self.threads, batch=size)
            else:
                x, y = self.augment.apply(self.x, self.y, self.seed, number, chosen, self.threads, size)
            for i in range(0, len(chosen), size):
                yield x[i : i + size], y[i : i + size]

    def _ahead(self, rows: NDArray[np.integer[Any]], step: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Batches of a source, read in a thread of their own, targets with their samples where they must be read."""
        size = self.batch_size
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        for number, (x, y) in enumerate(ahead(Pairs(self.x, self.y).batch, batches)):
            yield (
                (x, y)
                if self.augment is None
                else self.augment.apply(x, y, self.seed, step + number, threads=self.threads)
            )


def labels_of(y: NDArray[Any]) -> NDArray[Any]:
    """Targets of a batch as a step takes them: masks lie as bytes, and become int32."""
    return y.astype(np.int32) if y.dtype == np.uint8 else y


def waiting(feed: Feed, step: Callable[[NDArray[Any], NDArray[Any]], object]) -> float:
    """The share of its time that `step` stands still for data, in as many steps as a measurement needs.

    The first step, which may compile, and the batch before it, which nothing could hide, do not count.
    """
    began, steps = 0.0, 0
    for _, x, y in feed.epoch(np.arange(len(feed.x))):
        step(x, y)
        if steps == 0:
            began, feed.waited = time.perf_counter(), 0.0
        steps += 1
        if steps > MEASURED or time.perf_counter() - began > SECONDS:
            break
    elapsed = time.perf_counter() - began
    return feed.waited / elapsed if steps > 1 else 0.0
