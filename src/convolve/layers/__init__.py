"""The vocabulary of nets. A layer is a small frozen dataclass that writes ops on a graph once it meets its input."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolve.layers.activations import (
        ELU,
        GELU,
        SELU,
        Clip,
        HardSigmoid,
        HardSwish,
        LeakyReLU,
        Mish,
        PReLU,
        ReLU,
        Sigmoid,
        SiLU,
        Softmax,
        Softplus,
        Tanh,
    )
    from convolve.layers.base import Construction, Input, Layer, Parameter, Port, Row, Scope, Symbol
    from convolve.layers.convolution import Conv, ConvTranspose, Dense
    from convolve.layers.expanded import Expanded
    from convolve.layers.imported import Imported
    from convolve.layers.joins import Add, Concat, Multiply, Net, Parallel, Residual, Sequential
    from convolve.layers.norms import BatchNorm, Dropout, GroupNorm, InstanceNorm, LayerNorm, Normalize
    from convolve.layers.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, LpPool, MaxPool
    from convolve.layers.shaping import Flatten, Pad, Reshape, Upsample

    VOCABULARY: dict[str, type[Layer]]
    """Layers by name: what a saved net may consist of."""

_NAMES = {
    "activations": "ELU GELU SELU Clip HardSigmoid HardSwish LeakyReLU Mish PReLU ReLU Sigmoid SiLU Softmax "
    "Softplus Tanh",
    "base": "Construction Input Layer Parameter Port Row Scope Symbol",
    "convolution": "Conv ConvTranspose Dense",
    "expanded": "Expanded",
    "imported": "Imported",
    "joins": "Add Concat Multiply Net Parallel Residual Sequential",
    "norms": "BatchNorm Dropout GroupNorm InstanceNorm LayerNorm Normalize",
    "pooling": "AdaptiveAvgPool AvgPool GlobalAvgPool GlobalMaxPool LpPool MaxPool",
    "shaping": "Flatten Pad Reshape Upsample",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "VOCABULARY",
    "AdaptiveAvgPool",
    "Add",
    "AvgPool",
    "BatchNorm",
    "Clip",
    "Concat",
    "Construction",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Expanded",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Imported",
    "Input",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LpPool",
    "MaxPool",
    "Mish",
    "Multiply",
    "Net",
    "Normalize",
    "PReLU",
    "Pad",
    "Parallel",
    "Parameter",
    "Port",
    "ReLU",
    "Reshape",
    "Residual",
    "Row",
    "Scope",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Symbol",
    "Tanh",
    "Upsample",
]


def __getattr__(name: str) -> Any:
    """Names are found when first used: an imported net needs few of these layers."""
    if name == "VOCABULARY":
        found = {n: __getattr__(n) for n in _HOMES}
        base = found["Layer"]
        made = {n: k for n, k in found.items() if isinstance(k, type) and issubclass(k, base) and k is not base}
    elif name in _HOMES:
        made = getattr(importlib.import_module(f"convolve.layers.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'convolve.layers' has no attribute {name!r}")
    globals()[name] = made
    return made
