"""convolve: convolutional neural networks for the CPU that people already have.

>>> from convolve import Conv, Dense, Flatten, MaxPool, Model, ReLU, Sequential
>>> net = Sequential(Conv(32, 3), ReLU(), MaxPool(2), Flatten(), Dense(10))
>>> Model(net, input_shape=(28, 28, 1)).output_shape
(10,)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from convolve import augment, metrics, ops, plot, zoo
    from convolve import data as datasets
    from convolve.layers import *  # noqa: F403 - the names are those of `_HOMES`
    from convolve.model import Model, from_onnx, load
    from convolve.training import losses, optim, schedule

_LAYERS = (
    *("Sequential", "Residual", "Parallel", "Input", "Net", "Layer"),
    *("Conv", "ConvTranspose", "Dense"),
    *("MaxPool", "AvgPool", "LpPool", "GlobalMaxPool", "GlobalAvgPool", "AdaptiveAvgPool"),
    *("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "Dropout", "Normalize"),
    *("ReLU", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"),
    *("Softplus", "Mish", "Softmax", "Clip"),
    *("Flatten", "Reshape", "Pad", "Upsample", "Add", "Concat", "Multiply"),
)
_HOMES = dict.fromkeys(_LAYERS, "convolve.layers") | {
    "Model": "convolve.model",
    "load": "convolve.model",
    "from_onnx": "convolve.model",
}
_MODULES = {
    "augment": "convolve.augment",
    "datasets": "convolve.data",
    "losses": "convolve.training.losses",
    "metrics": "convolve.metrics",
    "ops": "convolve.ops",
    "optim": "convolve.training.optim",
    "plot": "convolve.plot",
    "schedule": "convolve.training.schedule",
    "zoo": "convolve.zoo",
}

__all__ = [
    "Model",
    "__version__",
    "augment",
    "datasets",
    "from_onnx",
    "load",
    "losses",
    "metrics",
    "ops",
    "optim",
    "plot",
    "schedule",
    "zoo",
    *_LAYERS,
]


def __getattr__(name: str) -> Any:
    """Names are found when first used, so that `import convolve` is quick and starts nothing."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'convolve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
