"""A layer's filters as pictures: their weights, in which order to show them, and how far apart two checkpoints are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convolve import layers
from convolve.errors import ConvolveError
from convolve.graph import Leaf, Value
from convolve.network import Network
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.layout import Concat, Transpose
from convolve.ops.reduce import Reshape
from convolve.view.anatomy import Anatomy

ORDERS = ("index", "strength", "similarity")
DEAD = 1e-4
"""Part of the strongest filter's strength below which a filter does nothing."""


@dataclass(frozen=True, eq=False)
class Filters:
    """The weights of a convolution, one filter after the other; of a fully-connected layer its units."""

    layer: str
    weights: np.ndarray
    """(filters, *kernel, channels)."""

    @cached_property
    def strength(self) -> np.ndarray:
        """The Euclidean length of each filter."""
        flat = self.weights.reshape(len(self.weights), -1).astype(np.float64)
        return np.asarray(np.sqrt(np.square(flat).sum(1)))

    @property
    def dead(self) -> np.ndarray:
        """Whether each filter's weights are next to nothing beside those of the strongest."""
        return np.asarray(self.strength <= DEAD * self.strength.max())

    @cached_property
    def similarity(self) -> np.ndarray:
        """The cosine of the angle between each two filters, (filters, filters); 0 with a filter of zeros."""
        flat = self.weights.reshape(len(self.weights), -1).astype(np.float64)
        unit = flat / np.maximum(self.strength, np.finfo(np.float64).tiny)[:, None]
        return np.asarray((unit @ unit.T).clip(-1, 1))

    def order(self, by: str = "index") -> np.ndarray:
        """The filters' numbers: as they are, strongest first, or each beside one that is like it.

        By similarity, the strongest comes first, then always that of the others which is most similar to the last.

        Raises:
            ConvolveError: there is no such order.
        """
        if by not in ORDERS:
            raise ConvolveError(f"filters are ordered by {', '.join(ORDERS)}. Received: {by!r}")
        if by == "index":
            return np.arange(len(self.weights))
        strongest = np.argsort(-self.strength, kind="stable")
        if by == "strength":
            return strongest
        likeness = self.similarity.copy()
        order = [int(strongest[0])]
        while len(order) < len(likeness):
            likeness[:, order[-1]] = -np.inf
            order.append(int(likeness[order[-1]].argmax()))
        return np.array(order)


@dataclass(frozen=True, eq=False)
class Change:
    """How much each filter of a layer changed from one checkpoint to another."""

    layer: str
    distance: np.ndarray
    """The length of the difference as a part of the mean length of the two, (filters,): from 0 to 2."""
    cosine: np.ndarray
    """Of the angle between the two, (filters,): 1 where only the strength changed."""

    @property
    def order(self) -> np.ndarray:
        """The filters' numbers, what changed most first."""
        return np.argsort(-self.distance, kind="stable")


def filters(network: Network, layer: str, anatomy: Anatomy | None = None) -> Filters:
    """The filters of a layer that slides a window, transposed or not, or is fully connected.

    Raises:
        ConvolveError: there is no such layer; it has no filters.

    >>> from convolve import Conv, Model
    >>> model = Model(Conv(8, 3), input_shape=(9, 9, 3))
    >>> filters(model.network, "conv1").weights.shape
    (8, 3, 3, 3)
    """
    anatomy = anatomy or Anatomy(network)
    found = _product(anatomy, anatomy.row(layer))
    weight = _weight(network, found.inputs[1]) if found else None
    if found is None or weight is None:
        having = ", ".join(with_filters(anatomy)) or "none"
        raise ConvolveError(f"{layer}: has no filters. Layers that have are {having}")
    if isinstance(found.op, Convolution):
        return Filters(layer, weight)
    assert isinstance(found.op, InputGradient)
    groups = found.op.groups  # (channels, *kernel, filters / groups), channels and filters of a group together
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    turned = np.moveaxis(grouped, (-1, 1), (1, -1))
    return Filters(layer, turned.reshape(-1, *turned.shape[2:]))


def with_filters(anatomy: Anatomy) -> list[str]:
    """The layers that have filters, in order; of blocks, the layers in them."""
    found = []
    for path, row in anatomy.rows.items():
        product = _product(anatomy, row) if anatomy.known[row.output.serial] == path else None
        if product and _weight(anatomy.network, product.inputs[1]) is not None:
            found.append(path)
    return found


def compare(before: Network, after: Network) -> list[Change]:
    """How much the filters of each layer changed between two checkpoints of one net.

    Raises:
        ConvolveError: the nets have other layers, or filters of other shapes.
    """
    first, second = Anatomy(before), Anatomy(after)
    changes = []
    names, others = with_filters(first), with_filters(second)
    if names != others:
        odd = sorted(set(names) ^ set(others)) or names
        raise ConvolveError(f"two checkpoints of one net have the same layers; these differ in {', '.join(odd[:4])}")
    for layer in names:
        a, b = filters(before, layer, first), filters(after, layer, second)
        if a.weights.shape != b.weights.shape:
            raise ConvolveError(
                f"{layer}: two checkpoints of one net have filters of one shape. "
                f"Received: {a.weights.shape} and {b.weights.shape}"
            )
        old, new = (f.weights.reshape(len(f.weights), -1).astype(np.float64) for f in (a, b))
        tiny = np.finfo(np.float64).tiny
        distance = np.sqrt(np.square(new - old).sum(1)) / np.maximum((a.strength + b.strength) / 2, tiny)
        cosine = ((old * new).sum(1) / np.maximum(a.strength * b.strength, tiny)).clip(-1, 1)
        changes.append(Change(layer, distance, cosine))
    return changes


def _product(anatomy: Anatomy, row: layers.Row) -> Value | None:
    """The convolution among a layer's own ops, where there is one alone."""
    found = [value for value in anatomy.own(row) if isinstance(value.op, (Convolution, InputGradient))]
    return found[0] if len(found) == 1 else None


def _weight(network: Network, value: Value) -> np.ndarray | None:
    """The weights of a product, where they are a parameter or a constant that at most lies otherwise."""
    if isinstance(value.op, Leaf):
        return network[f"{value.op.kind}:{value.op.key}"] if value.op.kind in ("parameter", "constant") else None
    if not isinstance(value.op, (Reshape, Transpose, Concat)):
        return None
    parts = [_weight(network, v) for v in value.inputs]
    arrays = [part for part in parts if part is not None]
    return np.asarray(value.op.reference(*arrays)) if len(arrays) == len(parts) else None
