"""The vocabulary of nets. A layer is a small frozen dataclass that writes ops on a graph once it meets its input."""

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

VOCABULARY: dict[str, type[Layer]] = {
    name: found
    for name, found in list(globals().items())
    if isinstance(found, type) and issubclass(found, Layer) and found is not Layer
}
"""Layers by name: what a saved net may consist of."""
