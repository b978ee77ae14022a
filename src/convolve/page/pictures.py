"""Activations as small pictures: flat rows become pictures, large maps are averaged, numbers become bytes."""

from __future__ import annotations

import math

import numpy as np


def flat(maps: np.ndarray) -> np.ndarray:
    """A row of values (n,) as one map (rows, columns, 1), nearly square, NaN where nothing is left; maps stay.

    >>> flat(np.arange(5.0))[..., 0]
    array([[ 0.,  1.,  2.],
           [ 3.,  4., nan]])
    """
    if maps.ndim > 1:
        return maps
    columns = math.ceil(math.sqrt(len(maps)))
    rows = -(-len(maps) // columns)
    made = np.full(rows * columns, np.nan, maps.dtype)
    made[: len(maps)] = maps
    return made.reshape(rows, columns, 1)


def sliced(maps: np.ndarray, depth: float | None) -> np.ndarray:
    """Of maps with more than two spatial dimensions (*spatial, channels) the slice at this part of the first ones.

    All of them, where no depth is given.
    """
    while maps.ndim > 3 and depth is not None:
        maps = maps[int(depth * (len(maps) - 1) + 0.5)]
    return maps


def shrunk(pictures: np.ndarray, most: int) -> np.ndarray:
    """Pictures (n, *spatial, channels) with at most so many positions a dimension: means over the positions between.

    >>> shrunk(np.arange(6.0).reshape(1, 6, 1), 3).ravel()
    array([0.5, 2.5, 4.5])
    """
    for axis in range(1, pictures.ndim - 1):
        size = pictures.shape[axis]
        if size > most:
            first = np.arange(most) * size // most
            counts = np.diff(first, append=size).reshape(-1, *(1,) * (pictures.ndim - 1 - axis))
            pictures = np.add.reduceat(pictures, first, axis, dtype=np.float32) / counts
    return pictures


def quantised(maps: np.ndarray, scale: float) -> np.ndarray:
    """Numbers from -scale to scale as bytes 1 .. 255, 128 for zero; 0 stands for what is no number.

    >>> quantised(np.array([-2.0, 0.0, 1.0, np.nan]), 2.0)
    array([  1, 128, 192,   0], dtype=uint8)
    """
    grown = np.rint(maps * (127 / scale if scale else 0.0)) + 128
    return np.where(np.isfinite(grown), np.clip(np.nan_to_num(grown), 1, 255), 0).astype(np.uint8)


def value_range(samples: np.ndarray) -> tuple[float, float]:
    """The values that count as black and as white: those of bytes, or the least and the largest."""
    if samples.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(samples.min()), float(samples.max())
    return (low, high) if high > low else (low, low + 1.0)
