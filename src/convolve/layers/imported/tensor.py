"""Values whose axes lie otherwise than the file says: channels last inside, whatever the file's order of dimensions.

A `Tensor` is a graph value with a note of which of its axes each of the file's dimensions is made of. So most changes
of shape cost nothing: a transposition permutes the note, a flattening joins notes, and only who needs elements in a
certain order (`arranged`) makes a real transposition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from convolve.graph import Shape, Value
from convolve.ops.layout import transpose
from convolve.ops.reduce import reshape_to

Dims = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value in the making: dimension d of the file is made of the value's axes `dims[d]`, slowest first.

    Each axis stands in one of the dimensions; a dimension of size 1 may have none.
    """

    value: Value
    dims: Dims
    dtype: str = "float32"

    @property
    def shape(self) -> Shape:
        """The shape as the file has it."""
        return tuple(math.prod(self.value.shape[a] for a in axes) for axes in self.dims)

    @property
    def rank(self) -> int:
        return len(self.dims)

    @classmethod
    def plain(cls, value: Value, dtype: str = "float32") -> Tensor:
        """A value whose axes are the file's dimensions, in order."""
        return cls(value, tuple((a,) for a in range(len(value.shape))), dtype)

    @classmethod
    def laid(cls, value: Value, order: Sequence[int], dtype: str = "float32") -> Tensor:
        """A value whose axis i is the file's dimension `order[i]`."""
        return cls(value, tuple((order.index(d),) for d in range(len(order))), dtype)

    def like(self, value: Value, dtype: str | None = None) -> Tensor:
        """Another value laid out as this one."""
        return Tensor(value, self.dims, dtype or self.dtype)

    def arranged(self, groups: Sequence[Sequence[int]]) -> Value:
        """The value with one axis for each group of the file's dimensions, slowest first."""
        axes = [a for group in groups for d in group for a in self.dims[d]]
        shape = self.shape
        return reshape_to(transpose(self.value, axes), tuple(math.prod(shape[d] for d in group) for group in groups))

    def in_order(self) -> Value:
        """The value as the file has it."""
        return self.arranged([(d,) for d in range(self.rank)])

    def refined(self, parts: Mapping[int, tuple[int, ...]]) -> Tensor:
        """The same with some axes cut into several of the given sizes."""
        cut = [parts.get(a, (n,)) for a, n in enumerate(self.value.shape)]
        if all(len(p) == 1 for p in cut):
            return self
        first = np.cumsum([0, *(len(p) for p in cut)]).tolist()
        dims = tuple(tuple(first[a] + i for a in axes for i in range(len(cut[a]))) for axes in self.dims)
        return replace(self, value=reshape_to(self.value, tuple(n for p in cut for n in p)), dims=dims)

    def cuts(self, dims: Sequence[int], sizes: Sequence[int]) -> dict[int, tuple[int, ...]] | None:
        """How to cut the axes of some dimensions, seen as one, where the products of `sizes` go on.

        None where such a point is inside of what cannot be divided.
        """
        points = {math.prod(sizes[i:]) for i in range(len(sizes) + 1)}
        axes = [a for d in dims for a in self.dims[d]]
        after = math.prod(self.value.shape[a] for a in axes)
        parts: dict[int, tuple[int, ...]] = {}
        for axis in axes:
            before, after = after, after // self.value.shape[axis]
            here = sorted({before, after, *(p for p in points if after < p < before)}, reverse=True)
            pairs = list(pairwise(here))
            if any(a % b for a, b in pairs):
                return None
            parts[axis] = tuple(a // b for a, b in pairs) or (1,)
        return parts

    def single(self, d: int) -> tuple[Tensor, int]:
        """The same with dimension d on one axis, and that axis."""
        axes = [a for a in self.dims[d] if self.value.shape[a] != 1] or list(self.dims[d][:1])
        if len(axes) == 1 and len(self.dims[d]) == 1:
            return self, axes[0]
        if not axes:
            return self._inserted(d)
        rest = [a for a in range(len(self.value.shape)) if a not in self.dims[d]]
        place = sum(a < axes[-1] for a in rest)
        order = [*rest[:place], *self.dims[d], *rest[place:]]
        size = math.prod(self.value.shape[a] for a in self.dims[d])
        shape = (*(self.value.shape[a] for a in rest[:place]), size, *(self.value.shape[a] for a in rest[place:]))
        moved = {a: i if i < place else i + 1 for i, a in enumerate(rest)}
        dims = tuple((place,) if e == d else tuple(moved[a] for a in of) for e, of in enumerate(self.dims))
        return replace(self, value=reshape_to(transpose(self.value, order), shape), dims=dims), place

    def _inserted(self, d: int) -> tuple[Tensor, int]:
        """The same with an axis of size 1 for dimension d, which has none: behind those of the dimensions before."""
        place = max((a + 1 for axes in self.dims[:d] for a in axes), default=0)
        shape = (*self.value.shape[:place], 1, *self.value.shape[place:])
        dims = tuple((place,) if e == d else tuple(a + (a >= place) for a in axes) for e, axes in enumerate(self.dims))
        return replace(self, value=reshape_to(self.value, shape), dims=dims), place

    def expanded(self, rank: int) -> Tensor:
        """The same with dimensions of size 1 in front, so that there are `rank`."""
        return replace(self, dims=((),) * (rank - self.rank) + self.dims)

    def transposed(self, order: Sequence[int]) -> Tensor:
        return replace(self, dims=tuple(self.dims[d] for d in order))

    def reshaped(self, shape: Shape) -> Tensor:
        """The same elements in the file's order under another shape."""
        pieces = matched(self.shape, shape)
        parts: dict[int, tuple[int, ...]] = {}
        for old, new in pieces:
            cut = self.cuts(old, [shape[d] for d in new])
            if cut is None:
                return Tensor.plain(reshape_to(self.in_order(), shape), self.dtype)
            parts |= cut
        fine = self.refined(parts)
        dims: list[tuple[int, ...]] = [()] * len(shape)
        for old, new in pieces:
            axes = [a for d in old for a in fine.dims[d]]
            for d in new:
                size = 1
                while axes and size * fine.value.shape[axes[0]] <= shape[d] and (size < shape[d] or d == new[-1]):
                    size *= fine.value.shape[axes[0]]
                    dims[d] = (*dims[d], axes.pop(0))
        return replace(fine, dims=tuple(dims))._without_spare()

    def _without_spare(self) -> Tensor:
        """The same without the axes of size 1 that no dimension has."""
        kept = sorted(a for axes in self.dims for a in axes)
        if len(kept) == len(self.value.shape):
            return self
        place = {a: i for i, a in enumerate(kept)}
        dims = tuple(tuple(place[a] for a in axes) for axes in self.dims)
        return replace(self, value=reshape_to(self.value, tuple(self.value.shape[a] for a in kept)), dims=dims)


def matched(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Which dimensions of two shapes of one size hold the same elements: the finest pairs of runs.

    >>> matched((2, 3, 4), (6, 2, 2))
    [([0, 1], [0]), ([2], [1, 2])]
    """
    pieces = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(a), j + len(b)
        left, right = math.prod(old[d] for d in a), math.prod(new[d] for d in b)
        while left != right:
            if left < right:
                a, left, i = [*a, i], left * old[i], i + 1
            else:
                b, right, j = [*b, j], right * new[j], j + 1
        pieces.append((a, b))
    return pieces
