"""Padding, resizing and repeating: sparse maps along dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import apply
from convolve.layers.imported import folding
from convolve.layers.imported.site import Operand, Result, Site, handles
from convolve.layers.imported.tensor import Tensor
from convolve.layers.imported.windows import maps_last
from convolve.ops.resample import Map, Resample, mapped

PADDINGS = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@handles("Pad", known=(1, 2, 3))
def _pad(
    s: Site, x: Operand, pads: Operand | None = None, value: Operand | None = None, axes: Operand | None = None
) -> Result:
    t = s.tensor(x)
    given = s.node.integers("pads") or () if pads is None else s.integers(pads, "pads")
    dims = tuple(range(t.rank)) if axes is None else folding.axes_of(s.node, t.rank, s.known(axes, "axes")) or ()
    mode = s.node.word("mode", "constant")
    if len(given) != 2 * len(dims) or mode not in PADDINGS:
        raise ShapeError(f"pads need two numbers an axis, mode is one of {', '.join(PADDINGS)}: {given}, {mode!r}")
    fill = s.node.number("value", 0.0) if value is None else float(s.known(value, "constant_value").item())
    s.audit.append(f"{mode}: {' '.join(map(str, given))}")
    maps = {}
    for d, lo, hi in zip(dims, given[: len(dims)], given[len(dims) :], strict=True):
        size = t.shape[d]
        first, last = max(0, -lo), size - max(0, -hi)
        if first >= last:
            raise ShapeError(f"pads {lo} and {hi} leave nothing of axis {d} of shape {t.shape}")
        t = cropped(t, d, first, last)
        if max(lo, hi) > 0:
            size, lo, hi = last - first, max(0, lo), max(0, hi)
            s.bounded((lo + size + hi,))
            maps[d] = Map(mode, size, lo + size + hi, lo)
    return resampled(t, maps, fill)


def cropped(t: Tensor, d: int, start: int, stop: int) -> Tensor:
    """Positions start..stop-1 of a dimension."""
    if (start, stop) == (0, t.shape[d]):
        return t
    t, axis = t.single(d)
    return t.like(ops.cut(t.value, axis, start, stop))


def resampled(t: Tensor, maps: Mapping[int, Map], fill: float = 0.0) -> Tensor:
    """Maps along dimensions: one op where these lie between the first axis and the last."""
    places = {}
    for d in maps:
        t, _ = t.single(d)
    for d, along in maps.items():
        places[t.dims[d][0]] = along
    rank = len(t.value.shape)
    if len(places) > 1 and 0 not in places and rank - 1 not in places:
        whole = [places.get(a, Map("constant", n, n)) for a, n in enumerate(t.value.shape)][1:-1]
        return t.like(apply(Resample(tuple(whole), fill=fill), t.value))
    value = t.value
    for axis, along in places.items():
        value = mapped(value, axis, along, fill)
    return t.like(value)


@handles("Tile", known=(1,))
def _tile(s: Site, x: Operand, repeats: Operand) -> Result:
    t, counts = s.tensor(x), s.integers(repeats, "repeats")
    if len(counts) != t.rank:
        raise ShapeError(f"repeats need a number for each of {t.rank} axes. Received: {counts}")
    shape = s.bounded((n * m for n, m in zip(t.shape, counts, strict=True)))
    if not math.prod(shape):
        raise ShapeError(f"repeats {counts} of shape {t.shape} leave nothing")
    for d, count in enumerate(counts):
        if count > 1:
            t, axis = t.single(d)
            value = t.value
            wide = (*value.shape[:axis], 1, *value.shape[axis:])
            repeated = ops.broadcast(ops.reshape(value, wide), (*wide[:axis], count, *wide[axis + 1 :]))
            longer = (*value.shape[:axis], count * value.shape[axis], *value.shape[axis + 1 :])
            t = t.like(ops.reshape(repeated, longer))
    return t


@handles("DepthToSpace", "SpaceToDepth")
def _depth(s: Site, x: Operand) -> Result:
    t, size = s.tensor(x), s.node.integer("blocksize", 1)
    if t.rank != 4 or size < 1:
        raise ShapeError(f"needs an image and a positive blocksize. Received: shape {t.shape}, blocksize {size}")
    n, c, h, w = t.shape
    column_row = s.node.word("mode", "DCR") == "CRD"
    if s.node.op == "DepthToSpace":
        if c % size**2:
            raise ShapeError(f"blocksize {size} squared does not divide {c} channels")
        each = c // size**2
        if column_row:
            moved = t.reshaped((n, each, size, size, h, w)).transposed((0, 1, 4, 2, 5, 3))
        else:
            moved = t.reshaped((n, size, size, each, h, w)).transposed((0, 3, 4, 1, 5, 2))
        return moved.reshaped((n, each, h * size, w * size))
    if h % size or w % size:
        raise ShapeError(f"blocksize {size} does not divide {h} x {w} positions")
    apart = t.reshaped((n, c, h // size, size, w // size, size))
    moved = apart.transposed((0, 1, 3, 5, 2, 4) if column_row else (0, 3, 5, 1, 2, 4))
    return moved.reshaped((n, c * size**2, h // size, w // size))


MOST_POSITIONS = 1 << 17
"""Positions along a dimension that is resized, at most."""


@handles("Upsample", known=(1,))
def _upsample(s: Site, x: Operand, scales: Operand | None = None) -> Result:
    given = s.node.get("scales") if scales is None else s.known(scales, "scales").ravel().tolist()
    t = s.tensor(x)
    factors = dict(enumerate(float(f) for f in given or ()))  # type: ignore[union-attr]
    sizes = {d: math.floor(t.shape[d] * f) for d, f in factors.items()}
    return _resized(s, t, sizes, factors, "asymmetric", "floor", {})


@handles("Resize", known=(1, 2, 3))
def _resize(
    s: Site, x: Operand, roi: Operand | None = None, scales: Operand | None = None, sizes: Operand | None = None
) -> Result:
    node, t = s.node, s.tensor(x)
    if s.opset < 11:
        return _upsample(s, x, roi)
    dims = folding.axes_of(node, t.rank, None) or tuple(range(t.rank))
    policy = node.word("keep_aspect_ratio_policy", "stretch")
    if sizes is not None and np.size(s.known(sizes, "sizes")):
        wanted = dict(zip(dims, s.integers(sizes, "sizes"), strict=True))
        factors = {d: n / t.shape[d] for d, n in wanted.items()}
        if policy != "stretch":
            factor = min(factors.values()) if policy == "not_larger" else max(factors.values())
            factors = dict.fromkeys(factors, factor)
            wanted = {d: int(factor * t.shape[d] + 0.5) for d in wanted}
    else:
        factors = dict(zip(dims, (float(f) for f in s.known(scales, "scales").ravel()), strict=True))
        wanted = {d: int(t.shape[d] * f) for d, f in factors.items()}
    regions: dict[int, tuple[float, float]] = {}
    if node.word("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        numbers = s.known(roi, "roi").ravel().tolist()
        regions = dict(zip(dims, zip(numbers[: len(dims)], numbers[len(dims) :], strict=True), strict=True))
    coordinates = node.word("coordinate_transformation_mode", "half_pixel")
    return _resized(s, t, wanted, factors, coordinates, node.word("nearest_mode", "round_prefer_floor"), regions)


def _resized(
    s: Site,
    t: Tensor,
    sizes: Mapping[int, int],
    factors: Mapping[int, float],
    coordinates: str,
    nearest: str,
    regions: Mapping[int, tuple[float, float]],
) -> Tensor:
    s.bounded((sizes.get(d, n) for d, n in enumerate(t.shape)))
    mode = s.node.word("mode", "nearest")
    s.audit.append(", ".join([mode, coordinates] + ([nearest] if mode == "nearest" else [])))
    maps = {}
    for d, m in sizes.items():
        n, factor, region = t.shape[d], factors[d], regions.get(d, (0.0, 1.0))
        if (m, region) == (n, (0.0, 1.0)) and math.isclose(factor, 1.0):
            continue
        if not 1 <= m <= MOST_POSITIONS or not factor > 0:
            raise ShapeError(f"axis {d} of shape {t.shape} is resized to {m} positions, by a factor of {factor}")
        where, outside = _coordinates(coordinates, n, m, factor, region)
        rows = _rows(s, mode, nearest, where, n, factor)
        kept = tuple(() if out else row for row, out in zip(rows, outside, strict=True))
        maps[d] = _named(mode, Map("table", n, m, rows=kept))
    t = maps_last(t) if t.rank > 2 and min(maps, default=0) > 1 else t
    return resampled(t, maps, s.node.number("extrapolation_value", 0.0))


def _named(mode: str, table: Map) -> Map:
    """The same map by its name, where it has one."""
    if mode in ("nearest", "linear") and all(table.rows):
        known = Map(mode, table.size, table.output)
        same = all(np.array_equal(a, b) for a, b in zip(known.entries()[:2], table.entries()[:2], strict=True))
        if same and np.allclose(known.entries()[2], table.entries()[2], rtol=0, atol=1e-12):
            return known
    return table


def _coordinates(
    rule: str, n: int, m: int, factor: float, region: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each of m positions lies among n, and whether that is outside of what may be read."""
    o, length = np.arange(m, dtype=np.float64), factor * n
    nowhere = np.zeros(m, bool)
    centre = (o + 0.5) / factor - 0.5
    if rule == "half_pixel":
        return centre, nowhere
    if rule == "pytorch_half_pixel":
        return centre if length != 1 else np.full(m, -0.5), nowhere
    if rule == "half_pixel_symmetric":
        return centre + n / 2 * (1 - m / length), nowhere
    if rule == "asymmetric":
        return o / factor, nowhere
    if rule == "align_corners":
        return o * (n - 1) / (length - 1) if length != 1 else o * 0, nowhere
    if rule == "tf_crop_and_resize":
        first, end = region
        step = (end - first) * (n - 1)
        at = (o * step / (length - 1) if length != 1 else np.full(m, step / 2)) + first * (n - 1)
        return at, (at < 0) | (at > n - 1)
    raise ShapeError(f"coordinate_transformation_mode is not known. Received: {rule!r}")


NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": lambda x: np.floor(x),
    "ceil": lambda x: np.ceil(x),
}


def _linear(t: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(0.0, 1 - np.abs(t)))


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """Keys's kernel (1981)."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.asarray(np.where(t <= 1, near, np.where(t < 2, far, 0.0)))


def _rows(
    s: Site, mode: str, nearest: str, where: np.ndarray, n: int, factor: float
) -> tuple[tuple[tuple[int, float], ...], ...]:
    """For each coordinate, the positions it is made of and their weights."""
    if mode == "nearest":
        if nearest not in NEAREST:
            raise ShapeError(f"nearest_mode is one of {', '.join(NEAREST)}. Received: {nearest!r}")
        return tuple(((int(at), 1.0),) for at in NEAREST[nearest](where).clip(0, n - 1))
    if mode not in ("linear", "cubic"):
        raise ShapeError(f"mode is nearest, linear or cubic. Received: {mode!r}")
    narrow = min(factor, 1.0) if s.node.integer("antialias", 0) else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / narrow)
    at = np.floor(where)[:, None] + np.arange(-reach, reach + 2)
    distance = (at - where[:, None]) * narrow
    weight = _linear(distance) if mode == "linear" else _cubic(distance, s.node.number("cubic_coeff_a", -0.75))
    if s.node.integer("exclude_outside", 0):
        weight = np.where((at >= 0) & (at < n), weight, 0.0)
    weight /= weight.sum(1, keepdims=True)
    return tuple(_collected(a.clip(0, n - 1), w) for a, w in zip(at, weight, strict=True))


def _collected(places: np.ndarray, weights: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Each place once, with all its weight; without those of no weight."""
    made: dict[int, float] = {}
    for place, weight in zip(places, weights, strict=True):
        if weight:
            made[int(place)] = made.get(int(place), 0.0) + float(weight)
    return tuple(sorted(made.items()))
