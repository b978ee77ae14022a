"""Nets that came as ONNX graphs: one layer, `Imported`, and a handler for each operator.

The file's dimensions (batch, channels, *spatial) are brought to channels last once; see `imported.tensor`.
"""

from convolve.layers.imported import (  # noqa: F401 - the handlers
    choosing,
    norms,
    pointwise,
    products,
    quantising,
    reductions,
    resizing,
    shaping,
    windows,
)
from convolve.layers.imported.graph import Node, Number, Stored
from convolve.layers.imported.net import Imported, Operator
from convolve.layers.imported.site import HANDLERS, Origin

__all__ = ["HANDLERS", "Imported", "Node", "Number", "Operator", "Origin", "Stored"]
