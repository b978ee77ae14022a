"""The last layer of a net, made for other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from convolve.errors import ConvolveError
from convolve.graph import Shape
from convolve.layers.activations import ReLU, Sigmoid, Softmax
from convolve.layers.base import Layer, Row
from convolve.layers.convolution import Conv, Dense
from convolve.layers.imported import Imported
from convolve.layers.imported.head import with_head
from convolve.layers.norms import Dropout, Normalize
from convolve.layers.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool
from convolve.layers.shaping import Flatten
from convolve.port import row_of

AFTER = (ReLU, Dropout, AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, Flatten)
"""Layers that may follow the head."""


def headed(net: Layer, rows: Sequence[Row], shape: Shape, classes: int) -> tuple[Layer, frozenset[str]]:
    """The net whose last layer with a weight makes a value for each of `classes`, and that layer's path.

    A softmax behind it is left out, and so is a Normalize, the scale of old values. A bias that is a layer of its own
    has a path, too.

    Args:
        net: the net.
        rows: what was noted of its layers when it was built.
        shape: of its output then, with the batch.
        classes: how many.

    Raises:
        ConvolveError: the net does not end in a Dense or Conv, or uses that one more than once.
    """
    if isinstance(net, Imported):
        return with_head(net, classes, flat=row_of(shape[1:]) != shape[1:])
    inner = {row.path.rpartition(".")[0] for row in rows}
    leaves = [row for row in rows if row.path not in inner]
    ends: list[Layer] = []
    while leaves and isinstance(leaves[-1].layer, (Softmax, Sigmoid, Normalize)):
        ends.append(leaves.pop().layer)
    while leaves and isinstance(leaves[-1].layer, AFTER):
        leaves.pop()
    head: Any = leaves[-1].layer if leaves else None
    if not isinstance(head, (Dense, Conv)):
        found = f"{leaves[-1].path} ({head.title()})" if leaves else "no layer"
        raise ConvolveError(
            "replace_head: expected a net that ends in a Dense or a Conv, and what pools or flattens it. "
            f"Received: one that ends in {found}"
        )
    if sum(row.layer is head for row in rows) > 1:
        raise ConvolveError(f"replace_head: {leaves[-1].path} is used more than once; give the net a head of its own")
    new = replace(head, units=classes) if isinstance(head, Dense) else replace(head, filters=classes)
    changed: Layer = net.swapped(head, new) or net
    for end in ends:
        changed = changed.swapped(end, None) or changed
    return changed, frozenset([leaves[-1].path])
