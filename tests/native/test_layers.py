"""Every layer passes the conformance suite; nets, weights, dropout, batch norm and the number of kernels they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import IMPORTED

import convolve
from convolve import (
    ELU,
    GELU,
    SELU,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Input,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    LpPool,
    MaxPool,
    Mish,
    Model,
    Multiply,
    Net,
    Normalize,
    Pad,
    Parallel,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Upsample,
    load,
    ops,
    optim,
    zoo,
)
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Graph, Value, differentiate, evaluate, leaf
from convolve.layers import VOCABULARY
from convolve.native.cache import statistics
from convolve.native.kernels.pointwise import Pointwise as PointwiseKernel
from convolve.network import Network
from convolve.ops.pointwise import TABLE
from convolve.passes import compile_graph
from convolve.storage import describe, restore
from convolve.testing import Check, check_layer, checks
from convolve.training.fit import order_of
from convolve.training.losses import CrossEntropy, MeanSquaredError
from convolve.training.trainer import Trainer

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


# the conformance suite over all layers


@dataclass(frozen=True)
class Standardise(Layer):
    """A layer as a person writes one: parameters, a statistic, an inner layer, and ops."""

    decay: float = 0.75
    name: str | None = None

    def build(self, scope: Any, x: Value) -> Value:  # type: ignore[override]
        channels = x.shape[-1]
        spread = scope.statistic("spread", (channels,), 1.0)
        if scope.training:
            largest = ops.max(ops.absolute(x), tuple(range(len(x.shape) - 1)))
            old, spread = spread, spread * self.decay + largest * (1 - self.decay)
            scope.update(old, spread)
        slope = scope.parameter("slope", (channels,), "ones")
        return scope.apply(Conv(3, 1), ops.where(ops.greater(x, 0.0), x, x * slope) / spread)


@dataclass(frozen=True)
class Blur(Layer):
    """Half the difference between x and what is left of it at half the size, its ends reflected."""

    name: str | None = None

    def build(self, scope: Any, x: Value) -> Value:  # type: ignore[override]
        size = x.shape[1:-1]
        wide = ops.pad(x, ((1, 2),) * len(size), "reflect")
        for axis, n in enumerate(size, 1):
            wide = (ops.cut(wide, axis, 0, n) + ops.cut(wide, axis, 3, n + 3)) * 0.5
        small = ops.resize(wide, tuple(-(-n // 2) for n in size), "area")
        return (x - ops.resize(small, size, "linear")) * 0.5


def joined(layer: Layer) -> Net:
    """A layer of two inputs, given x and something made of x."""
    x = Input()
    return Net(x, layer(x, Tanh()(x)))


def halved(layer: Layer) -> Net:
    """A layer of two inputs, given x and x halved and doubled again, without the rest."""
    x = Input()
    return Net(x, layer(x, Upsample(2)(MaxPool(2)(x))))


def diamond() -> Net:
    x = Input()
    h = Conv(4, 3)(x)
    left, right = ReLU()(h), Conv(4, 1)(h)
    return Net(x, Concat()(left * right, h + right, x))


def saved(layer: Layer, input_shape: Shape) -> Layer:
    """A layer of one's own as a file gives it back."""
    [made] = restore(describe(Sequential(layer), input_shape)).layers  # type: ignore[attr-defined]
    return made  # type: ignore[no-any-return]


POINTWISE: list[Shape] = [(7,), (3, 5), (4, 3, 2), (2, 3, 2, 17)]
EXAMPLES: dict[str, list[tuple[Layer, Shape]]] = {
    "AdaptiveAvgPool": [
        (AdaptiveAvgPool(3), (8, 17)),
        (AdaptiveAvgPool(1), (5, 4, 3)),
        (AdaptiveAvgPool((4, None)), (6, 5, 2)),
        (AdaptiveAvgPool((2, 5, 3)), (5, 4, 3, 2)),
    ],
    "Add": [(joined(Add()), (5, 4, 3)), (joined(Add()), (6,))],
    "AvgPool": [
        (AvgPool(2), (9, 3)),
        (AvgPool(3, stride=2, padding="same"), (8, 7, 5)),
        (AvgPool((2, 3), stride=(1, 2), padding=((1, 0), (1, 1)), count_padding=True), (5, 6, 17)),
        (AvgPool(2), (4, 5, 4, 2)),
        (AvgPool(3, stride=2, padding=((1, 2),), count_padding=True, dilation=2, ceil_mode=True), (12, 17)),
    ],
    "BatchNorm": [(BatchNorm(decay=0.6, epsilon=1e-3), shape) for shape in POINTWISE],
    "Clip": [
        *((Clip(-0.5, 0.75), shape) for shape in POINTWISE),
        (Clip(0, 6), (3, 4)),
        (Clip(low=-0.25), (3, 4)),
        (Clip(high=0.25), (3, 4)),
        (Clip(), (3, 4)),
    ],
    "Concat": [
        (joined(Concat()), (5, 4, 3)),
        (joined(Concat(axis=1)), (5, 4, 3)),
        (joined(Concat()), (6,)),
        *((halved(Concat(pad=True)), shape) for shape in [(7, 3), (8, 5, 2), (5, 4, 7, 2)]),
    ],
    "Conv": [
        (Conv(5, 3), (11, 2)),
        (Conv(18, 4, stride=3, padding="valid", bias=False), (13, 1)),
        (Conv(4, 3), (6, 7, 3)),
        (Conv(17, (3, 2), stride=(2, 1), dilation=(1, 3)), (8, 9, 5)),
        (Conv(3, 3, stride=2, padding=((2, 0), (0, 1)), init="glorot_uniform"), (7, 8, 4)),
        (Conv(6, 1, stride=2, padding=0, init="lecun_normal"), (5, 5, 20)),
        (Conv(32, 3), (8, 8, 32)),
        (Conv(4, 2), (3, 4, 3, 2)),
        (Conv(3, 3, stride=2, dilation=(2, 1, 1), padding=2), (5, 4, 6, 2)),
        (Conv(6, 3, groups=3, padding="same_lower", stride=2), (8, 9)),
        (Conv(34, 3, groups=17), (5, 4, 17)),
        (Conv(17, 3, groups="depthwise", stride=2, bias=False), (7, 6, 17)),
        (Conv(4, (1, 3, 2), groups="depthwise", dilation=(1, 1, 2)), (3, 4, 5, 2)),
        (Conv(4, 3, groups=2, padding=((0, 2), (1, 0))), (5, 6, 8)),
    ],
    "ConvTranspose": [
        (ConvTranspose(5, 3), (7, 2)),
        (ConvTranspose(17, 2, stride=2, bias=False), (4, 3, 6)),
        (ConvTranspose(4, (3, 4), stride=(2, 3), padding=((1, 0), (0, 2)), output_padding=(1, 2)), (4, 3, 3)),
        (ConvTranspose(4, 3, stride=2, dilation=2, padding="same_lower", groups=2), (3, 4, 6)),
        (ConvTranspose(6, 3, stride=2, padding="same", output_padding=1, groups="depthwise"), (4, 3, 2, 3)),
        (ConvTranspose(2, 1, stride=3, padding="valid"), (3, 2)),
        (ConvTranspose(3, 2, dilation=3, padding=((1, 0),), output_padding=2), (4, 2)),
        (ConvTranspose(4, (2, 3), (2, 1), 1, (1, 4), output_padding=(1, 3), groups=2), (4, 3, 6)),
    ],
    "Dense": [(Dense(4), (7,)), (Dense(33, bias=False), (18,))],
    "Dropout": [
        *((Dropout(0.3), (5,)), (Dropout(), (4, 3, 5)), (Dropout(0.0), (3, 2)), (Dropout(0.9), (2, 3, 2, 3))),
        *((Dropout(0.3, channels=True), shape) for shape in POINTWISE),
        (Sequential(Conv(16, 3), ReLU(), Dropout(channels=True), Conv(3, 3)), (5, 4, 2)),
    ],
    "ELU": [(ELU(alpha), shape) for alpha, shape in zip((1.0, 0.5, 2, 1.0), POINTWISE, strict=True)],
    "Expanded": [
        *((saved(Standardise(), shape), shape) for shape in [(4, 3), (5, 4, 2)]),
        *((saved(Blur(), shape), shape) for shape in [(5, 2), (4, 3, 3)]),
    ],
    "Flatten": [(Flatten(), shape) for shape in POINTWISE],
    "GELU": [(GELU(), shape) for shape in POINTWISE],
    "GlobalAvgPool": [(GlobalAvgPool(), shape) for shape in POINTWISE[1:]],
    "GlobalMaxPool": [(GlobalMaxPool(), shape) for shape in POINTWISE[1:]],
    "GroupNorm": [
        (GroupNorm(3), (9, 6)),
        (GroupNorm(1, epsilon=1e-3), (5, 4, 17)),
        (GroupNorm(4), (3, 2, 5, 8)),
        (GroupNorm(5), (4, 3, 5)),
        (GroupNorm(4), (24,)),
        (Sequential(Conv(16, 3), GroupNorm(4), ReLU(), Conv(16, 3), GroupNorm(16), ReLU()), (6, 5, 16)),
    ],
    "HardSigmoid": [(HardSigmoid(), shape) for shape in POINTWISE],
    "HardSwish": [(HardSwish(), shape) for shape in POINTWISE],
    "Imported": [(IMPORTED, (2, 6, 5))],
    "InstanceNorm": [
        (InstanceNorm(), (9, 6)),
        (InstanceNorm(affine=True, epsilon=1e-3), (5, 4, 17)),
        (InstanceNorm(affine=True), (3, 2, 5, 8)),
        (InstanceNorm(), (7, 6, 1)),
        (Sequential(Conv(16, 3), InstanceNorm(), ReLU(), Conv(3, 3)), (6, 5, 2)),
    ],
    "LayerNorm": [
        *((LayerNorm(epsilon=1e-3), shape) for shape in POINTWISE),
        (LayerNorm((1, 2, 3)), (4, 3, 5)),
        (LayerNorm(axes=(-2,)), (6, 17)),
        (LayerNorm((3, 1)), (4, 3, 5)),
        (LayerNorm(1), (5, 5)),
        (LayerNorm((1, 3)), (3, 2, 4, 2)),
        (Sequential(Conv(16, 3), LayerNorm(), ReLU(), Conv(3, 1)), (6, 5, 2)),
    ],
    "LeakyReLU": [(LeakyReLU(0.2), shape) for shape in POINTWISE],
    "LpPool": [
        (LpPool(2), (9, 3)),
        (LpPool(3, stride=2, padding="same_lower", p=1), (8, 7, 5)),
        (LpPool(2, stride=3, p=3, ceil_mode=True), (8, 7, 17)),
        (LpPool(2, stride=1, padding=((0, 1), (1, 0), (0, 0)), p=2.5, dilation=2), (4, 5, 4, 2)),
    ],
    "MaxPool": [
        (MaxPool(2), (9, 3)),
        (MaxPool(3, stride=2, padding=1), (8, 7, 5)),
        (MaxPool((3, 2), stride=(1, 3), padding="same"), (5, 6, 17)),
        (MaxPool(2, stride=1), (4, 5, 4, 2)),
        (MaxPool((2, 3), stride=2, padding=((0, 1), (2, 0)), dilation=(3, 1), ceil_mode=True), (8, 7, 17)),
    ],
    "Mish": [(Mish(), shape) for shape in POINTWISE],
    "Multiply": [(joined(Multiply()), (5, 4, 3)), (joined(Multiply()), (6,))],
    "Net": [(diamond(), (6, 5, 3)), (diamond(), (9, 2))],
    "Normalize": [
        (Normalize(), (3, 2)),
        (Normalize(0.5, 0.25), (3, 2, 1)),
        (Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 4.0)), (4, 5, 3)),
    ],
    "PReLU": [
        *((PReLU(), shape) for shape in POINTWISE),
        (Sequential(Conv(16, 3), PReLU(0.5), Conv(3, 1), PReLU(-0.5)), (5, 4, 3)),
    ],
    "Pad": [
        (Pad(2), (5, 3)),
        (Pad(((1, 0), (2, 3)), value=-1.5), (4, 3, 17)),
        (Pad(((3, 2), (0, 1)), mode="reflect"), (4, 5, 2)),
        (Pad(2, mode="edge"), (3, 2, 4, 2)),
        (Pad(((4, 3),), mode="wrap"), (4, 9)),
    ],
    "Parallel": [
        (Parallel(Conv(5, 1), Sequential(Conv(3, 1), ReLU(), Conv(16, 3)), MaxPool(3, 1, "same")), (6, 5, 3)),
        (Parallel(Tanh(), Upsample(2), axis=1), (5, 17)),
        (Parallel(Dense(3), Sequential()), (4,)),
        (Parallel(Conv(2, 3), Parallel(ReLU(), Tanh())), (3, 4, 2, 2)),
    ],
    "ReLU": [(ReLU(), shape) for shape in POINTWISE],
    "Reshape": [
        (Reshape((3, -1)), (6, 17)),
        (Reshape((-1,)), (2, 3, 4)),
        (Reshape((1, 2, 2, 3)), (12,)),
        (Sequential(Conv(4, 3), Reshape((5, 3, 8))), (5, 6, 2)),
    ],
    "Residual": [
        (Residual(Conv(4, 3), BatchNorm(), ReLU()), (6, 5, 4)),
        (Residual(Conv(6, 3, stride=2), shortcut=Conv(6, 1, stride=2)), (7, 3)),
        (Residual(Dense(5), Tanh()), (5,)),
    ],
    "Sequential": [
        (Sequential(Conv(6, 3), ReLU(), MaxPool(2), Flatten(), Dense(3)), (8, 7, 2)),
        (Sequential(Conv(4, 3, bias=False), BatchNorm(), ReLU(), Dropout(0.2), GlobalAvgPool(), Dense(3)), (9, 2)),
        (Sequential(Conv(16, 3, bias=False), BatchNorm(), ReLU(), Conv(16, 3), ReLU(), MaxPool(2)), (8, 8, 16)),
    ],
    "SELU": [(SELU(), shape) for shape in POINTWISE],
    "SiLU": [(SiLU(), shape) for shape in POINTWISE],
    "Sigmoid": [(Sigmoid(), shape) for shape in POINTWISE],
    "Softmax": [(Softmax(), shape) for shape in POINTWISE],
    "Softplus": [(Softplus(), shape) for shape in POINTWISE],
    "Tanh": [(Tanh(), shape) for shape in POINTWISE],
    "Upsample": [
        (Upsample(), (5, 3)),
        (Upsample((2, 3)), (4, 3, 17)),
        (Upsample(2, mode="linear"), (4, 5, 3)),
        (Upsample((3, 1, 2), mode="linear"), (2, 3, 4, 2)),
    ],
}
OWN: list[tuple[Layer, Shape]] = [
    *((Standardise(), shape) for shape in [(5, 2), (4, 3, 5)]),
    *((Blur(), shape) for shape in [(6, 3), (4, 5, 2)]),
]
CASES = [
    pytest.param(check, id=f"{name}{index}-{check}")
    for name, examples in (*EXAMPLES.items(), ("Own", OWN))
    for index, (layer, shape) in enumerate(examples)
    for check in checks(layer, shape)
]


def test_every_layer_has_an_example() -> None:
    exported = {
        name
        for name in convolve.__all__
        if isinstance(found := getattr(convolve, name), type) and issubclass(found, Layer) and found is not Layer
    }
    assert set(EXAMPLES) == set(VOCABULARY) >= exported
    for name, examples in EXAMPLES.items():
        kinds = [
            {type(layer)} | {type(row.layer) for row in Network(layer, s).forward(1).construction.rows}
            for layer, s in examples
        ]
        assert all(VOCABULARY[name] in kind for kind in kinds), f"an example of {name} is without one"


@pytest.mark.parametrize("check", CASES)
def test_the_layer_conforms(check: Check) -> None:
    check()


# the suite itself


class Drifting(Layer):
    """Another function whenever it is built."""

    name = None
    built = 0

    def build(self, scope: Any, *inputs: Value) -> Value:
        Drifting.built += 1
        return inputs[0] * float(Drifting.built)


class Mingling(Layer):
    """A sample's result depends on its batch."""

    name = None

    def build(self, scope: Any, *inputs: Value) -> Value:
        return inputs[0] - ops.mean(inputs[0], axes=0)


class Sulking(Layer):
    """Refuses without a word of what it got."""

    name = None

    def build(self, scope: Any, *inputs: Value) -> Value:
        if len(inputs[0].shape) != 3:
            raise ConvolveError("no")
        return inputs[0]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Drifting(), r"Drifting.* over inputs \(4, 3\), definition: predict\(x\) is .* by definition"),
        (Mingling(), r"over inputs \(4, 3\), batches: predict of 1 samples and of 3 differ in 12 of 12 numbers"),
        (
            Sulking(),
            r"over inputs \(4, 3\), errors: an input of \(1,\) is refused without the layer's name, sulking1: no",
        ),
    ],
)
def test_a_layer_that_does_not_conform_is_found_out(layer: Layer, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_layer(layer, (4, 3))


def test_a_wrong_gradient_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TABLE["tanh"]
    monkeypatch.setitem(TABLE, "tanh", type(row)(1, row.reference, lambda y, dy, a: (dy * (1.0 - y),)))
    with pytest.raises(AssertionError, match="derivatives: the derivative by x along"):
        check_layer(Tanh(), (4, 3))


def test_a_wrong_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TABLE["tanh"]
    monkeypatch.setitem(TABLE, "tanh", type(row)(1, lambda a: np.tanh(a) * 1.0001, row.gradient))
    with pytest.raises(AssertionError, match=r"definition: predict\(x\) is"):
        check_layer(Tanh(), (4, 3))


# what is refused


@pytest.mark.parametrize(
    ("layer", "shape", "parts"),
    [
        (Conv(0, 3), (5, 5, 1), ["conv1", "filters must be at least 1", "Received: filters=0"]),
        (Conv(4, (3, 3)), (9, 2), ["conv1", "kernel_size has 2 entries", "1 spatial dimensions", "Received"]),
        (Conv(4, 3, stride=0), (9, 2), ["conv1", "stride must be at least 1", "Received"]),
        (Conv(4, 3, padding="full"), (9, 2), ["conv1", '"same_lower", "valid"', "Received: padding='full'"]),
        (Conv(4, 3, padding=(1, 2)), (9, 9, 2), ["conv1", "an int or 2 pairs (lo, hi)", "Received: padding=(1, 2)"]),
        (Conv(4, 3, padding=1.5), (9, 2), ["conv1", "an int or 1 pairs (lo, hi)", "Received: padding=1.5"]),
        (MaxPool(2, padding=None), (9, 2), ["max_pool1", "an int or 1 pairs", "Received: padding=None"]),
        (Conv(4, 3, padding=-1), (9, 2), ["conv1", "must not be negative", "Received: padding=-1"]),
        (Conv(4, 5, padding="valid"), (4, 9, 2), ["conv1", "larger than its input", "Received: spatial size (4, 9)"]),
        (Conv(4, 3, init="magic"), (4, 9, 2), ["conv1", "init must be one of he_normal", "Received: init='magic'"]),
        (Conv(4, 3), (9,), ["conv1", "at least one spatial dimension", "Received: input of shape (9,)"]),
        (Dense(4), (5, 5, 1), ["dense1", "put Flatten()", "Received: input of shape (5, 5, 1)"]),
        (Dense(0), (5,), ["dense1", "units must be at least 1", "Received: units=0"]),
        (MaxPool(3), (2, 2, 4), ["max_pool1", "larger than its input", "Received: spatial size (2, 2)"]),
        (MaxPool(4, stride=2, ceil_mode=True), (1, 4), ["max_pool1", "larger than its input", "spatial size (1,)"]),
        (MaxPool((2, 2)), (9, 2), ["max_pool1", "pool_size has 2 entries", "1 spatial dimensions", "Received"]),
        (MaxPool(0), (9, 2), ["max_pool1", "pool_size must be at least 1", "Received: pool_size=0"]),
        (MaxPool(2, stride=(1, 0)), (9, 9, 2), ["max_pool1", "stride must be at least 1", "Received: stride=(1, 0)"]),
        (MaxPool(2, dilation=0), (9, 2), ["max_pool1", "dilation must be at least 1", "Received: dilation=0"]),
        (MaxPool(300), (300, 300, 1), ["max_pool1", "more than 65,536 positions", "Received"]),
        (AvgPool(2, padding=2), (5, 5, 4), ["avg_pool1", "window 0 of 4 sees nothing but padding", "Received"]),
        (AvgPool(2, padding=((0, 0), (0, 2))), (5, 6, 4), ["dimension 1", "window 3 of 4", "((0, 0), (0, 2))"]),
        (MaxPool(2, 1, ((1, 2),), dilation=3), (1, 4), ["window 0 of 1 sees nothing but padding", "less dilation"]),
        (MaxPool(2, 1, "same", dilation=3), (2, 4), ["max_pool1", "window 0 of 2", "nothing but padding", "Received"]),
        (LpPool(2, padding=2), (5, 4), ["lp_pool1", "nothing but padding", "Received: pool_size (2,)"]),
        *(
            (LpPool(2, p=p), (5, 4), ["lp_pool1", "finite number of at least 1", f"Received: p={p}"])
            for p in (0.5, -1, float("nan"), float("inf"))
        ),
        (GlobalMaxPool(), (5,), ["global_max_pool1", "GlobalMaxPool needs", "Received: input of shape (5,)"]),
        (
            AdaptiveAvgPool(0),
            (5, 3),
            ["adaptive_avg_pool1", "output_size must be at least 1", "Received: output_size=0"],
        ),
        (AdaptiveAvgPool((2, 2)), (5, 3), ["adaptive_avg_pool1", "output_size has 2 entries", "Received"]),
        (AdaptiveAvgPool(2.0), (5, 3), ["adaptive_avg_pool1", "must be an int", "Received: output_size=2.0"]),
        (AdaptiveAvgPool(None), (5, 3), ["adaptive_avg_pool1", "must be an int", "Received: output_size=None"]),
        (AdaptiveAvgPool(1), (5,), ["adaptive_avg_pool1", "spatial dimension", "Received: input of shape (5,)"]),
        (Pad(-1), (5, 3), ["pad1", "must not be negative", "ops.cut", "Received: padding=-1"]),
        (Pad(((1, -2),)), (5, 3), ["pad1", "must not be negative", "Received: padding=((1, -2),)"]),
        (Pad((1, 2)), (5, 4, 3), ["pad1", "2 pairs (lo, hi)", "Received: padding=(1, 2)"]),
        (Pad(((1, 2),)), (5, 4, 3), ["pad1", "2 pairs (lo, hi)", "Received: padding=((1, 2),)"]),
        (Pad(1.5), (5, 4, 3), ["pad1", "padding must be an int", "Received: padding=1.5"]),
        (Pad(1, "mirror"), (5, 3), ["pad1", "constant, reflect, edge, wrap", "Received: mode='mirror'"]),
        (
            Pad(5, "reflect"),
            (5, 3),
            ["pad1", "reaches 4 positions", "edge is not repeated", "Received: padding (5, 5)"],
        ),
        (
            Pad(1, "reflect"),
            (5, 1, 3),
            ["pad1", "reaches 0 positions into 1", 'mode="edge"', "Received: padding (1, 1)"],
        ),
        (Pad(((0, 6),), "wrap"), (5, 3), ["pad1", "reaches 5 positions", "Received: padding (0, 6)"]),
        (Pad(1), (5,), ["pad1", "spatial dimension", "Received: input of shape (5,)"]),
        (Reshape((4, 4)), (5, 3), ["reshape1", "(5, 3) has 15 elements", "do not fit", "Received: shape=(4, 4)"]),
        (Reshape((4, -1)), (5, 3), ["reshape1", "(5, 3) has 15 elements", "do not fit", "Received: shape=(4, -1)"]),
        (Reshape((-1, -1)), (5, 3), ["reshape1", "one may be -1", "Received: shape=(-1, -1)"]),
        (Reshape((0, 15)), (5, 3), ["reshape1", "at least 1", "Received: shape=(0, 15)"]),
        (Reshape(()), (1,), ["reshape1", "sizes of one sample", "Received: shape=()"]),
        (Reshape(15), (5, 3), ["reshape1", "as in (7, 7, -1)", "Received: shape=15"]),
        (Reshape((7.5, 2)), (5, 3), ["reshape1", "sizes of one sample", "Received: shape=(7.5, 2)"]),
        (Upsample(0), (5, 3), ["upsample1", "scale must be at least 1", "Received: scale=0"]),
        (Upsample(1.5), (5, 3), ["upsample1", "scale must be an int", "Received: scale=1.5"]),
        (Upsample((2, 2)), (5, 3), ["upsample1", "scale has 2 entries", "Received: scale=(2, 2)"]),
        (Upsample(2, "area"), (5, 3), ["upsample1", '"nearest" or "linear"', "Received: mode='area'"]),
        (Upsample(), (5,), ["upsample1", "spatial dimension", "Received: input of shape (5,)"]),
        (Parallel(Conv(2, 3), MaxPool(2)), (6, 3), ["parallel1", 'padding="same"', "Received: (6, 2), (3, 3)"]),
        (Parallel(ReLU(), Flatten()), (6, 3), ["parallel1", "one rank", "Received: (6, 3), (18,), axis=-1"]),
        (Parallel(ReLU(), axis=3), (6, 3), ["parallel1", "one of their axes", "Received: (6, 3), axis=3"]),
        (Parallel(ReLU(), axis=1.0), (6, 3), ["parallel1", "one of their axes", "axis=1.0"]),
        (Parallel(ReLU(), Tanh(), axis=0), (6, 3), ["parallel1", "axis 0 is the batch", "Received: axis=0"]),
        (joined(Concat(axis=-2)), (6,), ["concat1", "axis 0 is the batch", "Received: axis=-2"]),
        (joined(Concat(axis=-4)), (6, 3), ["concat1", "one of their axes", "axis=-4"]),
        (GlobalAvgPool(), (5,), ["global_avg_pool1", "spatial dimension", "Received: input of shape (5,)"]),
        *(
            (Dropout(rate, whole), (5, 3), ["dropout1", "from 0 to below 1", f"Received: rate={rate}"])
            for rate in (1.0, -0.1, 2, float("nan"))
            for whole in (False, True)
        ),
        (Clip(2, 1), (5,), ["clip1", "low must not be above high", "Received: low=2, high=1"]),
        (Clip(high=float("nan")), (5,), ["clip1", "Received: low=None, high=nan"]),
        (PReLU(float("inf")), (5,), ["prelu1", "a finite number", "Received: init=inf"]),
        *(
            (GroupNorm(g), (4, 6), ["group_norm1", "divides the 6 channels", f"Received: groups={g!r}"])
            for g in (4, 0, -2, 12, 2.0)
        ),
        (GroupNorm(6), (1, 6), ["group_norm1", "one value has no variance", "fewer groups", "Received: input of"]),
        (GroupNorm(6), (6,), ["group_norm1", "one value has no variance", "Received: input of shape (6,)"]),
        (InstanceNorm(), (6,), ["instance_norm1", "spatial dimension", "Received: input of shape (6,)"]),
        (InstanceNorm(), (1, 1, 6), ["instance_norm1", "one value has no variance", "Received: input of shape (1,"]),
        (LayerNorm(), (5, 1), ["layer_norm1", "one value has no variance", "Received: input of shape (5, 1)"]),
        *(
            (LayerNorm(axes), (5, 3), ["layer_norm1", "from 1 to 2", "axis 0 is the batch", f"Received: axes={axes!r}"])
            for axes in (0, 3, -3, -4, (), (1, 1), (1, -2), (2.0,), 1.0, (0, 1), None)
        ),
        (Normalize((0.0, 1.0)), (4, 3), ["normalize1", "mean has 2 entries for 3 channels", "Received"]),
        (joined(Concat(axis=0)), (4, 3), ["concat1", "axis 0 is the batch", "Received: axis=0"]),
        (Residual(Conv(4, 3)), (5, 3), ["residual1", "body gives (5, 4)", "shortcut", "Received"]),
        (Sequential(ReLU(), Residual(Conv(4, 9, padding=0), name="block")), (5, 3), ["block.conv1", "larger than"]),
    ],
)
def test_what_cannot_work_is_refused_by_name(layer: Layer, shape: Shape, parts: list[str]) -> None:
    with pytest.raises(ShapeError) as caught:
        Model(layer, shape)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(VOCABULARY) - {"Add", "Concat", "Multiply"}))
def test_a_layer_of_one_input_refuses_two(name: str) -> None:
    layer, shape = EXAMPLES[name][0]
    x = Input()
    with pytest.raises(ShapeError, match=rf"{layer.kind()}1: .*Received: "):
        Model(Net(x, layer(x, x)), shape)


def test_inputs_of_different_shapes_are_not_joined() -> None:
    x = Input()
    for layer in (Add(), Multiply(), Concat()):
        with pytest.raises(ShapeError, match=rf"{layer.kind()}1: .*Received: .*\(5, 2\).*\(3, 3\)"):
            Model(Net(x, layer(Conv(2, 1)(x), Conv(3, 3, padding="valid")(x))), (5, 1))


def test_a_product_never_takes_the_batch_for_a_dimension() -> None:
    x = Input()
    with pytest.raises(ShapeError, match=r"multiply1: .*one rank\. Received: \(4, 2, 3\), \(3,\)"):
        Model(Net(x, x * GlobalAvgPool()(x)), (4, 2, 3))  # as many columns as the batch that a net is tried with


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (Conv(6, 3, groups=4), (8, 8, 8), r"divide both the 8 channels .* the 6 filters\. Received: groups=4"),
        (Conv(6, 3, groups=2), (8, 8, 3), r"divide both the 3 channels .* Received: groups=2"),
        (Conv(6, 3, groups="depthwise"), (8, 4), r"4 channels .* 6 filters\. Received: groups='depthwise'"),
        (Conv(6, 3, groups=0), (8, 4), r"positive int or \"depthwise\"\. Received: groups=0"),
        (Conv(6, 3, groups="each"), (8, 4), r"positive int or \"depthwise\"\. Received: groups='each'"),
        (Conv(4, 3, padding="lower"), (8, 4), r"same_lower.*Received: padding='lower'"),
        (Conv(4, 3, padding=((1, -1),)), (8, 4), r"must not be negative\. Received: "),
        (ConvTranspose(4, 3, output_padding=1), (8, 4), r"below the stride \(1,\).*Received: output_padding=1"),
        (ConvTranspose(4, 3, stride=2, output_padding=2), (8, 8, 4), r"below the stride.*Received: output_padding=2"),
        (ConvTranspose(4, 3, stride=2, output_padding=-1), (8, 4), r"at least 0.*Received: output_padding=-1"),
        (ConvTranspose(4, 3, stride=2, output_padding=(1, 1)), (8, 4), r"1 dimensions\. Received: output_padding"),
        (ConvTranspose(4, 3, dilation=2, output_padding=2), (8, 4), r"the dilation \(2,\).*Received: output_padding=2"),
        (ConvTranspose(4, 1, 3, ((1, 0),), output_padding=2), (1, 4), r"cuts off more than .*Received: padding=\(\("),
        (ConvTranspose(4, 3, padding=5), (4, 4), r"cuts off more than the \(4,\) positions.*Received: padding=5"),
        (ConvTranspose(4, (3, 3)), (4, 4), r"kernel_size has 2 entries"),
        (ConvTranspose(0, 3), (4, 4), r"filters must be at least 1"),
        (ConvTranspose(5, 3, groups=2), (4, 4), r"divide both the 4 channels .* 5 filters\. Received: groups=2"),
        (ConvTranspose(5, 3), (4,), r"at least one spatial dimension\. Received: input of shape \(4,\)"),
    ],
    ids=str,
)
def test_convolutions_refuse_what_has_no_meaning(layer: Layer, shape: Shape, words: str) -> None:
    with pytest.raises(ShapeError, match=rf"{layer.kind()}1: .*{words}"):
        Model(Sequential(layer), shape)


@pytest.mark.parametrize(
    ("layer", "same"),
    [
        (Conv(np.int64(4), [3, 3], padding=[[1, 0], (0, 1)]), Conv(4, 3, padding=((1, 0), (0, 1)))),  # type: ignore[arg-type]
        (Conv(4, 3, np.int64(2), np.int64(1), groups=np.int64(2)), Conv(4, 3, 2, 1, groups=2)),  # type: ignore[arg-type]
        (ConvTranspose(4, 3, 2, output_padding=[1, np.int64(0)]), ConvTranspose(4, 3, 2, output_padding=(1, 0))),  # type: ignore[arg-type]
        (MaxPool([2, 2], padding=[[1, 0], [0, 0]]), MaxPool(2, padding=((1, 0), (0, 0)))),  # type: ignore[arg-type]
        (GroupNorm(np.int64(2)), GroupNorm(2)),  # type: ignore[arg-type]
        (LayerNorm([np.int64(-1), 1]), LayerNorm((1, 3))),  # type: ignore[arg-type]
        (PReLU(np.float32(0.5)), PReLU(0.5)),  # type: ignore[arg-type]
        (Clip(np.int64(0), np.float64(6)), Clip(0, 6)),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_lists_and_numpys_numbers_serve_as_well(layer: Layer, same: Layer, tmp_path: Path) -> None:
    model, other = (Model(Sequential(given), (7, 6, 4), seed=3) for given in (layer, same))
    x = normal(2, 7, 6, 4)
    np.testing.assert_array_equal(model.predict(x), other.predict(x))
    model.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "model.safetensors").predict(x), other.predict(x))


def test_blocks_of_no_layer_or_of_something_else_are_refused() -> None:
    with pytest.raises(ConvolveError, match=r"Parallel: needs at least one branch\. Received: none"):
        Parallel()
    with pytest.raises(ConvolveError, match="layer 1 of a block is not a layer"):
        Parallel(ReLU(), Tanh)  # type: ignore[arg-type]


# nets as graphs


def test_a_functional_net_is_the_formula_it_says() -> None:
    x = Input()
    h = Dense(4, name="first")(x)
    model = Model(Net(x, ReLU()(h) * Sigmoid()(h) + Dense(4, name="second")(x)), (5,), seed=3)
    a, b = (
        model.parameters[next(k for k in model.parameters if k.endswith(f"{n}.weight"))] for n in ("first", "second")
    )
    data = normal(6, 5)
    inner = data @ a.T
    expected = np.maximum(inner, 0) / (1 + np.exp(-inner)) + data @ b.T
    np.testing.assert_allclose(model.predict(data), expected, rtol=1e-5, atol=1e-5)


def test_a_net_may_use_a_value_many_times_or_do_nothing() -> None:
    x = Input()
    data = normal(3, 4, 2)
    np.testing.assert_allclose(Model(Net(x, x + x * x), (4, 2)).predict(data), data + data * data, rtol=1e-6)
    np.testing.assert_array_equal(Model(Net(x, x), (4, 2)).predict(data), data)
    np.testing.assert_array_equal(Model(Sequential(), (4, 2)).predict(data), data)


def test_another_nets_input_is_refused() -> None:
    x, other = Input(), Input()
    with pytest.raises(ConvolveError, match="another Input"):
        Model(Net(x, ReLU()(x) + other), (4, 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_branches_are_computed_from_one_input_and_named_in_turn(rank: int) -> None:
    size = (6, 5, 4)[:rank]
    block = Parallel(Conv(5, 1), Sequential(Conv(3, 1), ReLU(), Conv(4, 3)), AvgPool(3, 1, "same"), name="mixed")
    model = Model(Sequential(block, Conv(2, 1)), (*size, 3), seed=1)
    assert list(model.parameters) == [
        f"{layer}.{part}"
        for layer in ("mixed.conv1", "mixed.sequential1.conv1", "mixed.sequential1.conv2", "conv1")
        for part in ("weight", "bias")
    ]
    x = normal(2, *size, 3)
    found = model.trace(x)
    branches = [found[f"mixed.{name}"] for name in ("conv1", "sequential1", "avg_pool1")]
    np.testing.assert_array_equal(found["mixed"], np.concatenate(branches, -1))
    assert [row.path for row in model.summary().rows if row.depth == 0] == ["mixed", "conv1"]


def excite(rank: int, channels: int, pooled: bool) -> Net:
    """Squeeze and excitation (Hu, Shen and Sun, 2018): each channel scaled by what is seen of all, over a map."""
    x = Input()
    if pooled:  # as a map of one position, at any rank
        s = Conv(channels, 1)(ReLU()(Conv(4, 1)(AdaptiveAvgPool(1)(x))))
        return Net(x, x * Sigmoid()(s))
    s = Dense(channels)(ReLU()(Dense(4)(GlobalAvgPool()(x))))
    return Net(x, x * Reshape((*(1,) * rank, channels))(Sigmoid()(s)))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("shape", [(7, 17), (5, 6, 8), (3, 4, 3, 5)])
def test_squeeze_and_excitation(shape: Shape, pooled: bool) -> None:
    net = excite(len(shape) - 1, shape[-1], pooled)
    model = Model(net, shape, seed=2)
    x = normal(3, *shape)
    first, last = ("conv1", "conv2") if pooled else ("dense1", "dense2")
    arrays = {name: array.astype(np.float64) for name, array in model.parameters.items()}
    squeezed = x.astype(np.float64).mean(tuple(range(1, x.ndim - 1)))
    hidden = np.maximum(squeezed @ arrays[f"{first}.weight"].reshape(4, -1).T + arrays[f"{first}.bias"], 0)
    gate = 1 / (1 + np.exp(-hidden @ arrays[f"{last}.weight"].reshape(-1, 4).T - arrays[f"{last}.bias"]))
    expected = x * gate.reshape(3, *[1] * (x.ndim - 2), -1)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-6)
    check_layer(net, shape)


def test_what_lost_a_rest_is_padded_by_its_last_positions() -> None:
    x = np.random.default_rng(0).standard_normal((2, 7, 4, 3)).astype(np.float32)
    pooled = x[:, :6].reshape(2, 3, 2, 2, 2, 3).max((2, 4)).repeat(2, 1).repeat(2, 2)
    expected = np.concatenate([x, np.pad(pooled, ((0, 0), (0, 1), (0, 0), (0, 0)), "edge")], -1)
    np.testing.assert_array_equal(Model(halved(Concat(pad=True)), x.shape[1:]).predict(x), expected)
    with pytest.raises(ShapeError, match=r"concat1.*pad=True.*Received: \(7, 4, 3\), \(6, 4, 3\)"):
        Model(halved(Concat()), x.shape[1:])
    smaller = Input()
    with pytest.raises(ShapeError, match=r"Received: \(3, 2, 3\), \(7, 4, 3\)"):
        Model(Net(smaller, Concat(pad=True)(MaxPool(2)(smaller), smaller)), x.shape[1:])


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_u_net_conforms(rank: int, mode: str) -> None:
    """Down, up and across (Ronneberger, Fischer and Brox, 2015), with reflected borders."""
    x = Input()
    across = ReLU()(Conv(4, 3, padding="valid")(Pad(1, "reflect")(x)))
    down = ReLU()(Conv(8, 3)(MaxPool(2)(across)))
    check_layer(Net(x, Conv(2, 3)(Concat()(across, Upsample(2, mode)(down)))), (*(4, 6, 4)[:rank], 3))


# a person's own loss


def log_cosh(output: Value, target: Value) -> Value:
    difference = output - target
    return ops.mean(ops.log((ops.exp(difference) + ops.exp(-difference)) * 0.5))


def test_a_loss_of_ones_own_is_differentiated_and_trained() -> None:
    model = Model(Sequential(Conv(6, 3), Tanh(), GlobalAvgPool(), Dense(2)), (6, 6, 1), seed=1)
    x, y = normal(8, 6, 6, 1), normal(8, 2)
    difference = model.predict(x).astype(np.float64) - y
    loss, gradients = model.gradients(x, y, loss=log_cosh)
    assert loss == pytest.approx(np.log(np.cosh(difference)).mean(), rel=1e-5)
    bias = np.tanh(difference).sum(0) / difference.size
    np.testing.assert_allclose(gradients["dense1.bias"], bias, rtol=1e-4, atol=1e-6)
    history = model.fit(x, y, epochs=30, batch_size=8, optimizer=optim.AdamW(0.03), loss=log_cosh)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert model.evaluate(x, y, loss=log_cosh).keys() == {"loss"}


# parameters


def test_assigned_weights_are_those_that_are_used() -> None:
    model = Model(Sequential(Conv(5, 3), Flatten(), Dense(3)), (6, 5, 2), seed=1)
    x, y = normal(4, 6, 5, 2), np.array([0, 1, 2, 0])
    model.predict(x)
    model.trainer().step(x, y)
    for seed in range(2):
        for name, array in model.parameters.items():
            model.parameters[name] = normal(*array.shape, seed=seed).astype(np.float64)
        feeds = {"x": x, **model.parameters}
        [expected] = evaluate([model.network.forward(4).output], {k: a.astype(np.float64) for k, a in feeds.items()})
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(model.parameters["conv1.weight"], normal(5, 3, 3, 2, seed=seed))


def test_parameters_are_read_only_and_refuse_what_does_not_fit() -> None:
    model = Model(Sequential(Conv(5, 3), BatchNorm()), (6, 2))
    assert list(model.parameters) == ["conv1.weight", "conv1.bias", "batch_norm1.scale", "batch_norm1.shift"]
    assert list(model.statistics) == ["batch_norm1.mean", "batch_norm1.variance"]
    with pytest.raises(ValueError, match="read-only"):
        model.parameters["conv1.bias"][0] = 1
    with pytest.raises(ShapeError, match=r"conv1.bias: expected an array of shape \(5,\). Received: shape \(4,\)"):
        model.parameters["conv1.bias"] = np.zeros(4)
    with pytest.raises(KeyError, match=r"no parameter is named 'conv2\.bias'; there are conv1\.weight"):
        model.parameters["conv2.bias"] = np.zeros(4)
    with pytest.raises(ConvolveError, match="cannot be deleted"):
        del model.parameters["conv1.bias"]


# the whole step


def digits(count: int, shape: Shape = (28, 28, 1), classes: int = 10) -> tuple[Array, Array]:
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, *shape), np.uint8), random.integers(0, classes, count)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "digits"])
def test_a_trainers_step_is_the_gradient(name: str) -> None:
    model = Model(zoo.by_name(name).make(), (28, 28, 1), seed=2)
    model.network.arena.poison = True
    x, y = digits(5)
    before = dict(model.parameters)
    loss, gradients = model.gradients(x, y)
    assert model.trainer(optimizer=optim.SGD(0.5)).step(x, y) == loss
    for key, array in model.parameters.items():
        np.testing.assert_allclose(array, before[key] - 0.5 * gradients[key], rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_reference_through_a_whole_net() -> None:
    model = Model(zoo.digits(normalize=False), (12, 12, 1), seed=2)
    model.network.arena.poison = True
    x, y = normal(4, 12, 12, 1), np.array([3, 0, 9, 1], np.int32)
    forward = model.network.forward(4, training=True)
    loss = CrossEntropy()(forward.output, leaf("input", "y", (4,), "i4"))
    leaves = [forward.construction.leaves[name] for name in model.parameters]
    feeds = {"x": x, **model.parameters, **model.statistics}
    exact = {key: a.astype(np.float64) for key, a in feeds.items()} | {"y": y}
    expected = evaluate([loss, *differentiate(loss, leaves)], exact)
    found_loss, found = model.gradients(x, y)
    assert found_loss == pytest.approx(expected[0], rel=1e-5)
    for (name, array), true in zip(found.items(), expected[1:], strict=True):
        assert np.abs(array - true).max() <= 1e-4 * np.abs(true).max(), name


def test_a_partial_last_batch_is_trained_with_its_true_mean() -> None:
    x, y = digits(10)
    model, other = (Model(zoo.lenet5(), (28, 28, 1), seed=1) for _ in range(2))
    optimizer = optim.SGD(0.01, momentum=0.9)
    history = model.fit(x, y, epochs=1, batch_size=4, optimizer=optimizer, seed=7)
    order = order_of(10, seed=7, epoch=0)
    trainer = other.trainer(optimizer=optimizer, seed=7)
    batches = [order[:4], order[4:8], order[8:]]
    losses = [trainer.step(x[chosen], y[chosen]) * len(chosen) for chosen in batches]
    assert history["loss"][0] == pytest.approx(sum(losses) / 10, rel=1e-6)
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, other.parameters[name])


# pools


def pooled(layer: Layer, *x: float) -> tuple[list[float], list[float]]:
    """What a layer makes of one channel of numbers, and the slope of the sum of that."""
    network = Network(layer, (len(x), 1))
    forward = network.forward(1)
    [slope] = differentiate(ops.sum(forward.output), [forward.input])
    executable = network.executable("slope", lambda: Graph({"y": forward.output, "slope": slope}))
    made = network.run(executable, {"x": np.array(x, np.float32).reshape(1, -1, 1)}, ("y", "slope"))
    return made["y"].ravel().tolist(), made["slope"].ravel().tolist()


def test_ceil_mode_adds_a_window_where_positions_are_left_over() -> None:
    assert pooled(MaxPool(2), 1, 2, 3, 4, 5) == ([2, 4], [0, 1, 0, 1, 0])
    assert pooled(MaxPool(2, ceil_mode=True), 1, 2, 3, 4, 5) == ([2, 4, 5], [0, 1, 0, 1, 1])
    assert pooled(MaxPool(1, 3, ceil_mode=True), 1, 2, 3, 4, 5)[0] == [1, 4]  # a third would begin beyond the input
    assert pooled(MaxPool(6, 2, ceil_mode=True), 1, 2, 3, 4, 5)[0] == [5]  # the only window is a partial one
    assert pooled(MaxPool(1, 4, ((0, 3),)), 1, 2, 3, 4, 5)[0] == [1, 5]  # no window begins in that padding
    assert pooled(AvgPool(3, 2, 1, ceil_mode=True), 1, 2, 3, 4, 5, 6)[0] == [1.5, 3, 5, 6]


def test_padding_that_was_asked_for_counts_and_what_ceil_mode_adds_does_not() -> None:
    y, slope = pooled(AvgPool(3, 2, 1, count_padding=True, ceil_mode=True), 1, 2, 3, 4, 5, 6)
    assert y == [1, 3, 5, 3]  # the last: 6 and a zero
    np.testing.assert_allclose(slope, [1 / 3, 2 / 3, 1 / 3, 2 / 3, 1 / 3, 1 / 3 + 1 / 2], rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3, 6, 1.5])
def test_a_norm_of_zeros_has_a_slope_of_zero(p: float) -> None:
    y, slope = pooled(LpPool(2, p=p), 0, 0, 3, -4, 0, 5)
    norm = (3**p + 4**p) ** (1 / p)
    np.testing.assert_allclose(y, [0, norm, 5], rtol=1e-6)
    np.testing.assert_allclose(slope, [0, 0, (3 / norm) ** (p - 1), -((4 / norm) ** (p - 1)), 0, 1], rtol=1e-5)


@pytest.mark.parametrize(
    "layer", [MaxPool(2), AvgPool(2), LpPool(2), LpPool(2, p=1), LpPool(2, p=3), LpPool(2, p=1.5), GlobalMaxPool()]
)
def test_nan_is_the_largest_and_spoils_means_and_norms(layer: Layer) -> None:
    y, _ = pooled(layer, 1, float("nan"), 0, 0)
    assert np.isnan(y[0])
    assert y[1:] in ([], [0])


# activations

ACTIVATIONS = (
    *(ReLU(), LeakyReLU(), PReLU(), ELU(), SELU(), GELU(), SiLU(), Mish(), Softplus(), Sigmoid(), Tanh()),
    *(HardSwish(), HardSigmoid(), Clip(0, 6), Clip(-2), Clip(high=2)),
)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activations_are_finite_far_from_zero_and_let_nan_through(layer: Layer) -> None:
    """What a branch that is not taken would overflow to is no part of a slope."""
    far = (-1e30, -100, -89, -20, -1e-30, 0, 1e-30, 20, 89, 100, 1e30)
    y, slope = pooled(layer, *far)
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()
    for x, value, steep in zip(far, *pooled(layer, *far), strict=True):
        assert ([value], [steep]) == pooled(layer, x)
    assert np.isnan(pooled(layer, float("nan"))[0]).all()
    rise = slope[0], slope[-1]
    low = {LeakyReLU: 0.01, PReLU: 0.25}.get(type(layer), float(layer == Clip(high=2)))
    high = 0.0 if layer in (Sigmoid(), Tanh(), HardSigmoid(), Clip(0, 6), Clip(high=2)) else 1.0
    np.testing.assert_allclose(rise, (low, 1.0507009873554805 if layer == SELU() else high), rtol=1e-6)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activations_are_computed_with_the_convolution_before_them(layer: Layer) -> None:
    network = Sketch(Sequential(Conv(16, 3), layer, Conv(16, 3)), (8, 8, 16))
    calls = compile_graph(network.executable("", lambda: Graph({"y": network.forward(2).output}))).calls
    sweeps = [call.spec.formula for call in calls if isinstance(call.spec, PointwiseKernel)]
    assert [formula.steps for formula in sweeps] == [(("cast", 0),)]  # of the images, into margins


# how many kernels a net needs


class Sketch(Network):
    """A network whose programs stay graphs: no kernel is compiled, no memory taken."""

    def executable(self, key: object, build: Any, fused: bool = True) -> Any:
        return build()


def specs_of(name: str, batch: int, training: bool) -> set[Any]:
    """The kernels of a net's prediction or training step."""
    entry = zoo.by_name(name)
    network = Sketch(entry.make(), entry.input_shape)
    graph: Any = Graph({"output": network.forward(batch).output}, prediction=True)
    if training:
        x = np.empty((batch, *entry.input_shape), np.float32)
        y = np.empty((batch, *network.output_shape[:-1]), np.int32)
        graph = Trainer(network, "cross_entropy", optim.SGD(0.1, momentum=0.9)).executable(x, y)
    program = compile_graph(graph)
    return {call.spec for call in (*program.preparation, *program.calls)}


KERNELS = {
    # net: kernels to predict (preparing the filters counts), and to train
    "mlp": (4, 17),
    "lenet5": (7, 26),
    "mnist_cnn": (8, 30),
    "digits": (14, 42),
    "glyphs": (14, 36),
    "resnet20": (22, 44),
    "resnet32": (22, 44),
    "resnet18": (23, 49),
    "resnet34": (24, 49),
    "resnet50": (21, 47),
    "squeezenet": (13, 34),
    "mobilenet_v2": (19, 47),
    "m5": (14, 37),
    "cnn3d": (16, 41),
    "unet": (14, 38),
}


@pytest.mark.parametrize("training", [False, True], ids=["predict", "train"])
@pytest.mark.parametrize("name", KERNELS)
def test_a_net_needs_few_kernels(name: str, training: bool) -> None:
    needed = specs_of(name, 16, training)
    assert len(needed) <= KERNELS[name][training]
    assert specs_of(name, 7, training) <= needed, "a partial batch needs kernels of its own"


@pytest.mark.parametrize("training", [False, True], ids=["predict", "train"])
def test_a_deeper_net_needs_no_more_kernels(training: bool) -> None:
    assert specs_of("resnet32", 4, training) == specs_of("resnet20", 4, training)


def test_a_net_of_known_kernels_generates_no_code() -> None:
    x, y = digits(6)
    Model(zoo.lenet5(), (28, 28, 1)).trainer().step(x, y)
    before = (statistics.compiled, statistics.loaded)
    model = Model(zoo.lenet5(), (32, 24, 1), seed=1)
    trainer = model.trainer()
    for count in (9, 4):
        trainer.step(*digits(count, (32, 24, 1)))
    assert (statistics.compiled, statistics.loaded) == before


# dropout


def in_training(model: Model, x: Array, seed: int = 0, step: int = 0) -> Array:
    """The net's output as in a training step."""
    network = model.network

    def build() -> Graph:
        return Graph({"output": network.forward(len(x), training=True).output})

    executable = network.executable(("training output", x.shape), build)
    network.stores["random:random"][:2] = seed, step
    return network.run(executable, {"x": x}, ("output",))["output"]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_so_many_and_the_mean(rate: float) -> None:
    model = Model(Dropout(rate), (40, 50, 3))
    x = np.ones((32, 40, 50, 3), np.float32)
    y = in_training(model, x)
    assert set(np.unique(y)) == {0.0, np.float32(1 / (1 - rate))}
    spread = np.sqrt(rate * (1 - rate))
    for axes in ((0, 1, 2, 3), (1, 2, 3), (0, 1, 2), (0, 3)):  # all, each image, each channel, each position
        kept = (y > 0).mean(axes)
        count = x.size / kept.size
        assert np.abs(kept - (1 - rate)).max() < 5.5 * spread / np.sqrt(count)
    neighbours = np.corrcoef((y > 0).reshape(32, -1)[:, :-1].ravel(), (y > 0).reshape(32, -1)[:, 1:].ravel())[0, 1]
    images = np.corrcoef((y[1:] > 0).ravel(), (y[:-1] > 0).ravel())[0, 1]
    assert max(abs(neighbours), abs(images)) < 0.02
    np.testing.assert_array_equal(model.predict(x[:1]), x[:1])


@pytest.mark.parametrize("size", [(30,), (6, 5), (2, 5, 3)])
def test_dropout_of_channels_is_one_fate_for_all_positions(size: Shape) -> None:
    rate, batch, channels = 0.3, 200, 96
    model = Model(Dropout(rate, channels=True), (*size, channels))
    x = np.abs(normal(batch, *size, channels)) + 1
    y = in_training(model, x)
    kept = (y > 0).reshape(batch, -1, channels)
    assert (kept == kept[:, :1]).all()
    np.testing.assert_allclose(y[y > 0], x[y > 0] / (1 - rate), rtol=1e-6)
    spread = np.sqrt(rate * (1 - rate))
    for axis, count in ((0, batch), (1, channels)):  # each channel over the images, each image over its channels
        assert np.abs(kept[:, 0].mean(axis) - (1 - rate)).max() < 5 * spread / np.sqrt(count)
    np.testing.assert_array_equal(in_training(model, x[:3]), y[:3])
    assert (in_training(model, x, step=1) != y).any()
    np.testing.assert_array_equal(model.predict(x[:2]), x[:2])


def test_the_slope_of_dropout_of_channels_is_what_was_kept() -> None:
    network = Network(Dropout(0.4, channels=True), (5, 4, 24))
    forward = network.forward(3, training=True)
    [slope] = differentiate(ops.sum(forward.output), [forward.input])
    executable = network.executable("slope", lambda: Graph({"y": forward.output, "slope": slope}))
    made = network.run(executable, {"x": np.ones((3, 5, 4, 24), np.float32)}, ("y", "slope"))
    np.testing.assert_array_equal(made["slope"], made["y"])
    assert 0 < (made["y"] == 0).mean() < 1


def test_dropout_depends_on_seed_step_layer_and_sample_alone() -> None:
    model = Model(Dropout(0.5), (300,))
    x = np.ones((6, 300), np.float32)
    first = in_training(model, x, seed=1, step=2)
    np.testing.assert_array_equal(in_training(model, x, seed=1, step=2), first)
    np.testing.assert_array_equal(in_training(model, x[:2], seed=1, step=2), first[:2])
    for seed, step in ((2, 2), (1, 3), (2, 1)):
        assert 0.4 < (in_training(model, x, seed, step) != first).mean() < 0.6
    both = Model(Sequential(Dropout(0.5), Dropout(0.5)), (300,))
    assert 0.2 < (in_training(both, x) > 0).mean() < 0.3


def test_dropout_differs_from_step_to_step_and_repeats_with_the_seed() -> None:
    x, y = digits(8, (6, 6, 1))

    def losses(seed: int) -> list[float]:
        model = Model(Sequential(Flatten(), Dense(50), ReLU(), Dropout(0.5), Dense(10)), (6, 6, 1))
        trainer = Trainer(model.network, "cross_entropy", optim.SGD(1e-30), seed)
        return [trainer.step(x, y.astype(np.int32))[0] for _ in range(3)]

    assert losses(0) == losses(0)
    assert len(set(losses(0) + losses(1))) == 6


# batch norm


def test_batch_norm_is_its_formula() -> None:
    decay, epsilon = 0.75, 1e-3
    model = Model(BatchNorm(decay, epsilon), (5, 4, 3))
    scale, shift = (normal(3, seed=seed) for seed in (1, 2))
    model.parameters["batch_norm1.scale"], model.parameters["batch_norm1.shift"] = scale, shift
    mean, variance = np.zeros(3), np.ones(3)
    trainer = Trainer(model.network, MeanSquaredError(), optim.SGD(1e-30))
    for step in range(3):
        x = normal(6, 5, 4, 3, seed=step) * 3 + 100
        axes = (0, 1, 2)
        exact = x.astype(np.float64)
        _, y = trainer.step(x, np.zeros_like(x))
        expected = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + epsilon) * scale + shift
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        mean = decay * mean + (1 - decay) * exact.mean(axes)
        variance = decay * variance + (1 - decay) * exact.var(axes, ddof=1)
        np.testing.assert_allclose(model.statistics["batch_norm1.mean"], mean, rtol=1e-6)
        np.testing.assert_allclose(model.statistics["batch_norm1.variance"], variance, rtol=1e-5)
    expected = (x - mean) / np.sqrt(variance + epsilon) * scale + shift
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_keeps_its_digits_far_from_zero() -> None:
    """E[x^2] - E[x]^2 would have none left."""
    model = Model(BatchNorm(), (64, 2))
    x = (normal(8, 64, 2) + 4096).astype(np.float32)
    _, y = Trainer(model.network, MeanSquaredError(), optim.SGD(1e-30)).step(x, np.zeros_like(x))
    exact = x.astype(np.float64)
    expected = (exact - exact.mean((0, 1))) / np.sqrt(exact.var((0, 1)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=2e-3)


def test_one_value_a_channel_has_no_variance() -> None:
    model = Model(Sequential(Dense(4), BatchNorm()), (3,))
    x, y = normal(1, 3), np.zeros(1, np.int64)
    with pytest.raises(ShapeError, match=r"batch_norm1: .*more than one value a channel.*Received: one value"):
        model.trainer().step(x, y)
    assert model.predict(x).shape == (1, 4)
    model.trainer().step(normal(2, 3), np.zeros(2, np.int64))


# norms within a sample


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        *((layer, (40, 50, 24)) for layer in (GroupNorm(3), InstanceNorm(), LayerNorm(), LayerNorm((1, 2, 3)))),
        *((layer, (3000, 5)) for layer in (GroupNorm(1), InstanceNorm(), LayerNorm(), LayerNorm(1))),
        (LayerNorm(), (20_000,)),
        (GroupNorm(2), (20_000,)),
        (GlobalAvgPool(), (56, 56, 64)),
        (GlobalAvgPool(), (120, 120, 1)),
        (GlobalAvgPool(), (9, 9, 9, 30)),
    ],
    ids=str,
)
def test_what_is_summed_within_a_sample_does_not_depend_on_its_batch(layer: Layer, shape: Shape) -> None:
    """Enough of it that sums are cut into pieces; nor on the threads."""
    model, alone = Model(layer, shape, threads=2), Model(layer, shape, threads=1)
    x = normal(40, *shape)
    whole = model.predict(x)
    for first, count in ((0, 1), (39, 1), (5, 2), (8, 17)):
        np.testing.assert_array_equal(model.predict(x[first : first + count]), whole[first : first + count])
    np.testing.assert_array_equal(alone.predict(x[:3]), whole[:3])


@pytest.mark.parametrize("layer", [LayerNorm(), LayerNorm((1, 2, 3)), GroupNorm(4), InstanceNorm()], ids=str)
def test_norms_keep_their_digits_far_from_zero(layer: Layer) -> None:
    """E[x^2] - E[x]^2 would have none left."""
    model = Model(layer, (32, 32, 64))
    x = (normal(3, 32, 32, 64) + 4096).astype(np.float32)
    exact = x.astype(np.float64)
    axes = {LayerNorm(): (3,), InstanceNorm(): (1, 2)}.get(layer, (1, 2, 3))
    grouped = exact.reshape(3, 32, 32, 4, 16).swapaxes(1, 3) if layer == GroupNorm(4) else exact
    axes = (2, 3, 4) if layer == GroupNorm(4) else axes
    expected = (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + 1e-5)
    expected = expected.swapaxes(1, 3).reshape(x.shape) if layer == GroupNorm(4) else expected
    np.testing.assert_allclose(model.predict(x), expected, atol=2e-3)


# exact convolutions, and files of earlier days


def test_exact_turns_winograd_off_and_so_does_trace() -> None:
    net = Sequential(Conv(16, 3), ReLU(), Conv(16, 3))
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 16)).astype(np.float32)
    fast, exact = Model(net, (16, 16, 16)), Model(net, (16, 16, 16), exact=True)
    assert any("winograd" in row["algorithm"] for row in fast.explain().as_dict()["rows"])
    assert not any("winograd" in row["algorithm"] for row in exact.explain().as_dict()["rows"])
    direct = exact.predict(x)
    np.testing.assert_array_equal(fast.trace(x)["conv2"], direct)
    np.testing.assert_allclose(fast.predict(x), direct, rtol=0, atol=2e-6 * np.abs(direct).max())


def test_a_model_of_format_1_stays_readable() -> None:
    """Written by version 0.1.0; its answer to one picture was kept with it."""
    model = load(Path(__file__).parent / "format1.safetensors")
    x = np.linspace(-1, 1, 8 * 8 * 2, dtype=np.float32).reshape(1, 8, 8, 2)
    assert model.classes == ("no", "yes")
    np.testing.assert_allclose(model.predict(x), [[0.474102646112442, -0.01066971942782402]], rtol=1e-5)
