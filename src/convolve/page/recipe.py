"""What all values of a layer are made of, told once: what depends on the position, and what on the channel.

A page in a file has every map. With a layer's recipe it looks up what a value is made of by itself, so that no answer
for each of them has to be kept. Where a window reads and what is padding is kept along each dimension; weights, biases
and a norm's numbers for each channel. A recipe is tried on some positions against `Traced.pixel`; a layer that it does
not tell rightly (a transposed convolution, whose weights depend on the position, say) has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convolve.page.message import Message
from convolve.page.outline import Node
from convolve.view.made import Computed, Joined, Made, Mapped, Normalised, Pooled, Products, Taken
from convolve.view.pixel import Pixel, Traced, gathered

TRIED = 12
"""Positions that a recipe is tried on."""
BY_CHANNEL: dict[type[Made], tuple[str, ...]] = {
    Products: ("weights", "bias", "first_channel"),
    Pooled: ("channel",),
    Normalised: ("mean", "variance", "by", "shift"),
}
"""What depends on the channel alone."""
FIXED = ("how", "sources", "function", "names", "op", "kind", "divisor", "epsilon", "winograd")
"""What is the same for all values of a layer."""


def recipe(traced: Traced, node: Node) -> Message | None:
    """The recipe of a layer, if it has one.

    The header has what is fixed (`made`), and the names and kinds of the functions `after`; the arrays `places{d}` and
    `inside{d}`, (positions, taps) along dimension d, or `position` of what a layer without positions takes, and those
    of `BY_CHANNEL`, one row a channel.
    """
    spatial, channels = node.shape[:-1], node.shape[-1]
    origin = (0,) * len(spatial)
    pixels = [traced.pixel(node.path, (*origin, c)) for c in range(channels)]
    first = pixels[0]
    arrays: dict[str, np.ndarray] = {}
    try:
        for name in BY_CHANNEL.get(type(first.made), ()):
            arrays[name] = _numbers([getattr(p.made, name) for p in pixels])
        if isinstance(first.made, (Products, Pooled)) and first.made.places.shape[-1]:
            for d, n in enumerate(spatial):
                along = [traced.pixel(node.path, (*origin[:d], i, *origin[d + 1 :], 0)).made for i in range(n)]
                places, inside = zip(*(_along(made, d) for made in along), strict=True)
                arrays[f"places{d}"], arrays[f"inside{d}"] = _numbers(places), _numbers(inside)
        elif isinstance(first.made, Taken) and not spatial:
            arrays["position"] = _numbers([p.made.position for p in pixels if isinstance(p.made, Taken)])
        told = first.as_dict()
        header = {
            "made": {name: value for name, value in told["made"].items() if name in FIXED},
            "after": [{"layer": step["layer"], "kind": step["kind"]} for step in told["after"]],
            "kind": first.kind,
        }
        holds = all(_tells(header, arrays, traced, pixel) for pixel in _tried(traced, node))
    except (ValueError, IndexError, AttributeError, KeyError):  # kernels of several sizes, or kinds, or other values
        return None
    return Message(header, arrays) if holds else None


def _along(made: Any, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the taps of a window lie along one dimension, and whether they are inside."""
    others = tuple(axis for axis in range(made.inside.ndim) if axis != d)
    places = np.moveaxis(made.places[..., d], d, 0).reshape(made.places.shape[d], -1)
    return places[:, 0], made.inside.any(others)


def _tried(traced: Traced, node: Node) -> Sequence[Pixel]:
    """Values spread over a layer, its last one among them."""
    size = int(np.prod(node.shape))
    chosen = {*np.random.default_rng(size).integers(0, size, TRIED).tolist(), size - 1}
    return [traced.pixel(node.path, [int(i) for i in np.unravel_index(at, node.shape)]) for at in sorted(chosen)]


def _tells(header: dict[str, Any], arrays: dict[str, np.ndarray], traced: Traced, pixel: Pixel) -> bool:
    """Whether the recipe says of a value what `Traced.pixel` says of it."""
    made, told = pixel.made, pixel.as_dict()
    *at, channel = pixel.position
    fixed = {name: value for name, value in told["made"].items() if name in FIXED} == header["made"]
    after = [(step.layer, step.kind) for step in pixel.after] == [(a["layer"], a["kind"]) for a in header["after"]]
    by_channel = all(
        np.array_equal(arrays[name][channel], np.asarray(getattr(made, name), arrays[name].dtype))
        for name in BY_CHANNEL.get(type(made), ())
    )
    if not (fixed and after and by_channel):
        return False
    sources = [traced.given[s] if s in traced.given else traced.results[s] for s in made.sources]
    if isinstance(made, (Joined, Mapped, Normalised)):
        terms = made.terms if isinstance(made, Joined) else (made.x,)
        names = made.names if isinstance(made, Joined) else made.sources
        same = all(x.shape == traced.results[pixel.layer].shape for x in sources) and set(names) == set(made.sources)
        here = {name: float(x[(0, *pixel.position)]) for name, x in zip(made.sources, sources, strict=True) if same}
        return same and [here[name] for name in names] == list(terms) and getattr(made, "of", None) is None
    if isinstance(made, Taken):
        place = arrays["position"][channel] if "position" in arrays else pixel.position
        return tuple(place) == made.position
    if isinstance(made, Computed):
        return made.y == pixel.value
    if not isinstance(made, (Products, Pooled)):
        return False
    x = sources[0][0]
    if not made.places.shape[-1]:
        return isinstance(made, Products) and np.array_equal(made.patch, x.ravel())
    rank = len(at)
    places = np.stack(np.meshgrid(*(arrays[f"places{d}"][at[d]] for d in range(rank)), indexing="ij"), -1)
    masks = np.meshgrid(*(arrays[f"inside{d}"][at[d]] for d in range(rank)), indexing="ij")
    inside = np.logical_and.reduce(masks)
    first = made.first_channel if isinstance(made, Products) else made.channel
    last = first + (made.patch.shape[-1] if isinstance(made, Products) else 1)
    patch = gathered(x[..., first:last], places, inside)
    patch = patch if isinstance(made, Products) else patch[..., 0]
    same = np.array_equal(inside, made.inside) and np.array_equal(places[inside], made.places[inside])
    return same and np.array_equal(patch, made.patch)


def _numbers(values: Sequence[Any]) -> np.ndarray:
    """As messages take them; weights are of single precision, as the net has them."""
    array = np.stack([np.asarray(v) for v in values])
    kinds: dict[str, type] = {"b": np.uint8, "i": np.int32}
    return array.astype(kinds.get(array.dtype.kind, np.float32 if array.ndim > 1 else np.float64))
