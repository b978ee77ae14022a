"""Random numbers by counting: each is a function of (seed, step, place in the list, row, number)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
MASK = 2**64 - 1


def mix(z: Keys) -> Keys:
    """The output function of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _plus(keys: Keys, number: int) -> Keys:
    return np.asarray(keys + np.uint64(number), np.uint64)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one augmentation, a row each: of one step's batch, or of several steps, `batch` rows each.

    >>> bool((Draws(0, 7, 1, 5, batch=3).uniform()[3:] == Draws(0, 8, 1, 2).uniform()).all())
    True
    """

    seed: int
    step: int
    place: int
    rows: int
    batch: int | None = None

    @property
    def keys(self) -> Keys:
        """A 64-bit number a row."""
        with np.errstate(over="ignore"):
            steps, rows = np.divmod(np.arange(self.rows, dtype=np.uint64), np.uint64(self.batch or self.rows or 1))
            key = _plus(mix(np.array([self.seed & MASK], np.uint64)) + steps, self.step)
            return mix(np.add(mix(_plus(mix(key), self.place)), rows))

    def uniform(self, count: int = 1) -> NDArray[np.float64]:
        """Numbers from 0 up to 1, (rows, count).

        >>> bool((Draws(0, 7, 1, 3).uniform(2)[:2] == Draws(0, 7, 1, 2).uniform(2)).all())
        True
        """
        with np.errstate(over="ignore"):
            numbers = mix(np.add(self.keys[:, None], np.arange(1, count + 1, dtype=np.uint64)))
        return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def shuffled(self) -> NDArray[np.intp]:
        """(rows,): the rows of each batch in another order."""
        return np.lexsort((self.keys, np.arange(self.rows) // (self.batch or self.rows or 1)))

    def between(self, low: float, high: float, count: int = 1) -> NDArray[np.float64]:
        """Numbers from `low` up to `high`, (rows, count)."""
        return low + (high - low) * self.uniform(count)
