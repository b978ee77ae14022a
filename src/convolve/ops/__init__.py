"""The ops: one file each, with shape rule, plain reference, gradient and lowering together.

What a person composes own layers and losses from stands here too: functions over values, differentiated like the rest.

>>> from convolve.graph import leaf, evaluate
>>> import numpy as np
>>> x = leaf("input", "x", (2, 2))
>>> evaluate([mean(square(x), axes=1)], {"x": np.array([[1.0, 3.0], [2.0, 2.0]])})
[array([5., 4.])]
"""

from convolve.graph import Value, constant
from convolve.ops import convolution, dropout, norm, pool, softmax  # noqa: F401 - fills the vocabulary
from convolve.ops.layout import concat, cut, transpose
from convolve.ops.pointwise import (
    absolute,
    broadcast,
    cast,
    ceil,
    clip,
    equal,
    erf,
    exp,
    expm1,
    floor,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    maximum,
    minimum,
    relu,
    round,
    sigmoid,
    sign,
    softplus,
    sqrt,
    square,
    tanh,
    where,
)
from convolve.ops.reduce import max, mean, reshape_to, sum
from convolve.ops.resample import pad, resize, take
from convolve.ops.softmax import log_softmax
from convolve.ops.vector import vector

reshape = reshape_to

__all__ = [
    "Value",
    "absolute",
    "broadcast",
    "cast",
    "ceil",
    "clip",
    "concat",
    "constant",
    "cut",
    "equal",
    "erf",
    "exp",
    "expm1",
    "floor",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "log",
    "log_softmax",
    "max",
    "maximum",
    "mean",
    "minimum",
    "pad",
    "relu",
    "reshape",
    "resize",
    "round",
    "sigmoid",
    "sign",
    "softplus",
    "sqrt",
    "square",
    "sum",
    "take",
    "tanh",
    "transpose",
    "vector",
    "where",
]
