"""Filling a batch: what each row undergoes, as arrays; the NumPy definition of that, and the native kernel's call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.augment.steps import Fill, Floats
from convolve.native.cache import dispatch
from convolve.native.job import LINE
from convolve.native.kernels.augment import NOISE_SCALE, Augment, Mix
from convolve.native.workers import Table, aligned, pool

Singles = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Mixing:
    """What is made of each row: share * its own values + (1 - share) * its partner's, and these alone in a box.

    Attributes:
        partner: (rows,) int64.
        share: (rows,) float32.
        box: (rows, rank, 2) int32.
    """

    partner: NDArray[np.int64]
    share: Singles
    box: NDArray[np.int32]

    def of_places(self, x: NDArray[Any]) -> NDArray[Any]:
        """x (rows, *spatial, ...), mixed by the definition."""
        made = _blended(x, self.share, self.partner)
        for m, box in enumerate(self.box):
            part = tuple(slice(*sides) for sides in box)
            made[m][part] = x[self.partner[m]][part]
        return made

    def of_wholes(self, y: NDArray[Any], spatial: tuple[int, ...]) -> NDArray[Any]:
        """y (rows, ...), targets of samples that are mixed: blended by each one's part of the result."""
        boxed = np.prod(self.box[..., 1] - self.box[..., 0], -1) / np.prod(spatial)
        return _blended(y, (self.share * (1 - boxed)).astype(np.float32), self.partner)


@dataclass(frozen=True, eq=False)
class Plan:
    """What each row of a batch undergoes, in this order.

    Attributes:
        map: (rows, rank, rank + 1) float32, from places in the result to places in the input.
        fill: what is seen outside of the input.
        tone: (rows, 3) float32, the factors of the value and of the grey value, and what is added.
        grey: (channels,) float32, the weights of grey.
        noise: (rows,) float32, standard deviations.
        key: (rows,) int64, of the noise.
        box: (rows, boxes, rank, 2) int32, which are filled with
        value: (boxes,) float32.
        mixings: how rows, when all of this is done, are mixed with each other, in this order.
    """

    map: Singles
    fill: Fill
    tone: Singles
    grey: Singles
    noise: Singles
    key: NDArray[np.int64]
    box: NDArray[np.int32]
    value: Singles
    mixings: tuple[Mixing, ...] = ()

    def geometry(self, channels: int) -> Plan:
        """The maps alone, for values of so many channels."""
        return replace(
            self,
            tone=np.tile(np.array([1, 0, 0], np.float32), (len(self.map), 1)),
            grey=np.zeros(channels, np.float32),
            noise=np.zeros_like(self.noise),
            box=self.box[:, :0],
            value=self.value[:0],
            mixings=(),
        )


def pixels(maps: Floats, spatial: tuple[int, ...]) -> Singles:
    """Maps between places counted from the middle, (rows, rank + 1, rank + 1), as maps of places counted from 0."""
    middle = (np.array(spatial) - 1) / 2
    linear = maps[:, :-1, :-1]
    offset = maps[:, :-1, -1] + middle - linear @ middle
    return np.concatenate([linear, offset[..., None]], -1).astype(np.float32)


def filled(plan: Plan, x: NDArray[Any], rows: NDArray[np.integer[Any]], threads: int) -> NDArray[Any]:
    """The batch of x[rows] by the native kernel.

    Args:
        plan: as many rows as `rows` has.
        x: (n, *spatial, channels), float32 or uint8, contiguous.
        rows: each at least 0 and below n.
        threads: to compute with; the bits do not depend on it.
    """
    *spatial, channels = x.shape[1:]
    made = aligned(len(rows) * int(np.prod(x.shape[1:])), x.dtype.type).reshape(len(rows), *x.shape[1:])
    arrays: dict[str, NDArray[Any]] = {"x": x, "y": made, "row": np.ascontiguousarray(rows, np.int64)}
    names = ("map", "tone", "grey", "noise", "key", "box", "value")
    arrays |= {name: np.ascontiguousarray(getattr(plan, name)) for name in names}
    numbers = {f"size{i}": size for i, size in enumerate(spatial)}
    numbers |= {"channels": channels, "boxes": plan.box.shape[1]}
    dtype = "u1" if x.dtype == np.uint8 else "f4"
    calls: list[tuple[Augment | Mix, dict[str, Any]]] = [(Augment(len(spatial), dtype, plan.fill), arrays | numbers)]
    for mixing in plan.mixings:
        unmixed, made = made, np.empty_like(made)
        own = {name: np.ascontiguousarray(getattr(mixing, name)) for name in ("partner", "share", "box")}
        calls.append((Mix(len(spatial), dtype), numbers | own | {"x": unmixed, "y": made}))
    slots = [_slots(spec, given) for spec, given in calls]
    table = [[dispatch(spec), own.ctypes.data, len(rows), 1] for (spec, _), own in zip(calls, slots, strict=True)]
    pool().run(Table(np.array(table, np.int64), aligned(LINE * len(table), np.int64)), threads)
    return made


def _slots(spec: Augment | Mix, given: dict[str, Any]) -> NDArray[np.int64]:
    values = [given[declared.split(":")[0]] for declared in spec.arguments]
    return np.array([v.ctypes.data if isinstance(v, np.ndarray) else v for v in values], np.int64)


def reference(plan: Plan, x: NDArray[Any], rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """The same as it is defined: slow, and plain."""
    made = np.empty((len(rows), *x.shape[1:]), x.dtype)
    for m, row in enumerate(rows):
        values = _mapped(plan.map[m], x[row].astype(np.float32), plan.fill)
        own, mixed, bias = plan.tone[m]
        values = own * values + (mixed * (values * plan.grey).sum(-1, keepdims=True, dtype=np.float32) + bias)
        if plan.noise[m]:
            values = values + plan.noise[m] * _nearly_normal(plan.key[m], values.size).reshape(values.shape)
        made[m] = _stored(values, x.dtype)
        for box, value in zip(plan.box[m], plan.value, strict=True):
            made[m][tuple(slice(*sides) for sides in box)] = _stored(value, x.dtype)
    return reduce(lambda rows, mixing: mixing.of_places(rows), plan.mixings, made)


def nearest(plan: Plan, y: NDArray[Any]) -> NDArray[Any]:
    """Labels of places, (rows, *spatial), mapped as the samples are; what comes from outside is class 0."""
    spatial = y.shape[1:]
    grid = np.stack(np.meshgrid(*map(np.arange, spatial), indexing="ij"), -1).astype(np.float32)
    made = np.empty_like(y)
    for m, map_ in enumerate(plan.map):
        places = np.floor(grid @ map_[:, :-1].T + map_[:, -1] + np.float32(0.5)).astype(np.int64)
        inside = np.ones(spatial, np.bool_)
        index = []
        for axis, size in enumerate(spatial):
            at, held = _inside(places[..., axis], size, plan.fill)
            inside &= held
            index.append(at)
        made[m] = np.where(inside, y[m][tuple(index)], 0)
    return made


def _mapped(map_: Singles, image: Singles, fill: Fill) -> Singles:
    """Linear interpolation at A p, for every place p of the result."""
    spatial = image.shape[:-1]
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in spatial), indexing="ij")
    sides = []
    for row, size in zip(map_, spatial, strict=True):
        at = reduce(lambda total, term: total + term[0] * term[1], zip(row[:-1], grid, strict=True), row[-1])
        floor = np.floor(at)
        upper = np.asarray(at - floor, np.float32)
        taps = []
        for n, weight in enumerate((np.float32(1) - upper, upper)):
            index, held = _inside(floor.astype(np.int64) + n, size, fill)
            taps.append((index, np.where(held, weight, np.float32(0))))
        sides.append(taps)
    total: Any = np.float32(0)
    for chosen in product(*sides):
        weight = reduce(np.multiply, (w for _, w in chosen))
        total = total + weight[..., None] * image[tuple(index for index, _ in chosen)]
    return np.asarray(total, np.float32)


def _inside(index: NDArray[np.int64], size: int, fill: Fill) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where in the input each index is seen, and whether it counts."""
    if fill == "reflect":
        period = max(1, 2 * (size - 1))
        rest = index % period
        return np.minimum(rest, period - rest), np.ones(index.shape, np.bool_)
    clamped = np.clip(index, 0, size - 1)
    return clamped, (clamped == index) if fill == "zero" else np.ones(index.shape, np.bool_)


def _nearly_normal(key: np.int64, count: int) -> Singles:
    low, high = np.uint32(int(key) & 0xFFFFFFFF), np.uint32((int(key) >> 32) & 0xFFFFFFFF)
    total = np.zeros(count, np.int64)
    for half in range(2):
        with np.errstate(over="ignore"):
            h = ((np.arange(count, dtype=np.uint32) * np.uint32(2) + np.uint32(half)) * np.uint32(0x9E3779B9)) ^ low
            h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6D)
            h = ((h ^ (h >> np.uint32(13))) ^ high) * np.uint32(0xC2B2AE35)
            h = h ^ (h >> np.uint32(16))
        total += (h & np.uint32(0xFFFF)).astype(np.int64) + (h >> np.uint32(16)).astype(np.int64)
    return (total.astype(np.float32) - np.float32(2 * 65535)) * np.float32(NOISE_SCALE)


def _blended(x: NDArray[Any], share: Singles, partner: NDArray[np.int64]) -> NDArray[Any]:
    ours = share.reshape(-1, *[1] * (x.ndim - 1))
    return _stored(ours * x + (1 - ours) * x[partner], x.dtype)


def _stored(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype != np.uint8:
        return np.asarray(values, np.float32)
    return np.asarray(np.floor(np.clip(values, np.float32(0), np.float32(255)) + np.float32(0.5)), np.uint8)
