"""An imported net as the graph it came as, with the arrays that it has now."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolve.layers import Imported
from convolve.layers.imported import Node as Read
from convolve.network import Network
from convolve.onnx.export.draft import TYPES, Draft, Node

FLOATS = {"float16", "float64"}
"""Elements that files may compute with; here they are float32."""


def copied(network: Network, net: Imported) -> Draft | None:
    """The draft of the file that the net came from, if its graph still stands for the net.

    None where training made two arrays of one of the file's, or where the file computes with floats of other sizes.
    """
    words = {value for node in net.nodes for _, value in node.attributes if isinstance(value, str)}
    if FLOATS & (words | {port.dtype for port in (*net.inputs, *net.outputs)}):
        return None
    arrays: dict[str, np.ndarray] = {}
    shapes = {a.name: a.shape for a in net.arrays}
    for origin, key in network.origins.items():
        array = origin.layout.undone(network[key]).reshape(shapes[origin.name])
        if not np.array_equal(arrays.setdefault(origin.name, array), array, equal_nan=True):
            return None
    draft = Draft(net.opset, network.__getitem__)
    draft.initialisers = {c.name: c.array() for c in net.numbers} | arrays
    draft.nodes = [Node(n.op, n.name, n.inputs, n.outputs, _attributes(n)) for n in net.nodes]
    return draft


def _attributes(node: Read) -> dict[str, Any]:
    """Attributes as files have them: element types by number, a constant's value as an array."""
    found: dict[str, Any] = {name: value for name, value in node.attributes if value != ()}
    if node.op == "ConstantOfShape" and "value" in found:
        return {"value": np.array([found["value"]], found.get("dtype", "float32"))}
    return {k: TYPES[v] if k in ("to", "dtype", "output_dtype") and isinstance(v, str) else v for k, v in found.items()}
